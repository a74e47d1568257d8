//! A second member of a chain: a group in a namespace of its own, under a certificate authority of its own.

use std::collections::BTreeMap;

use althing_crds::names;
use althing_e2e::dial::Access;
use althing_e2e::network::{Network, condition, eventually};
use althing_e2e::watch::{Watch, client_of};
use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{ConfigMap, Service};
use kube::Api;
use kube::api::{DynamicObject, Patch, PatchParams};
use node_api::governance::{TransactionDocument, with_signature};
use node_api::node_core::crypto::KeyPair;
use node_api::node_core::types::{Genesis, Transaction};
use node_api::proto::Wait;
use node_api::{genesis, keys};
use serde_json::{Value, json};

use super::{alpha, manifest};
use crate::Scene;

/// The addresses that the load balancer gives: documentation's own, RFC 5737.
const BALANCER: &str = "198.51.100";

/// A group joins the chain of another namespace by the addresses that its nodes have outside of the cluster: first with a wrong
/// genesis, which writes nothing, then with the right one. It follows without a vote until the governance of the chain votes it
/// in, signs, and leaves by the governance again. Both sides say what is.
pub async fn a_group_in_another_namespace_joins_a_chain(scene: &Scene) -> Result<()> {
    let (home, guest) = (alpha(scene), guest(scene));
    // What the two tell each other, first of all their authorities.
    guest.apply(&joining(scene, &guest, &home, &[group("wrong", &"ab".repeat(32), "[]")?])?).await?;
    let refused = guest.wait_condition("ConsensusGroup", "beta-wrong", "Stalled=True", 60).await?;
    ensure!(refused.reason == "GenesisMissing", "{refused:?}");
    exchange(&home, "guest-ca", "ca.crt", &authority(&guest).await?).await?;
    home.apply(&open_to(&manifest(scene, "alpha", 4), &guest)).await?;
    home.wait_all_signing(4, 120).await?;
    let watch = Watch::start(&home).await?;
    let addresses = balance(&home).await.context("the home nodes have addresses outside")?;
    let (document, genesis) = kept_genesis(&home).await?;
    exchange(&guest, "home-ca", "ca.crt", &authority(&home).await?).await?;
    exchange(&guest, "home-genesis", "genesis.json", &document).await?;
    nothing_is_made_of_another_genesis(&guest).await?;

    let peers = peers(&home, &addresses).await?;
    let right = group("main", &genesis.hash().to_string(), &peers)?;
    let manifest = joining(scene, &guest, &home, &[right])?;
    guest.apply(&manifest).await?;
    let document = waits_for_governance(&guest).await.context("the newcomer follows the chain")?;
    says(&guest, "4/4", "4").await.context("what the chain is without it")?;
    let identity = guest.voters().await?.pop().context("the guest has a node")?.identity;
    ensure!(document.contains(&format!("add voter {identity} with power 1")), "{document}");

    submit(&home, TransactionDocument::read(&document)?).await?;
    home.wait_all_signing(5, 90).await.context("the voter of the guest signs")?;
    guest.wait_all_signing(5, 30).await?;
    says(&guest, "5/5", "5").await?;
    guest.wait_condition("ConsensusGroup", &guest.group, "Ready=True", 60).await?;
    guest.wait_condition("ValidatorNode", "beta-main-0", "Signing=True", 30).await?;
    let seen = Watch::start(&guest).await?;
    eventually("the guest's votes are seen", 30, || async {
        ensure!(seen.counts().messages > 20, "{:?}", seen.counts());
        Ok(())
    })
    .await?;
    seen.report(1).await.context("what the guest's volume and streams show")?;

    leaves(&guest, &manifest).await?;
    let document = waits_for_governance(&guest).await.context("the guest wants to leave")?;
    ensure!(document.contains(&format!("remove voter {identity}")), "{document}");
    submit(&home, TransactionDocument::read(&document)?).await?;
    home.wait_all_signing(4, 60).await.context("the chain goes on without the guest")?;
    has_left(&guest).await?;
    watch.report(1).await?;
    Ok(())
}

/// The network `beta` in the namespace of the second member.
fn guest(scene: &Scene) -> Network {
    let namespace = crate::member_namespace(&scene.namespace);
    Network::new(&scene.environment, &scene.client, &namespace, "beta", "main")
}

/// A group that joins the chain `alpha-<name>`.
fn group(name: &str, hash: &str, peers: &str) -> Result<Value> {
    let mut peers: Value = serde_json::from_str(peers)?;
    if peers.as_array().is_some_and(Vec::is_empty) {
        peers = json!([{"identity": "cd".repeat(32), "address": "nobody.invalid:7100"}]);
    }
    let external = json!({
        "genesis": {"configMap": "home-genesis", "hash": hash},
        "trustedAuthorities": [{"configMap": "home-ca"}],
        "peers": peers,
    });
    Ok(json!({"name": name, "replicas": 1, "chain": {"id": format!("alpha-{name}")}, "external": external}))
}

/// The manifest of `beta` with these groups, open to the nodes of the home side.
fn joining(scene: &Scene, guest: &Network, home: &Network, groups: &[Value]) -> Result<String> {
    let mut network: Value = serde_yaml::from_str(&manifest(scene, &guest.name, 1))?;
    let mut groups = groups.to_vec();
    for group in groups.iter_mut().filter_map(Value::as_object_mut) {
        group.insert("p2p".to_string(), json!({"allowedNamespaces": [home.namespace]}));
    }
    *network.pointer_mut("/spec/groups").context("the manifest has groups")? = Value::from(groups);
    Ok(network.to_string())
}

fn open_to(manifest: &str, guest: &Network) -> String {
    let p2p = format!(
        "      p2p: {{trustedAuthorities: [{{configMap: guest-ca}}], allowedNamespaces: [{}], expose: {{}}}}\n",
        guest.namespace
    );
    manifest.replace("      replicas: 4\n", &format!("      replicas: 4\n{p2p}"))
}

/// The certificate of a network's authority, which its clients have as well.
async fn authority(network: &Network) -> Result<String> {
    let name = format!("{}-ca", network.name);
    eventually(&format!("Secret {name} is made"), 30, || network.secret_text(&name, "ca.crt")).await
}

/// What one side got from the other one.
async fn exchange(network: &Network, name: &str, key: &str, text: &str) -> Result<()> {
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {key: text}});
    network.apply(&map.to_string()).await
}

async fn kept_genesis(home: &Network) -> Result<(String, Genesis)> {
    let maps: Api<ConfigMap> = Api::namespaced(home.client.clone(), &home.namespace);
    let data = maps.get("alpha-main-genesis").await?.data.unwrap_or_default();
    let document = data.get("genesis.json").context("the copy of the genesis")?.clone();
    let genesis = genesis::from_json(&document)?;
    Ok((document, genesis))
}

/// Plays the load balancer, which the local cluster lacks: gives the Service of each home node an address, and waits until its
/// node tells it and all sign again, each restarted once. kube-proxy leads such addresses to the pods.
async fn balance(home: &Network) -> Result<BTreeMap<String, String>> {
    let services: Api<Service> = Api::namespaced(home.client.clone(), &home.namespace);
    let mut addresses = BTreeMap::new();
    for (number, voter) in home.voters().await?.iter().enumerate() {
        let (name, ip) = (names::p2p_external_service(&voter.node), format!("{BALANCER}.{}", number + 1));
        eventually(&format!("Service {name} is made"), 30, || async { Ok(services.get(&name).await?) }).await?;
        let patch = json!({"status": {"loadBalancer": {"ingress": [{"ip": ip}]}}});
        services.patch_status(&name, &PatchParams::default(), &Patch::Merge(&patch)).await?;
        addresses.insert(voter.node.clone(), format!("{ip}:{}", names::PORT_P2P));
    }
    eventually("each node has its address and tells it", 120, || async {
        for (node, address) in &addresses {
            let said = home.object("ValidatorNode", node).await?;
            let known = said.data.pointer("/status/p2pAddress").and_then(Value::as_str).map(str::to_string);
            ensure!(known.as_ref() == Some(address), "{node}: {known:?}");
        }
        let group = home.object("ConsensusGroup", &home.group).await?;
        let (ready, updated) = (condition(&group, "Ready"), group.data.pointer("/status/updatedReplicas"));
        ensure!(ready.status == "True" && updated.and_then(Value::as_u64) == Some(4), "{ready:?}, {updated:?} of 4");
        Ok(())
    })
    .await?;
    Ok(addresses)
}

/// Identities and addresses of the home voters, as their operator gives them to the other member.
async fn peers(home: &Network, addresses: &BTreeMap<String, String>) -> Result<String> {
    let mut peers = Vec::new();
    for voter in home.voters().await? {
        let address = addresses.get(&voter.node).with_context(|| format!("{} has no address", voter.node))?;
        peers.push(json!({"identity": voter.identity, "address": address}));
    }
    Ok(Value::from(peers).to_string())
}

async fn nothing_is_made_of_another_genesis(guest: &Network) -> Result<()> {
    eventually("the wrong genesis is refused", 30, || async {
        let group = guest.object("ConsensusGroup", "beta-wrong").await?;
        let stalled = condition(&group, "Stalled");
        ensure!(stalled.status == "True" && stalled.reason == "GenesisMismatch", "{stalled:?}");
        ensure!(group.data.pointer("/status/genesisHash").is_none(), "its hash is recorded");
        Ok(())
    })
    .await?;
    let made = guest.kubectl(&["get", "vnode,statefulsets,pods,services,pvc,pdb,cm", "-o", "name"]).await?;
    let of_it: Vec<&str> = made.lines().filter(|line| line.contains("beta-wrong")).collect();
    ensure!(of_it.is_empty(), "made of a wrong genesis: {of_it:?}");
    Ok(())
}

/// The transaction that status shows once the node follows the chain.
async fn waits_for_governance(guest: &Network) -> Result<String> {
    eventually("status says what must be signed", 90, || async {
        let group = guest.object("ConsensusGroup", &guest.group).await?;
        let reconciling = condition(&group, "Reconciling");
        ensure!(reconciling.reason == "AwaitingGovernance", "{reconciling:?}");
        let document = group.data.pointer("/status/members/change/transaction").and_then(Value::as_str);
        Ok(document.context("no transaction")?.to_string())
    })
    .await
}

/// Signs with the governance key of the home side, as its keepers would, and sends it.
async fn submit(home: &Network, transaction: Transaction) -> Result<()> {
    let key: KeyPair = keys::from_pem(&home.secret_text("alpha-main-governance", "governance.pem").await?)?;
    let signed = with_signature(&transaction, &key)?;
    let client = client_of(home, &Access::operator(home).await?, "alpha-main-0").await?;
    client.submit(&signed, Wait::Final).await?;
    Ok(())
}

/// What the guest's status says of the whole chain.
async fn says(guest: &Network, signing: &str, power: &str) -> Result<()> {
    eventually(&format!("status says {signing}"), 30, || async {
        let group = guest.object("ConsensusGroup", &guest.group).await?;
        let text = |group: &DynamicObject, path: &str| group.data.pointer(path).map(ToString::to_string);
        let said =
            (text(&group, "/status/signing"), text(&group, "/status/totalPower"), text(&group, "/status/margin"));
        let wanted = (Some(format!("\"{signing}\"")), Some(power.to_string()), Some("1".to_string()));
        ensure!(said == wanted, "{said:?}");
        let available = condition(&group, "Available");
        ensure!(available.status == "True", "{available:?}");
        Ok(())
    })
    .await
}

/// The guest wants no voter any more.
async fn leaves(guest: &Network, manifest: &str) -> Result<()> {
    guest.apply(&manifest.replace("\"replicas\":1", "\"replicas\":0")).await
}

/// Its node is gone, its volume is kept, and nothing is left to do.
async fn has_left(guest: &Network) -> Result<()> {
    eventually("the guest's node is gone", 60, || async {
        let nodes = guest.kubectl(&["get", "vnode,pods", "-o", "name"]).await?;
        ensure!(nodes.trim().is_empty(), "there are {nodes}");
        Ok(())
    })
    .await?;
    guest.kubectl(&["get", "pvc", "beta-main-0-data"]).await.context("its volume is kept")?;
    guest.wait_condition("ConsensusGroup", &guest.group, "Ready=True", 30).await?;
    says(guest, "4/4", "4").await
}
