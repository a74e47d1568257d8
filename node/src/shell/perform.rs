//! Performs what the engine asks for, strictly in order.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use node_api::checkpoint::TrustedHeader;
use node_core::{
    codec::Encode,
    consensus::{Alarm, DropReason, Effect, HaltReason, Input, TimerId},
    types::{Block, CommitCertificate, Epoch, Height, Identity, PeerMessage, Vote, VoteKind},
};
use thiserror::Error;
use tokio::{sync::Semaphore, time::Instant};

use super::{
    batch_storage::BatchStorage,
    handle::Handle,
    precommits::SeenPrecommits,
    receipts::Receipts,
    sealed::Sealed,
    sessions::{Sessions, SessionsError},
    state::{ExecutionError, Executor},
    timers::Timers,
};
use crate::{
    adapters::{
        p2p::{Frame, Links, Offence},
        storage::{BlockLog, ConsensusLog, StorageError},
        volume::{RESERVE_BYTES, Space},
    },
    metrics::Metrics,
};

/// Answers to peers that are behind, in preparation at a time.
const BLOCK_ANSWERS_MAX: usize = 4;
/// Epochs of one voter whose newest vote is remembered.
const EPOCHS_MAX: usize = 4;
/// Encoded blocks in one answer. Far below the largest message.
const ANSWER_BYTES_MAX: usize = 8 << 20;

/// Why the node cannot go on.
#[derive(Debug, Error)]
pub enum PerformError {
    /// The volume failed. Nobody knows what it holds: the process ends.
    #[error("failed to write the volume")]
    Storage(#[from] StorageError),
    /// The list of session keys could not be changed.
    #[error(transparent)]
    Sessions(#[from] SessionsError),
    /// The state failed.
    #[error(transparent)]
    Execution(#[from] ExecutionError),
    /// A block that the engine wants executed is not there.
    #[error("block {height} to execute is not in the block log")]
    NoBlock {
        /// Its height.
        height: Height,
    },
    /// The peers follow another history than the one that is trusted.
    #[error(
        "block {height} of the peers is another one than the checkpoint of the configuration: check its hash with others"
    )]
    OtherChain {
        /// The height of the checkpoint.
        height: Height,
    },
    /// The execution does not keep up within the engine's bounds.
    #[error("block {height} cannot be queued for execution")]
    ExecutorBusy {
        /// Its height.
        height: Height,
    },
    /// A rule that cannot be broken was broken.
    #[error("halted: {0}")]
    Halted(HaltReason),
    /// Signing on would end in half-written files.
    #[error("the volume is full: {0}; nothing is signed until {enough} MiB are free", enough = (2 * RESERVE_BYTES) >> 20)]
    VolumeFull(Space),
}

/// Everything that effects act on. Owned by the main loop.
#[derive(Debug)]
pub struct Performer {
    /// This node.
    pub identity: Identity,
    /// Peers.
    pub links: Links,
    /// Timers of the engine.
    pub timers: Timers<TimerId>,
    /// What was signed and taken into account at this height.
    pub log: ConsensusLog,
    /// Final blocks.
    pub blocks: BlockLog,
    /// A late header that is trusted: no chain with another one there is followed.
    pub checkpoint: Option<Arc<TrustedHeader>>,
    /// Batches on their way into a block.
    pub batches: BatchStorage,
    /// When own ones were sealed.
    pub sealed: Sealed,
    /// The queue of blocks to execute.
    pub executor: Executor,
    /// Session keys.
    pub sessions: Sessions,
    /// Who was seen voting.
    pub seen: SeenPrecommits,
    /// The newest verified vote of each voter in each epoch, for nodes that ask about their key.
    pub newest_votes: BTreeMap<(Identity, Epoch), Vote>,
    /// The newest certificate.
    pub newest_certificate: Option<CommitCertificate>,
    /// What became of transactions.
    pub receipts: Receipts,
    /// For the watchers of votes.
    pub handle: Handle,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// The newest alarm.
    pub alarm: Option<Alarm>,
    /// Blocks between commit and execution.
    pub committed: BTreeMap<Height, Arc<Block>>,
    /// Places for answers to peers that are behind.
    pub answers: Arc<Semaphore>,
}

/// Places for [`Performer::answers`].
pub fn answer_places() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(BLOCK_ANSWERS_MAX))
}

impl Performer {
    /// Performs one effect. Some are answered at once by a further input.
    pub fn perform(&mut self, effect: Effect) -> Result<Option<Input>, PerformError> {
        match effect {
            Effect::AppendLog(entry) => self.log.append(&entry)?,
            Effect::FlushLog => self.flush()?,
            Effect::ResetLog { height, first } => {
                self.log.reset(height, &first)?;
                self.flush()?;
            }
            Effect::Broadcast(message) => self.broadcast(&message),
            Effect::Send { to, message } => self.links.send(&to, &frame(&message)),
            Effect::SendBlocks { to, first, count } => self.send_blocks(to, first, count),
            Effect::SetTimer { id, after_ms } => self.timers.set(id, Instant::now() + Duration::from_millis(after_ms)),
            Effect::CancelTimer(id) => self.timers.cancel(&id),
            Effect::StoreBatch(batch) => self.batches.store(batch),
            Effect::DropBatches(digests) => self.batches.forget(digests),
            Effect::Durable(ids) => {
                let took = self.sealed.on_durable(&ids, Instant::now());
                took.into_iter().for_each(|took| self.metrics.certified_seconds.observe(took.as_secs_f64()));
                self.receipts.on_durable(&ids);
            }
            Effect::Commit { block, certificate } => {
                if self.checkpoint.as_ref().is_some_and(|checkpoint| checkpoint.contradicts(block.header())) {
                    return Err(PerformError::OtherChain { height: block.header().height });
                }
                let timer = self.metrics.block_write_seconds.start_timer();
                tokio::task::block_in_place(|| self.blocks.append(&block, &certificate))?;
                timer.observe_duration();
                let height = block.header().height;
                self.metrics.height.set(i64::try_from(height.get()).unwrap_or(i64::MAX));
                self.committed.insert(height, block);
                self.newest_certificate = Some(certificate);
            }
            Effect::Execute { height } => self.execute(height)?,
            Effect::VoteSeen(vote) => self.vote_seen(&vote),
            Effect::MakeKey { epoch } => {
                let key = self.sessions.make(epoch)?;
                return Ok(Some(Input::Made { key, epoch }));
            }
            Effect::KeyEffective(key) => self.sessions.mark_effective(&key)?,
            Effect::RetireKey(key) => self.sessions.retire(&key)?,
            Effect::Evidence(evidence) => {
                self.metrics.equivocations_total.inc();
                tracing::error!(?evidence, "a voter signed two messages that contradict each other");
            }
            Effect::Dropped { from, reason } => {
                self.metrics.messages_received_total.with_label_values(&["dropped"]).inc();
                tracing::debug!(peer = %from, %reason, "dropped a message");
                // Of the other reasons an honest node may have known nothing: it may be at another height.
                if reason == DropReason::Unrequested {
                    self.links.report(from, Offence::Unasked);
                }
            }
            // Whoever submitted them learns it from the step.
            Effect::Accepted(_) | Effect::Refused { .. } => {}
            Effect::Expired(ids) => self.receipts.on_expired(&ids),
            Effect::Alarm(alarm) => {
                tracing::error!(%alarm, "alarm");
                self.alarm = Some(alarm);
            }
            Effect::Halt(reason) => return Err(PerformError::Halted(reason)),
        }
        Ok(None)
    }

    /// Takes note of a verified vote, the own ones included.
    pub fn vote_seen(&mut self, vote: &Vote) {
        let step = match vote.vote.kind {
            VoteKind::Prevote => "prevote",
            VoteKind::Precommit => "precommit",
        };
        self.metrics.votes_seen_total.with_label_values(&[step]).inc();
        self.seen.record(vote, Instant::now());
        let place = |vote: &Vote| (vote.vote.height, vote.vote.round, vote.vote.kind);
        let voter = vote.vote.voter;
        let newest = self.newest_votes.entry((voter, vote.epoch)).or_insert(*vote);
        if place(vote) > place(newest) {
            *newest = *vote;
        }
        let epochs = (voter, Epoch::new(0))..=(voter, Epoch::new(u64::MAX));
        if self.newest_votes.range(epochs.clone()).count() > EPOCHS_MAX {
            let oldest = self.newest_votes.range(epochs).next().map(|(place, _)| *place);
            oldest.map(|oldest| self.newest_votes.remove(&oldest));
        }
    }

    fn flush(&mut self) -> Result<(), StorageError> {
        let timer = self.metrics.log_flush_seconds.start_timer();
        // The engine's task waits for the disk, as it must; the other tasks of this thread go on elsewhere.
        let result = tokio::task::block_in_place(|| self.log.flush());
        timer.observe_duration();
        result
    }

    fn broadcast(&mut self, message: &PeerMessage) {
        if let PeerMessage::Vote(vote) = message
            && vote.vote.voter == self.identity
        {
            self.vote_seen(vote);
        }
        if let PeerMessage::Batch(batch) = message {
            self.sealed.on_sealed(batch, Instant::now());
        }
        self.links.broadcast(&frame(message));
    }

    fn execute(&mut self, height: Height) -> Result<(), PerformError> {
        let block = match self.committed.remove(&height) {
            Some(block) => block,
            // After a restart: the log is ahead of the state.
            None => {
                let stored = self.blocks.reader().read(height)?;
                Arc::new(stored.ok_or(PerformError::NoBlock { height })?.block)
            }
        };
        if self.executor.execute(block) { Ok(()) } else { Err(PerformError::ExecutorBusy { height }) }
    }

    /// Reads off the engine's task. A peer that gets no answer asks again, or somebody else.
    fn send_blocks(&self, to: Identity, first: Height, count: u32) {
        let Ok(place) = Arc::clone(&self.answers).try_acquire_owned() else { return };
        let (reader, links) = (self.blocks.reader(), self.links.clone());
        tokio::task::spawn_blocking(move || {
            let count_max = usize::try_from(count).unwrap_or(usize::MAX);
            if let Some(oldest) = reader.first_height().filter(|oldest| *oldest > first) {
                links.send(&to, &frame(&PeerMessage::BlocksPruned { first: oldest }));
                return;
            }
            match reader.read_range(first, count_max, ANSWER_BYTES_MAX) {
                Ok(blocks) => links.send(&to, &frame(&PeerMessage::BlocksResponse { blocks })),
                Err(error) => tracing::error!(%error, "failed to read blocks for a peer"),
            }
            drop(place);
        });
    }
}

/// A message as it travels.
pub fn frame(message: &PeerMessage) -> Frame {
    Frame::from(message.encode())
}
