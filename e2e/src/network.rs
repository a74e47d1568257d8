//! A `BlockchainNetwork` under test: applying it, waiting on its status, finding its pods and dialling them.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use althing_crds::names;
use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::Api;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams};
use serde_json::Value;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::environment::{Environment, Verdict};

/// A network in a namespace of its own.
#[derive(Clone)]
pub struct Network {
    /// The cluster.
    pub environment: Environment,
    /// Client of the API server.
    pub client: kube::Client,
    /// Namespace.
    pub namespace: String,
    /// Name of the BlockchainNetwork.
    pub name: String,
    /// Name of its only ConsensusGroup.
    pub group: String,
}

/// One voter's pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Voter {
    /// Name of the ValidatorNode.
    pub node: String,
    /// Name of the pod.
    pub pod: String,
    /// UID of the pod.
    pub uid: String,
    /// Address of the pod inside the cluster; empty until it has one.
    pub address: String,
    /// Kubernetes node it runs on; empty until it is scheduled.
    pub host: String,
    /// Public key of the voter's identity, hex; empty until the operator has written it.
    pub identity: String,
}

/// An object and what tools think of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    /// Kind and name.
    pub name: String,
    /// It says `Stalled=True`.
    pub stalled: bool,
    /// What tools think.
    pub verdict: Verdict,
}

/// A condition as it stands on an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Condition {
    /// `True`, `False` or `Unknown`; empty when the condition is absent.
    pub status: String,
    /// One word.
    pub reason: String,
    /// A sentence.
    pub message: String,
}

/// Asks again and again until the answer is there.
///
/// # Errors
/// The last reason, once `seconds` are over.
pub async fn eventually<T, F, Fut>(what: &str, seconds: u64, mut ask: F) -> Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T>>,
{
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut tick = interval(Duration::from_millis(250));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let answer = timeout(Duration::from_secs(20), ask()).await;
        let reason = match answer {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => error,
            Err(_) => anyhow::anyhow!("no answer within 20 s"),
        };
        if Instant::now() >= end {
            return Err(reason.context(format!("{what}: not within {seconds} s")));
        }
    }
}

/// The API of one of our three kinds.
pub fn kind_api(client: kube::Client, namespace: &str, kind: &str) -> Api<DynamicObject> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("althing.dev", "v1alpha1", kind));
    Api::namespaced_with(client, namespace, &resource)
}

/// A condition of an object of ours.
pub fn condition(object: &DynamicObject, kind: &str) -> Condition {
    let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_string();
    let conditions = object.data.pointer("/status/conditions").and_then(Value::as_array);
    conditions
        .and_then(|all| all.iter().find(|one| one.get("type").and_then(Value::as_str) == Some(kind)))
        .map(|one| Condition {
            status: text(one, "status"),
            reason: text(one, "reason"),
            message: text(one, "message"),
        })
        .unwrap_or_default()
}

impl Network {
    /// The network `name` with its group `group` in `namespace`.
    pub fn new(environment: &Environment, client: &kube::Client, namespace: &str, name: &str, group: &str) -> Self {
        Self {
            environment: environment.clone(),
            client: client.clone(),
            namespace: namespace.to_string(),
            name: name.to_string(),
            group: names::group(name, group),
        }
    }

    /// Calls kubectl in this namespace.
    ///
    /// # Errors
    /// When it fails.
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let mut all = vec!["--namespace", self.namespace.as_str()];
        all.extend(arguments);
        self.environment.kubectl(&all).await
    }

    /// Applies a manifest.
    ///
    /// # Errors
    /// What the API server refuses.
    pub async fn apply(&self, manifest: &str) -> Result<()> {
        let arguments = ["--namespace", &self.namespace, "apply", "-f", "-"];
        self.environment.kubectl_call(&arguments).input(manifest).stdout().await?;
        Ok(())
    }

    /// Reads one of our kinds.
    ///
    /// # Errors
    /// When it is not there.
    pub async fn object(&self, kind: &str, name: &str) -> Result<DynamicObject> {
        Ok(kind_api(self.client.clone(), &self.namespace, kind).get(name).await?)
    }

    /// What kstatus and Argo CD think of every object of ours in the namespace.
    ///
    /// # Errors
    /// When they cannot be listed or judged.
    pub async fn verdicts(&self) -> Result<Vec<Judged>> {
        let listed: Value = serde_json::from_str(&self.kubectl(&["get", "bcn,cgrp,vnode", "-o", "json"]).await?)?;
        let mut verdicts = vec![];
        for object in listed.pointer("/items").and_then(Value::as_array).into_iter().flatten() {
            let text = |path| object.pointer(path).and_then(Value::as_str).unwrap_or_default();
            let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
            let stalled = conditions.into_iter().flatten().any(|found| {
                let is = |path, value| found.pointer(path).and_then(Value::as_str) == Some(value);
                is("/type", "Stalled") && is("/status", "True")
            });
            verdicts.push(Judged {
                name: format!("{} {}", text("/kind"), text("/metadata/name")),
                stalled,
                verdict: self.environment.judge(object).await?,
            });
        }
        Ok(verdicts)
    }

    /// Waits until an object says `Condition=Status`, and returns the condition.
    ///
    /// # Errors
    /// What it said instead, once the time is over.
    pub async fn wait_condition(&self, kind: &str, name: &str, wanted: &str, seconds: u64) -> Result<Condition> {
        let (of, status) = wanted.split_once('=').context("a wish has the form Condition=Status")?;
        eventually(&format!("{kind} {name}: {wanted}"), seconds, || async {
            let found = condition(&self.object(kind, name).await?, of);
            if found.status == status { Ok(found) } else { bail!("is {found:?}") }
        })
        .await
    }

    /// Waits until the network says that its chain is available and all voters sign.
    ///
    /// # Errors
    /// What it said instead, once the time is over.
    pub async fn wait_all_signing(&self, voters: usize, seconds: u64) -> Result<()> {
        self.wait_condition("BlockchainNetwork", &self.name, "Available=True", seconds).await?;
        let expected = format!("{voters}/{voters}");
        eventually(&format!("{} voters sign", expected), seconds, || async {
            let group = self.object("ConsensusGroup", &self.group).await?;
            let signing =
                group.data.pointer("/status/signing").and_then(Value::as_str).unwrap_or("nothing").to_string();
            if signing == expected { Ok(()) } else { bail!("status says {signing}") }
        })
        .await
    }

    /// The pods of this group's voters, by number.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn voters(&self) -> Result<Vec<Voter>> {
        let selector = format!("{}={}", names::LABEL_GROUP, self.group);
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        let nodes =
            kind_api(self.client.clone(), &self.namespace, "ValidatorNode").list(&ListParams::default()).await?;
        let identities: BTreeMap<String, String> = nodes
            .iter()
            .filter_map(|node| {
                let identity = node.data.pointer("/status/identity").and_then(Value::as_str)?;
                Some((node.metadata.name.clone()?, identity.to_string()))
            })
            .collect();
        let mut voters: Vec<(u32, Voter)> = pods
            .list(&ListParams::default().labels(&selector))
            .await?
            .into_iter()
            .filter_map(|pod| {
                let labels = pod.metadata.labels.unwrap_or_default();
                let node = labels.get(names::LABEL_NODE)?.clone();
                let number = names::node_number(&self.group, &node)?;
                let status = pod.status.unwrap_or_default();
                let voter = Voter {
                    pod: pod.metadata.name?,
                    uid: pod.metadata.uid?,
                    address: status.pod_ip.unwrap_or_default(),
                    host: pod.spec.and_then(|spec| spec.node_name).unwrap_or_default(),
                    identity: identities.get(&node).cloned().unwrap_or_default(),
                    node,
                };
                Some((number, voter))
            })
            .collect();
        voters.sort_by_key(|(number, _)| *number);
        Ok(voters.into_iter().map(|(_, voter)| voter).collect())
    }

    /// Numbers of the nodes that vote as the group's status has them; nothing before the first change of the voters.
    ///
    /// # Errors
    /// When the group is not there.
    pub async fn voter_numbers(&self) -> Result<Option<BTreeSet<u32>>> {
        let group = self.object("ConsensusGroup", &self.group).await?;
        let numbers = group.data.pointer("/status/members/numbers").cloned();
        Ok(numbers.map(serde_json::from_value).transpose()?)
    }

    /// Where the local cluster keeps the files of a claim.
    ///
    /// # Errors
    /// When the claim is not bound, or the cluster is not the local one.
    pub async fn claim_folder(&self, claim: &str) -> Result<PathBuf> {
        let volume = self.kubectl(&["get", "pvc", claim, "-o", "jsonpath={.spec.volumeName}"]).await?;
        self.environment.volume_folder(&volume)
    }

    /// A Secret's entry as text.
    ///
    /// # Errors
    /// When the Secret or the entry is missing.
    pub async fn secret_text(&self, name: &str, key: &str) -> Result<String> {
        let secret = Api::<Secret>::namespaced(self.client.clone(), &self.namespace).get(name).await?;
        let data = secret.data.unwrap_or_default();
        let bytes = data.get(key).with_context(|| format!("Secret {name} has no entry {key}"))?;
        Ok(String::from_utf8(bytes.0.clone())?)
    }

    /// The chain id: what the group's spec says, else the group's name.
    ///
    /// # Errors
    /// When the group is not there.
    pub async fn chain_id(&self) -> Result<String> {
        let group = self.object("ConsensusGroup", &self.group).await?;
        let given = group.data.pointer("/spec/chain/id").and_then(Value::as_str);
        Ok(given.unwrap_or(&self.group).to_string())
    }
}
