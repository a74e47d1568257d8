//! A paused group: nothing is restarted, nobody joins, and its disruption budget goes on following who signs.

use std::collections::BTreeMap;

use althing_crds::names;
use althing_operator::faults::Plan;
use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use super::operator::{Operator, Start};
use super::{PAUSES_PERCENT, Stage, manifest};
use crate::network::{condition, eventually, kind_api};
use crate::stand_in::ANNOTATION_SILENT;

pub(super) const GROUP: &str = "alpha-main";
/// The image that is asked for.
pub(super) const IMAGE: &str = "docker.io/althing/node:two";
/// Longest wait for one thing to come to pass.
pub(super) const SECONDS_MAX: u64 = 60;

/// What a disruption budget says: pods that it counts, healthy ones, and how many may go.
type Allowance = (i32, i32, i32);

impl Stage {
    /// Silences one of four voters until it has a new pod. Then pauses the group, asks for another image and another voter, and
    /// silences one again.
    ///
    /// # Errors
    /// When more may go than the chain can bear, when something is restarted, or when it does not go on after the pause.
    pub async fn pause(&self, namespace: &str) -> Result<()> {
        self.make_namespace(namespace).await?;
        let (log, plan) = (self.log(namespace), Plan::default());
        let operator =
            Operator::start(&self.environment, &Start::trial(namespace, &plan, &log, PAUSES_PERCENT)).await?;
        let apply = ["apply", "--namespace", namespace, "-f", "-"];
        self.environment.kubectl_call(&apply).input(manifest("alpha", 4)).stdout().await?;
        self.goal(namespace, GROUP, 4).await?;
        self.quiet(namespace).await?;
        self.wait_allowance(namespace, (4, 4, 1)).await.context("before the pause")?;
        // What the budget says is the same without this voter: only the count changes.
        self.silence(namespace, "alpha-main-1-0").await?;
        self.wait_allowance(namespace, (3, 3, 0)).await.context("a voter is silent before the pause")?;
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        pods.delete("alpha-main-1-0", &DeleteParams::default()).await?;
        self.wait_allowance(namespace, (4, 4, 1)).await.context("its new pod signs")?;

        self.set_pause(namespace, Some("true")).await?;
        eventually("the group says that it is paused", SECONDS_MAX, || async {
            let group = kind_api(self.client.clone(), namespace, "ConsensusGroup").get(GROUP).await?;
            let reconciling = condition(&group, "Reconciling");
            ensure!(
                (reconciling.reason.as_str(), reconciling.status.as_str()) == ("Paused", "False"),
                "{reconciling:?}"
            );
            Ok(())
        })
        .await?;
        let before = self.pods(namespace).await?;
        self.ask(namespace, json!({ "node": { "image": IMAGE } })).await?;
        let groups = self.groups(namespace).await?;
        self.ask(namespace, json!({ "groups": with(&groups, "replicas", json!(5)) })).await?;
        self.wait_asked(namespace, 5).await?;
        self.silence(namespace, "alpha-main-2-0").await?;
        // The silent voter's pod is ready: it must not stand in for one that signs.
        self.wait_allowance(namespace, (3, 3, 0)).await.context("a voter is silent")?;
        self.quiet(namespace).await?;
        ensure!(self.pods(namespace).await? == before, "a pod was made anew, or a voter has come, during the pause");
        self.says_what_is_not_carried_out(namespace).await?;

        self.ask(namespace, json!({ "groups": with(&groups, "replicas", json!(4)) })).await?;
        // Without a pause a fifth voter comes as soon as it is asked for.
        self.wait_asked(namespace, 4).await?;
        self.set_pause(namespace, None).await?;
        eventually("every voter is restarted after the pause", SECONDS_MAX, || async {
            let now = self.pods(namespace).await?;
            let same = before.iter().filter(|(pod, uid)| now.get(*pod) == Some(uid)).count();
            ensure!(now.len() == 4 && same == 0, "{same} of {} are as before", now.len());
            Ok(())
        })
        .await?;
        self.goal(namespace, GROUP, 4).await?;
        self.wait_allowance(namespace, (4, 4, 1)).await.context("after the pause")?;
        operator.stop().await
    }

    /// Group and network say that the spec is not what runs, so that nobody takes the pause for the end of the change.
    async fn says_what_is_not_carried_out(&self, namespace: &str) -> Result<()> {
        for (kind, name) in [("ConsensusGroup", GROUP), ("BlockchainNetwork", "alpha")] {
            eventually("a pause is not taken for the end of a change", SECONDS_MAX, || async {
                let object = kind_api(self.client.clone(), namespace, kind).get(name).await?;
                let (ready, reconciling) = (condition(&object, "Ready"), condition(&object, "Reconciling"));
                let said = (reconciling.reason.as_str(), reconciling.status.as_str(), ready.status.as_str());
                ensure!(said == ("Paused", "True", "False"), "{kind}: {reconciling:?} {ready:?}");
                ensure!(reconciling.message.contains("is not carried out"), "{kind}: {}", reconciling.message);
                Ok(())
            })
            .await?;
        }
        let group = kind_api(self.client.clone(), namespace, "ConsensusGroup").get(GROUP).await?;
        let updated = group.data.pointer("/status/updatedReplicas").and_then(Value::as_i64);
        ensure!(updated == Some(0), "{updated:?} voters are said to run what the spec says");
        Ok(())
    }

    /// UIDs of the voters' pods by name.
    pub(super) async fn pods(&self, namespace: &str) -> Result<BTreeMap<String, String>> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let pods = api.list(&ListParams::default().labels(names::LABEL_NODE)).await?;
        Ok(pods.iter().map(|pod| (pod.name_any(), pod.uid().unwrap_or_default())).collect())
    }

    pub(super) async fn wait_allowance(&self, namespace: &str, expected: Allowance) -> Result<()> {
        let api: Api<PodDisruptionBudget> = Api::namespaced(self.client.clone(), namespace);
        eventually("the disruption budget follows", SECONDS_MAX, || async {
            let status = api.get(GROUP).await?.status.context("it has no status yet")?;
            let number = |number: Option<i32>| number.unwrap_or(-1);
            let said =
                (number(status.expected_pods), number(status.current_healthy), number(status.disruptions_allowed));
            ensure!(said == expected, "counted, healthy, allowed: {said:?} instead of {expected:?}");
            Ok(())
        })
        .await
    }

    /// The group has got the spec that was asked of its network.
    async fn wait_asked(&self, namespace: &str, replicas: u32) -> Result<()> {
        eventually("the group is asked for what its network says", SECONDS_MAX, || async {
            let group = kind_api(self.client.clone(), namespace, "ConsensusGroup").get(GROUP).await?;
            let asked = (group.data.pointer("/spec/replicas"), group.data.pointer("/spec/node/image"));
            let wanted = (json!(replicas), json!(IMAGE));
            ensure!(asked == (Some(&wanted.0), Some(&wanted.1)), "replicas and image: {asked:?}");
            Ok(())
        })
        .await
    }

    pub(super) async fn silence(&self, namespace: &str, pod: &str) -> Result<()> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let patch = json!({ "metadata": { "annotations": { ANNOTATION_SILENT: "true" } } });
        api.patch(pod, &PatchParams::default(), &Patch::Merge(&patch)).await?;
        Ok(())
    }

    async fn set_pause(&self, namespace: &str, value: Option<&str>) -> Result<()> {
        let patch = json!({ "metadata": { "annotations": { names::ANNOTATION_PAUSE: value } } });
        let api = kind_api(self.client.clone(), namespace, "ConsensusGroup");
        api.patch(GROUP, &PatchParams::default(), &Patch::Merge(&patch)).await?;
        Ok(())
    }

    pub(super) async fn groups(&self, namespace: &str) -> Result<Value> {
        let network = kind_api(self.client.clone(), namespace, "BlockchainNetwork").get("alpha").await?;
        Ok(network.data.pointer("/spec/groups").context("a network has groups")?.clone())
    }

    /// Changes the spec of the network.
    pub(super) async fn ask(&self, namespace: &str, spec: Value) -> Result<()> {
        let api = kind_api(self.client.clone(), namespace, "BlockchainNetwork");
        api.patch("alpha", &PatchParams::default(), &Patch::Merge(&json!({ "spec": spec }))).await?;
        Ok(())
    }
}

/// The groups of a network where a field of the first is this.
pub(super) fn with(groups: &Value, field: &str, value: Value) -> Value {
    let mut groups = groups.clone();
    if let Some(group) = groups.get_mut(0).and_then(Value::as_object_mut) {
        group.insert(field.to_string(), value);
    }
    groups
}
