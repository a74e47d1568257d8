//! Objects of somebody else have the names of children: they are left alone, each owner says so, and the network comes up
//! once they are gone.

use std::time::Duration;

use althing_crds::names;
use althing_operator::faults::Plan;
use anyhow::{Context, Result, bail, ensure};
use kube::api::{Api, DeleteParams, DynamicObject, PatchParams};
use kube::core::ApiResource;
use serde_json::{Value, json};
use tokio::time::{Instant, interval};

use super::operator::{Operator, Start};
use super::{PAUSES_PERCENT, Stage, manifest};
use crate::network::{condition, kind_api};

const GROUP: &str = "alpha-main";
/// Longest wait until everybody has said that a name is taken.
const SAID_MAX: Duration = Duration::from_secs(60);

/// One object in the way.
struct InTheWay {
    api: Api<DynamicObject>,
    name: String,
    version: Option<String>,
    /// Kind and name of who wants the name.
    owner: (&'static str, String),
}

impl Stage {
    /// Puts objects in the way, lets an operator with this plan make a network, and takes them away.
    ///
    /// # Errors
    /// When one of them is changed, its owner does not say that the name is taken, or the network does not come up later.
    pub async fn taken(&self, namespace: &str, plan: &Plan) -> Result<()> {
        self.make_namespace(namespace).await?;
        let mut all = Vec::new();
        for (manifest, owner) in strangers() {
            all.push(self.put_in_the_way(namespace, manifest, owner).await?);
        }
        let log = self.log(namespace);
        let operator = Operator::start(&self.environment, &Start::trial(namespace, plan, &log, PAUSES_PERCENT)).await?;
        let apply = ["apply", "--namespace", namespace, "-f", "-"];
        self.environment.kubectl_call(&apply).input(manifest("alpha", 4)).stdout().await?;
        self.all_are_said(namespace, &all).await?;
        self.quiet(namespace).await?;
        self.all_are_said(namespace, &all).await.context("while they stay")?;
        for one in &all {
            one.api.delete(&one.name, &DeleteParams::default()).await?;
        }
        self.goal(namespace, GROUP, 4).await.context("once they are gone")?;
        operator.stop().await
    }

    async fn put_in_the_way(
        &self,
        namespace: &str,
        manifest: Value,
        owner: (&'static str, String),
    ) -> Result<InTheWay> {
        let object: DynamicObject = serde_json::from_value(manifest)?;
        let kind = object.types.clone().context("it says its kind")?;
        let (group, version) = kind.api_version.rsplit_once('/').unwrap_or(("", &kind.api_version));
        let resource = ApiResource::from_gvk(&kube::core::GroupVersionKind::gvk(group, version, &kind.kind));
        let api = Api::namespaced_with(self.client.clone(), namespace, &resource);
        let name = object.metadata.name.clone().context("it has a name")?;
        let made = api.patch(&name, &PatchParams::apply("somebody"), &kube::api::Patch::Apply(&object)).await?;
        Ok(InTheWay { api, name, version: made.metadata.resource_version, owner })
    }

    /// Until every owner says that its name is taken; that nothing has touched them is asked all the time.
    async fn all_are_said(&self, namespace: &str, all: &[InTheWay]) -> Result<()> {
        let (end, mut pace) = (Instant::now() + SAID_MAX, interval(Duration::from_millis(300)));
        loop {
            pace.tick().await;
            let mut silent = Vec::new();
            for InTheWay { api, name, version, owner } in all {
                let now = api.get(name).await?.metadata;
                ensure!(now.resource_version == *version, "{name} is somebody else's and was changed: {now:?}");
                let object = kind_api(self.client.clone(), namespace, owner.0).get_opt(&owner.1).await?;
                let stalled = object.map(|object| condition(&object, "Stalled")).unwrap_or_default();
                if stalled.reason != "NameTaken" || !stalled.message.contains(name.as_str()) {
                    silent.push(format!("{} {}: {stalled:?}", owner.0, owner.1));
                }
            }
            if silent.is_empty() {
                return Ok(());
            }
            if Instant::now() >= end {
                bail!("it is not said that names are taken: {}", silent.join("; "));
            }
        }
    }
}

/// One for each way in which a child is written, with who wants its name.
fn strangers() -> [(Value, (&'static str, String)); 4] {
    let node = |number: u32| names::node(GROUP, number);
    let of_node = |number: u32| ("ValidatorNode", node(number));
    let port = json!({ "ports": [{ "port": 80 }], "selector": { "app": "another" } });
    [
        (
            json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": names::p2p_service(&node(0)) }, "spec": port }),
            of_node(0),
        ),
        (json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": node(1) } }), of_node(1)),
        (
            json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": names::tls_secret(&node(2)) },
                "stringData": { "a": "b" } }),
            of_node(2),
        ),
        (
            json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": node(3) }, "data": { "a": "b" } }),
            of_node(3),
        ),
    ]
}
