//! What touches the world: disk, peers, HTTP.

pub mod http;
pub mod p2p;
pub mod storage;
pub mod volume;
