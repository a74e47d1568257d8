//! Mutual TLS: certificates from a directory that may change at any time, checked by chain and SPIFFE id only.
//!
//! [`TlsStore`] holds what this process presents and trusts. [`incoming`] turns a listener into connections whose
//! peer is known; [`TlsDialer`] connects. Every new connection uses the newest files; connections that exist go on
//! until one side closes them. Sessions are never resumed, so that nobody is believed on the word of an old bundle.

mod client;
mod edge;
mod material;
mod server;
mod store;
mod verify;

pub use client::{Dialer, RelayDialer, TcpDialer, TlsDialer, secure};
pub use edge::{ClientCertificates, EdgeStore};
pub use material::{TlsError, TlsMaterial, TlsPem};
pub use server::{AcceptLimits, PeerInfo, TlsConnection, incoming, incoming_peers};
pub use store::{Reload, TlsStore};
pub use verify::{Expected, PeerMismatch};

pub(crate) use material::roots_from_pem;
pub(crate) use verify::{chain_is_valid, entrance_is_valid};
