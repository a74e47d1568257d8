//! Picks loopback ports for the processes of a development network.

use std::{
    io,
    net::{Ipv4Addr, TcpListener},
    sync::{Mutex, PoisonError},
};

use rand::Rng;

/// The ports of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// Peers.
    pub p2p: u16,
    /// Node API.
    pub grpc: u16,
    /// Metrics and probes.
    pub http: u16,
}

const PER_NODE: u16 = 3;
/// Below the range from which the kernel takes source ports: a stopped node's port is not given to somebody's
/// outgoing connection before the node is back.
const LOWEST: u16 = 12_000;
const HIGHEST: u16 = 32_000;
const ATTEMPTS_MAX: usize = 100;

/// First and last port of every range that this process was given: its processes may not listen yet.
static GIVEN: Mutex<Vec<(u16, u16)>> = Mutex::new(Vec::new());

/// Ports from `base` upwards, three a node.
pub fn from_base(base: u16, nodes: u16) -> io::Result<Vec<Ports>> {
    if u32::from(base) + u32::from(nodes) * u32::from(PER_NODE) > u32::from(u16::MAX) {
        return Err(io::Error::other(format!("no room for {nodes} nodes above port {base}")));
    }
    Ok((0..nodes)
        .map(|node| {
            let first = base + node * PER_NODE;
            Ports { p2p: first, grpc: first + 1, http: first + 2 }
        })
        .collect())
}

/// Ports that nobody listens on now and that were not given before, at a random place, so that networks started at the
/// same time do not meet.
pub fn free(nodes: u16) -> io::Result<Vec<Ports>> {
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    for _ in 0..ATTEMPTS_MAX {
        let base = rand::rng().random_range(LOWEST..HIGHEST - nodes * PER_NODE);
        let last = base + nodes * PER_NODE - 1;
        if given.iter().any(|(first, end)| base <= *end && *first <= last) {
            continue;
        }
        let held: io::Result<Vec<TcpListener>> =
            (base..base + nodes * PER_NODE).map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port))).collect();
        if held.is_ok() {
            given.push((base, last));
            return from_base(base, nodes);
        }
    }
    Err(io::Error::other("found no free ports"))
}

#[cfg(test)]
mod tests {
    use super::{Ports, free, from_base};

    #[test]
    fn each_node_has_three_ports_of_its_own() -> std::io::Result<()> {
        assert_eq!(
            from_base(7100, 2)?,
            vec![Ports { p2p: 7100, grpc: 7101, http: 7102 }, Ports { p2p: 7103, grpc: 7104, http: 7105 }]
        );
        assert!(from_base(65_530, 2).is_err());
        assert_eq!(free(4)?.len(), 4);
        Ok(())
    }
}
