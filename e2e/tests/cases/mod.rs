//! The cases in the order in which they run: what loses Kubernetes nodes comes last.

mod authorities;
mod children;
mod copies;
mod demo_path;
mod disturbance;
mod gateway;
mod installation;
mod issuers;
mod leaders;
mod members;
mod membership;
mod policies;
mod refusals;
mod renewals;
mod restarts;
mod resume;
mod rights;
mod tiers;
mod tokens;
mod upgrades;
mod volumes;

use althing_e2e::network::Network;
use anyhow::Result;

use crate::{Case, Scene};

macro_rules! case {
    ($module:ident :: $name:ident) => {
        Case { name: stringify!($name), run: |scene| Box::pin($module::$name(scene)) }
    };
}

/// All cases.
pub fn all() -> Vec<Case> {
    vec![
        case!(demo_path::the_devnet_example_finalises),
        case!(demo_path::the_production_example_finalises),
        case!(refusals::bad_resources_are_refused_or_stalled),
        case!(children::deleted_children_come_back),
        case!(children::what_is_made_once_is_never_remade),
        case!(children::a_lost_volume_is_rebuilt_when_a_person_gives_it_up),
        case!(policies::only_peers_reach_the_p2p_port),
        case!(restarts::an_operator_restart_in_mid_creation_is_resumed),
        case!(restarts::the_chain_does_not_notice_an_api_server_restart),
        case!(resume::a_deleted_network_resumes_its_chain),
        case!(disturbance::a_killed_validator_catches_up),
        case!(copies::a_copied_volume_never_signs),
        case!(copies::a_network_restored_elsewhere_waits),
        case!(membership::voters_join_and_leave_by_kubectl_scale),
        case!(members::a_group_in_another_namespace_joins_a_chain),
        case!(volumes::volumes_grow_without_a_restart),
        case!(authorities::an_authority_gives_way_to_another_without_a_restart),
        case!(issuers::certificates_come_from_an_issuer),
        case!(upgrades::a_rolling_image_change_under_load_loses_nothing),
        case!(leaders::an_operator_killed_in_mid_rollout_resumes),
        case!(leaders::an_operator_killed_in_mid_scale_resumes),
        case!(leaders::a_drain_of_the_leaders_machine_moves_the_lead),
        case!(leaders::an_operator_upgrade_restarts_no_validator),
        case!(upgrades::a_bad_image_pauses_and_is_rolled_back),
        case!(upgrades::a_program_that_ends_at_once_pauses_and_is_rolled_back),
        case!(upgrades::impossible_resources_pause_and_are_rolled_back_others_roll),
        case!(upgrades::a_drain_and_a_rolling_change_share_one_budget),
        case!(gateway::clients_come_in_through_the_gateway),
        case!(gateway::gateways_grow_under_load_and_shrink_after_it),
        case!(tiers::tiers_grow_in_seconds_and_are_closed_to_strangers),
        case!(tokens::one_user_has_one_limit_through_three_gateways),
        case!(installation::networks_outlive_the_chart),
        case!(rights::no_right_is_given_that_is_not_used),
        case!(disturbance::a_crashed_machine_comes_back_with_its_voter),
        case!(disturbance::a_partitioned_validator_never_signs_twice),
        case!(membership::a_voter_is_replaced_by_name),
        case!(disturbance::more_than_f_lost_voters_stop_the_chain_until_they_return),
    ]
}

/// The manifest of a network with so many voters under test settings.
pub fn manifest(scene: &Scene, name: &str, replicas: u32) -> String {
    let accounts: String = (0..20)
        .map(|number| {
            let key = althing_node::devnet::accounts::account(number);
            format!("          - {{key: \"{key}\", amount: 1000000}}\n")
        })
        .collect();
    format!(
        "apiVersion: althing.dev/v1alpha1
kind: BlockchainNetwork
metadata: {{name: {name}}}
spec:
  node:
    image: {image}
    resources: {{cpu: 300m, memory: 256Mi}}
    storage: {{size: 1Gi}}
    placement: Required
  groups:
    - name: main
      replicas: {replicas}
      chain:
        accounts:
{accounts}        parameters: {{blockIntervalMs: 500}}
",
        image = scene.images.node
    )
}

/// The network `alpha` with its group `main` in the case's namespace.
pub fn alpha(scene: &Scene) -> Network {
    Network::new(&scene.environment, &scene.client, &scene.namespace, "alpha", "main")
}

/// Applies `alpha` with four voters and waits until all sign.
pub async fn running_alpha(scene: &Scene) -> Result<Network> {
    let network = alpha(scene);
    network.apply(&manifest(scene, "alpha", 4)).await?;
    network.wait_all_signing(4, 120).await?;
    Ok(network)
}
