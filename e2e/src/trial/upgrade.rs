//! The operator is upgraded: nodes whose spec names no image keep the one with which they were made until a person asks for
//! a restart.

use std::collections::BTreeSet;

use althing_crds::names;
use althing_operator::faults::Plan;
use anyhow::{Context, Result, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::json;

use super::operator::{LEASE, Operator, Start};
use super::{PAUSES_PERCENT, Stage, manifest};
use crate::network::{eventually, kind_api};

const GROUP: &str = "alpha-main";
const FORMER: &str = "docker.io/althing/node:former";
const NEWER: &str = "docker.io/althing/node:newer";
/// Longest wait for one thing to come to pass.
const SECONDS_MAX: u64 = 60;

impl Stage {
    /// Makes a network without an image, then lets an operator with another default take over.
    ///
    /// # Errors
    /// When the newer operator restarts a node unasked, or does not bring its image when it is asked to restart.
    pub async fn upgrade(&self, namespace: &str) -> Result<()> {
        self.make_namespace(namespace).await?;
        let (log, plan) = (self.log(namespace), Plan::default());
        let start = Start::trial(namespace, &plan, &log, PAUSES_PERCENT);
        let operator = Operator::start(&self.environment, &Start { node_image: Some(FORMER), ..start }).await?;
        let network = manifest("alpha", 4);
        let (before, after) = network.split_once("    image:").context("the manifest names an image")?;
        let unset = format!("{before}{}", after.split_once('\n').context("a line ends")?.1);
        let apply = ["apply", "--namespace", namespace, "-f", "-"];
        self.environment.kubectl_call(&apply).input(unset).stdout().await?;
        self.goal(namespace, GROUP, 4).await?;
        self.quiet(namespace).await?;
        let pods = self.pods(namespace).await?;
        ensure!(self.images(namespace).await? == [FORMER.to_string()].into(), "{:?}", self.images(namespace).await?);
        operator.stop().await?;
        self.free_lease(namespace).await?;

        let operator = Operator::start(&self.environment, &Start { node_image: Some(NEWER), ..start }).await?;
        self.is_held(namespace, LEASE).await?;
        self.quiet(namespace).await?;
        ensure!(self.pods(namespace).await? == pods, "a pod was made anew by the upgrade");
        self.goal(namespace, GROUP, 4).await?;

        let restart = json!({ "metadata": { "annotations": { names::ANNOTATION_RESTART: "now" } } });
        let groups = kind_api(self.client.clone(), namespace, "ConsensusGroup");
        groups.patch(GROUP, &PatchParams::default(), &Patch::Merge(&restart)).await?;
        eventually("a restart brings the image of the newer operator", SECONDS_MAX, || async {
            let images = self.images(namespace).await?;
            ensure!(images == [NEWER.to_string()].into(), "{images:?}");
            Ok(())
        })
        .await?;
        self.goal(namespace, GROUP, 4).await?;
        operator.stop().await
    }

    /// Until an operator leads, nothing that it would do wrong can be seen.
    pub(super) async fn is_held(&self, namespace: &str, lease: &str) -> Result<()> {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), namespace);
        eventually("the newer operator leads", SECONDS_MAX, || async {
            let found = leases.get(lease).await?;
            ensure!(
                found.spec.and_then(|spec| spec.holder_identity).is_some_and(|holder| !holder.is_empty()),
                "nobody"
            );
            Ok(())
        })
        .await
    }

    /// Images of the voters' pods.
    async fn images(&self, namespace: &str) -> Result<BTreeSet<String>> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let pods = api.list(&ListParams::default().labels(names::LABEL_NODE)).await?;
        let containers = pods.items.into_iter().filter_map(|pod| pod.spec).flat_map(|spec| spec.containers);
        Ok(containers
            .filter(|container| container.name == names::CONTAINER)
            .filter_map(|container| container.image)
            .collect())
    }
}
