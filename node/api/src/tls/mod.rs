//! Mutual TLS: certificates from a directory that may change at any time, checked by chain and SPIFFE id only.
//!
//! [`TlsStore`] holds what this process presents and trusts. [`incoming`] turns a listener into connections whose
//! peer is known; [`TlsDialer`] connects. Every new connection uses the newest files. A connection that exists goes on for as
//! long as the newest files vouch for its peer: when they do not any more, it is closed at once ([`Watched`]). Sessions
//! are never resumed, so that nobody is believed on the word of an old bundle.

mod client;
mod edge;
mod material;
mod once;
mod report;
mod server;
mod store;
mod verify;
mod watched;

pub use client::{Dialer, RelayDialer, TcpDialer, TlsDialer, secure};
pub use edge::{ClientCertificates, EdgeStore};
pub use material::{TlsError, TlsMaterial, TlsPem};
pub use once::{Ending, OnceDialer, OnceStream};
pub use report::TlsReport;
pub use server::{AcceptLimits, Admitted, PeerInfo, TlsConnection, incoming, incoming_peers};
pub use store::{Reload, TlsStore};
pub use verify::{Expected, PeerMismatch};
pub use watched::Watched;

pub(crate) use material::roots_from_pem;
pub(crate) use verify::{chain_is_valid, entrance_is_valid};
