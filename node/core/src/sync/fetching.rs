//! Fetching a state: whom to ask for its proof and for its pieces, whom not to ask again, when to begin anew.
//!
//! One question is open at a time. Every honest node of the chain has the same operations, so a piece may come from
//! anybody, whoever showed the manifest; each answer is checked by itself before it is kept. Who answers wrongly is a liar
//! and is not asked again; who does not answer, or has nothing, is asked again later.

use std::collections::BTreeMap;

use super::{piece, piece_count, pieces::StatePiece};
use crate::types::{Height, Identity, PeerMessage, StateRoots};

/// How long to wait for an answer, milliseconds. A manifest may carry a large block.
pub const STATE_TIMEOUT_MS: u64 = 5_000;
/// After so long without a piece that could be kept it is better to go on without: blocks may be had.
pub const FETCH_PATIENCE_MS: u64 = 60_000;
/// How long peers that had nothing are left alone once nobody else is left, milliseconds.
const PAUSE_MS: u64 = 2_000;
/// How many peers are remembered.
const PEERS_MAX: usize = 512;

/// What a verified manifest says about the pieces.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StateTarget {
    /// The height of the state.
    pub height: Height,
    /// What the pieces are checked against.
    pub roots: StateRoots,
}

/// Checks what peers send; the only thing here that knows of signatures and of the store.
pub trait StateChecks {
    /// Verifies a manifest from what is trusted. It must lead far enough for this node.
    fn manifest(&mut self, bytes: &[u8]) -> Result<StateTarget, String>;

    /// Verifies one piece against the certified root.
    fn piece(&self, target: &StateTarget, wanted: &StatePiece, bytes: &[u8]) -> Result<(), String>;
}

/// What is to be done.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum FetchEffect {
    /// Send this to a peer.
    Send {
        /// The peer.
        to: Identity,
        /// The message.
        message: Box<PeerMessage>,
    },
    /// The last manifest that was checked is the one to fetch: whatever was kept before is void.
    Begin,
    /// Keep a piece, after those before it.
    Keep(Vec<u8>),
    /// All pieces are kept.
    Complete,
    /// A peer has sent what is provably wrong.
    Lied {
        /// The peer.
        peer: Identity,
        /// What is wrong.
        reason: String,
    },
    /// Nobody can be had any more.
    GiveUp,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Standing {
    /// May be asked.
    Willing,
    /// Had nothing, or was silent.
    Unhelpful,
    /// Sent something wrong.
    Liar,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Wanted {
    Manifest,
    Piece(u64),
}

#[derive(Clone, Copy, Debug)]
struct Question {
    peer: Identity,
    wanted: Wanted,
    until_ms: u64,
}

/// What was asked, what came, and what is next.
#[derive(Debug)]
pub struct StateFetch {
    peers: BTreeMap<Identity, Standing>,
    target: Option<StateTarget>,
    /// Pieces that are kept.
    kept: u64,
    question: Option<Question>,
    turn: usize,
    progress_ms: u64,
    paused_until_ms: Option<u64>,
    done: bool,
}

impl StateFetch {
    /// Starts, or goes on with what is kept of a target whose manifest was verified again.
    #[must_use]
    pub fn new(now_ms: u64, resumed: Option<(StateTarget, u64)>) -> Self {
        let (target, kept) = resumed.map_or((None, 0), |(target, kept)| (Some(target), kept));
        Self {
            peers: BTreeMap::new(),
            target,
            kept,
            question: None,
            turn: 0,
            progress_ms: now_ms,
            paused_until_ms: None,
            done: false,
        }
    }

    /// How many pieces are kept, of how many.
    #[must_use]
    pub fn progress(&self) -> (u64, u64) {
        (self.kept, self.target.as_ref().map_or(0, |target| piece_count(&target.roots.operations_range)))
    }

    /// A peer is there. A liar stays one when it comes back.
    pub fn on_connected(&mut self, peer: Identity) {
        if self.peers.len() < PEERS_MAX {
            self.peers.entry(peer).or_insert(Standing::Willing);
        }
    }

    /// A peer is gone.
    pub fn on_disconnected(&mut self, peer: &Identity) {
        if self.peers.get(peer).is_some_and(|standing| *standing != Standing::Liar) {
            self.peers.remove(peer);
        }
        if self.question.is_some_and(|question| question.peer == *peer) {
            self.question = None;
        }
    }

    /// Time has passed: to be called a few times a second.
    pub fn on_tick(&mut self, now_ms: u64) -> Vec<FetchEffect> {
        let mut effects = Vec::new();
        if self.done {
            return effects;
        }
        if now_ms.saturating_sub(self.progress_ms) > FETCH_PATIENCE_MS {
            self.done = true;
            effects.push(FetchEffect::GiveUp);
            return effects;
        }
        if let Some(Question { peer, .. }) = self.question.filter(|question| question.until_ms <= now_ms) {
            self.set_aside(peer, Standing::Unhelpful);
        }
        self.ask(now_ms, &mut effects);
        effects
    }

    /// An answer has come. What was not asked for is ignored.
    pub fn on_message(
        &mut self,
        now_ms: u64,
        from: Identity,
        message: &PeerMessage,
        checks: &mut dyn StateChecks,
    ) -> Vec<FetchEffect> {
        let mut effects = Vec::new();
        let Some(question) = self.question.filter(|question| question.peer == from && !self.done) else {
            return effects;
        };
        let result = match (message, question.wanted) {
            (PeerMessage::StateManifest(bytes), Wanted::Manifest) => self.on_manifest(bytes, checks, &mut effects),
            (PeerMessage::StatePiece { height, number, bytes }, Wanted::Piece(wanted))
                if *number == wanted && self.target.as_ref().is_some_and(|target| target.height == *height) =>
            {
                self.on_piece(wanted, bytes, checks, &mut effects)
            }
            _ => return effects,
        };
        self.question = None;
        match result {
            // A proof alone is no progress: whoever has pruned the state can show it again and again.
            Ok(()) if matches!(question.wanted, Wanted::Piece(_)) => self.progress_ms = now_ms,
            Ok(()) => {}
            Err(Fault::Nothing) => self.set_aside(from, Standing::Unhelpful),
            Err(Fault::Lie(reason)) => {
                self.set_aside(from, Standing::Liar);
                effects.push(FetchEffect::Lied { peer: from, reason });
            }
        }
        self.ask(now_ms, &mut effects);
        effects
    }

    fn on_manifest(
        &mut self,
        bytes: &[u8],
        checks: &mut dyn StateChecks,
        effects: &mut Vec<FetchEffect>,
    ) -> Result<(), Fault> {
        if bytes.is_empty() {
            return Err(Fault::Nothing);
        }
        let target = checks.manifest(bytes).map_err(Fault::Lie)?;
        self.target = Some(target);
        self.kept = 0;
        // Who had nothing of the target before may have this one.
        self.forgive();
        effects.push(FetchEffect::Begin);
        Ok(())
    }

    fn on_piece(
        &mut self,
        number: u64,
        bytes: &[u8],
        checks: &dyn StateChecks,
        effects: &mut Vec<FetchEffect>,
    ) -> Result<(), Fault> {
        if bytes.is_empty() {
            return Err(Fault::Nothing);
        }
        let Some(target) = &self.target else { return Err(Fault::Nothing) };
        let Some(wanted) = piece(&target.roots.operations_range, number) else { return Err(Fault::Nothing) };
        checks.piece(target, &wanted, bytes).map_err(Fault::Lie)?;
        self.kept += 1;
        effects.push(FetchEffect::Keep(bytes.to_vec()));
        Ok(())
    }

    /// Asks the next one, if nothing is open.
    fn ask(&mut self, now_ms: u64, effects: &mut Vec<FetchEffect>) {
        if self.question.is_some() || self.done {
            return;
        }
        let (kept, count) = self.progress();
        if self.target.is_some() && kept == count {
            self.done = true;
            effects.push(FetchEffect::Complete);
            return;
        }
        if let Some(until_ms) = self.paused_until_ms {
            if now_ms < until_ms {
                return;
            }
            self.paused_until_ms = None;
            self.forgive();
        }
        let willing: Vec<Identity> =
            self.peers.iter().filter(|(_, standing)| **standing == Standing::Willing).map(|(peer, _)| *peer).collect();
        let Some(peer) = willing.get(self.turn % willing.len().max(1)).copied() else {
            // Nobody has the pieces of this target any more: a newer one is to be had.
            self.target = None;
            self.kept = 0;
            self.paused_until_ms = Some(now_ms.saturating_add(PAUSE_MS));
            return;
        };
        self.turn = self.turn.wrapping_add(1);
        let (wanted, message) = match &self.target {
            None => (Wanted::Manifest, PeerMessage::StateRequest),
            Some(target) => {
                (Wanted::Piece(kept), PeerMessage::StatePieceRequest { height: target.height, number: kept })
            }
        };
        self.question = Some(Question { peer, wanted, until_ms: now_ms.saturating_add(STATE_TIMEOUT_MS) });
        effects.push(FetchEffect::Send { to: peer, message: Box::new(message) });
    }

    fn set_aside(&mut self, peer: Identity, standing: Standing) {
        self.peers.insert(peer, standing);
        if self.question.is_some_and(|question| question.peer == peer) {
            self.question = None;
        }
    }

    fn forgive(&mut self) {
        for standing in self.peers.values_mut().filter(|standing| **standing == Standing::Unhelpful) {
            *standing = Standing::Willing;
        }
    }
}

enum Fault {
    Nothing,
    Lie(String),
}
