//! Keeps the peer records: greets neighbours with them, passes on new ones, signs the own one, and dials by them.
//!
//! One task owns the table; what counts is decided by [`super::rules`]. Records travel only between nodes that both say in
//! the head of their stream that they read them: a node of an older release takes an unknown message for damage.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use node_api::tls::TlsStore;
use node_core::{
    codec::Encode as _,
    crypto::KeyPair,
    types::{
        ChainId, Hash, Identity, PEER_RECORDS_PER_MESSAGE_MAX, PeerAddress, PeerMessage, SignedPeerRecord, TimeMs,
    },
};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;
use tonic::metadata::MetadataMap;

use super::{
    conduct::RosterWatch,
    dial::{Target, connect_once},
    links::{Frame, Links},
    receive::{Inbox, ReadsRecords},
    rules::{Book, DialPlace, Offence, OwnRecord, Refusal, Roster, Taken},
};
use crate::metrics::Metrics;

/// The name in the head of a stream by which a node says that it reads peer records.
pub const READS_RECORDS: &str = "althing-reads-peer-records";
/// Events that may wait for the task. A peer whose events find no room waits, and nobody else.
const EVENTS_MAX: usize = 256;
/// Records that wait until the chain runs here: before, nobody can say whether they count.
const EARLY_MAX: usize = 256;
/// How often new records are passed on and missing connections are looked for.
const TICK: Duration = Duration::from_secs(1);
/// Every so many ticks one neighbour gets the whole table, in turn: whatever was lost on its way comes again.
const REPEAT_TICKS: u64 = 60;
/// Neighbours that a new record is passed on to.
const NEIGHBOURS_MAX: usize = 16;
/// Waits between dials of one peer by its record.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);
/// A configured peer is dialed by its record only after its configured address had this long to answer.
const CONFIGURED_FIRST: Duration = Duration::from_secs(5);

/// What connections report.
#[derive(Debug)]
pub enum RecordEvent {
    /// A connection to a peer that reads records is open.
    Opened(Identity),
    /// A peer has sent records.
    Heard {
        /// The peer, proved by its certificate.
        from: Identity,
        /// Well formed and not verified.
        records: Vec<SignedPeerRecord>,
    },
}

/// Where connections report to. Cheap to clone.
#[derive(Clone, Debug)]
pub struct RecordInbox(mpsc::Sender<RecordEvent>);

impl RecordInbox {
    /// A queue, and its end for [`RecordKeeper`].
    pub fn new() -> (Self, mpsc::Receiver<RecordEvent>) {
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        (Self(sender), events)
    }

    /// Reports; waits while there is no room. At shutdown nobody has to know.
    pub async fn tell(&self, event: RecordEvent) {
        let _ = self.0.send(event).await;
    }
}

impl ReadsRecords {
    /// What the head of a stream says.
    pub fn of(head: &MetadataMap) -> Self {
        if head.contains_key(READS_RECORDS) { Self::Yes } else { Self::No }
    }
}

/// What the task works with.
pub struct RecordKeeper {
    /// The chain that certificates must name.
    pub chain_id: ChainId,
    /// Signs the own record.
    pub identity_key: KeyPair,
    /// Where this node is reached.
    pub addresses: Vec<PeerAddress>,
    /// Peers of the configuration.
    pub configured: BTreeSet<Identity>,
    /// This node's certificate.
    pub tls: Arc<TlsStore>,
    /// Connections.
    pub links: Links,
    /// Where new connections deliver to.
    pub inbox: Inbox,
    /// What the chain says about peers.
    pub roster: RosterWatch,
    /// Metrics.
    pub metrics: Arc<Metrics>,
}

/// When a peer is dialed by its record, and how long to wait after that.
struct Retry {
    at: Instant,
    wait: Duration,
}

struct Task {
    keeper: RecordKeeper,
    own_identity: Identity,
    own: OwnRecord,
    /// There is none before the chain runs here.
    book: Option<(Arc<Roster>, Book)>,
    early: VecDeque<(Identity, SignedPeerRecord)>,
    /// Whose records are new since the last tick.
    fresh: BTreeSet<Identity>,
    ticks: u64,
    turn: usize,
    retries: BTreeMap<Identity, Retry>,
    dialing: BTreeSet<Identity>,
    dials: JoinSet<(Identity, bool)>,
}

impl RecordKeeper {
    /// Runs until `stop` is cancelled.
    pub async fn run(self, mut events: mpsc::Receiver<RecordEvent>, stop: CancellationToken) {
        let own_identity = Identity::new(self.identity_key.public());
        let own = OwnRecord::new(self.identity_key.clone(), self.addresses.clone());
        let mut roster = self.roster.clone();
        let mut task = Task {
            keeper: self,
            own_identity,
            own,
            book: None,
            early: VecDeque::new(),
            fresh: BTreeSet::new(),
            ticks: 0,
            turn: 0,
            retries: BTreeMap::new(),
            dialing: BTreeSet::new(),
            dials: JoinSet::new(),
        };
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                changed = roster.changed() => {
                    // The main loop has gone: the node is going down.
                    if changed.is_err() {
                        break;
                    }
                    let newest = roster.borrow_and_update().clone();
                    task.on_roster(newest);
                }
                Some(event) = events.recv() => task.on_event(event),
                Some(ended) = task.dials.join_next() => task.on_dialed(ended.ok()),
                _ = ticks.tick() => task.on_tick(),
            }
        }
        task.dials.shutdown().await;
    }
}

impl Task {
    fn on_roster(&mut self, roster: Option<Arc<Roster>>) {
        let Some(roster) = roster else { return };
        let first = self.book.is_none();
        let mut book = match self.book.take() {
            Some((former, book)) if former.incarnation == roster.incarnation => book,
            _ => Book::new(self.own_identity, roster.incarnation, self.keeper.configured.clone()),
        };
        book.set_voters(roster.voters.keys().copied().collect());
        self.book = Some((roster, book));
        if !first {
            return;
        }
        self.renew();
        for (from, signed) in std::mem::take(&mut self.early) {
            self.on_record(from, signed);
        }
        for peer in self.keeper.links.readers() {
            self.greet(&peer);
        }
    }

    fn on_event(&mut self, event: RecordEvent) {
        match event {
            RecordEvent::Opened(peer) => self.greet(&peer),
            RecordEvent::Heard { from, records } => {
                for signed in records {
                    self.on_record(from, signed);
                }
            }
        }
    }

    fn on_record(&mut self, from: Identity, signed: SignedPeerRecord) {
        let Some((_, book)) = &mut self.book else {
            if self.early.len() >= EARLY_MAX {
                self.early.pop_front();
            }
            self.early.push_back((from, signed));
            return;
        };
        let identity = signed.record.identity;
        let addresses: Vec<String> = signed.record.addresses.iter().map(ToString::to_string).collect();
        match book.offer(from, signed, now()) {
            Ok(Taken::New) => {
                tracing::info!(peer = %identity, %from, ?addresses, "learned where a peer is reached");
                self.fresh.insert(identity);
            }
            Ok(Taken::Known) => {}
            Err(refusal) => {
                tracing::debug!(peer = %identity, %from, %refusal, "a peer record does not count");
                match refusal {
                    Refusal::Forged => self.keeper.links.report(from, Offence::ForgedRecord),
                    Refusal::OwnName { sequence } => self.own.on_seen(sequence),
                    // What an honest node may send: it has another clock, another height, or another table.
                    Refusal::OtherChain
                    | Refusal::Expired
                    | Refusal::TooLong
                    | Refusal::Older
                    | Refusal::TooSoon
                    | Refusal::Full => {}
                }
            }
        }
    }

    fn on_tick(&mut self) {
        self.ticks = self.ticks.wrapping_add(1);
        self.renew();
        let Some((_, book)) = &mut self.book else { return };
        book.expire(now());
        let (members, observers) = book.counts();
        let gauge = |of: &str, count: usize| {
            self.keeper.metrics.peer_records.with_label_values(&[of]).set(i64::try_from(count).unwrap_or(i64::MAX));
        };
        gauge("member", members);
        gauge("observer", observers);
        self.pass_on();
        if self.ticks.is_multiple_of(REPEAT_TICKS) {
            let readers = self.keeper.links.readers();
            self.turn = self.turn.wrapping_add(1);
            if let Some(peer) = readers.get(self.turn % readers.len().max(1)) {
                self.greet(peer);
            }
        }
        self.dial();
    }

    /// Signs the own record anew if that is due, and passes it on.
    fn renew(&mut self) {
        let Some((roster, _)) = &self.book else { return };
        let tls_key = Hash::new(self.keeper.tls.current().facts().key);
        if let Some(signed) = self.own.renew(roster.incarnation, tls_key, now()) {
            let addresses: Vec<_> = signed.record.addresses.iter().map(ToString::to_string).collect();
            tracing::info!(?addresses, sequence = signed.record.sequence, "signed the own peer record");
            self.fresh.insert(self.own_identity);
        }
    }

    /// A neighbour gets everything.
    fn greet(&self, peer: &Identity) {
        let Some((_, book)) = &self.book else { return };
        let records = self.own.newest().into_iter().chain(book.records().map(AsRef::as_ref));
        let others = records.filter(|signed| signed.record.identity != *peer).cloned().collect();
        self.send(peer, others);
    }

    /// New records go to some neighbours, not to the one that sent them. These pass them on, and the table of each goes
    /// round: so everybody has them soon.
    fn pass_on(&mut self) {
        let fresh = std::mem::take(&mut self.fresh);
        let Some((_, book)) = &self.book else { return };
        let mut readers = self.keeper.links.readers();
        if fresh.is_empty() || readers.is_empty() {
            return;
        }
        let first = self.turn % readers.len();
        readers.rotate_left(first);
        self.turn = self.turn.wrapping_add(NEIGHBOURS_MAX);
        for peer in readers.iter().take(NEIGHBOURS_MAX) {
            let mut records = Vec::new();
            for identity in fresh.iter().filter(|identity| *identity != peer) {
                if *identity == self.own_identity {
                    records.extend(self.own.newest().cloned());
                } else if let Some((signed, _)) = book.record(identity).filter(|(_, source)| source != peer) {
                    records.push(signed.as_ref().clone());
                }
            }
            self.send(peer, records);
        }
    }

    fn send(&self, peer: &Identity, records: Vec<SignedPeerRecord>) {
        for some in records.chunks(PEER_RECORDS_PER_MESSAGE_MAX) {
            let message = PeerMessage::PeerRecords(some.to_vec());
            self.keeper.links.send_records(peer, &Frame::from(message.encode()));
        }
    }

    fn dial(&mut self) {
        let Some((_, book)) = &self.book else { return };
        let connected: BTreeSet<Identity> = self.keeper.links.connected().into_iter().collect();
        let places = book.dial_places(&connected);
        self.retries.retain(|peer, _| places.iter().any(|place| place.identity == *peer));
        let at = Instant::now();
        for DialPlace { identity, tls_key, addresses } in places {
            let first = if book.is_configured(&identity) { CONFIGURED_FIRST } else { Duration::ZERO };
            let retry = self.retries.entry(identity).or_insert(Retry { at: at + first, wait: RETRY_FIRST });
            let refused = self.keeper.links.banned(&identity).is_some();
            if at < retry.at || refused || !self.dialing.insert(identity) {
                continue;
            }
            let (links, inbox) = (self.keeper.links.clone(), self.keeper.inbox.clone());
            let target = Target {
                chain_id: self.keeper.chain_id.clone(),
                identity,
                address: String::new(),
                tls_key: Some(tls_key),
                tls: Arc::clone(&self.keeper.tls),
            };
            let addresses = addresses.iter().map(ToString::to_string).collect();
            self.dials.spawn(async move { (identity, connect_once(target, addresses, &links, &inbox).await) });
        }
    }

    fn on_dialed(&mut self, ended: Option<(Identity, bool)>) {
        // A dial that panicked has taken its identity with it: then it is not dialed again by its record.
        let Some((identity, connected)) = ended else { return };
        self.dialing.remove(&identity);
        if let Some(retry) = self.retries.get_mut(&identity) {
            retry.wait = if connected { RETRY_FIRST } else { (retry.wait * 2).min(RETRY_MAX) };
            retry.at = Instant::now() + retry.wait;
        }
    }
}

/// The wall clock: records are about moments that other machines understand.
fn now() -> TimeMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    TimeMs::new(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
