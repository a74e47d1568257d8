//! Objects that a spec only names: StorageClass, PriorityClass, Secrets. Read before the first child is made.

use std::collections::BTreeMap;
use std::time::Instant;

use althing_crds::gateway::Gateway;
use althing_crds::peers::TrustedAuthority;
use althing_crds::{NodeTemplate, Reason, names};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::scheduling::v1::PriorityClass;
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{ListParams, PartialObjectMeta};
use kube::{Api, Client, Resource};
use node_api::keys;
use serde::de::DeserializeOwned;

use crate::bundles::{self, Unusable};
use crate::certificates;
use crate::context::Context;
use crate::error::Error;
use crate::memory::Memory;
use crate::parts::gateway::FILE_PASSWORD;
use crate::parts::route;
use crate::refusal::Refusal;

const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";

/// Something that a spec names and that is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missing {
    /// The StorageClass of this name.
    StorageClass(String),
    /// No StorageClass is named, and the cluster has no default.
    DefaultStorageClass,
    /// The PriorityClass of this name.
    PriorityClass(String),
    /// The Secret of this name, for pulling images.
    PullSecret(String),
    /// The Secret of this name with this entry, for the gateway.
    GatewaySecret(String, &'static str),
    /// The kind of routes of the Gateway API.
    RouteKind,
    /// The Secret of this name, with an identity.
    IdentitySecret(String),
    /// Authorities of other members that the ConfigMap of this name should hold, and why it does not.
    TrustedAuthority(String, String),
    /// An identity that the Secret of this name should hold, and why it does not.
    Identity(String, String),
    /// An identity of its own: the two Secrets of these names hold the same.
    OwnIdentity(String, String),
}

/// The refusal for the first thing that is missing.
pub fn refuse(missing: &[Missing]) -> Option<Refusal> {
    missing.first().map(|missing| match missing {
        Missing::StorageClass(name) => {
            Refusal::new(Reason::StorageClassMissing, format!("StorageClass {name} does not exist"))
        }
        Missing::DefaultStorageClass => Refusal::new(
            Reason::StorageClassMissing,
            "storage.storageClassName is unset and the cluster has no default StorageClass",
        ),
        Missing::PriorityClass(name) => {
            Refusal::new(Reason::PriorityClassMissing, format!("PriorityClass {name} does not exist"))
        }
        Missing::PullSecret(name) => {
            Refusal::new(Reason::PullSecretMissing, format!("Secret {name} of imagePullSecrets does not exist"))
        }
        Missing::GatewaySecret(name, entry) => Refusal::new(
            Reason::GatewaySecretMissing,
            format!("Secret {name} of spec.gateway does not exist or has no entry {entry}"),
        ),
        Missing::RouteKind => Refusal::new(
            Reason::RouteKindMissing,
            format!(
                "spec.gateway.route needs {} of {}, which this cluster does not have",
                route::KIND,
                route::API_VERSION
            ),
        ),
        Missing::IdentitySecret(name) => {
            Refusal::new(Reason::IdentitySecretMissing, format!("Secret {name} of identitySecrets does not exist"))
        }
        Missing::TrustedAuthority(name, why) => Refusal::new(
            Reason::TrustedAuthorityMissing,
            format!("ConfigMap {name} of trustedAuthorities cannot be used: {why}"),
        ),
        Missing::Identity(name, why) => Refusal::new(Reason::IdentityInvalid, format!("Secret {name}: {why}")),
        Missing::OwnIdentity(name, other) => Refusal::new(
            Reason::IdentityReused,
            format!("Secrets {other} and {name} hold the same identity: two voters cannot share it"),
        ),
    })
}

/// What is missing of what this template and these identity Secrets name. What this operator may not read counts as
/// there: the API server will say so in time.
pub async fn read(
    context: &Context,
    namespace: &str,
    template: &NodeTemplate,
    identity_secrets: &[String],
) -> Result<Vec<Missing>, Error> {
    let client = &context.shared.client;
    let memory = &context.shared.memories.references;
    let mut missing = Vec::new();
    let classes: Api<StorageClass> = Api::all(client.clone());
    match &template.storage.storage_class_name {
        Some(name) if !exists(memory, "", &classes, name).await? => missing.push(Missing::StorageClass(name.clone())),
        Some(_) => {}
        None if !has_default(memory, &classes).await? => missing.push(Missing::DefaultStorageClass),
        None => {}
    }
    if let Some(name) = &template.priority_class_name
        && !exists(memory, "", &Api::<PriorityClass>::all(client.clone()), name).await?
    {
        missing.push(Missing::PriorityClass(name.clone()));
    }
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    for name in &template.image_pull_secrets {
        if !exists(memory, namespace, &secrets, name).await? {
            missing.push(Missing::PullSecret(name.clone()));
        }
    }
    missing.extend(identities(&secrets, identity_secrets).await?);
    Ok(missing)
}

/// Whether the StorageClass of this name forbids that volumes grow.
pub async fn fixes_size(context: &Context, name: &str) -> Result<bool, Error> {
    let classes: Api<StorageClass> = Api::all(context.shared.client.clone());
    match classes.get_opt(name).await {
        Ok(class) => Ok(class.is_some_and(|class| class.allow_volume_expansion != Some(true))),
        // What this operator may not read, the API server decides.
        Err(error) if is_forbidden(&error) => Ok(false),
        Err(error) => Err(Error::read(format!("StorageClass {name}"))(error)),
    }
}

/// What is missing of the authorities that a group trusts.
pub async fn read_authorities(
    context: &Context,
    namespace: &str,
    trusted: &[TrustedAuthority],
) -> Result<Vec<Missing>, Error> {
    Ok(match bundles::read(context, namespace, trusted).await? {
        Ok(_) => Vec::new(),
        Err(Unusable { config_map, why }) => vec![Missing::TrustedAuthority(config_map, why)],
    })
}

/// What is missing of what a gateway names.
pub async fn read_gateway(context: &Context, namespace: &str, gateway: &Gateway) -> Result<Vec<Missing>, Error> {
    let client = &context.shared.client;
    let memory = &context.shared.memories.references;
    let mut missing = Vec::new();
    if let Some(name) = &gateway.pod.priority_class_name
        && !exists(memory, "", &Api::<PriorityClass>::all(client.clone()), name).await?
    {
        missing.push(Missing::PriorityClass(name.clone()));
    }
    if gateway.route.is_some() && !has_routes(memory, client).await? {
        missing.push(Missing::RouteKind);
    }
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let authentication = &gateway.authentication;
    let issuers =
        authentication.issuers.iter().filter_map(|issuer| issuer.ca_secret.as_ref()).map(|name| (name, "ca.crt"));
    let edge = gateway.tls.secret_name.iter().flat_map(|name| [(name, "tls.crt"), (name, "tls.key")]);
    let keys = authentication.api_keys_secret.iter().map(|name| (name, names::FILE_API_KEYS));
    let redis = gateway.limits.redis.iter();
    let redis = redis.flat_map(|redis| [(&redis.password_secret, FILE_PASSWORD), (&redis.ca_secret, "ca.crt")]);
    let redis = redis.filter_map(|(name, entry)| Some((name.as_ref()?, entry)));
    for (name, entry) in keys.chain(edge).chain(issuers).chain(redis) {
        let secret = secrets.get_opt(name).await.map_err(Error::read(format!("Secret {name}")))?;
        if secret.and_then(|secret| certificates::text(&secret, entry)).is_none() {
            missing.push(Missing::GatewaySecret(name.clone(), entry));
        }
    }
    Ok(missing)
}

/// What is wrong with identities that a user brings.
async fn identities(secrets: &Api<Secret>, brought: &[String]) -> Result<Vec<Missing>, Error> {
    let mut missing = Vec::new();
    let mut holders: BTreeMap<[u8; 32], &String> = BTreeMap::new();
    for name in brought {
        let Some(secret) = secrets.get_opt(name).await.map_err(Error::read(format!("Secret {name}")))? else {
            missing.push(Missing::IdentitySecret(name.clone()));
            continue;
        };
        let pem = certificates::text(&secret, names::FILE_IDENTITY).unwrap_or_default();
        match keys::from_pem(&pem) {
            Err(error) => missing.push(Missing::Identity(name.clone(), error.to_string())),
            Ok(key) => {
                if let Some(other) = holders.insert(key.public(), name) {
                    missing.push(Missing::OwnIdentity(name.clone(), other.clone()));
                }
            }
        }
    }
    Ok(missing)
}

/// Whether it is there, or was a short while ago.
async fn exists<K>(memory: &Memory<()>, namespace: &str, api: &Api<K>, name: &str) -> Result<bool, Error>
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned,
{
    let what = format!("{} {name}", K::kind(&()));
    if memory.get(namespace, &what).is_some() {
        return Ok(true);
    }
    let at = Instant::now();
    let is_there = match api.get_metadata_opt(name).await {
        Ok(found) => found.is_some_and(|found: PartialObjectMeta<K>| found.metadata.deletion_timestamp.is_none()),
        Err(error) if is_forbidden(&error) => true,
        Err(error) => return Err(Error::read(what)(error)),
    };
    if is_there {
        memory.put(namespace, &what, at, ());
    }
    Ok(is_there)
}

async fn has_default(memory: &Memory<()>, classes: &Api<StorageClass>) -> Result<bool, Error> {
    const WHAT: &str = "StorageClasses";
    if memory.get("", WHAT).is_some() {
        return Ok(true);
    }
    let at = Instant::now();
    let has_one = match classes.list_metadata(&ListParams::default()).await {
        Ok(list) => list.items.iter().any(|class| {
            let annotations = class.metadata.annotations.as_ref();
            annotations.and_then(|all| all.get(DEFAULT_CLASS)).is_some_and(|value| value == "true")
        }),
        Err(error) if is_forbidden(&error) => true,
        Err(error) => return Err(Error::read(WHAT)(error)),
    };
    if has_one {
        memory.put("", WHAT, at, ());
    }
    Ok(has_one)
}

/// Whether the cluster knows the routes of the Gateway API.
async fn has_routes(memory: &Memory<()>, client: &Client) -> Result<bool, Error> {
    if memory.get("", route::KIND).is_some() {
        return Ok(true);
    }
    let at = Instant::now();
    let is_known = match client.list_api_group_resources(route::API_VERSION).await {
        Ok(list) => list.resources.iter().any(|resource| resource.kind == route::KIND),
        Err(kube::Error::Api(status)) if status.code == 404 => false,
        Err(error) if is_forbidden(&error) => true,
        Err(error) => return Err(Error::read(route::API_VERSION)(error)),
    };
    if is_known {
        memory.put("", route::KIND, at, ());
    }
    Ok(is_known)
}

fn is_forbidden(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 403)
}
