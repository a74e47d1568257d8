//! Every name and path of a cluster; all of them follow from the path of the checkout.

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use sha2::{Digest, Sha256};

use crate::error::{Doing, Error, Result};
use crate::interrupt::{Wait, wait_for};

/// A file that only a checkout of this repository has.
const MARK: &str = "e2e/cluster/modules/kubernetes/go.mod";
/// Below the range from which the kernel gives out ports by itself (32768 and up).
const API_PORT_FIRST: u16 = 20_000;
const API_PORTS: u16 = 12_000;
/// Longer than the first build of all programs.
const LOCK_SECONDS_MAX: u64 = 1800;

/// Number of a node, 1 to [`Node::MAX`]; node 1 also carries the control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Node(u8);

impl Node {
    /// Most nodes of a cluster.
    pub const MAX: u8 = 4;
    /// The node that carries the control plane and the switch.
    pub const FIRST: Self = Self(1);

    /// Nodes 1 to `count`.
    pub fn first(count: u8) -> impl Iterator<Item = Self> {
        (1..=count.min(Self::MAX)).map(Self)
    }

    /// Every node that can be.
    pub fn all() -> impl Iterator<Item = Self> {
        Self::first(Self::MAX)
    }

    /// The number.
    pub fn number(self) -> u8 {
        self.0
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node{}", self.0)
    }
}

impl FromStr for Node {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.strip_prefix("node").unwrap_or(text);
        match number.parse() {
            Ok(number) if (1..=Self::MAX).contains(&number) => Ok(Self(number)),
            _ => Err(format!("a node is a number from 1 to {}", Self::MAX)),
        }
    }
}

/// One checkout of the repository, and with it one cluster.
#[derive(Debug, Clone)]
pub struct Checkout {
    root: PathBuf,
    id: String,
    cache: PathBuf,
}

impl Checkout {
    /// The checkout that `start` lies in.
    ///
    /// # Errors
    /// When there is none.
    pub fn find(start: &Path) -> Result<Self> {
        let start = start.canonicalize().doing("find", start)?;
        let root = start.ancestors().find(|folder| folder.join(MARK).is_file()).ok_or_else(|| {
            Error::Refused(format!("{} is not inside a checkout of althing; use --checkout PATH", start.display()))
        })?;
        Self::at(root)
    }

    /// The checkout whose top folder is `root`.
    ///
    /// # Errors
    /// When the module files cannot be read or there is no place for a cache.
    pub fn at(root: &Path) -> Result<Self> {
        let root = root.canonicalize().doing("find", root)?;
        let id = hash(&[root.as_os_str().as_encoded_bytes()]);
        let cache = cache_root()?.join(format!("cluster-{}", modules_hash(&root.join("e2e/cluster/modules"))?));
        Ok(Self { root, id, cache })
    }

    /// Eight hexadecimal digits that stand for the checkout's path.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Top of the checkout.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The Go modules that the programs are built from.
    pub fn modules(&self) -> PathBuf {
        self.root.join("e2e/cluster/modules")
    }

    /// Everything of this cluster that needs room on a disk; gone after `down`.
    pub fn state(&self) -> PathBuf {
        self.root.join(".cluster")
    }

    /// Administrator's kubeconfig, for use from the host.
    pub fn kubeconfig(&self) -> PathBuf {
        self.state().join("kubeconfig")
    }

    /// Logs of all daemons, and the audit log of the API server.
    pub fn log(&self) -> PathBuf {
        self.state().join("log")
    }

    /// Keys and certificates of this cluster.
    pub fn pki(&self) -> PathBuf {
        self.state().join("pki")
    }

    /// Images that were loaded with `load-image`; a node that is added later gets them too.
    pub fn loaded_images(&self) -> PathBuf {
        self.state().join("images")
    }

    /// The disk of a node: its `/var` and its configuration.
    pub fn node(&self, node: Node) -> PathBuf {
        self.state().join("nodes").join(node.to_string())
    }

    /// Where a node's volumes lie, seen from the host.
    pub fn volumes(&self, node: Node) -> PathBuf {
        self.node(node).join("var/lib/local-path")
    }

    /// Short folder for sockets and mounts: a unix socket's path has at most 107 bytes.
    pub fn runtime(&self) -> PathBuf {
        PathBuf::from(format!("/run/althing-{}", self.id))
    }

    /// The network namespace of a node, as a mounted file.
    pub fn network_namespace(&self, node: Node) -> PathBuf {
        self.runtime().join("net").join(node.to_string())
    }

    /// File with the host's process id of a node's first process.
    pub fn init_pid(&self, node: Node) -> PathBuf {
        self.runtime().join(format!("{node}.pid"))
    }

    /// Socket of the relay that dials from inside a node. Node 1's is the one that most callers want.
    pub fn relay(&self, node: Node) -> PathBuf {
        match node {
            Node::FIRST => self.runtime().join("relay.sock"),
            other => self.runtime().join(format!("relay-{other}.sock")),
        }
    }

    /// Name of the cgroup, in every hierarchy, that holds all processes of this cluster.
    pub fn cgroup(&self) -> String {
        format!("althing-{}", self.id)
    }

    /// First port on 127.0.0.1 to try for the API server.
    pub fn api_port(&self) -> u16 {
        let number = u32::from_str_radix(&self.id, 16).unwrap_or_default() % u32::from(API_PORTS);
        API_PORT_FIRST + u16::try_from(number).unwrap_or_default()
    }

    /// Programs, CNI plugins and images, shared by all checkouts with the same module files.
    pub fn cache(&self) -> &Path {
        &self.cache
    }

    /// Programs.
    pub fn bin(&self) -> PathBuf {
        self.cache.join("bin")
    }

    /// CNI plugins.
    pub fn cni(&self) -> PathBuf {
        self.cache.join("cni")
    }

    /// Images of the cluster's own parts.
    pub fn images(&self) -> PathBuf {
        self.cache.join("images")
    }

    /// Takes the checkout for this process alone: two commands that change one cluster would ruin it. Waits for one
    /// that runs. The lock is on a folder of the checkout itself, so it leaves no file, and the kernel drops it when the
    /// process ends.
    ///
    /// # Errors
    /// When another command holds it for longer than a first build takes, or the user interrupts.
    pub fn lock(&self) -> Result<File> {
        self.lock_within(LOCK_SECONDS_MAX)
    }

    fn lock_within(&self, seconds_max: u64) -> Result<File> {
        let folder = self.modules();
        let file = File::open(&folder).doing("open", &folder)?;
        let mut announced = false;
        let what = "the end of another `cluster` command of this checkout";
        let wait = Wait { what, seconds_max, every_ms: 100, hint: "see what it does: pgrep -a cluster" };
        wait_for(wait, || match file.try_lock() {
            Ok(()) => Ok(Some(())),
            Err(std::fs::TryLockError::WouldBlock) => {
                if !std::mem::replace(&mut announced, true) {
                    eprintln!("waiting for {what}");
                }
                Ok(None)
            }
            Err(std::fs::TryLockError::Error(source)) => Err(source).doing("lock", &folder),
        })?;
        Ok(file)
    }
}

/// `${XDG_CACHE_HOME:-~/.cache}/althing`.
///
/// # Errors
/// When neither variable says where.
pub fn cache_root() -> Result<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let folder = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")));
    let folder = folder.ok_or_else(|| Error::Preflight {
        problem: "neither HOME nor XDG_CACHE_HOME is set".into(),
        advice: "set XDG_CACHE_HOME to a folder with 2 GB of room".into(),
    })?;
    Ok(folder.join("althing"))
}

/// One hash over every module file (name and content), so that a changed version is a new cache.
fn modules_hash(modules: &Path) -> Result<String> {
    let mut files = Vec::new();
    for module in std::fs::read_dir(modules).doing("read", modules)? {
        let module = module.doing("read", modules)?.path();
        for file in std::fs::read_dir(&module).doing("read", &module)? {
            files.push(file.doing("read", &module)?.path());
        }
    }
    files.sort();
    let mut parts = vec![crate::packages::PACKAGES.concat().into_bytes()];
    for file in &files {
        parts.push(file.strip_prefix(modules).unwrap_or(file).as_os_str().as_encoded_bytes().to_vec());
        parts.push(std::fs::read(file).doing("read", file)?);
    }
    Ok(hash(&parts.iter().map(Vec::as_slice).collect::<Vec<_>>()))
}

/// The first eight digits of SHA-256 over the parts, each with its length before it.
fn hash(parts: &[&[u8]]) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        hasher.update(part);
    }
    hasher.finalize().iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkout(root: &Path, version: &str) -> Checkout {
        let module = root.join("e2e/cluster/modules/kubernetes");
        std::fs::create_dir_all(&module).unwrap();
        std::fs::write(module.join("go.mod"), version).unwrap();
        Checkout::at(root).unwrap()
    }

    #[test]
    fn two_checkouts_share_no_name_but_the_cache() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (checkout(&folder.path().join("one"), "v1"), checkout(&folder.path().join("two"), "v1"));
        assert_ne!(one.id(), two.id());
        assert_ne!(one.runtime(), two.runtime());
        assert_ne!(one.cgroup(), two.cgroup());
        assert_ne!(one.state(), two.state());
        assert_eq!(one.cache(), two.cache());
    }

    #[test]
    fn another_version_of_a_module_is_another_cache() {
        let folder = tempfile::tempdir().unwrap();
        let before = checkout(folder.path(), "v1");
        assert_ne!(before.cache(), checkout(folder.path(), "v2").cache());
    }

    #[test]
    fn a_checkout_is_found_from_a_folder_inside_it() {
        let folder = tempfile::tempdir().unwrap();
        let top = checkout(folder.path(), "v1");
        let inside = Checkout::find(&folder.path().join("e2e/cluster/modules")).unwrap();
        assert_eq!(inside.id(), top.id());
        assert_eq!(inside.root(), top.root());
    }

    #[test]
    fn socket_paths_are_short_and_ports_are_below_those_of_the_kernel() {
        let folder = tempfile::tempdir().unwrap();
        let long = folder.path().join("a".repeat(150));
        let checkout = checkout(&long, "v1");
        assert!(checkout.relay(Node(4)).as_os_str().len() < 108);
        assert!((20_000..32_000).contains(&checkout.api_port()));
    }

    #[test]
    fn a_node_is_named_by_number_or_by_name() {
        assert_eq!("3".parse(), Ok(Node(3)));
        assert_eq!("node3".parse(), Ok(Node(3)));
        for wrong in ["0", "5", "node", "-1", "node5"] {
            assert!(wrong.parse::<Node>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_second_command_on_the_same_cluster_waits_until_the_first_has_ended() {
        let folder = tempfile::tempdir().unwrap();
        let checkout = checkout(folder.path(), "v1");
        let first = checkout.lock().unwrap();
        assert!(checkout.lock_within(0).is_err());
        drop(first);
        assert!(checkout.lock_within(0).is_ok());
    }
}
