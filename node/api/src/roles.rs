//! The one table that says which role may make which call, and the SPIFFE id that says who somebody is.
//!
//! A certificate carries the id as its only URI subject alternative name: `spiffe://<chain id>/<role>/<id>`. For
//! validators and observers `<id>` is the identity key in lower-case hex; for the others it is a name that appears
//! in logs. DNS names and addresses in certificates are not consulted anywhere.

use std::{fmt, str::FromStr};

use node_core::types::{ChainId, Identity};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// What a caller is allowed to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// A node that may be in the voter set.
    Validator,
    /// A node that follows the chain and never votes.
    Observer,
    /// The public entrance that forwards users' calls.
    Gateway,
    /// The operator, or a tool that works in its place.
    Operator,
    /// A user or program that submits transactions and reads.
    Client,
}

/// Roles that a node can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeRole {
    /// Votes when the voter set names it.
    Validator,
    /// Follows the chain and never votes.
    Observer,
}

impl From<NodeRole> for Role {
    fn from(role: NodeRole) -> Self {
        match role {
            NodeRole::Validator => Self::Validator,
            NodeRole::Observer => Self::Observer,
        }
    }
}

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MethodRule {
    /// Path of the call, as in HTTP/2: `/<package>.<Service>/<Method>`.
    pub path: &'static str,
    /// The roles that may make it.
    pub roles: &'static [Role],
}

/// Every role, in the order of the table's columns.
pub const ROLES: [Role; 5] = [Role::Validator, Role::Observer, Role::Gateway, Role::Operator, Role::Client];

const NODES: &[Role] = &[Role::Validator, Role::Observer];
const USERS: &[Role] = &[Role::Gateway, Role::Operator, Role::Client];
const READERS: &[Role] = &[Role::Observer, Role::Gateway, Role::Operator, Role::Client];
const WATCHERS: &[Role] = &[Role::Observer, Role::Operator];
const OPERATOR: &[Role] = &[Role::Operator];

/// The table. A call that is not in it is refused to everybody.
pub const METHODS: &[MethodRule] = &[
    MethodRule { path: "/althing.v1.Transactions/Submit", roles: USERS },
    MethodRule { path: "/althing.v1.Transactions/SubmitBatch", roles: USERS },
    MethodRule { path: "/althing.v1.Transactions/SubmitStream", roles: USERS },
    MethodRule { path: "/althing.v1.Transactions/GetTransaction", roles: READERS },
    MethodRule { path: "/althing.v1.Accounts/GetAccount", roles: READERS },
    MethodRule { path: "/althing.v1.Blocks/GetBlock", roles: READERS },
    MethodRule { path: "/althing.v1.Blocks/StreamBlocks", roles: READERS },
    MethodRule { path: "/althing.v1.Blocks/GetLightBlocks", roles: READERS },
    MethodRule { path: "/althing.v1.Events/StreamEvents", roles: READERS },
    MethodRule { path: "/althing.v1.Validators/GetValidators", roles: READERS },
    MethodRule { path: "/althing.v1.Validators/GetGovernance", roles: READERS },
    MethodRule { path: "/althing.v1.Node/GetStatus", roles: READERS },
    MethodRule { path: "/althing.v1.Lifecycle/GetStartRequest", roles: OPERATOR },
    MethodRule { path: "/althing.v1.Lifecycle/GrantStart", roles: OPERATOR },
    MethodRule { path: "/althing.v1.Lifecycle/GetGenesisReport", roles: OPERATOR },
    MethodRule { path: "/althing.v1.Lifecycle/AcceptGenesis", roles: OPERATOR },
    MethodRule { path: "/althing.v1.Lifecycle/DropGenesis", roles: OPERATOR },
    MethodRule { path: "/althing.v1.Lifecycle/StartChain", roles: OPERATOR },
    MethodRule { path: "/althing.v1.Lifecycle/GetVoterReport", roles: OPERATOR },
    MethodRule { path: "/althing.v1.Lifecycle/GetRecoveryReport", roles: OPERATOR },
    MethodRule { path: "/althing.v1.Lifecycle/AcceptRecovery", roles: OPERATOR },
    MethodRule { path: "/althing.v1.Lifecycle/CompleteRecovery", roles: OPERATOR },
    MethodRule { path: "/althing.v1.Votes/StreamVotes", roles: WATCHERS },
    MethodRule { path: "/althing.v1.Peer/Connect", roles: NODES },
    MethodRule { path: "/grpc.health.v1.Health/Check", roles: &ROLES },
    MethodRule { path: "/grpc.health.v1.Health/Watch", roles: &ROLES },
    MethodRule { path: "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", roles: USERS },
];

/// Whether `role` may make the call at `path`. False for a path that is not in [`METHODS`].
pub fn may_call(role: Role, path: &str) -> bool {
    METHODS.iter().find(|rule| rule.path == path).is_some_and(|rule| rule.roles.contains(&role))
}

impl Role {
    /// The role as it stands in a SPIFFE id and in `node.yaml`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Validator => "validator",
            Self::Observer => "observer",
            Self::Gateway => "gateway",
            Self::Operator => "operator",
            Self::Client => "client",
        }
    }

    /// Whether the id of this role is an identity key.
    pub const fn is_node(self) -> bool {
        matches!(self, Self::Validator | Self::Observer)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = SpiffeIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        ROLES
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or_else(|| SpiffeIdError::Role { role: text.chars().take(NAME_BYTES_MAX).collect() })
    }
}

/// Most bytes in the name part of an id.
pub const NAME_BYTES_MAX: usize = 128;

/// Who somebody is on one chain: `spiffe://<chain id>/<role>/<id>`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpiffeId {
    chain_id: ChainId,
    role: Role,
    name: String,
}

/// Why a text is not an id of ours.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SpiffeIdError {
    /// The URI has another scheme or another number of parts.
    #[error("{uri:?} is not of the form spiffe://<chain id>/<role>/<id>")]
    Form {
        /// The text, cut to 256 characters.
        uri: String,
    },
    /// The chain id has a character that is not allowed, or a wrong length.
    #[error(
        "{chain_id:?} is not a chain id: 1 to {max} of a-z, 0-9 and -, with a letter or digit at both ends",
        max = ChainId::LENGTH_MAX
    )]
    ChainId {
        /// The text, cut to 128 characters.
        chain_id: String,
    },
    /// The role is none of ours.
    #[error("{role:?} is not a role: validator, observer, gateway, operator, client")]
    Role {
        /// The text, cut to 128 characters.
        role: String,
    },
    /// The name has a character that is not allowed, or a wrong length.
    #[error("{name:?} is not a name: 1 to {NAME_BYTES_MAX} of a-z, A-Z, 0-9, '.', '_' and '-'")]
    Name {
        /// The text, cut to 128 characters.
        name: String,
    },
    /// The id of a node is not an identity key.
    #[error("{name:?} is not the identity of a {role}: 64 lower-case hex digits")]
    Identity {
        /// The role, which is one of a node.
        role: Role,
        /// The text, cut to 128 characters.
        name: String,
    },
}

impl SpiffeId {
    /// An id from its parts. A validator's or observer's name must be its identity in 64 lower-case hex digits.
    pub fn new(chain_id: &ChainId, role: Role, name: &str) -> Result<Self, SpiffeIdError> {
        if role.is_node() && !is_identity(name) {
            return Err(SpiffeIdError::Identity { role, name: cut(name) });
        }
        if !is_name(name) {
            return Err(SpiffeIdError::Name { name: cut(name) });
        }
        Ok(Self { chain_id: chain_id.clone(), role, name: name.to_owned() })
    }

    /// The id of a node.
    pub fn node(chain_id: &ChainId, role: NodeRole, identity: &Identity) -> Self {
        Self { chain_id: chain_id.clone(), role: role.into(), name: identity.to_string() }
    }

    /// The chain that the id belongs to.
    pub const fn chain_id(&self) -> &ChainId {
        &self.chain_id
    }

    /// The identity of a node; nothing for the other roles.
    pub fn identity(&self) -> Option<Identity> {
        if self.role.is_node() { self.name.parse().ok() } else { None }
    }

    /// The role.
    pub const fn role(&self) -> Role {
        self.role
    }

    /// The last part: an identity in hex for nodes, else a name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "spiffe://{}/{}/{}", self.chain_id, self.role, self.name)
    }
}

impl FromStr for SpiffeId {
    type Err = SpiffeIdError;

    fn from_str(uri: &str) -> Result<Self, Self::Err> {
        let form = || SpiffeIdError::Form { uri: uri.chars().take(256).collect() };
        let rest = uri.strip_prefix("spiffe://").ok_or_else(form)?;
        let mut parts = rest.split('/');
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(chain_id), Some(role), Some(name), None) => {
                let chain_id =
                    ChainId::new(chain_id).map_err(|_| SpiffeIdError::ChainId { chain_id: cut(chain_id) })?;
                Self::new(&chain_id, role.parse()?, name)
            }
            _ => Err(form()),
        }
    }
}

fn is_identity(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(allowed)
}

fn cut(text: &str) -> String {
    text.chars().take(NAME_BYTES_MAX).collect()
}
