//! `node.yaml` of a gateway: where it listens, which nodes it stands before, whom it lets in and how much they get.
//!
//! Unknown keys are refused, and every error names the key and says what to do. The defaults are the ones that a
//! public entrance needs; a file that names only the chain and the backends is complete.

pub mod api_keys;
mod checks;
mod redis;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use ipnet::IpNet;
use node_core::types::{ChainId, Identity};
use serde::{Deserialize, Serialize};

pub use self::redis::RedisLimits;
use crate::config::{self, ConfigError, LogLevel, PORT_HTTP, PeerAddress};

/// Port of the entrance.
pub const PORT_GATEWAY: u16 = 8443;
/// Most entries in one list of backends, and most addresses that are used of one name.
pub const BACKENDS_MAX: usize = 256;
/// Most proxies, origins, issuers or roles in one list.
pub const ENTRIES_MAX: usize = 64;
/// Seconds after which a connection ends when nothing else is said.
const CONNECTION_AGE_S: u64 = 300;
/// Milliseconds that an answer may wait for its client when nothing else is said.
const SEND_TIMEOUT_MS: u64 = 30_000;
/// Largest limit, in requests for each minute.
pub const PER_MINUTE_MAX: u64 = 100_000_000;

/// The whole file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GatewayConfig {
    /// Version of the file's form: 1.
    pub config_version: u32,
    /// Chain id. Nodes of another chain are refused.
    #[serde(with = "config::chain_id_text")]
    pub chain_id: ChainId,
    /// Says that this is the file of a gateway.
    pub role: GatewayRole,
    /// Directory with `tls.crt`, `tls.key` and `ca.crt` of role gateway, shown to the nodes; read again when it changes.
    #[serde(default = "config::default_tls_directory")]
    pub tls_directory: PathBuf,
    /// Addresses to listen on.
    #[serde(default)]
    pub listen: GatewayListen,
    /// Least important log lines to write.
    #[serde(default)]
    pub log_level: LogLevel,
    /// Everything else.
    pub gateway: GatewaySection,
}

/// The only value of `role` in the file of a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GatewayRole {
    /// A gateway.
    Gateway,
}

/// Addresses to listen on; port 0 takes a free one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct GatewayListen {
    /// Clients: REST, gRPC and streams on one port.
    pub edge: SocketAddr,
    /// `/metrics`, `/livez` and `/readyz` (plain HTTP).
    pub http: SocketAddr,
}

impl Default for GatewayListen {
    fn default() -> Self {
        let any = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port);
        Self { edge: any(PORT_GATEWAY), http: any(PORT_HTTP) }
    }
}

/// What a gateway is told beyond its place on the network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GatewaySection {
    /// Nodes to forward to.
    pub backends: Backends,
    /// How clients connect.
    #[serde(default)]
    pub edge: Edge,
    /// Who is let in.
    #[serde(default)]
    pub authentication: Authentication,
    /// What each role may do.
    #[serde(default = "default_roles")]
    pub roles: BTreeMap<String, RoleGrant>,
    /// How much each caller gets.
    #[serde(default)]
    pub limits: Limits,
    /// Web pages of these origins may call the gateway; `*` allows all. Empty: none.
    #[serde(default)]
    pub cors_origins: Vec<String>,
}

/// Nodes to forward to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Backends {
    /// Validators, which take transactions.
    pub submit: Vec<Backend>,
    /// Observers, which answer reads; empty: the validators answer them too.
    #[serde(default)]
    pub read: Vec<Backend>,
}

/// One node, or all nodes behind one name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Backend {
    /// `host:port`. Each address that the name resolves to is a backend of its own; names are resolved anew every 5 s.
    pub address: PeerAddress,
    /// The identity that must answer; without it any validator or observer of the chain may.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "optional_identity")]
    pub identity: Option<Identity>,
    /// Share of the calls relative to the other backends: 1 to 100.
    #[serde(default = "one")]
    pub weight: u32,
}

/// How clients connect.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Edge {
    /// Directory with the `tls.crt` and `tls.key` that clients see, read again when it changes. Without it they see
    /// the certificate of `tlsDirectory`, which only programs of this network can check.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_directory: Option<PathBuf>,
    /// Speak without TLS: only where a mesh or an ingress on the same node ends TLS.
    pub plaintext: bool,
    /// Networks of proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
}

/// Who is let in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Authentication {
    /// Roles of callers that show nothing; empty: everybody must show something.
    pub anonymous_roles: Vec<String>,
    /// Issuers of JSON web tokens.
    pub issuers: Vec<Issuer>,
    /// File with the API keys (hashes only), read again when it changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_keys_file: Option<PathBuf>,
    /// Roles of callers with a certificate of role client or operator of this chain; empty: certificates are not asked
    /// for.
    pub certificate_roles: Vec<String>,
}

impl Default for Authentication {
    fn default() -> Self {
        Self {
            anonymous_roles: vec![],
            issuers: vec![],
            api_keys_file: None,
            certificate_roles: vec!["writer".to_owned()],
        }
    }
}

/// An OpenID Connect provider.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Issuer {
    /// Its name, exactly as in the `iss` claim: a https URL. `/.well-known/openid-configuration` below it names its keys.
    pub url: String,
    /// Values of `aud`, one of which a token must have.
    pub audiences: Vec<String>,
    /// Where the keys are, for an issuer without discovery.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks_url: Option<String>,
    /// Claim with the roles, with `.` between the names of nested objects; a text (split at spaces) or a list of texts.
    #[serde(default = "default_roles_claim")]
    pub roles_claim: String,
    /// Roles of every caller with a good token of this issuer.
    #[serde(default)]
    pub default_roles: Vec<String>,
    /// Authorities (PEM) for the issuer's own certificate; without it those of the system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// How far the clocks of the issuer and of this gateway may be apart, in seconds: 0 to 300.
    #[serde(default = "default_skew_s")]
    pub clock_skew_s: u64,
    /// Accept a `http` URL: for tests on one machine only.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub insecure_http: bool,
}

/// What a role may do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RoleGrant {
    /// Allowed kinds of calls.
    pub permissions: BTreeSet<Permission>,
    /// Which limit counts for callers with this role.
    #[serde(default)]
    pub class: RoleClass,
}

/// A kind of calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Permission {
    /// Read accounts, blocks, transactions, validators.
    Read,
    /// Ask for proofs, which cost a node disk reads.
    Prove,
    /// Follow blocks and transactions.
    Stream,
    /// Submit transactions.
    Submit,
    /// Read the status of nodes.
    Status,
}

/// Which limit counts for a caller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RoleClass {
    /// A person or a program of one person.
    #[default]
    User,
    /// A program that works for many.
    Service,
}

/// Memory for the newest blocks, which a gateway keeps for streams, in bytes at most.
pub const FEED_BYTES_MAX: usize = 32 << 20;

/// How much each caller gets. Rates hold for all gateways together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Limits {
    /// Requests a minute of one user.
    pub user_per_minute: u64,
    /// Requests a minute without a good credential from one address (IPv6: from one /64).
    pub ip_per_minute: u64,
    /// Requests a minute of one service.
    pub service_per_minute: u64,
    /// Part of a minute's requests that may come at once, in percent: 1 to 100. In any 60 s a caller gets at most the limit and this on top.
    pub burst_percent: u64,
    /// Callers of one class that are counted at a time; beyond, the one nearest to a full bucket is forgotten.
    pub principals_max: usize,
    /// Number of gateways that share the limits.
    pub gateways: Gateways,
    /// A Redis that counts for all of them; without it each gateway gives its share.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redis: Option<RedisLimits>,
    /// Largest body of a request, in bytes.
    pub body_bytes_max: usize,
    /// Bytes of bodies that may be held at one time by all requests together, and as many by all answers.
    pub bodies_bytes_max: usize,
    /// Requests at one time; further ones are turned away at once.
    pub requests_max: usize,
    /// Open streams (blocks, transactions, gRPC) at one time.
    pub streams_max: usize,
    /// Open streams of one caller at one time.
    pub streams_per_caller_max: usize,
    /// Connections at one time.
    pub connections_max: usize,
    /// Connections from one address (IPv6: one /64) at one time; trusted proxies have no bound of their own.
    pub connections_per_address_max: usize,
    /// Age at which a connection is ended gracefully, so that clients spread over new gateways, in seconds; give or take a
    /// tenth.
    #[serde(skip_serializing_if = "is_connection_age")]
    pub connection_age_s: u64,
    /// Longest time that a part of an answer may wait for its client to take it, in milliseconds; then the connection is
    /// cut.
    #[serde(skip_serializing_if = "is_send_timeout")]
    pub send_timeout_ms: u64,
    /// Time for a call that names none, in milliseconds.
    pub timeout_ms: u64,
    /// Longest time that a call may ask for, in milliseconds.
    pub timeout_ms_max: u64,
    /// Memory for cached answers, in bytes.
    pub cache_bytes_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            user_per_minute: 1_000,
            ip_per_minute: 500,
            service_per_minute: 10_000,
            burst_percent: 10,
            principals_max: 100_000,
            gateways: Gateways::default(),
            redis: None,
            body_bytes_max: 1 << 20,
            bodies_bytes_max: 64 << 20,
            requests_max: 1_024,
            streams_max: 1_024,
            streams_per_caller_max: 32,
            connections_max: 4_096,
            connections_per_address_max: 256,
            connection_age_s: CONNECTION_AGE_S,
            send_timeout_ms: SEND_TIMEOUT_MS,
            timeout_ms: 10_000,
            timeout_ms_max: 60_000,
            cache_bytes_max: 64 << 20,
        }
    }
}

/// Number of gateways that share the limits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "GatewaysKeys", into = "GatewaysKeys")]
pub enum Gateways {
    /// This many.
    Count(u32),
    /// As many as this name has addresses: a headless Service, which lists the ready ones. Resolved anew every 5 s.
    Service(PeerAddress),
}

impl Default for Gateways {
    fn default() -> Self {
        Self::Count(1)
    }
}

/// The form in which [`Gateways`] stands in the file.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct GatewaysKeys {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    count: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    service: Option<PeerAddress>,
}

impl TryFrom<GatewaysKeys> for Gateways {
    type Error = &'static str;

    fn try_from(keys: GatewaysKeys) -> Result<Self, Self::Error> {
        match (keys.count, keys.service) {
            (Some(count), None) => Ok(Self::Count(count)),
            (None, Some(service)) => Ok(Self::Service(service)),
            (Some(_), Some(_)) | (None, None) => Err("write {count: <number>} or {service: <name>:<port>}"),
        }
    }
}

impl From<Gateways> for GatewaysKeys {
    fn from(gateways: Gateways) -> Self {
        match gateways {
            Gateways::Count(count) => Self { count: Some(count), service: None },
            Gateways::Service(service) => Self { count: None, service: Some(service) },
        }
    }
}

impl GatewayConfig {
    /// Reads and checks a file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        Self::from_yaml(&config::read(path)?)
    }

    /// Reads and checks a text.
    pub fn from_yaml(text: &str) -> Result<Self, ConfigError> {
        let config: Self = config::parse(text)?;
        config.validate()?;
        Ok(config)
    }

    /// The file as text, every key written out but the times of connections where nothing else is said. Equal
    /// configurations give equal bytes.
    pub fn to_yaml(&self) -> Result<String, ConfigError> {
        self.validate()?;
        serde_yaml::to_string(self).map_err(|error| ConfigError::Parse { problem: error.to_string() })
    }
}

/// `reader` may read and follow, `writer` may submit too, `service` the same with the limit of services.
pub fn default_roles() -> BTreeMap<String, RoleGrant> {
    use Permission::{Prove, Read, Status, Stream, Submit};
    let grant =
        |permissions: &[Permission], class| RoleGrant { permissions: permissions.iter().copied().collect(), class };
    BTreeMap::from([
        ("reader".to_owned(), grant(&[Read, Prove, Stream], RoleClass::User)),
        ("writer".to_owned(), grant(&[Read, Prove, Stream, Submit, Status], RoleClass::User)),
        ("service".to_owned(), grant(&[Read, Prove, Stream, Submit, Status], RoleClass::Service)),
    ])
}

fn default_roles_claim() -> String {
    "roles".to_owned()
}

fn is_connection_age(age_s: &u64) -> bool {
    *age_s == CONNECTION_AGE_S
}

fn is_send_timeout(timeout_ms: &u64) -> bool {
    *timeout_ms == SEND_TIMEOUT_MS
}

const fn default_skew_s() -> u64 {
    30
}

const fn one() -> u32 {
    1
}

mod optional_identity {
    //! An identity as text, or nothing.

    use node_core::types::Identity;
    use serde::{Deserializer, Serializer};

    use crate::config::identity_text;

    pub(super) fn serialize<S: Serializer>(identity: &Option<Identity>, serializer: S) -> Result<S::Ok, S::Error> {
        match identity {
            Some(identity) => identity_text::serialize(identity, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Identity>, D::Error> {
        identity_text::deserialize(deserializer).map(Some)
    }
}
