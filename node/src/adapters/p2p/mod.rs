//! The peer network: long-lived gRPC streams over mutual TLS to every configured peer.
//!
//! Each node dials every peer of its configuration and takes connections from any node of its chain; both directions
//! of both connections carry messages (see [`links`]). A peer is who its certificate says; whether it votes is decided
//! by the core, from the voter set.

mod accept;
mod backoff;
mod dial;
pub mod links;
pub mod receive;

pub use accept::PeerService;
pub use dial::{DialError, Target, keep_connected};
pub use links::{Frame, Links};
pub use receive::{Event, Inbox};
