//! ConfigMaps: what a node is told before it starts, and the copy of a chain's genesis.

use althing_crds::names;
use althing_crds::template::LogLevel;
use k8s_openapi::api::core::v1::ConfigMap;
use node_api::config::{CONFIG_VERSION, ConfigError, NodeConfig};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::context::{GroupContext, NodeContext, PeerPlace};

/// The node's `node.yaml`.
///
/// # Errors
/// When the configuration is one that the node would refuse.
pub fn node_config(node: &NodeContext) -> Result<ConfigMap, ConfigError> {
    let peers: Vec<PeerPlace> = node.peers.iter().chain(&node.outside).cloned().collect();
    let text = config(node, &peers, node.settings.log_level)?;
    Ok(ConfigMap {
        metadata: node.metadata(&node.name),
        data: Some([(names::FILE_CONFIG.to_string(), text)].into()),
        ..ConfigMap::default()
    })
}

/// Hash of what a restart is needed for. Peers are left out: nodes tell each other of newcomers, so that a voter more
/// restarts nobody. So is the log level, which a node follows while it runs.
///
/// # Errors
/// When the configuration is one that the node would refuse.
pub fn config_hash(node: &NodeContext) -> Result<String, ConfigError> {
    let digest = Sha256::digest(config(node, &[], LogLevel::default())?);
    Ok(hex::encode(digest))
}

/// The copy of a chain's genesis, made once. `document` is the genesis as JSON.
#[must_use]
pub fn genesis(group: &GroupContext, document: &str, genesis_hash: &str) -> ConfigMap {
    let mut metadata = group.metadata_kept(&names::genesis_config_map(&group.name));
    metadata.annotations = Some([(names::ANNOTATION_GENESIS_HASH.to_string(), genesis_hash.to_string())].into());
    ConfigMap {
        metadata,
        data: Some([(names::FILE_GENESIS.to_string(), document.to_string())].into()),
        immutable: Some(true),
        ..ConfigMap::default()
    }
}

fn config(node: &NodeContext, peers: &[PeerPlace], log_level: LogLevel) -> Result<String, ConfigError> {
    let template = &node.settings.template;
    node_yaml(&NodeYaml {
        chain_id: &node.chain_id,
        role: node.role.as_str(),
        identity_folder: names::FOLDER_IDENTITY,
        tls_folder: names::FOLDER_TLS,
        peers,
        log_level,
        keep_blocks: template.storage.keep_blocks,
        sync_after_blocks: template.state_sync.after_blocks,
        advertised: node.advertised.as_deref(),
    })
}

/// What differs between the files of nodes.
pub struct NodeYaml<'a> {
    /// Name of the chain.
    pub chain_id: &'a str,
    /// `validator` or `observer`.
    pub role: &'a str,
    /// Where the identity is.
    pub identity_folder: &'a str,
    /// Where the certificate is.
    pub tls_folder: &'a str,
    /// Whom to dial.
    pub peers: &'a [PeerPlace],
    /// How much is logged.
    pub log_level: LogLevel,
    /// How many blocks are kept; all if none.
    pub keep_blocks: Option<i64>,
    /// How far behind the node takes a state.
    pub sync_after_blocks: Option<i64>,
    /// Where others reach it, if that is not its entry among the peers.
    pub advertised: Option<&'a str>,
}

/// The file as the node's own reader writes it, so that nothing is mounted that the node would refuse.
///
/// # Errors
/// When it is one that the node would refuse.
pub fn node_yaml(yaml: &NodeYaml<'_>) -> Result<String, ConfigError> {
    let peers: Vec<_> =
        yaml.peers.iter().map(|peer| json!({ "identity": peer.identity, "address": peer.address })).collect();
    let mut document = json!({
        "configVersion": CONFIG_VERSION,
        "chainId": yaml.chain_id,
        "role": yaml.role,
        "identityFile": format!("{}/{}", yaml.identity_folder, names::FILE_IDENTITY),
        "tlsDirectory": yaml.tls_folder,
        "dataDirectory": names::FOLDER_DATA,
        "listen": {
            "p2p": format!("0.0.0.0:{}", names::PORT_P2P),
            "grpc": format!("0.0.0.0:{}", names::PORT_GRPC),
            "http": format!("0.0.0.0:{}", names::PORT_HTTP),
        },
        "peers": peers,
        "instance": { "kind": "kubernetes" },
        "logLevel": yaml.log_level.as_str(),
        "storage": { "keepBlocks": yaml.keep_blocks },
        "stateSync": { "afterBlocks": yaml.sync_after_blocks },
    });
    // Older nodes refuse the key: only who asks for it gets it.
    if let (Some(address), Some(keys)) = (yaml.advertised, document.as_object_mut()) {
        keys.insert("p2p".to_string(), json!({ "advertise": [address] }));
    }
    NodeConfig::from_yaml(&document.to_string())?.to_yaml()
}
