//! A group that gets another name and keeps its chain id: the former one goes, and the new one waits for it and says so.

use althing_crds::{ValidatorNode, names};
use althing_operator::faults::Plan;
use anyhow::{Context, Result, ensure};
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use super::operator::{Operator, Start};
use super::{PAUSES_PERCENT, Stage, manifest};
use crate::network::{condition, eventually, kind_api};

const FORMER: &str = "alpha-main";
const NEW: &str = "alpha-other";
/// Keeps the former group from being gone until the test lets it go.
const FINALIZER: &str = "trial.althing.dev/hold";
/// Longest wait for one thing to come to pass.
const SECONDS_MAX: u64 = 60;

impl Stage {
    /// Renames the group of a running chain, holds the former one back for a while, then lets it go.
    ///
    /// # Errors
    /// When the former group is not deleted, the new one does not wait or does not say for whom, it does not go on by
    /// itself, or something is deleted that holds keys or data.
    pub async fn rename(&self, namespace: &str) -> Result<()> {
        self.make_namespace(namespace).await?;
        let (log, plan) = (self.log(namespace), Plan::default());
        let operator =
            Operator::start(&self.environment, &Start::trial(namespace, &plan, &log, PAUSES_PERCENT)).await?;
        let manifest = manifest("alpha", 1).replace("chain: {", "chain: {id: ledger, ");
        let apply = ["apply", "--namespace", namespace, "-f", "-"];
        self.environment.kubectl_call(&apply).input(manifest).stdout().await?;
        self.goal(namespace, FORMER, 1).await.context("before")?;
        self.quiet(namespace).await?;

        self.set_finalizers(namespace, &[FINALIZER]).await?;
        let mut groups = self.groups(namespace).await?;
        *groups.pointer_mut("/0/name").context("there is a group")? = json!("other");
        self.ask(namespace, json!({ "groups": groups })).await?;
        eventually("the former group goes and the new one says that it waits", SECONDS_MAX, || async {
            self.waits_for_the_former(namespace).await
        })
        .await?;
        self.quiet(namespace).await.context("while it waits")?;
        self.waits_for_the_former(namespace).await?;

        self.set_finalizers(namespace, &[]).await?;
        self.collect_garbage(namespace).await?;
        self.goal(namespace, NEW, 1).await.context("after the former one is gone")?;
        let deleted = self.ledger.counts(namespace).deleted;
        let kept: Vec<&String> = deleted
            .keys()
            .filter(|name| name.starts_with("Secret/") || name.starts_with("PersistentVolumeClaim/"))
            // Certificates are issued for a node and go with it.
            .filter(|name| !name.ends_with("-tls"))
            .collect();
        ensure!(kept.is_empty(), "these hold keys or data and were deleted: {kept:?}");
        operator.stop().await
    }

    async fn waits_for_the_former(&self, namespace: &str) -> Result<()> {
        let groups = kind_api(self.client.clone(), namespace, "ConsensusGroup");
        let former = groups.get(FORMER).await?;
        ensure!(former.metadata.deletion_timestamp.is_some(), "{FORMER} is not deleted");
        let new = groups.get(NEW).await?;
        let (reconciling, stalled) = (condition(&new, "Reconciling"), condition(&new, "Stalled"));
        ensure!(reconciling.reason == "AwaitingChainId" && stalled.status == "False", "{reconciling:?} {stalled:?}");
        ensure!(reconciling.message.contains(FORMER), "it does not say for whom it waits: {}", reconciling.message);
        let network = kind_api(self.client.clone(), namespace, "BlockchainNetwork").get("alpha").await?;
        let (reconciling, stalled) = (condition(&network, "Reconciling"), condition(&network, "Stalled"));
        ensure!(reconciling.reason == "AwaitingChainId" && stalled.status == "False", "{reconciling:?} {stalled:?}");
        let nodes: Api<ValidatorNode> = Api::namespaced(self.client.clone(), namespace);
        let made = nodes.list(&of_group(NEW)).await?;
        ensure!(made.items.is_empty(), "a node was made before its chain id is free");
        Ok(())
    }

    async fn set_finalizers(&self, namespace: &str, finalizers: &[&str]) -> Result<()> {
        let patch: Value = json!({ "metadata": { "finalizers": finalizers } });
        let api = kind_api(self.client.clone(), namespace, "ConsensusGroup");
        api.patch(FORMER, &PatchParams::default(), &Patch::Merge(&patch)).await?;
        Ok(())
    }

    /// Deletes the nodes that Kubernetes collects after a group; the stand-in collects what they leave.
    async fn collect_garbage(&self, namespace: &str) -> Result<()> {
        let nodes: Api<ValidatorNode> = Api::namespaced(self.client.clone(), namespace);
        nodes.delete_collection(&DeleteParams::default(), &of_group(FORMER)).await?;
        Ok(())
    }
}

fn of_group(group: &str) -> ListParams {
    ListParams::default().labels(&format!("{}={group}", names::LABEL_GROUP))
}
