//! Plays the kubelet of every machine: starts a process for each pod, says so in its status, and ends it.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use althing_crds::{ValidatorNode, names};
use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Secret};
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use node_api::tls::TlsStore;
use node_core::types::{ChainId, Identity};
use serde_json::{Value, json};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::chains::{Chains, Member};
use super::files::{Files, Mounts, Reader};
use super::node::{Process, Volume, serve};

/// How long a pod waits for its Secrets and its volume, and for its chain to start.
const START_MAX: Duration = Duration::from_secs(180);
/// An image whose name contains this cannot be pulled.
const MISSING_IMAGE: &str = "missing";

/// On a pod: its process is cut off from the others, and the pod stays ready all the same.
pub const ANNOTATION_SILENT: &str = "stand-in.althing.dev/silent";

/// The process of this pod is cut off.
pub fn is_silent(pod: &Pod) -> bool {
    pod.annotations().contains_key(ANNOTATION_SILENT)
}

/// What all kubelets share.
pub struct Kubelet {
    client: Client,
    chains: Arc<Chains>,
    mounts: Arc<Mounts>,
    volumes: Mutex<HashMap<String, Arc<Mutex<Volume>>>>,
    running: Mutex<HashMap<String, CancellationToken>>,
    addresses: AtomicU32,
}

impl Kubelet {
    /// No pod yet.
    pub fn new(client: Client, chains: Arc<Chains>, mounts: Arc<Mounts>) -> Self {
        let (volumes, running) = (Mutex::default(), Mutex::default());
        Self { client, chains, mounts, volumes, running, addresses: AtomicU32::new(0) }
    }

    /// Starts a pod, unless this was done before.
    pub async fn start(&self, pod: &Pod) -> Result<()> {
        let uid = pod.uid().unwrap_or_default();
        let stop = CancellationToken::new();
        {
            let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            if running.contains_key(&uid) {
                return Ok(());
            }
            running.insert(uid.clone(), stop.clone());
        }
        if image(pod).contains(MISSING_IMAGE) {
            return self.say(pod, waiting(pod)).await;
        }
        let end = Instant::now() + START_MAX;
        let mut pace = interval(Duration::from_millis(150));
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (address, process) = loop {
            tokio::select! { _ = pace.tick() => {}, () = stop.cancelled() => return Ok(()) }
            match self.launch(pod, &stop).await {
                Ok(launched) => break launched,
                Err(error) if Instant::now() >= end => return Err(error),
                Err(_) => {}
            }
        };
        if !process.is_ready() {
            self.say(pod, running(pod, address, false)).await?;
        }
        while !process.is_ready() {
            if Instant::now() >= end {
                bail!("{} has not come to the end of its chain", pod.name_any());
            }
            tokio::select! { _ = pace.tick() => {}, () = stop.cancelled() => return Ok(()) }
        }
        self.say(pod, running(pod, address, true)).await
    }

    /// Starts the process as soon as everything that the pod mounts is there.
    async fn launch(&self, pod: &Pod, stop: &CancellationToken) -> Result<(IpAddr, Process)> {
        let namespace = pod.namespace().context("a pod has a namespace")?;
        let node = pod.labels().get(names::LABEL_NODE).context("the pod names its node")?.clone();
        let nodes: Api<ValidatorNode> = Api::namespaced(self.client.clone(), &namespace);
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), &namespace);
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &namespace);
        let (node_name, tls_name) = (node.as_str(), names::tls_secret(&node));
        let (tls, identity_name, claim_name) = (tls_name.as_str(), names::identity_secret(&node), names::claim(&node));
        let (object, tls, identity, claim) = tokio::try_join!(
            nodes.get(node_name),
            secrets.get(tls),
            secrets.get(&identity_name),
            claims.get(&claim_name)
        )?;
        let identity = identity.data.as_ref().and_then(|data| data.get(names::FILE_IDENTITY));
        let identity =
            identity.with_context(|| format!("Secret {identity_name} has no entry {}", names::FILE_IDENTITY))?;
        let identity = node_api::keys::from_pem(&String::from_utf8(identity.0.clone())?)?;
        let files = Files::of(&tls)?;
        let store = TlsStore::from_pem(files.pem())?;
        let volume = self.volume(&claim.uid().context("a claim has a UID")?)?;
        let pod_uid = pod.uid().unwrap_or_default();
        let process = Process {
            member: Member {
                namespace: namespace.clone(),
                number: node.rsplit_once('-').and_then(|(_, number)| number.parse().ok()),
                identity: Identity::new(identity.public()),
                pod_uid: pod_uid.clone(),
            },
            chain_id: ChainId::new(object.spec.chain_id.clone())?,
            version: image(pod).rsplit(':').next().unwrap_or("unknown").to_string(),
            volume,
            chains: Arc::clone(&self.chains),
        };
        let address = self.address();
        serve(process.clone(), SocketAddr::new(address, names::PORT_GRPC), Arc::clone(&store), stop.clone()).await?;
        let reader = Reader { uid: pod_uid.clone(), pod: pod.name_any(), secret: (namespace, tls_name), store };
        self.mounts.starts(reader, &files)?;
        // The pod may have gone meanwhile.
        if stop.is_cancelled() {
            self.mounts.ends(&pod_uid);
        }
        Ok((address, process))
    }

    /// The volume of a claim; another claim is another, empty volume.
    fn volume(&self, claim_uid: &str) -> Result<Arc<Mutex<Volume>>> {
        let mut volumes = self.volumes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(volume) = volumes.get(claim_uid) {
            return Ok(Arc::clone(volume));
        }
        let volume = Arc::new(Mutex::new(Volume::new(node_api::keys::generate()?)));
        volumes.insert(claim_uid.to_string(), Arc::clone(&volume));
        Ok(volume)
    }

    /// An address of 127.64.0.0/10 that no other process has.
    fn address(&self) -> IpAddr {
        let number = self.addresses.fetch_add(1, Ordering::SeqCst);
        let [_, high, middle, low] = (number + 1).to_be_bytes();
        IpAddr::V4(Ipv4Addr::new(127, 64 + (high & 63), middle, low))
    }

    /// Ends the process of a pod that is being deleted, then removes the pod as its kubelet would.
    pub async fn finish(&self, pod: &Pod) -> Result<()> {
        self.forget(&pod.uid().unwrap_or_default());
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default());
        let params = DeleteParams {
            preconditions: Some(kube::api::Preconditions { uid: pod.uid(), resource_version: None }),
            ..DeleteParams::default().grace_period(0)
        };
        match api.delete(&pod.name_any(), &params).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Ends the process of a pod that is gone.
    pub fn forget(&self, uid: &str) {
        let stop = self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
        if let Some(stop) = stop {
            stop.cancel();
        }
        self.mounts.ends(uid);
    }

    async fn say(&self, pod: &Pod, status: Value) -> Result<()> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default());
        let patch = json!({ "metadata": { "uid": pod.uid() }, "status": status });
        match api.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Merge(&patch)).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

fn image(pod: &Pod) -> &str {
    let container = pod.spec.as_ref().and_then(|spec| spec.containers.first());
    container.and_then(|container| container.image.as_deref()).unwrap_or_default()
}

fn running(pod: &Pod, address: IpAddr, is_ready: bool) -> Value {
    let word = if is_ready { "True" } else { "False" };
    json!({
        "phase": "Running",
        "podIP": address,
        "podIPs": [{ "ip": address }],
        "conditions": [
            { "type": "PodScheduled", "status": "True" },
            { "type": "Ready", "status": word },
        ],
        "containerStatuses": [{
            "name": names::CONTAINER, "image": image(pod), "imageID": "", "ready": is_ready, "restartCount": 0,
            "state": { "running": {} },
        }],
    })
}

fn waiting(pod: &Pod) -> Value {
    json!({
        "phase": "Pending",
        "conditions": [{ "type": "PodScheduled", "status": "True" }, { "type": "Ready", "status": "False" }],
        "containerStatuses": [{
            "name": names::CONTAINER, "image": image(pod), "imageID": "", "ready": false, "restartCount": 0,
            "state": { "waiting": { "reason": "ImagePullBackOff", "message": "not found" } },
        }],
    })
}
