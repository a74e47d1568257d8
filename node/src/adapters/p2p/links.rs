//! The open connections to each peer and the bounded queue of each connection.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use node_core::types::Identity;
use prost::bytes::Bytes;
use thiserror::Error;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{conduct::Conduct, lag::Lag, rules::Offence};
use crate::metrics::Metrics;

/// Frames that may wait for one connection. A peer that is this far behind loses frames and must sync instead.
const QUEUED_FRAMES_MAX: usize = 1024;
/// Connections that peers may hold open to this node.
const ACCEPTED_MAX: usize = 256;

/// Who opened a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// This node did.
    Dialed,
    /// The peer did.
    Accepted,
}

/// Why a connection was not taken.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum LinkError {
    /// Too many peers are connected.
    #[error("this node already holds {ACCEPTED_MAX} connections from peers")]
    Full,
    /// The peer was sent away.
    #[error("the peer is refused for {} s more: it broke the rules", left.as_secs() + 1)]
    Banned {
        /// For how long.
        left: Duration,
    },
}

/// One encoded message.
pub type Frame = Bytes;

/// Every open connection of the process.
///
/// A pair of nodes that know each other's address has two connections, one opened by each. Frames leave through the
/// newer one, which is alive for sure when the peer came back from another machine, or through the other while that one
/// is full; frames are taken from both. No connection has to be closed in favour of the other, so there is no race about
/// which one stays.
#[derive(Clone, Debug)]
pub struct Links {
    table: Arc<Mutex<Table>>,
    metrics: Arc<Metrics>,
    conduct: Conduct,
    lag: Lag,
}

#[derive(Debug, Default)]
struct Table {
    peers: BTreeMap<Identity, Peer>,
    accepted: usize,
    serial: u64,
}

#[derive(Debug, Default)]
struct Peer {
    dialed: Option<Connection>,
    accepted: Option<Connection>,
}

#[derive(Debug)]
struct Connection {
    serial: u64,
    queue: mpsc::Sender<Frame>,
    close: CancellationToken,
    /// The peer says that it reads peer records.
    reads_records: bool,
}

/// The connection's own end of its entry; the entry goes when this is dropped.
#[derive(Debug)]
pub struct Link {
    links: Links,
    peer: Identity,
    side: Side,
    serial: u64,
    close: CancellationToken,
}

impl Links {
    /// No connections yet.
    pub fn new(metrics: Arc<Metrics>, conduct: Conduct) -> Self {
        Self { table: Arc::default(), metrics, conduct, lag: Lag::default() }
    }

    /// Whether this node is far behind.
    pub fn lag(&self) -> &Lag {
        &self.lag
    }

    /// Enters a connection; a former one of the same peer and side is closed, since the newer one is alive for sure.
    pub fn open(&self, peer: Identity, side: Side) -> Result<(Link, mpsc::Receiver<Frame>), LinkError> {
        if let Some(left) = self.conduct.banned(&peer) {
            return Err(LinkError::Banned { left });
        }
        let (queue, frames) = mpsc::channel(QUEUED_FRAMES_MAX);
        let close = CancellationToken::new();
        let mut table = self.table();
        let known = table.peers.get(&peer).is_some_and(|entry| entry.accepted.is_some());
        if side == Side::Accepted && !known {
            if table.accepted >= ACCEPTED_MAX {
                return Err(LinkError::Full);
            }
            table.accepted += 1;
        }
        table.serial += 1;
        let serial = table.serial;
        let entry = table.peers.entry(peer).or_default();
        let former = entry.side(side).replace(Connection { serial, queue, close: close.clone(), reads_records: false });
        if let Some(former) = former {
            former.close.cancel();
        }
        self.metrics.peers.set(i64::try_from(table.peers.len()).unwrap_or(i64::MAX));
        drop(table);
        Ok((Link { links: self.clone(), peer, side, serial, close }, frames))
    }

    /// Queues `frame` for every connected peer.
    pub fn broadcast(&self, frame: &Frame) {
        for entry in self.table().peers.values() {
            self.queue(entry, frame);
        }
    }

    /// Queues `frame` for one peer; a peer that is not connected or too slow does not get it.
    pub fn send(&self, peer: &Identity, frame: &Frame) {
        match self.table().peers.get(peer) {
            Some(entry) => self.queue(entry, frame),
            None => self.count("not_connected"),
        }
    }

    /// The peers that read peer records.
    pub fn readers(&self) -> Vec<Identity> {
        let table = self.table();
        let reads = |peer: &&Peer| peer.newest_first().into_iter().flatten().any(|connection| connection.reads_records);
        table.peers.iter().filter(|(_, peer)| reads(peer)).map(|(identity, _)| *identity).collect()
    }

    /// Queues a frame with peer records, on a connection whose other end reads them.
    pub fn send_records(&self, peer: &Identity, frame: &Frame) {
        let table = self.table();
        let Some(entry) = table.peers.get(peer) else { return self.count("not_connected") };
        let mut readers = entry.newest_first().into_iter().flatten().filter(|connection| connection.reads_records);
        let queued = readers.any(|connection| connection.queue.try_send(frame.clone()).is_ok());
        self.count(if queued { "queued" } else { "queue_full" });
    }

    /// A peer did something that an honest one does not. If it was too much its connections end, and none is taken or made
    /// for a while.
    pub fn report(&self, peer: Identity, offence: Offence) {
        self.metrics.peer_offences_total.with_label_values(&[offence.as_str()]).inc();
        let Some(away) = self.conduct.report(peer, offence) else { return };
        self.metrics.peer_bans_total.inc();
        tracing::warn!(%peer, offence = offence.as_str(), seconds = away.as_secs(), "a peer breaks the rules: refusing it");
        if let Some(entry) = self.table().peers.get(&peer) {
            entry.newest_first().into_iter().flatten().for_each(|connection| connection.close.cancel());
        }
    }

    /// For how long this peer is refused from now on, if it is.
    pub fn banned(&self, peer: &Identity) -> Option<Duration> {
        self.conduct.banned(peer)
    }

    /// Milliseconds since the start of the process.
    pub fn now_ms(&self) -> u64 {
        self.conduct.now_ms()
    }

    /// Whether this peer has a connection.
    pub fn is_connected(&self, peer: &Identity) -> bool {
        self.table().peers.contains_key(peer)
    }

    /// The peers with at least one connection.
    pub fn connected(&self) -> Vec<Identity> {
        self.table().peers.keys().copied().collect()
    }

    fn queue(&self, entry: &Peer, frame: &Frame) {
        let send = |connection: &Connection| connection.queue.try_send(frame.clone()).is_ok();
        let queued = entry.newest_first().into_iter().flatten().any(send);
        self.count(if queued { "queued" } else { "queue_full" });
    }

    fn count(&self, outcome: &str) {
        self.metrics.messages_sent_total.with_label_values(&[outcome]).inc();
    }

    fn close(&self, link: &Link) {
        let mut table = self.table();
        let Some(entry) = table.peers.get_mut(&link.peer) else { return };
        let slot = entry.side(link.side);
        // A newer connection may have taken the place of this one.
        if slot.as_ref().is_none_or(|connection| connection.serial != link.serial) {
            return;
        }
        *slot = None;
        let empty = entry.dialed.is_none() && entry.accepted.is_none();
        if link.side == Side::Accepted {
            table.accepted = table.accepted.saturating_sub(1);
        }
        if empty {
            table.peers.remove(&link.peer);
        }
        self.metrics.peers.set(i64::try_from(table.peers.len()).unwrap_or(i64::MAX));
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Nothing in here can leave the table half changed.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Peer {
    fn newest_first(&self) -> [Option<&Connection>; 2] {
        let (dialed, accepted) = (self.dialed.as_ref(), self.accepted.as_ref());
        let serial = |connection: Option<&Connection>| connection.map(|connection| connection.serial);
        if serial(accepted) > serial(dialed) { [accepted, dialed] } else { [dialed, accepted] }
    }

    fn side(&mut self, side: Side) -> &mut Option<Connection> {
        match side {
            Side::Dialed => &mut self.dialed,
            Side::Accepted => &mut self.accepted,
        }
    }
}

impl Link {
    /// The other end says that it reads peer records.
    pub fn reads_records(&self) {
        if let Some(peer) = self.links.table().peers.get_mut(&self.peer)
            && let Some(connection) = peer.side(self.side)
            && connection.serial == self.serial
        {
            connection.reads_records = true;
        }
    }

    /// Reports what came through this connection.
    pub fn report(&self, offence: Offence) {
        self.links.report(self.peer, offence);
    }

    /// Milliseconds since the start of the process.
    pub fn now_ms(&self) -> u64 {
        self.links.now_ms()
    }

    /// Closes this connection when it is cancelled.
    pub fn closer(&self) -> CancellationToken {
        self.close.clone()
    }

    /// Ends when a newer connection of the same peer and side took the place of this one, the peer was sent away, or its
    /// owner closes it.
    pub async fn replaced(&self) {
        self.close.cancelled().await;
    }

    /// The peer at the other end.
    pub fn peer(&self) -> Identity {
        self.peer
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.links.clone().close(self);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use node_core::types::Identity;

    use tokio::sync::watch;

    use super::{Conduct, Frame, LinkError, Links, Offence, QUEUED_FRAMES_MAX, Side};
    use crate::metrics::Metrics;

    fn links() -> Links {
        let conduct = Conduct::new(std::collections::BTreeSet::new(), watch::channel(None).1);
        Links::new(Arc::new(Metrics::new().expect("the metrics register")), conduct)
    }

    fn identity(number: u16) -> Identity {
        let mut bytes = [7; 32];
        bytes[..2].copy_from_slice(&number.to_be_bytes());
        Identity::new(bytes)
    }

    fn frame() -> Frame {
        Frame::from_static(&[1, 2, 3])
    }

    #[test]
    fn frames_leave_through_the_newer_connection_and_fall_back_to_the_older_one() {
        for (older, newer) in [(Side::Accepted, Side::Dialed), (Side::Dialed, Side::Accepted)] {
            let links = links();
            let (_older, mut through_older) = links.open(identity(1), older).expect("there is room");
            let (newer, mut through_newer) = links.open(identity(1), newer).expect("there is room");
            links.broadcast(&frame());
            assert!(through_newer.try_recv().is_ok());
            assert!(through_older.try_recv().is_err());
            drop(newer);
            links.send(&identity(1), &frame());
            assert!(through_older.try_recv().is_ok());
        }
    }

    #[test]
    fn a_peer_that_does_not_read_loses_frames_and_holds_no_memory() {
        let links = links();
        let (_link, mut frames) = links.open(identity(1), Side::Dialed).expect("there is room");
        for _ in 0..QUEUED_FRAMES_MAX + 10 {
            links.broadcast(&frame());
        }
        let mut queued = 0;
        while frames.try_recv().is_ok() {
            queued += 1;
        }
        assert_eq!(queued, QUEUED_FRAMES_MAX);
    }

    #[tokio::test]
    async fn a_newer_connection_replaces_the_former_one_and_survives_its_end() {
        let links = links();
        let (former, _frames) = links.open(identity(1), Side::Accepted).expect("there is room");
        let (newer, _more) = links.open(identity(1), Side::Accepted).expect("there is room");
        former.replaced().await;
        drop(former);
        assert_eq!(links.connected(), vec![newer.peer()]);
        drop(newer);
        assert_eq!(links.connected(), vec![]);
    }

    #[tokio::test]
    async fn a_peer_that_is_sent_away_loses_its_connections_and_gets_no_other() {
        let links = links();
        let (link, _frames) = links.open(identity(1), Side::Accepted).expect("there is room");
        let (other, _more) = links.open(identity(2), Side::Accepted).expect("there is room");
        links.report(identity(1), Offence::Malformed);
        link.replaced().await;
        drop(link);
        assert!(matches!(links.open(identity(1), Side::Accepted), Err(LinkError::Banned { .. })));
        assert!(matches!(links.open(identity(1), Side::Dialed), Err(LinkError::Banned { .. })));
        assert_eq!(links.connected(), vec![other.peer()]);
    }

    #[test]
    fn records_leave_only_through_connections_whose_other_end_reads_them() {
        let links = links();
        let (old, mut through_old) = links.open(identity(1), Side::Dialed).expect("there is room");
        links.send_records(&identity(1), &frame());
        assert!(links.readers().is_empty() && through_old.try_recv().is_err());
        old.reads_records();
        links.send_records(&identity(1), &frame());
        assert_eq!(links.readers(), vec![identity(1)]);
        assert!(through_old.try_recv().is_ok());
    }

    #[test]
    fn one_more_peer_than_the_limit_is_refused_and_a_known_one_is_not() {
        let links = links();
        let mut open = Vec::new();
        for number in 0..256 {
            open.push(links.open(identity(number), Side::Accepted).expect("there is room"));
        }
        assert_eq!(links.open(identity(256), Side::Accepted).map(|_| ()).err(), Some(LinkError::Full));
        assert!(links.open(identity(3), Side::Accepted).is_ok());
    }
}
