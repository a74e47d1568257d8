//! The children that a network's observers and gateway shall have.

use althing_crds::gateway::{GATEWAYS_DEFAULT, Gateway};
use althing_crds::names;
use althing_crds::network::{NetworkGroup, NetworkPolicyMode};
use althing_crds::observers::OBSERVERS_DEFAULT;
use althing_crds::scaling::Autoscaling;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use node_api::config::ConfigError;

use super::desired::network_context;
use super::observe::Observed;
use super::tiers::{Workload, group_of};
use crate::error::Error;
use crate::kinds::Child;
use crate::parts::{
    NodeSettings, TierContext, autoscaler, gateway, ingress, networkpolicies, observers, poddisruptionbudget, route,
    services,
};

/// The tiers of a network, those that it has.
#[derive(Clone, Debug, Default)]
pub struct Contexts {
    /// The observers.
    pub observers: Option<TierContext>,
    /// The gateway.
    pub gateway: Option<TierContext>,
}

/// The tiers as builders see them.
pub fn contexts(observed: &Observed) -> Result<Contexts, Error> {
    let (spec, installation) = (&observed.network.spec, &observed.installation);
    let mut contexts = Contexts::default();
    if let Some(tier) = &spec.observers
        && let Some(group) = group_of(&observed.network, tier.group.as_ref())
    {
        let settings = NodeSettings::resolve(&tier.node.over(&spec.node), &installation.node_image);
        let context = context(observed, names::COMPONENT_OBSERVERS, group, settings)?;
        let number = Number {
            given: tier.replicas,
            autoscaling: tier.autoscaling.as_ref(),
            present: observed.tiers.observers.as_ref(),
            default: OBSERVERS_DEFAULT,
        };
        contexts.observers = Some(number.of(context));
    }
    if let Some(tier) = &spec.gateway
        && let Some(group) = group_of(&observed.network, tier.group.as_ref())
    {
        let settings = NodeSettings::resolve_gateway(&tier.pod.over(&spec.node), &installation.node_image);
        let context = context(observed, names::COMPONENT_GATEWAY, group, settings)?;
        let number = Number {
            given: tier.replicas,
            autoscaling: tier.autoscaling.as_ref(),
            present: observed.tiers.gateway.as_ref(),
            default: GATEWAYS_DEFAULT,
        };
        contexts.gateway = Some(number.of(context));
    }
    Ok(contexts)
}

fn context(
    observed: &Observed,
    component: &'static str,
    group: &NetworkGroup,
    settings: NodeSettings,
) -> Result<TierContext, Error> {
    let network = network_context(observed)?;
    let group_name = names::group(&network.name, &group.name);
    Ok(TierContext {
        component,
        name: format!("{}-{component}", network.name),
        chain_id: group.chain.id_or_name(&group_name),
        group: group_name,
        settings,
        replicas: None,
        autoscaling: None,
        access: observed.network.spec.network_policy.clone(),
        operator_namespace: observed.installation.operator_namespace.clone(),
        network,
    })
}

/// What decides how many pods there are.
struct Number<'a> {
    given: Option<i32>,
    autoscaling: Option<&'a Autoscaling>,
    present: Option<&'a Workload>,
    default: i32,
}

impl Number<'_> {
    /// With an autoscaler the number is left out; with no word of the spec the one that is there is kept.
    fn of(&self, context: TierContext) -> TierContext {
        let kept = || self.present.map_or(self.default, |workload| workload.replicas);
        match self.autoscaling {
            Some(autoscaling) => TierContext { replicas: None, autoscaling: Some(autoscaling.clone()), ..context },
            None => TierContext { replicas: Some(self.given.unwrap_or_else(kept)), autoscaling: None, ..context },
        }
    }
}

/// The children of all tiers. `identities` are the public keys of the observers, by number.
pub fn children(observed: &Observed, tiers: &Contexts, identities: &[String]) -> Result<Vec<Child>, Error> {
    let mut children = Vec::new();
    if let Some(tier) = &tiers.observers {
        observers_children(observed, tier, identities, &mut children)?;
    }
    if let (Some(tier), Some(spec)) = (&tiers.gateway, &observed.network.spec.gateway) {
        let config = gateway_config(tiers, tier, spec).map_err(|error| refused(tier, &error))?;
        let hash = gateway::config_hash(tier, spec, reads_from(tiers, tier).as_deref());
        let hash = hash.map_err(|error| refused(tier, &error))?;
        shared(tier, &networkpolicies::gateway(tier, &gateway::outside_ports(spec)), &mut children)?;
        children.push(Child::of(&config)?);
        children.push(Child::of(&services::gateway(tier, &spec.service))?);
        children.push(Child::of(&services::gateway_pods(tier))?);
        children.push(Child::of(&services::gateway_voters(tier))?);
        children.push(Child::of(&gateway::deployment(tier, spec, &hash))?);
        if let Some(autoscaling) = &tier.autoscaling {
            children.push(Child::of(&autoscaler::autoscaler(tier, autoscaling, "Deployment"))?);
        }
        if let Some(asked) = &spec.ingress {
            children.push(Child::of(&ingress::ingress(tier, asked))?);
        }
        if let Some(asked) = &spec.route {
            children.push(Child::untyped(&route::route(tier, asked))?);
        }
    }
    Ok(children)
}

/// The gateway's configuration: it reads from the observers of the same chain, if there are any.
pub fn gateway_config(tiers: &Contexts, tier: &TierContext, spec: &Gateway) -> Result<ConfigMap, ConfigError> {
    gateway::config(tier, spec, reads_from(tiers, tier).as_deref())
}

/// Where a gateway finds the observers of its chain.
fn reads_from(tiers: &Contexts, tier: &TierContext) -> Option<String> {
    let of_this_chain = tiers.observers.as_ref().filter(|observers| observers.group == tier.group);
    of_this_chain.map(|observers| observers.address(&observers.name, names::PORT_GRPC))
}

fn observers_children(
    observed: &Observed,
    tier: &TierContext,
    identities: &[String],
    children: &mut Vec<Child>,
) -> Result<(), Error> {
    let failed = |error| refused(tier, &error);
    shared(tier, &networkpolicies::observers(tier), children)?;
    children.push(Child::of(&observers::config(tier, &observed.tiers.peers).map_err(failed)?)?);
    children.push(Child::of(&services::observers(tier))?);
    // Their pods need the genesis and somebody to follow.
    let can_start = has_started(observed, &tier.group) && !observed.tiers.peers.is_empty();
    if can_start || observed.tiers.observers.is_some() {
        let hash = observers::config_hash(tier, identities).map_err(|error| refused(tier, &error))?;
        children.push(Child::of(&observers::statefulset(tier, &hash))?);
        if let Some(autoscaling) = &tier.autoscaling {
            children.push(Child::of(&autoscaler::autoscaler(tier, autoscaling, "StatefulSet"))?);
        }
    }
    Ok(())
}

/// Whether the chain of this group has a genesis.
pub fn has_started(observed: &Observed, group: &str) -> bool {
    let groups = observed.groups.iter().flatten().filter(|found| found.metadata.name.as_deref() == Some(group));
    groups.filter_map(|group| group.status.as_ref()).any(|status| status.genesis_hash.is_some())
}

/// What every tier has.
fn shared(tier: &TierContext, policy: &NetworkPolicy, children: &mut Vec<Child>) -> Result<(), Error> {
    match tier.access.mode {
        NetworkPolicyMode::Managed => children.push(Child::of(policy)?),
        NetworkPolicyMode::Unmanaged => {}
    }
    children.push(Child::of(&tier.service_account())?);
    children.push(Child::of(&poddisruptionbudget::tier(tier))?);
    Ok(())
}

fn refused(tier: &TierContext, error: &dyn std::fmt::Display) -> Error {
    Error::Build { what: format!("configuration of {}", tier.name), message: error.to_string() }
}
