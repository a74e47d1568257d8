//! The cluster under test: brought up or taken as given, with images loaded and the operator installed.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::invariants::Counts;
use crate::process::Call;

/// Namespace of the operator.
pub const OPERATOR_NAMESPACE: &str = "althing-system";
/// Cargo's folder for our target below `target/`.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Which of the two cargo profiles the images are made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Tests and their images.
    Ci,
    /// The demo and benchmarks.
    Release,
}

impl Profile {
    fn folder(self) -> &'static str {
        match self {
            Self::Ci => "ci",
            Self::Release => "release",
        }
    }
}

/// What `cluster up` writes to `.cluster/env.json`.
#[derive(Debug, Clone, Deserialize)]
struct ClusterFile {
    kubeconfig: PathBuf,
    relays: Vec<PathBuf>,
    bin: PathBuf,
    volumes: Vec<PathBuf>,
}

/// What tools that people trust think of an object.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// kstatus: `Current`, `InProgress`, `Failed`, ...
    pub kstatus: String,
    /// Argo CD with `docs/argocd/health.lua`: `Healthy`, `Progressing`, `Degraded`, ...
    pub argocd: String,
    /// What the health check adds.
    pub argocd_message: String,
}

/// A running cluster and the programs to work with it.
#[derive(Debug, Clone)]
pub struct Environment {
    /// Top of the checkout.
    pub root: PathBuf,
    /// Administrator's kubeconfig of the cluster.
    pub kubeconfig: PathBuf,
    /// Unix sockets that dial from inside each node of the local cluster, in the order of the nodes; none on a cluster
    /// that we did not make.
    relays: Vec<PathBuf>,
    /// Context of the kubeconfig; absent for the local cluster.
    pub context: Option<String>,
    kubectl: PathBuf,
    helm: PathBuf,
    judge: PathBuf,
    binaries: PathBuf,
    volumes: Vec<PathBuf>,
    counts: Arc<Mutex<Option<Counts>>>,
}

/// The two images as the cluster knows them.
#[derive(Debug, Clone)]
pub struct Images {
    /// Image of the operator, `repository:tag`.
    pub operator: String,
    /// Image of the node, `repository:tag`.
    pub node: String,
}

/// Top of the checkout, from where this crate was compiled.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().expect("the crate lies one folder below the top").to_path_buf()
}

impl Environment {
    /// Brings the local cluster up with so many nodes, or finds it running.
    ///
    /// # Errors
    /// When the cluster tool fails; its own output says why.
    pub async fn local(profile: Profile, nodes: u8) -> Result<Self> {
        let nodes = nodes.to_string();
        Self::up(profile, &["up", "--nodes", &nodes]).await
    }

    /// Brings up an API server without nodes and controllers, for a stand-in that plays them.
    ///
    /// # Errors
    /// When the cluster tool fails, or a cluster of this checkout runs already.
    pub async fn api_server(profile: Profile) -> Result<Self> {
        let root = root();
        ensure!(!root.join(".cluster/env.json").exists(), "a cluster runs already: `make cluster-down` ends it");
        Self::up(profile, &["up", "--nodes", "0", "--without-controllers"]).await
    }

    async fn up(profile: Profile, arguments: &[&str]) -> Result<Self> {
        let root = root();
        let binaries = root.join("target").join(TARGET).join(profile.folder());
        Call::new(binaries.join("cluster"), arguments).inside(&root).within(3600).shown().await?;
        let path = root.join(".cluster/env.json");
        let text = std::fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))?;
        let file: ClusterFile =
            serde_json::from_str(&text).with_context(|| format!("failed to parse {}", path.display()))?;
        Ok(Self {
            root,
            kubeconfig: file.kubeconfig,
            relays: file.relays,
            context: None,
            kubectl: file.bin.join("kubectl"),
            helm: file.bin.join("helm"),
            judge: file.bin.join("judge"),
            binaries,
            volumes: file.volumes,
            counts: Arc::default(),
        })
    }

    /// Takes a cluster that exists: a named context of the user's kubeconfig, with the user's kubectl and helm.
    ///
    /// # Errors
    /// When the context does not exist.
    pub async fn existing(profile: Profile, context: &str) -> Result<Self> {
        let root = root();
        let kubeconfig = std::env::var_os("KUBECONFIG").map_or_else(
            || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".kube/config"),
            PathBuf::from,
        );
        let environment = Self {
            binaries: root.join("target").join(TARGET).join(profile.folder()),
            root,
            kubeconfig,
            relays: vec![],
            context: Some(context.to_string()),
            kubectl: PathBuf::from("kubectl"),
            helm: PathBuf::from("helm"),
            judge: PathBuf::from("judge"),
            volumes: vec![],
            counts: Arc::default(),
        };
        let names = environment.kubectl(&["config", "get-contexts", "-o", "name"]).await?;
        ensure!(names.lines().any(|name| name == context), "kubeconfig has no context {context}; it has:\n{names}");
        Ok(environment)
    }

    /// Builds the image archives from the binaries and loads them into every node of the local cluster.
    ///
    /// The tag is the hash of the binary, so that a node never runs an older one under the same name.
    ///
    /// # Errors
    /// When a binary is missing or the import fails.
    pub async fn load_images(&self) -> Result<Images> {
        let operator = self.load_image("operator", "althing-operator", "").await?;
        let node = self.load_image("node", "althing-node", "").await?;
        Ok(Images { operator, node })
    }

    /// Loads the same node under another tag: what an upgrade goes to.
    ///
    /// # Errors
    /// When the binary is missing or the import fails.
    pub async fn load_next_node(&self) -> Result<String> {
        self.load_image("node", "althing-node", "-next").await
    }

    async fn load_image(&self, name: &str, binary: &str, suffix: &str) -> Result<String> {
        let path = self.binaries.join(binary);
        let bytes =
            std::fs::read(&path).with_context(|| format!("failed to read {}; build it first", path.display()))?;
        let digest: String = Sha256::digest(&bytes).iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        let digest = format!("{digest}{suffix}");
        let image = format!("docker.io/althing/{name}:{digest}");
        let folder = self.root.join("target/images");
        std::fs::create_dir_all(&folder)?;
        let archive = folder.join(format!("{name}-{digest}.tar"));
        let entrypoint = format!("/{binary}");
        let file = format!("{entrypoint}={}", path.display());
        let archive_text = archive.display().to_string();
        if !archive.exists() {
            let arguments =
                ["image", "--name", &image, "--entrypoint", &entrypoint, "--file", &file, "--output", &archive_text];
            self.cluster(&arguments).await?;
        }
        self.cluster(&["load-image", &archive_text]).await?;
        Ok(image)
    }

    /// Calls the cluster tool.
    ///
    /// # Errors
    /// When it fails.
    pub async fn cluster(&self, arguments: &[&str]) -> Result<String> {
        Call::new(self.binaries.join("cluster"), arguments).inside(&self.root).within(300).stdout().await
    }

    /// Adds metrics-server to the running local cluster; the first time on a machine it is built from source.
    ///
    /// # Errors
    /// When it does not come to answer.
    pub async fn add_metrics_server(&self) -> Result<()> {
        let arguments = ["up", "--nodes", "1", "--with", "metrics-server"];
        Call::new(self.binaries.join("cluster"), &arguments).inside(&self.root).within(3600).shown().await?;
        Ok(())
    }

    /// Where a program of ours was built.
    pub fn program(&self, name: &str) -> PathBuf {
        self.binaries.join(name)
    }

    /// Calls the node binary on this machine.
    ///
    /// # Errors
    /// When it fails.
    pub async fn node(&self, arguments: &[&str]) -> Result<String> {
        Call::new(self.binaries.join("althing-node"), arguments).within(120).stdout().await
    }

    /// Calls kubectl.
    ///
    /// # Errors
    /// When it fails; the error shows what it printed.
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.kubectl_call(arguments).stdout().await
    }

    /// A kubectl call to be completed with input or another deadline.
    pub fn kubectl_call(&self, arguments: &[&str]) -> Call {
        let mut all = vec![];
        if let Some(context) = &self.context {
            all.extend(["--context", context.as_str()]);
        }
        all.extend(arguments);
        Call::new(&self.kubectl, &all).env("KUBECONFIG", &self.kubeconfig)
    }

    /// What kstatus and Argo CD think of an object.
    ///
    /// # Errors
    /// When the judge fails.
    pub async fn judge(&self, object: &serde_json::Value) -> Result<Verdict> {
        let script = self.root.join("docs/argocd/health.lua").display().to_string();
        let said = Call::new(&self.judge, &[&script]).input(object.to_string()).stdout().await?;
        serde_json::from_str(&said).with_context(|| format!("failed to parse the verdict {said}"))
    }

    /// Calls helm.
    ///
    /// # Errors
    /// When it fails.
    pub async fn helm(&self, arguments: &[&str]) -> Result<String> {
        let mut all = vec![];
        if let Some(context) = &self.context {
            all.extend(["--kube-context", context.as_str()]);
        }
        all.extend(arguments);
        Call::new(&self.helm, &all).env("KUBECONFIG", &self.kubeconfig).inside(&self.root).within(180).stdout().await
    }

    /// Installs the chart, or upgrades it, and waits until the operator is ready.
    /// The operator works in these namespaces alone; they must exist.
    ///
    /// # Errors
    /// When helm fails or the operator does not become ready.
    pub async fn install_operator(&self, images: &Images, namespaces: &[String]) -> Result<()> {
        self.install_operator_with(images, namespaces, &[]).await
    }

    /// The same with more values of the chart.
    ///
    /// # Errors
    /// When helm fails or the operator does not become ready.
    pub async fn install_operator_with(&self, images: &Images, namespaces: &[String], values: &[&str]) -> Result<()> {
        self.install(images, &format!("watchNamespaces={{{}}}", namespaces.join(",")), values).await
    }

    /// The same for an operator that works in the whole cluster, and may use Secrets in these namespaces, which must exist.
    ///
    /// # Errors
    /// When helm fails or the operator does not become ready.
    pub async fn install_operator_everywhere(&self, images: &Images, namespaces: &[String]) -> Result<()> {
        self.install(images, &format!("secretNamespaces={{{}}}", namespaces.join(",")), &[]).await
    }

    async fn install(&self, images: &Images, scope: &str, more: &[&str]) -> Result<()> {
        let (repository, tag) = images.operator.rsplit_once(':').context("an image has a tag")?;
        let (node_repository, node_tag) = images.node.rsplit_once(':').context("an image has a tag")?;
        let values = [
            format!("image.repository={repository}"),
            format!("image.tag={tag}"),
            format!("nodeImage.repository={node_repository}"),
            format!("nodeImage.tag={node_tag}"),
            scope.to_string(),
        ];
        let mut arguments =
            vec!["upgrade", "--install", "althing", "charts/althing", "--namespace", OPERATOR_NAMESPACE];
        arguments.push("--create-namespace");
        for value in values.iter().map(String::as_str).chain(more.iter().copied()) {
            arguments.extend(["--set", value]);
        }
        arguments.extend(["--wait", "--timeout", "120s"]);
        self.helm(&arguments).await?;
        Ok(())
    }

    /// The socket that dials from inside a node of the local cluster: policies let a node reach the pods it hosts.
    ///
    /// # Errors
    /// When the cluster is not the local one, or has no such node.
    pub fn relay(&self, host: &str) -> Result<&Path> {
        let number: usize = host.trim_start_matches("node").parse().with_context(|| format!("{host:?} is no node"))?;
        let relay = number.checked_sub(1).and_then(|index| self.relays.get(index));
        Ok(relay.with_context(|| format!("{host} has no relay: the cluster is not the local one"))?)
    }

    /// Keeps what a watch saw for whoever reports on the case.
    pub(crate) fn keep_counts(&self, counts: Counts) {
        let mut kept = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        *kept = Some(kept.map_or(counts, |before| before.with(counts)));
    }

    /// What all watches that ended since the last call saw, if there were any.
    pub fn take_counts(&self) -> Option<Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Whether the files of volumes can be read here: on the local cluster.
    pub fn has_volumes(&self) -> bool {
        !self.volumes.is_empty()
    }

    /// Where the local cluster keeps the files of a PersistentVolume.
    ///
    /// # Errors
    /// When no node has such a folder.
    pub fn volume_folder(&self, volume: &str) -> Result<PathBuf> {
        for folder in &self.volumes {
            for entry in std::fs::read_dir(folder).with_context(|| format!("failed to read {}", folder.display()))? {
                let entry = entry?;
                if entry.file_name().to_string_lossy().starts_with(volume) {
                    return Ok(entry.path());
                }
            }
        }
        anyhow::bail!("no folder holds volume {volume}")
    }

    /// A client of the cluster's API.
    ///
    /// # Errors
    /// When the kubeconfig cannot be used.
    pub async fn client(&self) -> Result<kube::Client> {
        let kubeconfig = kube::config::Kubeconfig::read_from(&self.kubeconfig)?;
        let options = kube::config::KubeConfigOptions { context: self.context.clone(), ..Default::default() };
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await?;
        Ok(kube::Client::try_from(config)?)
    }
}
