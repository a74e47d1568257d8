//! The kinds of children, and how their owners are told apart.

use althing_crds::{ConsensusGroup, ValidatorNode, names};
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Secret, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::{Ingress, NetworkPolicy};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::DynamicObject;
use kube::core::ApiResource;
use kube::{Resource, ResourceExt};
use serde::Serialize;

use crate::error::Error;
use crate::parts::route;

/// A kind of child, in the order in which children are applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// First, so that no pod ever runs without its policy.
    NetworkPolicy,
    /// Before the pods that name it.
    ServiceAccount,
    /// Configuration, genesis.
    ConfigMap,
    /// Identities, certificates.
    Secret,
    /// Names of the pods.
    Service,
    /// Volumes.
    PersistentVolumeClaim,
    /// Before the pods that it protects.
    PodDisruptionBudget,
    /// Children of a network.
    ConsensusGroup,
    /// Children of a group.
    ValidatorNode,
    /// After everything that its pod needs.
    StatefulSet,
    /// The same.
    Deployment,
    /// After what it scales.
    HorizontalPodAutoscaler,
    /// Last: it leads clients to all of that.
    Ingress,
    /// The same.
    TlsRoute,
}

impl Kind {
    /// Kinds whose metadata is watched; claims are watched whole, and Secrets are only ever read by name.
    pub const WATCHED: [Self; 9] = [
        Self::NetworkPolicy,
        Self::ServiceAccount,
        Self::ConfigMap,
        Self::Service,
        Self::PodDisruptionBudget,
        Self::StatefulSet,
        Self::Deployment,
        Self::HorizontalPodAutoscaler,
        Self::Ingress,
    ];

    /// Kinds that not every cluster has: their metadata is watched where it does, and nobody waits for it.
    pub const OPTIONAL: [Self; 1] = [Self::TlsRoute];

    const ALL: [Self; 14] = [
        Self::NetworkPolicy,
        Self::ServiceAccount,
        Self::ConfigMap,
        Self::Secret,
        Self::Service,
        Self::PersistentVolumeClaim,
        Self::PodDisruptionBudget,
        Self::ConsensusGroup,
        Self::ValidatorNode,
        Self::StatefulSet,
        Self::Deployment,
        Self::HorizontalPodAutoscaler,
        Self::Ingress,
        Self::TlsRoute,
    ];

    /// Group, version and path of the kind.
    pub fn resource(self) -> ApiResource {
        match self {
            Self::NetworkPolicy => ApiResource::erase::<NetworkPolicy>(&()),
            Self::ServiceAccount => ApiResource::erase::<ServiceAccount>(&()),
            Self::ConfigMap => ApiResource::erase::<ConfigMap>(&()),
            Self::Secret => ApiResource::erase::<Secret>(&()),
            Self::Service => ApiResource::erase::<Service>(&()),
            Self::PersistentVolumeClaim => ApiResource::erase::<PersistentVolumeClaim>(&()),
            Self::PodDisruptionBudget => ApiResource::erase::<PodDisruptionBudget>(&()),
            Self::ConsensusGroup => ApiResource::erase::<ConsensusGroup>(&()),
            Self::ValidatorNode => ApiResource::erase::<ValidatorNode>(&()),
            Self::StatefulSet => ApiResource::erase::<StatefulSet>(&()),
            Self::Deployment => ApiResource::erase::<Deployment>(&()),
            Self::HorizontalPodAutoscaler => ApiResource::erase::<HorizontalPodAutoscaler>(&()),
            Self::Ingress => ApiResource::erase::<Ingress>(&()),
            Self::TlsRoute => route::resource(),
        }
    }

    /// The name of the kind.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NetworkPolicy => "NetworkPolicy",
            Self::ServiceAccount => "ServiceAccount",
            Self::ConfigMap => "ConfigMap",
            Self::Secret => "Secret",
            Self::Service => "Service",
            Self::PersistentVolumeClaim => "PersistentVolumeClaim",
            Self::PodDisruptionBudget => "PodDisruptionBudget",
            Self::ConsensusGroup => "ConsensusGroup",
            Self::ValidatorNode => "ValidatorNode",
            Self::StatefulSet => "StatefulSet",
            Self::Deployment => "Deployment",
            Self::HorizontalPodAutoscaler => "HorizontalPodAutoscaler",
            Self::Ingress => "Ingress",
            Self::TlsRoute => route::KIND,
        }
    }
}

/// The object that children belong to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Kind, for example `ConsensusGroup`.
    pub kind: &'static str,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// UID: an object of the same name that was deleted and made again is another owner.
    pub uid: String,
    /// Field manager of its children.
    pub manager: &'static str,
    /// Label that names it on its children.
    pub label: &'static str,
}

impl Owner {
    /// `ConsensusGroup demo/demo-main`.
    pub fn what(&self) -> String {
        format!("{} {}/{}", self.kind, self.namespace, self.name)
    }
}

/// A child as it shall be.
#[derive(Clone, Debug, PartialEq)]
pub struct Child {
    /// Kind.
    pub kind: Kind,
    /// Name.
    pub name: String,
    /// The whole object.
    pub body: serde_json::Value,
}

impl Child {
    /// A child from a typed object, which must have a name.
    pub fn of<K: Resource<DynamicType = ()> + Serialize>(object: &K) -> Result<Self, Error> {
        Self::named(&K::kind(&()), object)
    }

    /// A child of a kind for which there is no type; it must say which, and have a name.
    pub fn untyped(object: &DynamicObject) -> Result<Self, Error> {
        let word = object.types.as_ref().map(|types| types.kind.as_str()).unwrap_or_default();
        Self::named(word, object)
    }

    fn named<K: Resource + Serialize>(word: &str, object: &K) -> Result<Self, Error> {
        let kind = Kind::ALL.into_iter().find(|kind| kind.as_str() == word).ok_or_else(|| Error::Build {
            what: word.to_string(),
            message: "children of this kind are not made".to_string(),
        })?;
        let name = object.meta().name.clone().ok_or(Error::Incomplete { kind: kind.as_str(), field: "name" })?;
        let body = serde_json::to_value(object).map_err(|source| Error::Encode { kind: word.to_string(), source })?;
        Ok(Self { kind, name, body })
    }

    /// `Service demo/demo-main-rpc`.
    pub fn what(&self, namespace: &str) -> String {
        format!("{} {namespace}/{}", self.kind.as_str(), self.name)
    }
}

/// Whose an object is that has the name of a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is a child of this owner, or kept for it.
    Ours,
    /// It was a child of a deleted object of the same name and is about to go.
    Former,
    /// It is somebody else's.
    Foreign,
}

/// What controls the object with this metadata.
pub fn controller(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.iter().flatten().find(|reference| reference.controller == Some(true))
}

/// The object with this metadata is controlled by the one with this UID.
pub fn is_controlled(meta: &ObjectMeta, uid: &str) -> bool {
    controller(meta).is_some_and(|reference| reference.uid == uid)
}

/// Orders objects by who was there first.
pub fn age_key<K: ResourceExt>(object: &K) -> (Option<String>, String) {
    (object.creation_timestamp().map(|time| time.0.to_string()), object.name_any())
}

/// Whose the object with this metadata is.
pub fn standing(meta: &ObjectMeta, owner: &Owner) -> Standing {
    match controller(meta) {
        Some(reference) if reference.uid == owner.uid => Standing::Ours,
        Some(reference) if reference.kind == owner.kind && reference.name == owner.name => Standing::Former,
        Some(_) => Standing::Foreign,
        None => {
            let label = |key: &str| meta.labels.as_ref().and_then(|labels| labels.get(key)).map(String::as_str);
            let ours = label(names::LABEL_APP_MANAGED_BY) == Some(names::MANAGED_BY)
                && label(owner.label) == Some(owner.name.as_str());
            if ours { Standing::Ours } else { Standing::Foreign }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner() -> Owner {
        Owner {
            kind: "ValidatorNode",
            namespace: "a".to_string(),
            name: "demo-main-0".to_string(),
            uid: "1".to_string(),
            manager: names::MANAGER_NODE,
            label: names::LABEL_NODE,
        }
    }

    fn owned_by(name: &str, uid: &str) -> ObjectMeta {
        let reference = OwnerReference {
            kind: "ValidatorNode".to_string(),
            name: name.to_string(),
            uid: uid.to_string(),
            controller: Some(true),
            ..OwnerReference::default()
        };
        ObjectMeta { owner_references: Some(vec![reference]), ..ObjectMeta::default() }
    }

    fn labelled(pairs: &[(&str, &str)]) -> ObjectMeta {
        let labels = pairs.iter().map(|(key, value)| ((*key).to_string(), (*value).to_string())).collect();
        ObjectMeta { labels: Some(labels), ..ObjectMeta::default() }
    }

    #[test]
    fn only_what_names_this_owner_is_ours() {
        assert_eq!(standing(&owned_by("demo-main-0", "1"), &owner()), Standing::Ours);
        assert_eq!(standing(&owned_by("demo-main-0", "0"), &owner()), Standing::Former);
        assert_eq!(standing(&owned_by("other", "0"), &owner()), Standing::Foreign);
        assert_eq!(standing(&ObjectMeta::default(), &owner()), Standing::Foreign);
    }

    #[test]
    fn what_was_kept_is_known_by_its_labels() {
        let managed = (names::LABEL_APP_MANAGED_BY, names::MANAGED_BY);
        assert_eq!(standing(&labelled(&[managed, (names::LABEL_NODE, "demo-main-0")]), &owner()), Standing::Ours);
        assert_eq!(standing(&labelled(&[managed, (names::LABEL_NODE, "demo-main-1")]), &owner()), Standing::Foreign);
        assert_eq!(standing(&labelled(&[(names::LABEL_NODE, "demo-main-0")]), &owner()), Standing::Foreign);
    }

    #[test]
    fn every_kind_has_the_name_that_its_resource_has() {
        for kind in Kind::ALL {
            assert_eq!(kind.resource().kind, kind.as_str());
        }
    }
}
