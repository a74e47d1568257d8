//! Catching up: a node that is behind asks peers for final blocks with their certificates, one bounded range at a time.
//!
//! Blocks are verified by the engine against the voters of their height, which the node knows from executing the blocks
//! before; so a fresh node follows every change of voters from genesis on, and no peer can lead it astray. Nothing here
//! looks at signatures: this is only about whom to ask for what.
//!
//! A node that is too far behind for that takes the state of a late height instead: [`StateManifest`] proves which one, and
//! [`StatePiece`]s carry it.

mod fetching;
mod manifest;
mod pieces;
#[cfg(test)]
mod question_tests;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};

use crate::{
    consensus::DropReason,
    types::{CertifiedBlock, Height, Identity},
};

pub use fetching::{FETCH_PATIENCE_MS, FetchEffect, STATE_TIMEOUT_MS, StateChecks, StateFetch, StateTarget};
pub use manifest::{ManifestError, PATH_LENGTH_MAX, StateManifest, VerifiedManifest, shortest_path};
pub use pieces::{OPERATIONS_PER_PIECE, PieceKind, StatePiece, piece, piece_count};

/// How many blocks are asked for at once.
pub const BLOCKS_PER_REQUEST: u32 = 16;
/// How long to wait for an answer, milliseconds.
pub const REQUEST_TIMEOUT_MS: u64 = 2_000;
/// How many blocks wait for their turn before no more are asked for.
const QUEUE_MAX: usize = 32;
/// How far ahead somebody must be for an immediate question; a smaller lead is normal under load and passes by itself.
const LEAD_MIN: u64 = 4;
/// How many peers are remembered.
const PEERS_MAX: usize = 512;
/// How many questions that were not answered in time are remembered: what comes late is an answer all the same.
const OVERDUE_MAX: usize = 64;

/// A question to send.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BlocksQuestion {
    /// The number of the question, for its timer.
    pub request: u64,
    /// Whom to ask.
    pub peer: Identity,
    /// The first height wanted.
    pub first: Height,
    /// How many at most.
    pub count: u32,
}

impl BlocksQuestion {
    /// From the first height on, without gaps, no more than were asked for; none is an answer, too.
    fn is_answered_by(&self, blocks: &[CertifiedBlock]) -> bool {
        let count = usize::try_from(self.count).unwrap_or(usize::MAX);
        let heights = (0..).map(|offset| self.first.saturating_add(offset));
        blocks.len() <= count && blocks.iter().zip(heights).all(|(block, height)| block.block.header().height == height)
    }
}

/// What is known about who is how far, what was asked, and what came.
#[derive(Debug, Default)]
pub struct BlockSync {
    heights: BTreeMap<Identity, Height>,
    question: Option<BlocksQuestion>,
    overdue: VecDeque<BlocksQuestion>,
    last_request: u64,
    queue: VecDeque<(Identity, CertifiedBlock)>,
    /// The tip at the last tick: if it has not moved since, even a lead of one height is worth a question.
    tip_at_tick: Option<Height>,
    /// A question is worth asking.
    behind: bool,
}

impl BlockSync {
    /// A peer says how far it is.
    pub fn on_status(&mut self, peer: Identity, height: Height, tip: Height) {
        if self.heights.len() < PEERS_MAX || self.heights.contains_key(&peer) {
            self.heights.insert(peer, height);
        }
        self.behind |= height >= tip.saturating_add(LEAD_MIN);
    }

    /// A peer is gone.
    pub fn forget_peer(&mut self, peer: &Identity) {
        self.heights.remove(peer);
        if self.question.is_some_and(|question| question.peer == *peer) {
            self.question = None;
        }
        self.overdue.retain(|question| question.peer != *peer);
    }

    /// Time has passed.
    pub fn on_tick(&mut self, tip: Height) {
        let stuck = self.tip_at_tick == Some(tip);
        self.tip_at_tick = Some(tip);
        self.behind = self.highest() >= tip.saturating_add(LEAD_MIN) || (stuck && self.highest() > tip);
    }

    /// A question was not answered in time: others are asked. What its peer sent before is as good as it was, and its answer
    /// may only be late.
    pub fn on_timeout(&mut self, request: u64, tip: Height) {
        if let Some(question) = self.question.take_if(|question| question.request == request) {
            self.set_overdue(question);
            self.not_ahead(&question.peer, tip);
        }
    }

    /// A peer has sent what is false: nothing of it is used, and others are asked until it says again how far it is.
    pub fn distrust(&mut self, peer: &Identity, tip: Height) {
        self.on_pruned(peer, tip);
        self.queue.retain(|(from, _)| from != peer);
    }

    /// A peer has not kept what it was asked for. What it sent before is as good as it was.
    pub fn on_pruned(&mut self, peer: &Identity, tip: Height) {
        self.not_ahead(peer, tip);
        self.question.take_if(|question| question.peer == *peer);
    }

    fn not_ahead(&mut self, peer: &Identity, tip: Height) {
        if let Some(height) = self.heights.get_mut(peer) {
            *height = tip.min(*height);
        }
    }

    fn set_overdue(&mut self, question: BlocksQuestion) {
        self.overdue.push_back(question);
        if self.overdue.len() > OVERDUE_MAX {
            self.overdue.pop_front();
        }
    }

    /// Blocks have come. They must be an answer: from the peer that was asked, from the first height on, without gaps.
    pub fn on_blocks(&mut self, from: Identity, blocks: Vec<CertifiedBlock>, tip: Height) -> Result<(), DropReason> {
        let answers = |question: &BlocksQuestion| question.peer == from && question.is_answered_by(&blocks);
        if let Some(question) = self.question.take_if(|question| answers(question)) {
            if blocks.is_empty() {
                self.not_ahead(&question.peer, tip);
                return Ok(());
            }
            self.queue.extend(blocks.into_iter().map(|block| (from, block)));
            self.behind = true;
            return Ok(());
        }
        if let Some(place) = self.overdue.iter().position(answers) {
            self.overdue.remove(place);
            self.on_late(from, blocks, tip);
            return Ok(());
        }
        if self.question.is_some_and(|question| question.peer == from) {
            self.distrust(&from, tip);
        }
        Err(DropReason::Unrequested)
    }

    /// An answer that came late is used if it leads on from what is here. Who is asked for the same by now need not hurry.
    fn on_late(&mut self, from: Identity, blocks: Vec<CertifiedBlock>, tip: Height) {
        let first = blocks.first().map(|block| block.block.header().height);
        if first != Some(self.next_wanted(tip)) {
            return;
        }
        self.queue.extend(blocks.into_iter().map(|block| (from, block)));
        self.behind = true;
        if let Some(question) = self.question.take_if(|question| Some(question.first) == first) {
            self.set_overdue(question);
        }
    }

    /// The first height that is neither executed nor in the queue.
    fn next_wanted(&self, tip: Height) -> Height {
        let queued = self.queue.back().map_or(Height::ZERO, |(_, block)| block.block.header().height);
        tip.max(queued).next()
    }

    /// Takes the block of this height, if it has come. Blocks below are not needed any more.
    pub fn take(&mut self, height: Height) -> Option<(Identity, CertifiedBlock)> {
        while self.queue.front().is_some_and(|(_, block)| block.block.header().height < height) {
            self.queue.pop_front();
        }
        let next = self.queue.front().is_some_and(|(_, block)| block.block.header().height == height);
        if next { self.queue.pop_front() } else { None }
    }

    /// The next question, if one is worth asking. It counts as asked from now on.
    pub fn ask(&mut self, tip: Height) -> Option<BlocksQuestion> {
        if !self.behind || self.question.is_some() || self.queue.len() >= QUEUE_MAX {
            return None;
        }
        let first = self.next_wanted(tip);
        // The peers take turns, so that one who never answers does not keep the others from being asked.
        let ahead: Vec<_> =
            self.heights.iter().filter(|(_, height)| **height >= first).map(|(peer, _)| *peer).collect();
        if ahead.is_empty() {
            self.behind = !self.queue.is_empty();
            return None;
        }
        self.last_request += 1;
        let turn = usize::try_from(self.last_request).unwrap_or_default() % ahead.len();
        let question =
            BlocksQuestion { request: self.last_request, peer: *ahead.get(turn)?, first, count: BLOCKS_PER_REQUEST };
        self.question = Some(question);
        Some(question)
    }

    /// The peers that say that they are above a height.
    pub fn peers_above(&self, height: Height) -> impl Iterator<Item = &Identity> {
        self.heights.iter().filter(move |(_, said)| **said > height).map(|(peer, _)| peer)
    }

    fn highest(&self) -> Height {
        self.heights.values().max().copied().unwrap_or_default()
    }
}
