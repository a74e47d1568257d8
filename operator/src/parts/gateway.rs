//! The gateway of a network: a Deployment without state, its configuration and the Services around it.

use althing_crds::gateway::{Gateway, GatewayIssuer, GatewayLimits, GatewayRedis, GatewayRole};
use althing_crds::names;
use althing_crds::quantity::Quantity as Amount;
use althing_crds::template::LogLevel;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment};
use k8s_openapi::api::core::v1::{
    ConfigMap, ConfigMapProjection, Container, KeyToPath, Lifecycle, LifecycleHandler, PodSpec, PodTemplateSpec, Probe,
    ProjectedVolumeSource, ResourceRequirements, Secret, SecretProjection, SleepAction, Volume, VolumeProjection,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use node_api::config::{CONFIG_VERSION, ConfigError};
use node_api::gateway::{Authentication, FEED_BYTES_MAX, GatewayConfig, Limits, default_roles};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::labels::matching;
use super::pods::{self, MODE_SECRET, container_security, file, mount, port, probe};
use super::secrets::{self, CertificatePem};
use super::tiers::TierContext;

const VOLUME_CONFIG: &str = "config";
/// Entry of a Secret with the password of a Redis.
pub const FILE_PASSWORD: &str = "password";
/// Seconds in which Services forget a gateway that is about to stop, while it still answers.
const FAREWELL_S: i64 = 5;
/// Seconds until a gateway that stops is killed: the farewell, requests in progress, and connections (10 s each).
const GRACE_PERIOD_S: i64 = 40;
/// Part of a gateway's memory that cached answers take, and bodies of requests: an eighth each.
const MEMORY_PARTS: u64 = 8;
/// Port of an issuer whose URL names none.
const PORT_HTTPS: u16 = 443;
/// Port of a Redis whose URL names none.
const PORT_REDIS: u16 = 6379;

/// The gateway's certificate towards the nodes.
#[must_use]
pub fn tls(tier: &TierContext, certificate: &CertificatePem) -> Secret {
    secrets::tls(tier.metadata(&names::gateway_tls_secret(&tier.network.name)), certificate)
}

/// The certificate that clients see, when the network's authority issues it.
#[must_use]
pub fn edge(tier: &TierContext, certificate: &CertificatePem) -> Secret {
    secrets::tls(tier.metadata(&names::gateway_edge_secret(&tier.network.name)), certificate)
}

/// One API key: in plain for its user, hashed for the gateways, which see nothing else of it.
#[must_use]
pub fn api_keys(tier: &TierContext, key: &str, hashes: &str) -> Secret {
    let name = names::gateway_api_keys_secret(&tier.network.name);
    let data = [(names::FILE_API_KEY, key), (names::FILE_API_KEYS, hashes)].into();
    Secret { immutable: None, ..secrets::once(tier.metadata(&name), data) }
}

/// Names that the certificate for clients carries: those of the Service, and those that the spec adds. A route leads clients
/// here with the name that they asked for.
#[must_use]
pub fn host_names(tier: &TierContext, gateway: &Gateway) -> Vec<String> {
    let (service, namespace) = (&tier.name, &tier.network.namespace);
    let mut hosts = vec![
        format!("{service}.{namespace}.svc"),
        service.clone(),
        format!("{service}.{namespace}"),
        format!("{service}.{namespace}.svc.cluster.local"),
        "localhost".to_string(),
    ];
    let routed = gateway.route.iter().flat_map(|route| &route.host_names);
    for name in gateway.tls.host_names.iter().chain(routed) {
        if !hosts.contains(name) {
            hosts.push(name.clone());
        }
    }
    hosts
}

/// The gateways' `node.yaml`. `reads_from` is the address of observers, if there are any of this chain.
///
/// # Errors
/// When the configuration is one that the gateway would refuse.
pub fn config(tier: &TierContext, gateway: &Gateway, reads_from: Option<&str>) -> Result<ConfigMap, ConfigError> {
    let text = document(tier, gateway, reads_from, tier.settings.log_level)?;
    let data = [(names::FILE_CONFIG.to_string(), text)];
    Ok(ConfigMap { metadata: tier.metadata(&tier.name), data: Some(data.into()), ..ConfigMap::default() })
}

/// Hash of what gateways read only when they start: all but the log level, which a gateway follows while it runs.
///
/// # Errors
/// When the configuration is one that the gateway would refuse.
pub fn config_hash(tier: &TierContext, gateway: &Gateway, reads_from: Option<&str>) -> Result<String, ConfigError> {
    let text = document(tier, gateway, reads_from, LogLevel::default())?;
    Ok(hex::encode(Sha256::digest(text)))
}

fn document(
    tier: &TierContext,
    gateway: &Gateway,
    reads_from: Option<&str>,
    log_level: LogLevel,
) -> Result<String, ConfigError> {
    let network = &tier.network.name;
    let voters = tier.address(&names::gateway_voters_service(network), names::PORT_GRPC);
    let read: Vec<Value> = reads_from.iter().map(|address| json!({ "address": address })).collect();
    let anonymous: &[&str] = if gateway.authentication.anonymous_reads { &["reader"] } else { &[] };
    let issuers: Vec<Value> = gateway
        .authentication
        .issuers
        .iter()
        .enumerate()
        .map(|(number, issuer)| self::issuer(number, issuer))
        .collect();
    let usual = Authentication::default();
    let mut limits = serde_json::to_value(&gateway.limits).unwrap_or_default();
    if let Some(limits) = limits.as_object_mut() {
        let pods = tier.address(&names::gateway_pods_service(network), names::PORT_GATEWAY);
        limits.insert("gateways".to_string(), json!({ "service": pods }));
        let Filling { cache, bodies } = filling(&tier.settings.memory, &gateway.limits)?;
        limits.insert("cacheBytesMax".to_string(), json!(cache));
        limits.insert("bodiesBytesMax".to_string(), json!(bodies));
        if let Some(place) = &gateway.limits.redis {
            limits.insert("redis".to_string(), redis(place));
        }
    }
    let document = json!({
        "configVersion": CONFIG_VERSION,
        "chainId": tier.chain_id,
        "role": "gateway",
        "tlsDirectory": names::FOLDER_TLS,
        "listen": {
            "edge": format!("0.0.0.0:{}", names::PORT_GATEWAY),
            "http": format!("0.0.0.0:{}", names::PORT_HTTP),
        },
        "logLevel": log_level.as_str(),
        "gateway": {
            "backends": { "submit": [{ "address": voters }], "read": read },
            "edge": { "tlsDirectory": path("edge"), "trustedProxies": gateway.trusted_proxies },
            "authentication": {
                "anonymousRoles": anonymous,
                "issuers": issuers,
                "apiKeysFile": path(&format!("keys/{}", names::FILE_API_KEYS)),
                "certificateRoles": gateway.authentication.certificate_roles.as_ref().unwrap_or(&usual.certificate_roles),
            },
            "roles": roles(&gateway.roles),
            "limits": limits,
            "corsOrigins": gateway.cors_origins,
        },
    });
    GatewayConfig::from_yaml(&document.to_string())?.to_yaml()
}

/// How much memory a gateway gives to what it may hold more or less of, in bytes.
struct Filling {
    cache: u64,
    bodies: u64,
}

/// A part of the pod's memory each, unless the spec says how large the cache is. What does not fit is refused: the pod would be
/// killed for it under load.
fn filling(memory: &str, limits: &GatewayLimits) -> Result<Filling, ConfigError> {
    let memory = Amount::parse(memory).map_or(0, |amount| u64::try_from(amount.milli() / 1_000).unwrap_or(u64::MAX));
    let most = Limits::default();
    let given = |limit: Option<i64>| limit.and_then(|limit| u64::try_from(limit).ok());
    let part = memory / MEMORY_PARTS;
    let body = given(limits.body_bytes_max).unwrap_or(size(most.body_bytes_max));
    let filling = Filling {
        cache: given(limits.cache_bytes_max).unwrap_or(part.min(most.cache_bytes_max)),
        bodies: part.min(size(most.bodies_bytes_max)).max(body),
    };
    let filled = filling.cache.saturating_add(filling.bodies).saturating_add(size(FEED_BYTES_MAX));
    // A quarter is left for connections and the program itself.
    if filled > memory / 4 * 3 {
        return Err(ConfigError::Value {
            key: "pod.resources.memory".to_string(),
            problem: format!("{memory} bytes are too little for {filled} bytes of answers, bodies and newest blocks"),
            advice: "these may take three quarters: give more memory, or lower limits.cacheBytesMax or limits.bodyBytesMax",
        });
    }
    Ok(filling)
}

fn size(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

fn path(file: &str) -> String {
    format!("{}/{file}", names::FOLDER_CONFIG)
}

/// Those that every gateway has, and those of the spec, which have other names.
fn roles(own: &[GatewayRole]) -> Value {
    let mut roles = serde_json::to_value(default_roles()).unwrap_or_default();
    if let Some(roles) = roles.as_object_mut() {
        for GatewayRole { name, permissions, class } in own {
            let grant = json!({ "permissions": permissions, "class": class.unwrap_or_default() });
            roles.entry(name.clone()).or_insert(grant);
        }
    }
    roles
}

fn issuer(number: usize, issuer: &GatewayIssuer) -> Value {
    let GatewayIssuer { url, audiences, jwks_url, roles_claim, default_roles, ca_secret, clock_skew_s } = issuer;
    let mut entry = json!({ "url": url, "audiences": audiences, "defaultRoles": default_roles });
    let options = [
        ("jwksUrl", jwks_url.as_ref().map(|url| json!(url))),
        ("rolesClaim", roles_claim.as_ref().map(|claim| json!(claim))),
        ("caFile", ca_secret.as_ref().map(|_| json!(path(&format!("issuers/{number}/ca.crt"))))),
        ("clockSkewS", clock_skew_s.map(|skew| json!(skew))),
    ];
    if let Some(entry) = entry.as_object_mut() {
        entry.extend(options.into_iter().filter_map(|(key, value)| Some((key.to_string(), value?))));
    }
    entry
}

fn redis(redis: &GatewayRedis) -> Value {
    let GatewayRedis { url, username, password_secret, ca_secret } = redis;
    let mut entry = json!({ "url": url });
    let options = [
        ("username", username.clone()),
        ("passwordFile", password_secret.as_ref().map(|_| path(&format!("redis/{FILE_PASSWORD}")))),
        ("caFile", ca_secret.as_ref().map(|_| path("redis/ca.crt"))),
    ];
    if let Some(entry) = entry.as_object_mut() {
        entry.extend(options.into_iter().filter_map(|(key, value)| Some((key.to_string(), json!(value?)))));
    }
    entry
}

/// The ports of all issuers and of the Redis, each once.
#[must_use]
pub fn outside_ports(gateway: &Gateway) -> Vec<u16> {
    let urls = gateway.authentication.issuers.iter().flat_map(|issuer| [Some(&issuer.url), issuer.jwks_url.as_ref()]);
    let port = |url: &String| url.parse::<http::Uri>().ok().and_then(|uri| uri.port_u16()).unwrap_or(PORT_HTTPS);
    let mut ports: Vec<u16> = urls.flatten().map(port).collect();
    let redis = gateway.limits.redis.as_ref().and_then(|redis| redis.url.parse::<http::Uri>().ok());
    ports.extend(redis.map(|uri| uri.port_u16().unwrap_or(PORT_REDIS)));
    ports.sort_unstable();
    ports.dedup();
    ports
}

/// The Deployment. A new gateway serves before an old one goes.
#[must_use]
pub fn deployment(tier: &TierContext, gateway: &Gateway, config_hash: &str) -> Deployment {
    Deployment {
        metadata: tier.metadata(&tier.name),
        spec: Some(DeploymentSpec {
            replicas: tier.replicas,
            selector: matching(tier.selector()),
            strategy: Some(DeploymentStrategy {
                type_: Some("RollingUpdate".to_string()),
                rolling_update: Some(RollingUpdateDeployment {
                    max_surge: Some(IntOrString::Int(1)),
                    max_unavailable: Some(IntOrString::Int(0)),
                }),
            }),
            revision_history_limit: Some(2),
            template: PodTemplateSpec {
                metadata: Some(tier.pod_metadata(config_hash)),
                spec: Some(pod(tier, gateway)),
            },
            ..DeploymentSpec::default()
        }),
        status: None,
    }
}

fn pod(tier: &TierContext, gateway: &Gateway) -> PodSpec {
    PodSpec {
        termination_grace_period_seconds: Some(GRACE_PERIOD_S),
        containers: vec![container(tier)],
        volumes: Some(vec![config_volume(tier, gateway)]),
        ..pods::pod(&tier.name, &tier.settings, tier.selector())
    }
}

fn container(tier: &TierContext) -> Container {
    let farewell = LifecycleHandler { sleep: Some(SleepAction { seconds: FAREWELL_S }), ..LifecycleHandler::default() };
    Container {
        name: names::CONTAINER.to_string(),
        image: Some(tier.settings.image.clone()),
        image_pull_policy: Some("IfNotPresent".to_string()),
        args: Some(vec!["gateway".to_string(), "--config".to_string(), path(names::FILE_CONFIG)]),
        ports: Some(vec![
            port(names::PORT_NAME_GATEWAY, names::PORT_GATEWAY),
            port(names::PORT_NAME_HTTP, names::PORT_HTTP),
        ]),
        resources: Some(resources(tier)),
        security_context: Some(container_security()),
        lifecycle: Some(Lifecycle { pre_stop: Some(farewell), ..Lifecycle::default() }),
        startup_probe: Some(Probe { period_seconds: Some(1), failure_threshold: Some(60), ..probe("/livez") }),
        liveness_probe: Some(Probe { period_seconds: Some(10), failure_threshold: Some(6), ..probe("/livez") }),
        readiness_probe: Some(Probe { period_seconds: Some(2), failure_threshold: Some(3), ..probe("/readyz") }),
        volume_mounts: Some(vec![mount(VOLUME_CONFIG, names::FOLDER_CONFIG, Some(true))]),
        ..Container::default()
    }
}

/// CPU is a request only: an autoscaler counts use by it, and a limit would slow down those who wait for more pods.
fn resources(tier: &TierContext) -> ResourceRequirements {
    let cpu = ("cpu".to_string(), Quantity(tier.settings.cpu.clone()));
    let memory = ("memory".to_string(), Quantity(tier.settings.memory.clone()));
    ResourceRequirements {
        requests: Some([cpu, memory.clone()].into()),
        limits: Some([memory].into()),
        ..ResourceRequirements::default()
    }
}

/// One volume for all files, so that the kubelet swaps what belongs together at once.
fn config_volume(tier: &TierContext, gateway: &Gateway) -> Volume {
    let network = &tier.network.name;
    let secret = |name: &str, items: Vec<KeyToPath>| VolumeProjection {
        secret: Some(SecretProjection { name: name.to_string(), items: Some(items), optional: None }),
        ..VolumeProjection::default()
    };
    let pair = |folder: &str| ["tls.crt", "tls.key"].map(|key| file(key, format!("{folder}/{key}"))).to_vec();
    let config = ConfigMapProjection {
        name: tier.name.clone(),
        items: Some(vec![file(names::FILE_CONFIG, names::FILE_CONFIG.to_string())]),
        optional: None,
    };
    let own_edge = names::gateway_edge_secret(network);
    let own_keys = names::gateway_api_keys_secret(network);
    let mut certificate = pair("tls");
    certificate.push(file("ca.crt", "tls/ca.crt".to_string()));
    let keys = vec![file(names::FILE_API_KEYS, format!("keys/{}", names::FILE_API_KEYS))];
    let mut sources = vec![
        VolumeProjection { config_map: Some(config), ..VolumeProjection::default() },
        secret(&names::gateway_tls_secret(network), certificate),
        secret(gateway.tls.secret_name.as_ref().unwrap_or(&own_edge), pair("edge")),
        secret(gateway.authentication.api_keys_secret.as_ref().unwrap_or(&own_keys), keys),
    ];
    for (number, issuer) in gateway.authentication.issuers.iter().enumerate() {
        if let Some(name) = &issuer.ca_secret {
            sources.push(secret(name, vec![file("ca.crt", format!("issuers/{number}/ca.crt"))]));
        }
    }
    if let Some(GatewayRedis { password_secret, ca_secret, .. }) = &gateway.limits.redis {
        let files = [(password_secret, FILE_PASSWORD), (ca_secret, "ca.crt")];
        let named = files.into_iter().filter_map(|(name, key)| Some((name.as_ref()?, key)));
        sources.extend(named.map(|(name, key)| secret(name, vec![file(key, format!("redis/{key}"))])));
    }
    Volume {
        name: VOLUME_CONFIG.to_string(),
        projected: Some(ProjectedVolumeSource { sources: Some(sources), default_mode: Some(MODE_SECRET) }),
        ..Volume::default()
    }
}
