//! The gateway of a network: how clients get in, who they may be and how much they get.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::scaling::Autoscaling;
use crate::schemas;
use crate::template::{LogLevel, NodeTemplate, Placement, Resources, Toleration};

/// Gateways when nobody says how many.
pub const GATEWAYS_DEFAULT: i32 = 2;

/// The public entrance of one chain: REST, gRPC and streams on one port, before the validators (submits) and the
/// observers (reads; the validators where there are none).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!(has(self.replicas) && has(self.autoscaling))")
        .message("replicas and autoscaling exclude each other: with autoscaling the HorizontalPodAutoscaler owns the number"),
    validation = Rule::new("!has(self.autoscaling) || !has(self.autoscaling.targetQueueDepth)")
        .message("gateway: autoscaling.targetQueueDepth is for observers")
)]
pub struct Gateway {
    /// Name of the group before whose chain it stands; may be left out where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 20))]
    pub group: Option<String>,
    /// How many. Unset without `autoscaling`: 2 at first, then the number that is there is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub replicas: Option<i32>,
    /// Lets a HorizontalPodAutoscaler decide how many there are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<Autoscaling>,
    /// How its pods are made. Image, pull secrets and log level that are unset are taken from `spec.node`.
    #[serde(default)]
    pub pod: GatewayPod,
    /// What clients see of TLS.
    #[serde(default)]
    pub tls: GatewayTls,
    /// How the Service `<network>-gateway` is exposed.
    #[serde(default)]
    pub service: GatewayService,
    /// Makes an Ingress `<network>-gateway`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ingress: Option<GatewayIngress>,
    /// Makes a TLSRoute `<network>-gateway` of the Gateway API.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<GatewayRoute>,
    /// Who is let in.
    #[serde(default)]
    pub authentication: GatewayAuthentication,
    /// Roles of your own, beside `reader` (`read prove stream`), `writer` (those, `submit` and `status`) and `service` (as writer,
    /// with the limit of services).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".to_string()]))]
    pub roles: Vec<GatewayRole>,
    /// How much callers get.
    #[serde(default)]
    pub limits: GatewayLimits,
    /// Networks of proxies whose `X-Forwarded-For` is believed, as CIDR.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 43)))]
    #[x_kube(validation = Rule::new("self.all(range, isCIDR(range))")
        .message("gateway.trustedProxies must be address ranges such as 10.0.0.0/8"))]
    pub trusted_proxies: Vec<String>,
    /// Web pages of these origins may call, for example `https://app.example.org`; `*` allows all. Empty: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 253)))]
    pub cors_origins: Vec<String>,
}

/// How the gateway's pods are made.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.podLabels) || self.podLabels.all(key, !key.startsWith('althing.dev/') && !key.startsWith('app.kubernetes.io/'))")
        .message("podLabels: keys under althing.dev/ and app.kubernetes.io/ belong to the operator"),
    validation = Rule::new("!has(self.podAnnotations) || self.podAnnotations.all(key, !key.startsWith('althing.dev/'))")
        .message("podAnnotations: keys under althing.dev/ belong to the operator")
)]
pub struct GatewayPod {
    /// Image with a tag other than `latest`, or with a digest.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = Rule::new(r"self.matches('^[^\\s@]+(:[A-Za-z0-9_][A-Za-z0-9_.-]*|@sha256:[0-9a-f]{64})$') && !self.endsWith(':latest')")
        .message("image must end with a tag other than latest, or with a sha256 digest"))]
    pub image: Option<String>,
    /// CPU and memory of one gateway: 250m and 256Mi if unset. CPU is requested and may be exceeded, memory is a limit, at
    /// least 64Mi: an eighth of it is for cached answers, an eighth for bodies of requests, 32 MiB for the newest blocks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// How gateways are kept apart, `Preferred` if unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
    /// Labels that a Kubernetes node must have to run a gateway.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schemas::label_map")]
    pub node_selector: BTreeMap<String, String>,
    /// Taints that the pods may ignore.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub tolerations: Vec<Toleration>,
    /// PriorityClass of the pods. It must exist.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub priority_class_name: Option<String>,
    /// Labels added to the pods.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schemas::label_map")]
    pub pod_labels: BTreeMap<String, String>,
    /// Annotations added to the pods, for example those of a service mesh.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schemas::annotation_map")]
    pub pod_annotations: BTreeMap<String, String>,
    /// How much a gateway logs, `info` if unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_level: Option<LogLevel>,
}

impl GatewayPod {
    /// The template of a gateway's pod: its own settings, and from the network's nodes what they must share.
    #[must_use]
    pub fn over(&self, nodes: &NodeTemplate) -> NodeTemplate {
        NodeTemplate {
            image: self.image.clone().or_else(|| nodes.image.clone()),
            image_pull_secrets: nodes.image_pull_secrets.clone(),
            resources: self.resources.clone(),
            placement: self.placement,
            node_selector: self.node_selector.clone(),
            tolerations: self.tolerations.clone(),
            priority_class_name: self.priority_class_name.clone(),
            pod_labels: self.pod_labels.clone(),
            pod_annotations: self.pod_annotations.clone(),
            log_level: self.log_level.or(nodes.log_level),
            ..NodeTemplate::default()
        }
    }
}

/// What clients see of TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.secretName) || !has(self.hostNames)")
    .message("tls.secretName and tls.hostNames exclude each other: a certificate that you bring has its own names"))]
pub struct GatewayTls {
    /// Secret with the certificate that clients see (`tls.crt`, `tls.key`), for example of cert-manager; a new one is
    /// taken without a restart. Unset: the network's own authority issues one, which `ca.crt` of the Secret
    /// `<network>-client` checks.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub secret_name: Option<String>,
    /// Names under which clients reach the gateway, beside those of its Service and `localhost`; for the certificate of the network's
    /// own authority.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        inner(length(min = 1, max = 253), regex(pattern = r"^(\*\.)?[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))
    )]
    pub host_names: Vec<String>,
}

/// How the gateway's Service is exposed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GatewayService {
    /// Type of the Service, `ClusterIP` if unset.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<ServiceType>,
    /// Annotations on the Service, for example of a cloud's load balancer.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schemas::annotation_map")]
    pub annotations: BTreeMap<String, String>,
}

/// Type of the Service, `ClusterIP` if unset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ServiceType {
    /// Inside the cluster only; an Ingress or a route may stand before it.
    #[default]
    ClusterIP,
    /// A port of every machine.
    NodePort,
    /// An address of the cloud's load balancer.
    LoadBalancer,
}

impl ServiceType {
    /// The name in a Service.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ClusterIP => "ClusterIP",
            Self::NodePort => "NodePort",
            Self::LoadBalancer => "LoadBalancer",
        }
    }
}

/// An Ingress before the gateway. The gateway speaks TLS to it, and believes its `X-Forwarded-For` only when
/// `trustedProxies` names it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GatewayIngress {
    /// IngressClass, the default of the cluster if unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub class_name: Option<String>,
    /// Names under which clients reach it.
    #[schemars(
        length(min = 1, max = 16),
        inner(length(min = 1, max = 253), regex(pattern = r"^(\*\.)?[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))
    )]
    pub hosts: Vec<String>,
    /// Secret with the certificate that clients see (`tls.crt`, `tls.key`); cert-manager may make it. Unset: the
    /// controller's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub tls_secret: Option<String>,
    /// What its controller is told, above all that the gateway speaks TLS:
    /// `nginx.ingress.kubernetes.io/backend-protocol: HTTPS`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schemas::annotation_map")]
    pub annotations: BTreeMap<String, String>,
}

/// A route of the Gateway API before the gateway: its connections are passed through as they are, by the name that clients ask
/// for, so that the certificate, client certificates and HTTP/2 are the gateway's own. The cluster must have
/// `gateway.networking.k8s.io/v1` TLSRoute (Gateway API 1.5).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct GatewayRoute {
    /// Gateways, or listeners of them, that lead to it: listeners of protocol `TLS` and mode `Passthrough`.
    #[schemars(length(min = 1, max = 8))]
    #[x_kube(validation = Rule::new("self.all(one, self.filter(other, other.name == one.name && (has(other.__namespace__) ? other.__namespace__ : '') == (has(one.__namespace__) ? one.__namespace__ : '')).size() == 1 || has(one.sectionName) && self.exists_one(other, other.name == one.name && (has(other.__namespace__) ? other.__namespace__ : '') == (has(one.__namespace__) ? one.__namespace__ : '') && has(other.sectionName) && other.sectionName == one.sectionName))")
        .message("gateway.route.parentRefs names a Gateway once, or several of its listeners once each"))]
    pub parent_refs: Vec<RouteParent>,
    /// Names under which clients reach it. The certificate of the network's own authority is for these too; one that you bring
    /// (`tls.secretName`) must be.
    #[schemars(
        length(min = 1, max = 16),
        inner(
            length(min = 1, max = 253),
            regex(pattern = r"^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
        )
    )]
    pub host_names: Vec<String>,
}

/// A Gateway of the Gateway API.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RouteParent {
    /// Its name.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub name: String,
    /// Its namespace, that of the network if unset. It must let routes of the network's namespace in.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub namespace: Option<String>,
    /// Name of its listener; unset: all that fit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub section_name: Option<String>,
}

/// A Redis that counts the requests of all gateways together. While it does not answer, each gateway counts by its share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.caSecret) || self.url.startsWith('rediss://')")
    .message("redis.caSecret is for a connection with TLS: write rediss://"))]
pub struct GatewayRedis {
    /// `redis://<host>:<port>/<database>`, or `rediss://` with TLS; no credentials in it.
    #[schemars(length(min = 9, max = 512), regex(pattern = r"^rediss?://[^\s/?#@]+(/[0-9]{0,5})?$"))]
    pub url: String,
    /// Name in its access control list.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub username: Option<String>,
    /// Secret with the password, under `password`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub password_secret: Option<String>,
    /// Secret with the authorities for its certificate, under `ca.crt`; unset takes those of the image.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub ca_secret: Option<String>,
}

/// Who is let in. API keys always are, client certificates of the network (Secret `<network>-client`) unless `certificateRoles` is
/// empty; the others by choice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct GatewayAuthentication {
    /// Lets callers that show nothing read blocks, accounts and streams, within the limit of their address.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub anonymous_reads: bool,
    /// Secret with API keys under `api-keys.yaml`: hashes, as `althing-node api-key` prints them. Unset: the operator
    /// makes the Secret `<network>-gateway-api-keys` with one key of role `writer`, in plain under `key`; delete the
    /// Secret to get another key.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub api_keys_secret: Option<String>,
    /// Roles of callers with a client certificate of the network, `[writer]` if unset; with an empty list no certificate is asked
    /// for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 16),
        inner(length(min = 1, max = 63), regex(pattern = r"^[A-Za-z0-9]([-A-Za-z0-9_.:/]*[A-Za-z0-9])?$"))
    )]
    pub certificate_roles: Option<Vec<String>>,
    /// OpenID Connect providers whose tokens are accepted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["url".to_string()]))]
    pub issuers: Vec<GatewayIssuer>,
}

/// An OpenID Connect provider.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GatewayIssuer {
    /// Its name exactly as in the `iss` claim; `/.well-known/openid-configuration` below it names its keys.
    #[schemars(length(min = 9, max = 512), regex(pattern = "^https://[^\\s/?#]+[^\\s?#]*$"))]
    pub url: String,
    /// Values of `aud`, one of which a token must have.
    #[schemars(length(min = 1, max = 16), inner(length(min = 1, max = 253)))]
    pub audiences: Vec<String>,
    /// Where its keys are, if it has no discovery document.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 9, max = 512), regex(pattern = "^https://[^\\s/?#]+[^\\s?#]*$"))]
    pub jwks_url: Option<String>,
    /// Claim with the roles, with `.` between nested names; `roles` if unset. Names that are neither in `roles` nor `reader`,
    /// `writer` or `service` grant nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub roles_claim: Option<String>,
    /// Roles of every caller with a good token of this issuer: of `roles`, or `reader`, `writer`, `service`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        inner(length(min = 1, max = 63), regex(pattern = r"^[A-Za-z0-9]([-A-Za-z0-9_.:/]*[A-Za-z0-9])?$"))
    )]
    pub default_roles: Vec<String>,
    /// Secret with the authorities for the issuer's own certificate, under `ca.crt`; unset takes those of the image.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub ca_secret: Option<String>,
    /// How far the clocks of the issuer and of the gateway may be apart, in seconds; 30 if unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 300))]
    pub clock_skew_s: Option<i32>,
}

/// What callers of one role may do. A caller may have several, and may what any of them grants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct GatewayRole {
    /// Its name, as tokens (in the roles claim), API keys and `certificateRoles` name it.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[A-Za-z0-9]([-A-Za-z0-9_.:/]*[A-Za-z0-9])?$"))]
    #[x_kube(validation = Rule::new("!(self in ['reader', 'writer', 'service'])")
        .message("gateway.roles: reader, writer and service are there already and stay as they are; choose another name"))]
    pub name: String,
    /// What it grants: `read`, `prove`, `stream`, `submit`, `status`.
    #[schemars(length(min = 1, max = 5))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub permissions: Vec<GatewayPermission>,
    /// Whose limit counts for its callers, `user` if unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<GatewayClass>,
}

/// A kind of calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum GatewayPermission {
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

/// Whose limit counts for a caller, `user` if unset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum GatewayClass {
    /// A person or a program of one person: `limits.userPerMinute`.
    #[default]
    User,
    /// A program that works for many: `limits.servicePerMinute`.
    Service,
}

/// How much callers get; what is unset has the gateway's own default (docs/gateway.md). Rates hold for all gateways of
/// the network together, the others for each gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GatewayLimits {
    /// Requests a minute of one user, 1000 if unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000_000))]
    pub user_per_minute: Option<i64>,
    /// Requests a minute of one address without credential, 500 if unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000_000))]
    pub ip_per_minute: Option<i64>,
    /// Requests a minute of one service, 10000 if unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000_000))]
    pub service_per_minute: Option<i64>,
    /// Part of a minute's requests that may come at once, in percent; 10 if unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub burst_percent: Option<i64>,
    /// Counts exactly for all gateways together; unset, each gateway gives its share of the rates.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redis: Option<GatewayRedis>,
    /// Largest body of a request, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1_024, max = 16_777_216))]
    pub body_bytes_max: Option<i64>,
    /// Requests at one time.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub requests_max: Option<i64>,
    /// Open streams at one time.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub streams_max: Option<i64>,
    /// Open streams of one caller at one time.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub streams_per_caller_max: Option<i64>,
    /// Connections at one time.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub connections_max: Option<i64>,
    /// Connections from one address at one time.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub connections_per_address_max: Option<i64>,
    /// Age at which a connection ends gracefully, in seconds, give or take a tenth; 300 if unset. What runs on it goes on, and the
    /// client opens another one, perhaps to a gateway that is new.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86_400))]
    pub connection_age_s: Option<i64>,
    /// Longest time that a part of an answer waits for its client, in milliseconds; 30000 if unset. Then the connection is cut.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1_000, max = 600_000))]
    pub send_timeout_ms: Option<i64>,
    /// Time for a call that names none, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 100, max = 600_000))]
    pub timeout_ms: Option<i64>,
    /// Longest time that a call may ask for, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 100, max = 600_000))]
    pub timeout_ms_max: Option<i64>,
    /// Memory for cached answers of one gateway, in bytes; an eighth of the pod's memory if unset, at most 64 MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 17_179_869_184_i64))]
    pub cache_bytes_max: Option<i64>,
}
