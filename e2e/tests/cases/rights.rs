//! What the operator may do against what it does, by the audit log of the local cluster.

use std::collections::BTreeSet;
use std::io::BufRead;

use althing_e2e::environment::OPERATOR_NAMESPACE;
use althing_e2e::network::{Network, eventually};
use althing_e2e::watch::Watch;
use anyhow::{Context, Result, ensure};
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use super::leaders::leader;
use super::running_alpha;
use super::upgrades::uids;
use crate::Scene;

/// Resource (with its subresource) and verb.
type Right = (String, String);

/// Verbs that change something.
const WRITES: &[&str] = &["create", "update", "patch", "delete", "deletecollection"];

/// Rights that a run need not show, and what they are for.
const JUSTIFIED: &[(&str, &str, &str)] = &[
    // Server-side apply of what is not there asks for both rights and is one request with the verb patch.
    ("consensusgroups", "create", "made by server-side apply"),
    ("validatornodes", "create", "made by server-side apply"),
    ("statefulsets", "create", "made by server-side apply"),
    ("services", "create", "made by server-side apply"),
    ("serviceaccounts", "create", "made by server-side apply"),
    ("networkpolicies", "create", "made by server-side apply"),
    ("poddisruptionbudgets", "create", "made by server-side apply"),
    // Children that the spec does not want any more, or that only an earlier version made, are pruned.
    ("consensusgroups", "delete", "a group that was taken out of spec.groups"),
    ("validatornodes", "delete", "the node of a voter that was voted out"),
    ("networkpolicies", "delete", "networkPolicy.mode: Unmanaged"),
    ("statefulsets", "delete", "pruned when no longer wanted"),
    ("services", "delete", "pruned when no longer wanted"),
    ("configmaps", "delete", "pruned when no longer wanted"),
    ("serviceaccounts", "delete", "pruned when no longer wanted"),
    ("poddisruptionbudgets", "delete", "pruned when no longer wanted"),
    // Only a network with a gateway shows these.
    ("deployments", "create", "made by server-side apply"),
    ("deployments", "get", "how many gateways there are"),
    ("deployments", "patch", "a gateway"),
    ("deployments", "delete", "pruned when no longer wanted"),
    ("horizontalpodautoscalers", "create", "made by server-side apply"),
    ("horizontalpodautoscalers", "get", "whose it is, before it is written"),
    ("horizontalpodautoscalers", "patch", "the autoscaler of a gateway or of observers"),
    ("horizontalpodautoscalers", "delete", "pruned when no longer wanted"),
    // Only a network with `spec.gateway.ingress` shows these.
    ("ingresses", "create", "made by server-side apply"),
    ("ingresses", "get", "whose it is, before it is written"),
    ("ingresses", "patch", "the Ingress of a gateway"),
    ("ingresses", "delete", "pruned when no longer wanted"),
    // Only a network with `spec.gateway.route` shows these.
    ("tlsroutes", "create", "made by server-side apply"),
    ("tlsroutes", "get", "whose it is, before it is written"),
    ("tlsroutes", "list", "where the cluster has the Gateway API"),
    ("tlsroutes", "watch", "the same"),
    ("tlsroutes", "patch", "the route of a gateway"),
    ("tlsroutes", "delete", "pruned when no longer wanted"),
    // An API server with OwnerReferencesPermissionEnforcement asks for it where an owner blocks on its children.
    ("blockchainnetworks/finalizers", "update", "blockOwnerDeletion in owner references"),
    ("consensusgroups/finalizers", "update", "blockOwnerDeletion in owner references"),
    ("validatornodes/finalizers", "update", "blockOwnerDeletion in owner references"),
    // Only in some states of an object.
    ("consensusgroups", "get", "steps of a ceremony are decided on a live read"),
    ("persistentvolumeclaims", "patch", "volumes grow"),
    ("persistentvolumes", "get", "what kind of volume a waiting node has"),
    ("storageclasses", "get", "a class that the spec names"),
    ("storageclasses", "list", "the default class when the spec names none"),
    ("priorityclasses", "get", "a class that the spec names"),
    ("events", "patch", "an event that is said again"),
    ("leases", "create", "the first leader of an installation"),
];

/// Every right of the chart is used in this run or has its reason above, nothing that the operator asked for was refused, and
/// of its two processes only the leader has changed anything.
pub async fn no_right_is_given_that_is_not_used(scene: &Scene) -> Result<()> {
    // An operator whose rights went with the chart, as in another case, is refused until it has ended.
    only_two_run(scene).await?;
    let (leads, _) = eventually("a pod leads", 60, || leader(scene)).await?;
    let begin = Timestamp::now();
    let network = running_alpha(scene).await?;
    let watch = Watch::start(&network).await?;
    restart_one(&network).await?;
    let granted = granted(scene).await?;
    ensure!(granted.len() > 40, "only {} rights were found: {granted:?}", granted.len());
    let seen = seen(scene, begin)?;
    ensure!(seen.refused.is_empty(), "the operator was refused: {:?}", seen.refused);
    let (still_leads, _) = leader(scene).await?;
    ensure!(still_leads == leads, "the lead went from {leads} to {still_leads}, so that both may have written");
    ensure!(seen.writers == [leads.clone()].into(), "{leads} leads, and {:?} have written", seen.writers);
    ensure!(seen.askers.len() == 2, "there are two processes, and {:?} have asked for something", seen.askers);
    let is_justified = |(resource, verb): &&Right| JUSTIFIED.iter().any(|(of, to, _)| of == resource && to == verb);
    let idle: Vec<&Right> = granted.difference(&seen.used).filter(|right| !is_justified(right)).collect();
    ensure!(idle.is_empty(), "given, never used and without a reason: {idle:?}");
    let stale = JUSTIFIED.iter().filter(|(of, to, _)| !granted.contains(&(of.to_string(), to.to_string())));
    let stale: Vec<_> = stale.collect();
    ensure!(stale.is_empty(), "a reason for what is not given: {stale:?}");
    println!("    {} rights, {} used in this run", granted.len(), granted.intersection(&seen.used).count());
    watch.report(1).await?;
    Ok(())
}

/// Waits until only the two pods of the present release are there.
async fn only_two_run(scene: &Scene) -> Result<()> {
    eventually("two operators run", 60, || async {
        let pods = ["--namespace", OPERATOR_NAMESPACE, "get", "pods", "-o", "name"];
        let pods = scene.environment.kubectl(&pods).await?;
        ensure!(pods.lines().count() == 2, "there are {pods}");
        Ok(())
    })
    .await
}

/// One voter is restarted, so that the operator evicts.
async fn restart_one(network: &Network) -> Result<()> {
    let before = uids(network).await?;
    network.kubectl(&["annotate", "vnode", "alpha-main-1", "althing.dev/restart=now"]).await?;
    eventually("one voter is another pod", 120, || async {
        let now = uids(network).await?;
        ensure!(now.len() == 4 && now.iter().any(|pod| !before.contains(pod)), "none is");
        Ok(())
    })
    .await?;
    network.wait_all_signing(4, 120).await
}

/// What the chart's roles say, one line for each resource and verb.
async fn granted(scene: &Scene) -> Result<BTreeSet<Right>> {
    let arguments = ["get", "roles,clusterroles", "-A", "-l", "app.kubernetes.io/component=operator", "-o", "json"];
    let listed: Value = serde_json::from_str(&scene.environment.kubectl(&arguments).await?)?;
    let mut granted = BTreeSet::new();
    let words = |rule: &Value, field: &str| -> Vec<String> {
        let words = rule.get(field).and_then(Value::as_array).into_iter().flatten();
        words.filter_map(Value::as_str).map(str::to_string).collect()
    };
    let items = listed.get("items").and_then(Value::as_array).context("a list")?;
    for rule in items.iter().filter_map(|role| role.get("rules")?.as_array()).flatten() {
        for resource in words(rule, "resources") {
            granted.extend(words(rule, "verbs").into_iter().map(|verb| (resource.clone(), verb)));
        }
    }
    Ok(granted)
}

/// What the audit log says of the operator.
#[derive(Default)]
pub(super) struct Seen {
    used: BTreeSet<Right>,
    /// What it was refused.
    pub(super) refused: BTreeSet<Right>,
    /// Its pods that changed anything but a lease.
    pub(super) writers: BTreeSet<String>,
    askers: BTreeSet<String>,
}

/// What it was allowed since the cluster runs, and what it was refused and who of it asked since `begin`.
pub(super) fn seen(scene: &Scene, begin: Timestamp) -> Result<Seen> {
    let user = format!("system:serviceaccount:{OPERATOR_NAMESPACE}:althing-operator");
    let mut seen = Seen::default();
    for entry in std::fs::read_dir(scene.environment.root.join(".cluster/log"))? {
        let path = entry?.path();
        if !path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("audit")) {
            continue;
        }
        for line in std::io::BufReader::new(std::fs::File::open(&path)?).lines() {
            let line = line?;
            if !line.contains(&user) {
                continue;
            }
            // The last line may be on its way.
            let Ok(event) = serde_json::from_str::<Value>(&line) else { continue };
            seen.take(&event, begin);
        }
    }
    Ok(seen)
}

impl Seen {
    fn take(&mut self, event: &Value, begin: Timestamp) {
        let text = |path: &str| event.pointer(path).and_then(Value::as_str).map(str::to_string);
        let (Some(resource), Some(verb)) = (text("/objectRef/resource"), text("/verb")) else { return };
        let resource = match text("/objectRef/subresource") {
            Some(part) => format!("{resource}/{part}"),
            None => resource,
        };
        let is_recent = text("/requestReceivedTimestamp").and_then(|time| time.parse().ok()) >= Some(begin);
        let is_refused = event.pointer("/responseStatus/code").and_then(Value::as_i64) == Some(403);
        if let Some(pod) = text("/user/extra/authentication.kubernetes.io~1pod-name/0").filter(|_| is_recent) {
            if WRITES.contains(&verb.as_str()) && resource != "leases" {
                self.writers.insert(pod.clone());
            }
            self.askers.insert(pod);
        }
        let right = (resource, verb);
        if !is_refused {
            self.used.insert(right);
        } else if is_recent {
            self.refused.insert(right);
        }
    }
}
