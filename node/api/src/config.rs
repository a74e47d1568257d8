//! `node.yaml`: what a node is told before it starts.
//!
//! Unknown keys are refused, and every error names the key and says what to do.

use std::{
    collections::BTreeSet,
    fmt, fs, io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    str::FromStr,
};

use node_core::types::{ChainId, Identity, Uid};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use thiserror::Error;

pub use crate::{
    advertise::P2p,
    keeping::{AFTER_BLOCKS_MIN, Checkpoint, KEEP_BLOCKS_MIN, StateSync, Storage},
    roles::NodeRole,
};

/// The only version of the file that this program reads and writes.
pub const CONFIG_VERSION: u32 = 1;
/// Most peers in one file.
pub const PEERS_MAX: usize = 256;
/// Largest file that is read, in bytes.
pub const CONFIG_BYTES_MAX: u64 = 1 << 20;
/// Port on which nodes talk to each other.
pub const PORT_P2P: u16 = 7100;
/// Port of the gRPC services for users and the operator.
pub const PORT_GRPC: u16 = 7200;
/// Port of `/metrics`, `/livez` and `/readyz`.
pub const PORT_HTTP: u16 = 7300;

/// The whole file. [`NodeConfig::load`] and [`NodeConfig::from_yaml`] answer only files that passed every check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeConfig {
    /// Version of the file's form: 1.
    pub config_version: u32,
    /// Chain id: 1 to 63 of a-z, 0-9 and `-`. Certificates of another chain are refused.
    #[serde(with = "chain_id_text")]
    pub chain_id: ChainId,
    /// What this node is.
    pub role: NodeRole,
    /// The identity key, PKCS#8 PEM.
    #[serde(default = "default_identity_file")]
    pub identity_file: PathBuf,
    /// Directory with `tls.crt`, `tls.key` and `ca.crt`; read again when it changes.
    #[serde(default = "default_tls_directory")]
    pub tls_directory: PathBuf,
    /// Directory on the volume. This process holds an exclusive lock on it.
    #[serde(default = "default_data_directory")]
    pub data_directory: PathBuf,
    /// Addresses to listen on.
    #[serde(default)]
    pub listen: Listen,
    /// Nodes to connect to, at most [`PEERS_MAX`]. An entry with this node's own identity is skipped.
    #[serde(default)]
    pub peers: Vec<Peer>,
    /// How others learn of this node.
    #[serde(default, skip_serializing_if = "P2p::is_default")]
    pub p2p: P2p,
    /// What tells one running copy of this node from another.
    pub instance: Instance,
    /// Least important log lines to write.
    #[serde(default)]
    pub log_level: LogLevel,
    /// What stays on the volume.
    #[serde(default, skip_serializing_if = "Storage::is_default")]
    pub storage: Storage,
    /// When the node takes a state instead of all blocks.
    #[serde(default, skip_serializing_if = "StateSync::is_default")]
    pub state_sync: StateSync,
}

/// Addresses to listen on; port 0 takes a free one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Listen {
    /// Peers (mutual TLS).
    pub p2p: SocketAddr,
    /// Users and the operator (mutual TLS).
    pub grpc: SocketAddr,
    /// `/metrics`, `/livez` and `/readyz` (plain HTTP).
    pub http: SocketAddr,
}

impl Default for Listen {
    fn default() -> Self {
        let any = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port);
        Self { p2p: any(PORT_P2P), grpc: any(PORT_GRPC), http: any(PORT_HTTP) }
    }
}

/// A node to connect to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Peer {
    /// Its identity key; the certificate at the other end must name it.
    #[serde(with = "identity_text")]
    pub identity: Identity,
    /// Where it listens; a name is resolved anew at every dial.
    pub address: PeerAddress,
}

/// `host:port`; the host is a DNS name, an IPv4 address, or an IPv6 address in brackets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PeerAddress(String);

impl PeerAddress {
    /// The address as `host:port`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl FromStr for PeerAddress {
    type Err = ConfigValueError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let checked = node_core::types::PeerAddress::new(text);
        checked.map(|_| Self(text.to_owned())).map_err(|_| ConfigValueError::Address { text: cut(text) })
    }
}

impl TryFrom<String> for PeerAddress {
    type Error = ConfigValueError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<PeerAddress> for String {
    fn from(address: PeerAddress) -> Self {
        address.0
    }
}

/// What tells one running copy of a node from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "InstanceKeys", into = "InstanceKeys")]
pub enum Instance {
    /// In Kubernetes: the pod's UID comes from the environment (`POD_UID`), the claim's UID from the operator's grant.
    Kubernetes,
    /// Elsewhere: this id, which no other node or copy of a volume may have. It stands for the pod and for the claim.
    Standalone {
        /// A UUID.
        id: Uid,
    },
}

/// Least important log lines to write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// What needs a person.
    Error,
    /// What may need one.
    Warn,
    /// What happened.
    #[default]
    Info,
    /// What was considered.
    Debug,
    /// Every message.
    Trace,
}

impl LogLevel {
    /// The level as it stands in the file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// Why a value in the file is not usable.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ConfigValueError {
    /// Not a chain id.
    #[error("{text:?} is not a chain id: use 1 to 63 of a-z, 0-9 and -, with a letter or digit at both ends")]
    ChainId {
        /// The text, cut to 100 characters.
        text: String,
    },
    /// Not an identity.
    #[error("{text:?} is not an identity: write the 64 lower-case hex digits that `althing-node keygen` prints")]
    Identity {
        /// The text, cut to 100 characters.
        text: String,
    },
    /// Not an address.
    #[error("{text:?} is not an address: write host:port, as in demo-main-0-p2p.demo.svc:7100 or [::1]:7100")]
    Address {
        /// The text, cut to 100 characters.
        text: String,
    },
    /// An instance of another form.
    #[error("instance: {problem}: write {{kind: kubernetes}}, or {{kind: standalone, id: <a UUID>}}")]
    Instance {
        /// What is wrong with it.
        problem: &'static str,
    },
}

/// Why a configuration cannot be used. The text names the key and says what to do.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("failed to read the configuration {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// The file is larger than any configuration.
    #[error("the configuration {} is larger than {CONFIG_BYTES_MAX} bytes: is it the right file?", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The file is of another version.
    #[error("configVersion: this program reads version {CONFIG_VERSION}, the file names {found}: {advice}")]
    Version {
        /// What the file says.
        found: String,
        /// What to do.
        advice: &'static str,
    },
    /// The file is not YAML, has an unknown or no key, or a value of another type.
    #[error("{problem}")]
    Parse {
        /// Key, problem and place.
        problem: String,
    },
    /// A key has a value of the right type that cannot be.
    #[error("{key}: {problem}: {advice}")]
    Value {
        /// The key.
        key: String,
        /// What is wrong.
        problem: String,
        /// What to do.
        advice: &'static str,
    },
}

impl NodeConfig {
    /// Reads and checks a file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        Self::from_yaml(&read(path)?)
    }

    /// Reads and checks a text.
    pub fn from_yaml(text: &str) -> Result<Self, ConfigError> {
        let config: Self = parse(text)?;
        config.validate()?;
        Ok(config)
    }

    /// The file as text, every key written out. Equal configurations give equal bytes.
    pub fn to_yaml(&self) -> Result<String, ConfigError> {
        self.validate()?;
        serde_yaml::to_string(self).map_err(|error| ConfigError::Parse { problem: error.to_string() })
    }

    /// Checks what the types cannot say.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let value =
            |key: &str, problem: String, advice| Err(ConfigError::Value { key: key.to_owned(), problem, advice });
        if self.config_version != CONFIG_VERSION {
            return version_error(self.config_version.to_string());
        }
        let paths = [
            ("identityFile", &self.identity_file),
            ("tlsDirectory", &self.tls_directory),
            ("dataDirectory", &self.data_directory),
        ];
        for (key, path) in paths {
            if path.as_os_str().is_empty() {
                return value(key, "is empty".to_owned(), "leave the key out to use the default, or write a path");
            }
        }
        if self.peers.len() > PEERS_MAX {
            let problem = format!("{} peers, at most {PEERS_MAX}", self.peers.len());
            return value("peers", problem, "name fewer; nodes learn of the others from these");
        }
        if let Some(problem) = self.storage.problem() {
            return value("storage.keepBlocks", problem, "write at least 128, or leave the key out to keep all");
        }
        if let Some(problem) = self.state_sync.problem() {
            return value("stateSync.afterBlocks", problem, "write at least 32, or leave the key out");
        }
        if let Some(problem) = self.p2p.problem() {
            return value("p2p.advertise", problem, "write at most 8 addresses, each once");
        }
        let mut seen = BTreeSet::new();
        for (index, peer) in self.peers.iter().enumerate() {
            if !seen.insert(peer.identity) {
                let key = format!("peers[{index}].identity");
                return value(&key, format!("{} is named twice", peer.identity), "give each peer one entry");
            }
        }
        Ok(())
    }
}

/// The form in which [`Instance`] stands in the file.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct InstanceKeys {
    kind: InstanceKind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum InstanceKind {
    Kubernetes,
    Standalone,
}

impl TryFrom<InstanceKeys> for Instance {
    type Error = ConfigValueError;

    fn try_from(keys: InstanceKeys) -> Result<Self, Self::Error> {
        match (keys.kind, keys.id) {
            (InstanceKind::Kubernetes, None) => Ok(Self::Kubernetes),
            (InstanceKind::Kubernetes, Some(_)) => {
                Err(ConfigValueError::Instance { problem: "kind kubernetes takes no id, the pod's UID is used" })
            }
            (InstanceKind::Standalone, Some(id)) => match Uid::parse(&id) {
                Ok(id) => Ok(Self::Standalone { id }),
                Err(_) => Err(ConfigValueError::Instance { problem: "the id is not a UUID" }),
            },
            (InstanceKind::Standalone, None) => {
                Err(ConfigValueError::Instance { problem: "kind standalone needs an id" })
            }
        }
    }
}

impl From<Instance> for InstanceKeys {
    fn from(instance: Instance) -> Self {
        match instance {
            Instance::Kubernetes => Self { kind: InstanceKind::Kubernetes, id: None },
            Instance::Standalone { id } => Self { kind: InstanceKind::Standalone, id: Some(id.hyphenated()) },
        }
    }
}

/// The text of a configuration file of at most [`CONFIG_BYTES_MAX`] bytes.
pub(crate) fn read(path: &Path) -> Result<String, ConfigError> {
    let failed = |source| ConfigError::Read { path: path.to_owned(), source };
    if fs::metadata(path).map_err(failed)?.len() > CONFIG_BYTES_MAX {
        return Err(ConfigError::TooLarge { path: path.to_owned() });
    }
    fs::read_to_string(path).map_err(failed)
}

/// A document of our version. Keys that the type does not have are refused by the type itself.
pub(crate) fn parse<T: DeserializeOwned>(text: &str) -> Result<T, ConfigError> {
    check_version(text)?;
    serde_path_to_error::deserialize(serde_yaml::Deserializer::from_str(text)).map_err(|error| {
        let (key, problem) = (error.path().to_string(), error.inner().to_string());
        // The parser names the key of some problems, or only what is around it.
        let rest = problem.split_once(": ").filter(|(named, _)| key.starts_with(named)).map(|(_, rest)| rest);
        let problem = if key == "." { problem } else { format!("{key}: {}", rest.unwrap_or(&problem)) };
        ConfigError::Parse { problem }
    })
}

/// Looks at the version first, so that a newer file is not called a mistake in an older one.
fn check_version(text: &str) -> Result<(), ConfigError> {
    let document: serde_yaml::Value =
        serde_yaml::from_str(text).map_err(|error| ConfigError::Parse { problem: error.to_string() })?;
    match document.get("configVersion") {
        Some(version) if version.as_u64() == Some(u64::from(CONFIG_VERSION)) => Ok(()),
        Some(version) => match version.as_u64() {
            Some(found) => version_error(found.to_string()),
            None => version_error("no number".to_owned()),
        },
        None => version_error("none".to_owned()),
    }
}

fn version_error(found: String) -> Result<(), ConfigError> {
    let advice = "write `configVersion: 1`, or use the program version that the file was made for";
    Err(ConfigError::Version { found, advice })
}

pub(crate) mod chain_id_text {
    //! A chain id as text.

    use node_core::types::ChainId;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use super::{ConfigValueError, cut};

    pub(crate) fn serialize<S: Serializer>(chain_id: &ChainId, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(chain_id)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ChainId, D::Error> {
        let text = String::deserialize(deserializer)?;
        ChainId::new(text.as_str()).map_err(|_| D::Error::custom(ConfigValueError::ChainId { text: cut(&text) }))
    }
}

pub(crate) mod identity_text {
    //! An identity as 64 lower-case hex digits.

    use node_core::types::Identity;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use super::{ConfigValueError, cut};

    pub(crate) fn serialize<S: Serializer>(identity: &Identity, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(identity)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Identity, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.parse::<Identity>() {
            Ok(identity) if identity.to_string() == text => Ok(identity),
            _ => Err(D::Error::custom(ConfigValueError::Identity { text: cut(&text) })),
        }
    }
}

fn cut(text: &str) -> String {
    text.chars().take(100).collect()
}

fn default_identity_file() -> PathBuf {
    PathBuf::from("/etc/althing/identity/identity.pem")
}

pub(crate) fn default_tls_directory() -> PathBuf {
    PathBuf::from("/etc/althing/tls")
}

fn default_data_directory() -> PathBuf {
    PathBuf::from("/var/lib/althing")
}
