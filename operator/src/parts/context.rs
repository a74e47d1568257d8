//! What builders need to know of an object: its place, its owner reference and its decided settings.

use althing_crds::network::NetworkAccess;
use althing_crds::peers::PeerAccess;
use althing_crds::template::DefaultImage;
use althing_crds::validator::Role;
use althing_crds::{BlockchainNetwork, ConsensusGroup, ValidatorNode, names};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Resource;

use super::labels;
use super::settings::{self, NodeSettings};

/// What every context needs to know of the running operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installation {
    /// Namespace that the operator runs in; nodes let its pods in.
    pub operator_namespace: String,
    /// Image for nodes whose spec names none.
    pub node_image: String,
}

/// An object that was not read from the API server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ContextError {
    /// It lacks what the API server gives to every object.
    #[error("the {kind} `{name}` has no name, namespace or uid")]
    Unplaced {
        /// Kind of the object.
        kind: String,
        /// Its name, if it has one.
        name: String,
    },
}

/// Where a node of the same chain is found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PeerPlace {
    /// Its identity, 64 hexadecimal digits.
    pub identity: String,
    /// Its `host:port`, see [`names::p2p_address`].
    pub address: String,
}

impl PeerPlace {
    /// The port of its address.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.address.rsplit_once(':').and_then(|(_, port)| port.parse().ok())
    }
}

/// A ValidatorNode as builders see it.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeContext {
    /// Name of the ValidatorNode.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Reference for children that go when it goes.
    pub owner: OwnerReference,
    /// Name of its BlockchainNetwork.
    pub network: String,
    /// Name of its ConsensusGroup.
    pub group: String,
    /// Name of its chain.
    pub chain_id: String,
    /// Whether it votes.
    pub role: Role,
    /// Name of the Secret with its identity, made by the operator or brought by the user.
    pub identity_secret: String,
    /// Its template, decided.
    pub settings: NodeSettings,
    /// Who may talk to it.
    pub access: NetworkAccess,
    /// How it meets nodes of other members.
    pub p2p: PeerAccess,
    /// Where those reach it, once that is known.
    pub advertised: Option<String>,
    /// Nodes that it dials, itself included or not.
    pub peers: Vec<PeerPlace>,
    /// Nodes of other members that it dials.
    pub outside: Vec<PeerPlace>,
    /// Value of the annotation that asks for a restart.
    pub restart: Option<String>,
    /// Namespace that the operator runs in.
    pub operator_namespace: String,
}

/// The image of a node whose spec names none, to be written down.
#[must_use]
pub fn default_image_of(node: &ValidatorNode, installation: &Installation) -> Option<DefaultImage> {
    let recorded = node.status.as_ref().and_then(|status| status.default_image.as_ref());
    let restart = node.metadata.annotations.as_ref().and_then(|all| all.get(names::ANNOTATION_RESTART));
    settings::default_image(&node.spec.node, recorded, restart, &installation.node_image)
}

impl NodeContext {
    /// Reads a node.
    ///
    /// # Errors
    /// When the node has no name, namespace or uid.
    pub fn new(node: &ValidatorNode, peers: Vec<PeerPlace>, installation: &Installation) -> Result<Self, ContextError> {
        let place = Place::of(node)?;
        let own_secret = || names::identity_secret(&place.name);
        let image = default_image_of(node, installation).map(|default| default.image).unwrap_or_default();
        Ok(Self {
            network: node.spec.network.clone(),
            group: node.spec.group.clone(),
            chain_id: node.spec.chain_id.clone(),
            role: node.spec.role,
            identity_secret: node.spec.identity_secret.clone().unwrap_or_else(own_secret),
            settings: NodeSettings::resolve(&node.spec.node, &image),
            access: node.spec.network_policy.clone(),
            p2p: node.spec.p2p.clone(),
            advertised: node.status.as_ref().and_then(|status| status.p2p_address.clone()),
            peers,
            outside: Vec::new(),
            restart: node.metadata.annotations.as_ref().and_then(|all| all.get(names::ANNOTATION_RESTART)).cloned(),
            operator_namespace: installation.operator_namespace.clone(),
            name: place.name,
            namespace: place.namespace,
            owner: place.owner,
        })
    }

    /// Metadata of a child that goes when the node goes.
    #[must_use]
    pub fn metadata(&self, name: &str) -> ObjectMeta {
        ObjectMeta { owner_references: Some(vec![self.owner.clone()]), ..self.metadata_kept(name) }
    }

    /// Metadata of a child that stays when the node goes.
    #[must_use]
    pub fn metadata_kept(&self, name: &str) -> ObjectMeta {
        ObjectMeta {
            name: Some(name.to_string()),
            namespace: Some(self.namespace.clone()),
            labels: Some(labels::node_labels(self)),
            ..ObjectMeta::default()
        }
    }
}

/// A ConsensusGroup as builders see it.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupContext {
    /// Name of the ConsensusGroup.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Reference for children that go when it goes.
    pub owner: OwnerReference,
    /// Name of its BlockchainNetwork.
    pub network: String,
}

impl GroupContext {
    /// Reads a group.
    ///
    /// # Errors
    /// When the group has no name, namespace or uid.
    pub fn new(group: &ConsensusGroup) -> Result<Self, ContextError> {
        let Place { name, namespace, owner } = Place::of(group)?;
        Ok(Self { name, namespace, owner, network: group.spec.network.clone() })
    }

    /// Metadata of a child that goes when the group goes.
    #[must_use]
    pub fn metadata(&self, name: &str) -> ObjectMeta {
        ObjectMeta { owner_references: Some(vec![self.owner.clone()]), ..self.metadata_kept(name) }
    }

    /// Metadata of a child that stays when the group goes.
    #[must_use]
    pub fn metadata_kept(&self, name: &str) -> ObjectMeta {
        ObjectMeta {
            name: Some(name.to_string()),
            namespace: Some(self.namespace.clone()),
            labels: Some(labels::group_labels(self)),
            ..ObjectMeta::default()
        }
    }
}

/// A BlockchainNetwork as builders see it.
#[derive(Clone, Debug, PartialEq)]
pub struct NetworkContext {
    /// Name of the BlockchainNetwork.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Reference for children that go when it goes.
    pub owner: OwnerReference,
}

impl NetworkContext {
    /// Reads a network.
    ///
    /// # Errors
    /// When the network has no name, namespace or uid.
    pub fn new(network: &BlockchainNetwork) -> Result<Self, ContextError> {
        let Place { name, namespace, owner } = Place::of(network)?;
        Ok(Self { name, namespace, owner })
    }

    /// Metadata of a child that goes when the network goes.
    #[must_use]
    pub fn metadata(&self, name: &str) -> ObjectMeta {
        ObjectMeta { owner_references: Some(vec![self.owner.clone()]), ..self.metadata_kept(name) }
    }

    /// Metadata of a child that stays when the network goes.
    #[must_use]
    pub fn metadata_kept(&self, name: &str) -> ObjectMeta {
        ObjectMeta {
            name: Some(name.to_string()),
            namespace: Some(self.namespace.clone()),
            labels: Some(labels::network_labels(self)),
            ..ObjectMeta::default()
        }
    }
}

struct Place {
    name: String,
    namespace: String,
    owner: OwnerReference,
}

impl Place {
    fn of<K: Resource<DynamicType = ()>>(object: &K) -> Result<Self, ContextError> {
        let metadata = object.meta();
        match (metadata.name.clone(), metadata.namespace.clone(), object.controller_owner_ref(&())) {
            (Some(name), Some(namespace), Some(owner)) => Ok(Self { name, namespace, owner }),
            (name, _, _) => {
                Err(ContextError::Unplaced { kind: K::kind(&()).into_owned(), name: name.unwrap_or_default() })
            }
        }
    }
}
