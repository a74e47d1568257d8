//! What a node, its operator, its clients and the tests share: calls, roles, TLS, configuration, genesis document.
//!
//! | module | holds |
//! |---|---|
//! | [`proto`] | messages, clients and servers of the gRPC services, made from `proto/` |
//! | [`roles`] | who may make which call, and the SPIFFE id that says who somebody is |
//! | [`config`] | `node.yaml` |
//! | [`pki`] | certificates: making and reading them |
//! | [`tls`] | mutual TLS by chain and SPIFFE id, files replaced while running |

#![deny(missing_docs)]

pub mod config;
pub mod pki;
pub mod proto;
pub mod roles;
pub mod tls;
