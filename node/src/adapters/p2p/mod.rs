//! The peer network: long-lived gRPC streams over mutual TLS to peers of the configuration and of signed records.
//!
//! Each node dials every peer of its configuration, and those of which it learns by [`records`], and takes connections
//! from any node of its chain; both directions of both connections carry messages (see [`links`]). A peer is who its
//! certificate says; whether it votes is decided by the core, from the voter set.

mod accept;
mod backoff;
pub mod conduct;
mod dial;
mod lag;
pub mod links;
pub mod receive;
pub mod records;
mod renewal;
pub mod rules;

pub use accept::PeerService;
pub use conduct::{Conduct, RosterWatch};
pub use dial::{DialError, Target, connect_once, keep_connected};
pub use links::{Frame, Links};
pub use receive::{Event, Inbox, Receivers};
pub use records::{RecordInbox, RecordKeeper};
pub use rules::{Offence, Roster};
