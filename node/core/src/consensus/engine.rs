//! The engine: one state, one function, from what happened to what must be done.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    Alarm, Boot, Effect, Faults, HaltReason, Input, SigningLog,
    blocks::Blocks,
    chain::ChainView,
    core::Core,
    gate::Gate,
    log::{HeightLog, OpenedLog},
    on_batch::NamedBatch,
    outbox::Outbox,
    rotation::SessionKeeper,
    timers::TimerId,
};
use crate::{
    crypto::{KeyPair, VerifiedBatch},
    mempool::{BatchLimits, Batches, Limits, Mempool},
    session::{ClearedKey, Signer, SigningRecord},
    sync::BlockSync,
    types::{
        CommitCertificate, Epoch, Hash, Header, Height, Identity, Incarnation, Parameters, PeerMessage, ProposedHeader,
        SessionKey, VoterSet,
    },
};

/// How often the engine looks after sync and its session, and tells peers how far it is, milliseconds.
pub const TICK_MS: u64 = 500;

/// The deterministic heart of a node: the same inputs at the same times give the same effects on every machine.
#[derive(Debug)]
pub struct Engine {
    pub(super) identity: Identity,
    pub(super) identity_key: Option<KeyPair>,
    pub(super) chain: ChainView,
    /// The proof of the last final block.
    pub(super) tip_certificate: Option<CommitCertificate>,
    pub(super) signer: Signer,
    pub(super) core: Option<Core>,
    pub(super) log: HeightLog,
    pub(super) blocks: Blocks,
    pub(super) gate: Gate,
    pub(super) out: Outbox,
    pub(super) mempool: Mempool,
    pub(super) batches: Batches,
    /// Proposals of this height of which batches are missing.
    pub(super) incomplete: Vec<ProposedHeader>,
    /// The batches of decided blocks that are not executed.
    pub(super) unexecuted: BTreeMap<Height, Vec<NamedBatch>>,
    /// Batches of decided blocks that are still stored: with what was deferred, until it expires.
    pub(super) kept_batches: BTreeSet<(Height, Hash)>,
    /// The timer for the next batch is set.
    pub(super) seal_timer: bool,
    /// How many transactions went into the last batch that was made here.
    pub(super) sealed_last: usize,
    /// The newest voters when acknowledgements were counted last.
    pub(super) counted_by: Option<Arc<VoterSet>>,
    /// A recovery is accepted: what is said for the incarnation that ends promises nothing any more.
    pub(super) superseded: bool,
    pub(super) sync: BlockSync,
    pub(super) session: SessionKeeper,
    /// The clock of the current step.
    pub(super) now_ms: u64,
    /// When the protocol started at the current height, or at the last one.
    pub(super) height_started_ms: u64,
    /// When the last block became final here.
    pub(super) committed_ms: Option<u64>,
    /// How often a round ended without its timeout.
    pub(super) rounds_ended_early: u64,
    /// [`Input::Start`] came.
    pub(super) started: bool,
    /// The pace of an idle chain allows the next height.
    pub(super) due: bool,
    /// The pace of a chain with something to include allows the next height.
    pub(super) paced: bool,
    /// Sign nothing at this height or below: the log was there before the blocks.
    pub(super) nothing_up_to: Height,
    /// The height at which the signer refused or the protocol failed: it runs on without signing.
    pub(super) disabled_at: Option<Height>,
    /// The height at which the protocol failed even without signing: blocks come from peers.
    pub(super) given_up_at: Option<Height>,
    /// The last height whose execution was asked for.
    pub(super) execution_asked: Height,
    pub(super) halted: bool,
    /// No key of before may be used: nobody knows what it signed.
    pub(super) log_broken: bool,
    pub(super) faults: Faults,
    /// For tests that ignore the record.
    pub(super) fault_keys: Vec<ClearedKey>,
}

/// What the engine says about itself, for metrics and status.
#[derive(Clone, Debug)]
pub struct EngineStatus {
    /// The last final height.
    pub tip: Height,
    /// The hash of its header; the genesis hash before block 1.
    pub tip_hash: Hash,
    /// The time of its header, milliseconds since the Unix epoch.
    pub tip_time_ms: u64,
    /// The last executed height.
    pub executed: Height,
    /// The round of the current height.
    pub round: u32,
    /// How many rounds this process ended before their timeout, because a quorum had precommitted nothing.
    pub rounds_ended_early: u64,
    /// No more than `f` power is known to be ahead by more than one height.
    pub synced: bool,
    /// It signs at the current height.
    pub signing: bool,
    /// The session key that the chain names for the current height.
    pub session_key: Option<SessionKey>,
    /// The epoch of that key.
    pub epoch: Option<Epoch>,
    /// The state of its session.
    pub session: SessionState,
    /// Transactions that wait for a block.
    pub mempool_transactions: usize,
}

/// Whether this node can sign, and if not, what it waits for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SessionState {
    /// It is not in the voter set.
    NotAVoter,
    /// The effective key is cleared.
    Effective,
    /// The effective key is not cleared, and no rotation is on its way.
    Waiting,
    /// It has asked the chain for another key.
    Rotating,
    /// The identity is used elsewhere; only a person can help.
    IdentityContested,
    /// A message of its key was seen that it did not sign; it signs nothing more in this process.
    Stopped,
}

impl Engine {
    /// An engine from what was found on disk. Keys come later, by [`Input::Cleared`]; feed those that are cleared
    /// already before [`Input::Start`].
    #[must_use]
    pub fn new(boot: Boot) -> Self {
        Self::with_faults(boot, Faults::default())
    }

    /// An engine that breaks rules, for tests that prove that their checkers notice.
    #[doc(hidden)]
    #[must_use]
    pub fn with_faults(boot: Boot, faults: Faults) -> Self {
        let Boot {
            genesis,
            recoveries,
            identity,
            identity_key,
            tip,
            executed,
            effective_keys,
            proposed_keys,
            log,
            batches,
            recent,
        } = boot;
        let found = if faults.headers_forgotten { &[] } else { recent.as_slice() };
        let chain = ChainView::new(&genesis, recoveries, tip.as_ref().map(|(header, _)| header), &executed, found);
        let mut out = Outbox::new(faults.log_not_flushed);
        let (opened, log_broken) = open_log(log, &mut out);
        let nothing_up_to = match opened.log.height() {
            Some(height) if height > chain.next() => {
                out.push(Effect::Alarm(Alarm::LogAhead { log: height, tip: chain.tip() }));
                height
            }
            _ => Height::ZERO,
        };
        let batches = batches_of(*chain.incarnation(), batches, &mut out);
        let mut gate = Gate::default();
        if let Some((_, certificate)) = &tip {
            gate.on_commit(&chain, certificate);
        }
        Self {
            identity,
            identity_key,
            signer: Signer::new(*chain.incarnation(), identity, opened.record),
            core: None,
            log: if faults.replay_skipped { HeightLog::default() } else { opened.log },
            blocks: Blocks::default(),
            gate,
            out,
            mempool: Mempool::new(Limits::default(), *chain.incarnation(), chain.tip()),
            batches: stored_batches(batches, &recent, chain.tip()),
            incomplete: Vec::new(),
            unexecuted: BTreeMap::new(),
            kept_batches: BTreeSet::new(),
            seal_timer: false,
            sealed_last: 0,
            counted_by: chain.newest_voters().cloned(),
            superseded: false,
            sync: BlockSync::default(),
            session: SessionKeeper::new(effective_keys, proposed_keys),
            now_ms: 0,
            height_started_ms: 0,
            committed_ms: None,
            rounds_ended_early: 0,
            started: false,
            due: true,
            paced: true,
            nothing_up_to,
            disabled_at: None,
            given_up_at: None,
            execution_asked: chain.executed(),
            halted: false,
            log_broken,
            faults,
            fault_keys: Vec::new(),
            tip_certificate: tip.map(|(_, certificate)| certificate),
            chain,
        }
    }

    /// Takes one input and returns what to do, in order. `now_ms` is the wall clock in milliseconds since the Unix
    /// epoch: it becomes the time of proposed blocks and bounds the time of others'.
    pub fn step(&mut self, now_ms: u64, input: Input) -> Vec<Effect> {
        if self.halted {
            return Vec::new();
        }
        self.now_ms = now_ms;
        match input {
            Input::Start => self.on_start(),
            Input::Message { from, message } => self.on_message(from, message),
            Input::Connected(peer) => self.on_connected(peer),
            Input::Disconnected(peer) => {
                self.sync.forget_peer(&peer);
                self.gate.forget_peer(&peer);
            }
            Input::Timer(id) => self.on_timer(id),
            Input::Submitted { origin, transactions } => self.on_submitted(origin, transactions),
            Input::Batch { from, batch } => self.on_batch(from, &batch),
            Input::BatchesStored(digests) => self.on_batches_stored(&digests),
            Input::Executed { outcome, results } => self.on_executed(&outcome, results),
            Input::Cleared(key) => self.on_cleared(key),
            Input::Made { key, epoch } => self.on_made(key, epoch),
            Input::Superseded => self.on_superseded(),
        }
        self.advance();
        self.out.take()
    }

    fn on_start(&mut self) {
        self.started = true;
        if let Err(reason) = self.chain.compare(self.faults) {
            return self.halt(reason);
        }
        self.out.push(Effect::SetTimer { id: TimerId::Tick, after_ms: TICK_MS });
        self.tell_status();
    }

    fn on_connected(&mut self, peer: Identity) {
        let message = PeerMessage::Status { height: self.chain.tip() };
        self.out.push(Effect::Send { to: peer, message: message.into() });
    }

    /// Goes on as far as it can without another input.
    fn advance(&mut self) {
        while self.started && !self.halted {
            self.ask_execution();
            if !(self.commit_synced() || self.start_height() || self.judge_block() || self.propose()) {
                break;
            }
        }
    }

    pub(super) fn tell_status(&mut self) {
        let message = PeerMessage::Status { height: self.chain.tip() };
        self.out.push(Effect::Broadcast(message.into()));
    }

    pub(super) fn halt(&mut self, reason: HaltReason) {
        self.halted = true;
        self.core = None;
        self.out.push(Effect::Halt(reason));
    }

    /// What the engine says about itself.
    #[must_use]
    pub fn status(&self) -> EngineStatus {
        let next = self.chain.next();
        let entry = self.chain.voters(next).and_then(|voters| voters.get(&self.identity));
        EngineStatus {
            tip: self.chain.tip(),
            tip_hash: self.chain.tip_hash(),
            tip_time_ms: self.chain.tip_time().get(),
            executed: self.chain.executed(),
            round: self.core.as_ref().map_or(0, |core| core.round().get()),
            rounds_ended_early: self.rounds_ended_early,
            synced: self.is_synced(),
            signing: self.may_sign(next),
            session_key: entry.map(|entry| entry.session_key),
            epoch: entry.map(|entry| entry.epoch),
            session: self.session_state(),
            mempool_transactions: self.mempool.len(),
        }
    }

    /// What the keys of this volume have signed, for the tripwire.
    #[must_use]
    pub fn signing_record(&self) -> &SigningRecord {
        self.signer.record()
    }

    /// The parameters in force at the height that is being decided.
    #[must_use]
    pub fn parameters(&self) -> &Parameters {
        self.chain.parameters()
    }

    /// The voters of a height, if they are decided and not yet forgotten.
    #[must_use]
    pub fn voters(&self, height: Height) -> Option<&crate::types::VoterSet> {
        self.chain.voters(height).map(AsRef::as_ref)
    }
}

/// The stored batches of this incarnation. No block can name the others any more: they are dropped.
fn batches_of(incarnation: Incarnation, stored: Vec<VerifiedBatch>, out: &mut Outbox) -> Vec<VerifiedBatch> {
    let (current, former): (Vec<_>, Vec<_>) = stored.into_iter().partition(|batch| batch.is_of(&incarnation));
    if !former.is_empty() {
        out.push(Effect::DropBatches(former.iter().map(|batch| batch.batch().digest()).collect()));
    }
    current
}

/// What of the stored batches no block names yet.
fn stored_batches(stored: Vec<VerifiedBatch>, recent: &[Header], tip: Height) -> Batches {
    let mut batches = Batches::new(BatchLimits::default());
    for header in recent {
        batches.on_decided(header);
    }
    for batch in stored {
        batches.add(&batch, false, tip);
        batches.on_stored(&batch.batch().digest());
    }
    batches
}

/// Opens the log, or starts without one.
fn open_log(log: SigningLog, out: &mut Outbox) -> (OpenedLog, bool) {
    let reason = match log {
        SigningLog::Fresh => return (OpenedLog::default(), false),
        SigningLog::Whole(entries) => match HeightLog::open(&entries) {
            Ok(opened) => return (opened, false),
            Err(error) => error.to_string(),
        },
        SigningLog::Broken(reason) => reason,
    };
    out.push(Effect::Alarm(Alarm::LogBroken { reason }));
    (OpenedLog::default(), true)
}
