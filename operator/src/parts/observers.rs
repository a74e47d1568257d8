//! The observers of a network: one StatefulSet whose pods follow a chain, each under an identity of its own.
//!
//! Peers keep one connection for each identity, so two observers cannot share one. All identities are made beforehand
//! and lie in one Secret; a pod takes those of its number. They are worth nothing to a thief: an observer has no vote.

use std::collections::BTreeMap;

use althing_crds::names;
use althing_crds::observers::OBSERVERS_MAX;
use althing_crds::template::LogLevel;
use k8s_openapi::ByteString;
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec, StatefulSetUpdateStrategy};
use k8s_openapi::api::core::v1::{
    ConfigMap, ConfigMapProjection, Container, EphemeralVolumeSource, PersistentVolumeClaimSpec,
    PersistentVolumeClaimTemplate, PodSpec, PodTemplateSpec, Probe, ProjectedVolumeSource, Secret, SecretProjection,
    Volume, VolumeProjection, VolumeResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use node_api::config::ConfigError;
use sha2::{Digest, Sha256};

use super::configmaps::{NodeYaml, node_yaml};
use super::context::PeerPlace;
use super::labels::matching;
use super::pods::{self, MODE_SECRET, container_security, file, mount, own_name, port, probe};
use super::secrets::CertificatePem;
use super::statefulset::guaranteed;
use super::tiers::TierContext;

/// A new observer serves within seconds however long the chain is.
const SYNC_AFTER_BLOCKS: i64 = 1_000;
const VOLUME_CONFIG: &str = "config";
const VOLUME_DATA: &str = "data";
/// Seconds that an observer gets to close its files.
const GRACE_PERIOD_S: i64 = 30;

/// Keys of the Secret: identity, certificate and key of one number.
#[must_use]
pub fn keys(number: u16) -> [String; 3] {
    [format!("{number}.identity.pem"), format!("{number}.crt"), format!("{number}.key")]
}

/// Key of the Secret: the authorities that all trust.
pub const KEY_AUTHORITIES: &str = "ca.crt";

/// The Secret with all identities and certificates: PEM of the identity, and the certificate for it if it is there.
#[must_use]
pub fn identities(tier: &TierContext, all: &[(String, Option<CertificatePem>)]) -> Secret {
    let bytes = |text: &str| ByteString(text.as_bytes().to_vec());
    let mut data = BTreeMap::new();
    for (number, (identity, pem)) in (0..OBSERVERS_MAX).zip(all) {
        let [identity_key, certificate, key] = keys(number);
        data.insert(identity_key, bytes(identity));
        let Some(pem) = pem else { continue };
        data.insert(certificate, bytes(&pem.certificate));
        data.insert(key, bytes(&pem.key));
        data.insert(KEY_AUTHORITIES.to_string(), bytes(&pem.authorities));
    }
    Secret {
        metadata: tier.metadata(&tier.name),
        type_: Some("Opaque".to_string()),
        data: Some(data),
        ..Secret::default()
    }
}

/// One `node.yaml` for each number: they differ in the folder that they name.
///
/// # Errors
/// When the configuration is one that the node would refuse.
pub fn config(tier: &TierContext, peers: &[PeerPlace]) -> Result<ConfigMap, ConfigError> {
    let mut data = BTreeMap::new();
    for number in 0..OBSERVERS_MAX {
        data.insert(config_key(number), document(tier, number, peers, tier.settings.log_level)?);
    }
    Ok(ConfigMap { metadata: tier.metadata(&tier.name), data: Some(data), ..ConfigMap::default() })
}

/// Hash of what a restart is needed for: neither peers, which tell each other of newcomers, nor numbers, nor the log level,
/// which a node follows while it runs. An identity that was made anew needs one.
///
/// # Errors
/// When the configuration is one that the node would refuse.
pub fn config_hash(tier: &TierContext, identities: &[String]) -> Result<String, ConfigError> {
    let mut digest = Sha256::new();
    digest.update(document(tier, 0, &[], LogLevel::default())?);
    for identity in identities {
        digest.update(identity);
    }
    Ok(hex::encode(digest.finalize()))
}

fn config_key(number: u16) -> String {
    format!("{number}.yaml")
}

fn folder(tier: &TierContext, number: u16) -> String {
    format!("{}-{number}", tier.name)
}

fn document(tier: &TierContext, number: u16, peers: &[PeerPlace], log_level: LogLevel) -> Result<String, ConfigError> {
    let folder = format!("{}/{}", names::FOLDER_CONFIG, folder(tier, number));
    let template = &tier.settings.template;
    node_yaml(&NodeYaml {
        chain_id: &tier.chain_id,
        role: "observer",
        identity_folder: &folder,
        tls_folder: &format!("{folder}/tls"),
        peers,
        log_level,
        keep_blocks: template.storage.keep_blocks,
        sync_after_blocks: template.state_sync.after_blocks.or(Some(SYNC_AFTER_BLOCKS)),
        advertised: None,
    })
}

/// The StatefulSet. Kubernetes restarts its pods one after the other: no quorum counts them.
#[must_use]
pub fn statefulset(tier: &TierContext, config_hash: &str) -> StatefulSet {
    StatefulSet {
        metadata: tier.metadata(&tier.name),
        spec: Some(StatefulSetSpec {
            replicas: tier.replicas,
            service_name: Some(tier.name.clone()),
            selector: matching(tier.selector()),
            pod_management_policy: Some("Parallel".to_string()),
            update_strategy: Some(StatefulSetUpdateStrategy {
                type_: Some("RollingUpdate".to_string()),
                rolling_update: None,
            }),
            revision_history_limit: Some(2),
            template: PodTemplateSpec { metadata: Some(tier.pod_metadata(config_hash)), spec: Some(pod(tier)) },
            ..StatefulSetSpec::default()
        }),
        status: None,
    }
}

fn pod(tier: &TierContext) -> PodSpec {
    PodSpec {
        termination_grace_period_seconds: Some(GRACE_PERIOD_S),
        containers: vec![container(tier)],
        volumes: Some(vec![config_volume(tier), data_volume(tier)]),
        ..pods::pod(&tier.name, &tier.settings, tier.selector())
    }
}

fn container(tier: &TierContext) -> Container {
    let path = |file: &str| format!("{}/{file}", names::FOLDER_CONFIG);
    Container {
        name: names::CONTAINER.to_string(),
        image: Some(tier.settings.image.clone()),
        image_pull_policy: Some("IfNotPresent".to_string()),
        args: Some(vec![
            "observer".to_string(),
            "--config".to_string(),
            // The kubelet puts the pod's name in: it is the folder of this pod's number.
            path(&format!("$(POD_NAME)/{}", names::FILE_CONFIG)),
            "--genesis".to_string(),
            path(names::FILE_GENESIS),
        ]),
        env: Some(own_name()),
        ports: Some(vec![
            port(names::PORT_NAME_P2P, names::PORT_P2P),
            port(names::PORT_NAME_GRPC, names::PORT_GRPC),
            port(names::PORT_NAME_HTTP, names::PORT_HTTP),
        ]),
        resources: Some(guaranteed(&tier.settings)),
        security_context: Some(container_security()),
        startup_probe: Some(Probe { period_seconds: Some(2), failure_threshold: Some(150), ..probe("/livez") }),
        liveness_probe: Some(Probe { period_seconds: Some(10), failure_threshold: Some(6), ..probe("/livez") }),
        readiness_probe: Some(Probe { period_seconds: Some(2), failure_threshold: Some(3), ..probe("/readyz") }),
        volume_mounts: Some(vec![
            mount(VOLUME_CONFIG, names::FOLDER_CONFIG, Some(true)),
            mount(VOLUME_DATA, names::FOLDER_DATA, None),
        ]),
        ..Container::default()
    }
}

/// The folders of all numbers: with the same pods for every number of them, growing restarts nobody.
fn config_volume(tier: &TierContext) -> Volume {
    let of_secret = |name: &str, items| VolumeProjection {
        secret: Some(SecretProjection { name: name.to_string(), items: Some(items), optional: None }),
        ..VolumeProjection::default()
    };
    let of_map = |name: String, items| VolumeProjection {
        config_map: Some(ConfigMapProjection { name, items: Some(items), optional: None }),
        ..VolumeProjection::default()
    };
    let (mut configs, mut secrets) = (Vec::new(), Vec::new());
    for number in 0..OBSERVERS_MAX {
        let folder = folder(tier, number);
        let [identity, certificate, key] = keys(number);
        configs.push(file(&config_key(number), format!("{folder}/{}", names::FILE_CONFIG)));
        secrets.push(file(&identity, format!("{folder}/{}", names::FILE_IDENTITY)));
        secrets.push(file(&certificate, format!("{folder}/tls/tls.crt")));
        secrets.push(file(&key, format!("{folder}/tls/tls.key")));
        secrets.push(file(KEY_AUTHORITIES, format!("{folder}/tls/ca.crt")));
    }
    let genesis = vec![file(names::FILE_GENESIS, names::FILE_GENESIS.to_string())];
    let sources = vec![
        of_map(tier.name.clone(), configs),
        of_map(names::genesis_config_map(&tier.group), genesis),
        of_secret(&tier.name, secrets),
    ];
    Volume {
        name: VOLUME_CONFIG.to_string(),
        projected: Some(ProjectedVolumeSource { sources: Some(sources), default_mode: Some(MODE_SECRET) }),
        ..Volume::default()
    }
}

/// A volume that lives as long as its pod: it holds a copy of the chain and nothing else.
fn data_volume(tier: &TierContext) -> Volume {
    let size = Quantity(tier.settings.storage_size.clone());
    let template = PersistentVolumeClaimTemplate {
        metadata: None,
        spec: PersistentVolumeClaimSpec {
            access_modes: Some(vec![tier.settings.access_mode.as_str().to_string()]),
            resources: Some(VolumeResourceRequirements {
                requests: Some([("storage".to_string(), size)].into()),
                limits: None,
            }),
            storage_class_name: tier.settings.template.storage.storage_class_name.clone(),
            ..PersistentVolumeClaimSpec::default()
        },
    };
    Volume {
        name: VOLUME_DATA.to_string(),
        ephemeral: Some(EphemeralVolumeSource { volume_claim_template: Some(template) }),
        ..Volume::default()
    }
}
