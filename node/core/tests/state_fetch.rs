//! Fetching a state from peers that lie, withhold, prune and come and go, with restarts in the middle.

#![expect(clippy::indexing_slicing, clippy::panic, reason = "a test may fail anywhere")]

use std::collections::{BTreeMap, BTreeSet};

use node_core::{
    sync::{FETCH_PATIENCE_MS, FetchEffect, StateChecks, StateFetch, StatePiece, StateTarget, piece, piece_count},
    types::{Hash, Height, Identity, OperationsRange, PeerMessage, StateRoots},
};

/// Seeds of the random runs.
const RUNS: u64 = 400;
const STEP_MS: u64 = 200;

/// Numbers that look random and are the same for the same seed (SplitMix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

/// How a peer answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Peer {
    Honest,
    /// Shows a state that nobody certified.
    ForgesProofs,
    /// Shows the right proof and sends other operations.
    ForgesPieces,
    /// Takes every question and answers none.
    Silent,
    /// Has a proof and has already pruned the operations.
    Pruned,
    /// Has no state to offer.
    Empty,
}

/// The states of the chain: every honest node has the same.
fn target(height: u64) -> StateTarget {
    let operations_range = OperationsRange { start: height * 3, end: height * 3 + 40 + height * 300 };
    let root = |tag| Hash::tagged(tag, &height.to_be_bytes());
    let roots = StateRoots { state_root: root("state"), operations_root: root("operations"), operations_range };
    StateTarget { height: Height::new(height), roots }
}

fn manifest(height: u64) -> Vec<u8> {
    [b"proof".as_slice(), &height.to_be_bytes()].concat()
}

fn piece_bytes(height: u64, number: u64) -> Vec<u8> {
    Hash::tagged("piece", &[height.to_be_bytes(), number.to_be_bytes()].concat()).as_bytes().to_vec()
}

/// Believes what the chain certified; or everything, to prove that the run would notice.
struct Checks {
    gullible: bool,
}

impl StateChecks for Checks {
    fn manifest(&mut self, bytes: &[u8]) -> Result<StateTarget, String> {
        let height = bytes.strip_prefix(b"proof").or(bytes.strip_prefix(b"forgery").filter(|_| self.gullible));
        let height = height.and_then(|height| height.try_into().ok()).map(u64::from_be_bytes);
        height.map(target).ok_or_else(|| "nobody certified it".to_owned())
    }

    fn piece(&self, target: &StateTarget, wanted: &StatePiece, bytes: &[u8]) -> Result<(), String> {
        let number = (0..).find(|number| piece(&target.roots.operations_range, *number) == Some(*wanted));
        let right = number.is_some_and(|number| piece_bytes(target.height.get(), number) == bytes);
        if right || self.gullible { Ok(()) } else { Err("it is another piece".to_owned()) }
    }
}

fn identity(n: usize) -> Identity {
    Identity::new([u8::try_from(n).expect("few peers"); 32])
}

/// What is on the disk of the node that fetches, as the shell keeps it.
#[derive(Clone, Default)]
struct Disk {
    target: Option<StateTarget>,
    pieces: Vec<Vec<u8>>,
}

struct World {
    dice: Dice,
    peers: Vec<Peer>,
    tip: u64,
    now_ms: u64,
    fetch: StateFetch,
    checks: Checks,
    disk: Disk,
    liars: BTreeSet<Identity>,
    asked: BTreeMap<Identity, u64>,
    verified: Option<StateTarget>,
    restarts: u64,
}

#[derive(Debug, PartialEq, Eq)]
enum End {
    Complete,
    GivenUp,
}

impl World {
    fn new(seed: u64, peers: Vec<Peer>, gullible: bool) -> Self {
        let mut world = Self {
            dice: Dice(seed),
            peers,
            tip: 5,
            now_ms: 0,
            fetch: StateFetch::new(0, None),
            checks: Checks { gullible },
            disk: Disk::default(),
            liars: BTreeSet::new(),
            asked: BTreeMap::new(),
            verified: None,
            restarts: 0,
        };
        world.connect();
        world
    }

    fn connect(&mut self) {
        (0..self.peers.len()).for_each(|n| self.fetch.on_connected(identity(n)));
    }

    fn run(&mut self, restarts_max: u64) -> End {
        loop {
            self.now_ms += STEP_MS;
            assert!(self.now_ms < 20 * FETCH_PATIENCE_MS, "neither an end nor a state");
            let effects = self.fetch.on_tick(self.now_ms);
            if let Some(end) = self.perform(effects) {
                return end;
            }
            if self.dice.below(60) == 0 {
                self.tip += 1;
            }
            if self.restarts < restarts_max && self.dice.below(40) == 0 {
                self.restart();
            }
            if !self.peers.is_empty() && self.dice.below(50) == 0 {
                let n = usize::try_from(self.dice.below(self.peers.len() as u64)).expect("few peers");
                self.fetch.on_disconnected(&identity(n));
                self.fetch.on_connected(identity(n));
            }
        }
    }

    /// Everything in memory is gone; the last piece may have been torn.
    fn restart(&mut self) {
        self.restarts += 1;
        if self.dice.below(2) == 0 {
            self.disk.pieces.pop();
        }
        let kept = self.disk.pieces.len() as u64;
        let resumed = self.disk.target.clone().map(|target| (target, kept));
        self.fetch = StateFetch::new(self.now_ms, resumed);
        self.liars.clear();
        self.connect();
    }

    fn perform(&mut self, effects: Vec<FetchEffect>) -> Option<End> {
        for effect in effects {
            match effect {
                FetchEffect::Send { to, message } => {
                    assert!(!self.liars.contains(&to), "a liar is asked again");
                    *self.asked.entry(to).or_default() += 1;
                    let Some(answer) = self.answer(&to, &message) else { continue };
                    if let PeerMessage::StateManifest(bytes) = &answer {
                        self.verified = self.checks.manifest(bytes).ok();
                    }
                    let effects = self.fetch.on_message(self.now_ms, to, &answer, &mut self.checks);
                    if let Some(end) = self.perform(effects) {
                        return Some(end);
                    }
                }
                FetchEffect::Begin => self.disk = Disk { target: self.verified.clone(), pieces: Vec::new() },
                FetchEffect::Keep(bytes) => self.disk.pieces.push(bytes),
                FetchEffect::Complete => return Some(End::Complete),
                FetchEffect::Lied { peer, .. } => {
                    self.liars.insert(peer);
                }
                FetchEffect::GiveUp => return Some(End::GivenUp),
            }
        }
        None
    }

    fn answer(&mut self, peer: &Identity, message: &PeerMessage) -> Option<PeerMessage> {
        let n = usize::from(peer.as_bytes()[0]);
        let kind = self.peers[n];
        if kind == Peer::Silent {
            return None;
        }
        match message {
            PeerMessage::StateRequest => Some(PeerMessage::StateManifest(match kind {
                Peer::ForgesProofs => [b"forgery".as_slice(), &self.tip.to_be_bytes()].concat(),
                Peer::Empty => Vec::new(),
                Peer::Honest | Peer::ForgesPieces | Peer::Silent | Peer::Pruned => manifest(self.tip),
            })),
            PeerMessage::StatePieceRequest { height, number } => {
                let right = piece_bytes(height.get(), *number);
                // Honest peers keep operations for some heights.
                let kept = height.get() + 8 >= self.tip;
                let bytes = match kind {
                    Peer::Honest | Peer::ForgesProofs if kept => right,
                    Peer::ForgesPieces => right.into_iter().rev().collect(),
                    _ => Vec::new(),
                };
                Some(PeerMessage::StatePiece { height: *height, number: *number, bytes })
            }
            other => panic!("not a question: {other:?}"),
        }
    }

    /// What is on the disk is one state that the chain certified, whole.
    fn check(&self) -> Result<(), String> {
        let Some(found) = &self.disk.target else { return Err("no state was proved".to_owned()) };
        let height = found.height.get();
        if *found != target(height) || height > self.tip {
            return Err(format!("nobody certified {found:?}"));
        }
        let count = piece_count(&found.roots.operations_range);
        let expected: Vec<_> = (0..count).map(|number| piece_bytes(height, number)).collect();
        if self.disk.pieces == expected { Ok(()) } else { Err("the pieces are not those of the state".to_owned()) }
    }
}

fn peers(dice: &mut Dice) -> Vec<Peer> {
    let kinds = [Peer::ForgesProofs, Peer::ForgesPieces, Peer::Silent, Peer::Pruned, Peer::Empty];
    let mut peers: Vec<_> =
        (0..dice.below(5)).map(|_| kinds[usize::try_from(dice.below(5)).expect("few kinds")]).collect();
    let place = usize::try_from(dice.below(peers.len() as u64 + 1)).expect("few peers");
    peers.insert(place, Peer::Honest);
    peers
}

#[test]
fn one_honest_peer_is_enough_whatever_the_others_do() {
    let (mut lies, mut restarts) = (0, 0);
    for seed in 0..RUNS {
        let peers = peers(&mut Dice(seed));
        let mut world = World::new(seed, peers.clone(), false);
        let end = world.run(3);
        assert_eq!(end, End::Complete, "seed {seed}: {peers:?}");
        world.check().unwrap_or_else(|problem| panic!("seed {seed}: {peers:?}: {problem}"));
        lies += world.liars.len();
        restarts += world.restarts;
    }
    assert!(lies > 100 && restarts > 100, "the runs are too tame: {lies} lies, {restarts} restarts");
}

#[test]
fn without_an_honest_peer_the_node_goes_on_without_a_state() {
    let kinds = [Peer::ForgesProofs, Peer::ForgesPieces, Peer::Silent, Peer::Pruned, Peer::Empty];
    for (seed, kind) in (0..).zip(kinds) {
        let mut world = World::new(seed, vec![kind; 3], false);
        assert_eq!(world.run(0), End::GivenUp, "{kind:?}");
    }
    assert_eq!(World::new(9, Vec::new(), false).run(0), End::GivenUp);
}

#[test]
fn a_node_that_believes_everything_is_noticed() {
    let caught = (0..RUNS).filter(|seed| {
        let mut world = World::new(*seed, vec![Peer::ForgesPieces, Peer::Honest], true);
        world.run(0) == End::Complete && world.check().is_err()
    });
    assert!(caught.count() > 50, "the check of the runs proves nothing");
}

#[test]
fn an_answer_that_was_not_asked_for_changes_nothing() {
    let mut fetch = StateFetch::new(0, None);
    let mut checks = Checks { gullible: true };
    let (asked, stranger) = (identity(1), identity(2));
    fetch.on_connected(asked);
    let request = vec![FetchEffect::Send { to: asked, message: Box::new(PeerMessage::StateRequest) }];
    assert_eq!(fetch.on_tick(0), request);
    let answer = PeerMessage::StateManifest(manifest(5));
    assert_eq!(fetch.on_message(1, stranger, &answer, &mut checks), vec![]);
    let early = PeerMessage::StatePiece { height: Height::new(5), number: 0, bytes: vec![1] };
    assert_eq!(fetch.on_message(1, asked, &early, &mut checks), vec![]);
    let effects = fetch.on_message(1, asked, &answer, &mut checks);
    let message = Box::new(PeerMessage::StatePieceRequest { height: Height::new(5), number: 0 });
    assert_eq!(effects, vec![FetchEffect::Begin, FetchEffect::Send { to: asked, message }]);
    let other_height = PeerMessage::StatePiece { height: Height::new(4), number: 0, bytes: vec![1] };
    assert_eq!(fetch.on_message(2, asked, &other_height, &mut checks), vec![]);
}
