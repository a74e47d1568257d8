//! What Kubernetes objects of ours look like: pure builders, one file for each kind of child.
//!
//! A builder takes a context ([`NodeContext`], [`GroupContext`], [`NetworkContext`]) that holds only checked values, and
//! answers the whole object as it shall be applied. Nothing here reads, writes, waits or knows the time.
//!
//! What is made once ([`secrets`], [`storage`], the genesis in [`configmaps`]) has no owner reference: it outlives the
//! object it was made for.

mod context;
mod labels;
mod pods;
mod settings;
mod tiers;

pub mod autoscaler;
pub mod configmaps;
pub mod gateway;
pub mod ingress;
pub mod networkpolicies;
pub mod observers;
pub mod poddisruptionbudget;
pub mod route;
pub mod secrets;
pub mod serviceaccount;
pub mod services;
pub mod statefulset;
pub mod storage;

pub use context::{ContextError, GroupContext, Installation, NetworkContext, NodeContext, PeerPlace, default_image_of};
pub use labels::{group_selector, group_voters_selector, network_selector, node_labels, node_selector};
pub use settings::{NodeSettings, default_image};
pub use tiers::TierContext;

#[cfg(test)]
mod golden;
