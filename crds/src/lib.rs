//! The three kinds of the API group `althing.dev`, their conditions, names and definitions.
//!
//! A person writes a [`BlockchainNetwork`]; the operator makes one [`ConsensusGroup`] for each chain in it and one
//! [`ValidatorNode`] for each node of a chain. This crate holds only what both sides of the API must agree on: types,
//! rules that the API server checks, condition types and reasons, and the names of everything that is made.
#![deny(missing_docs)]

pub mod certificates;
pub mod chain;
pub mod conditions;
pub mod definitions;
pub mod gateway;
pub mod group;
pub mod names;
pub mod network;
pub mod observers;
pub mod peers;
pub mod quantity;
pub mod reasons;
pub mod scaling;
mod schemas;
pub mod template;
pub mod validator;

pub use conditions::{Condition, ConditionStatus, ConditionType};
pub use group::{ConsensusGroup, ConsensusGroupSpec, ConsensusGroupStatus};
pub use network::{BlockchainNetwork, BlockchainNetworkSpec, BlockchainNetworkStatus};
pub use reasons::Reason;
pub use template::NodeTemplate;
pub use validator::{ValidatorNode, ValidatorNodeSpec, ValidatorNodeStatus};

/// API group of all kinds.
pub const GROUP: &str = "althing.dev";
/// Version of all kinds.
pub const VERSION: &str = "v1alpha1";
