//! What a node, its operator, its clients and the tests share: calls, roles, TLS, configuration, genesis document.
//!
//! | module | holds |
//! |---|---|
//! | [`proto`] | messages, clients and servers of the gRPC services, made from `proto/` |
//! | [`client`] | the typed client: one connection, deadlines, trace |
//! | [`roles`], [`authorize`] | who may make which call; the SPIFFE id that says who somebody is; the layer that enforces it |
//! | [`tls`], [`pki`] | mutual TLS by chain and SPIFFE id, files replaced while running; making and reading certificates |
//! | [`config`], [`gateway`] | `node.yaml` of nodes and of gateways |
//! | [`genesis`], [`keys`], [`cometbft`] | the genesis document, key files, those of CometBFT |
//! | [`transactions`], [`governance`], [`recovery`] | building and signing, the documents that signers pass on |
//! | [`light`], [`checkpoint`] | a light client over the network: trusts what the voters of its genesis, or of a late header, lead to |
//! | [`events`] | events of blocks as they are stored and sent |
//! | [`fields`], [`trace`], [`deadline`] | raw bytes of messages as types; the W3C trace of calls, the time that they have |
//! | [`unsettled`] | the answer of a node that stops: it may have taken the call |
//! | [`metrics`] | Prometheus metrics with their descriptions |

#![deny(missing_docs)]

mod advertise;
pub mod authorize;
pub mod checkpoint;
pub mod client;
pub mod cometbft;
pub mod config;
pub mod deadline;
pub mod events;
pub mod fields;
pub mod gateway;
pub mod genesis;
pub mod governance;
mod keeping;
pub mod keys;
pub mod light;
pub mod metrics;
pub mod pki;
pub mod proto;
pub mod recovery;
pub mod roles;
pub mod tls;
pub mod trace;
pub mod transactions;
pub mod unsettled;

/// The protocol's types and codec: the operator depends on this crate only, and names them through it.
pub use node_core;
