//! The chain runs: feeds the engine, performs its effects, and knows what the services ask for.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use node_api::proto;
use node_core::{
    consensus::{Alarm, Effect, Engine, EngineStatus, Input, Origin, TimerId},
    crypto::VerifiedTransaction,
    mempool::Refusal,
    session::{ClearedKey, NewestVote, NotCleared, Question, TripwireQuestion},
    types::{CeremonyNonce, Genesis, Height, Identity, PeerMessage, SessionKey, TransactionId, UnsignedProposal},
};
use tokio::{sync::watch, time::Instant};

use super::{
    absence::{Absence, Standing},
    batch_storage::Stored,
    health::Turn,
    perform::{PerformError, Performer},
    question::Asked,
    receipts::{Fate, final_to_proto},
    report::{self, RunningFacts},
    serving::StateServer,
    space::SpaceWatch,
    state::Executed,
    submission::{Answer, Submission, SubmitError, Wanted},
    view::View,
    watched::{self, Arrival},
};
use crate::adapters::p2p::{Event, Roster};

/// A chain without a block for this long may be waiting for a voter that abstains.
const STANDING_MIN: Duration = Duration::from_secs(5);

/// The running chain. Owned by the main loop.
#[derive(Debug)]
pub struct Running {
    /// The core.
    pub engine: Engine,
    /// What its effects act on.
    pub performer: Performer,
    /// The chain's beginning.
    pub genesis: Arc<Genesis>,
    /// The executed chain.
    pub view: View,
    /// The newest executed height, for streams of blocks.
    pub heights: watch::Sender<Height>,
    /// What the chain says about peers.
    pub roster: watch::Sender<Option<Arc<Roster>>>,
    /// Peers that the engine was told of.
    pub connected: BTreeSet<Identity>,
    /// Serves states to peers.
    pub server: StateServer,
    /// Whether this node has been away for too long; nothing where no state could be taken.
    pub absence: Option<Absence>,
    /// How many blocks are kept at least; all if there is no number.
    pub keep_blocks: Option<u64>,
    /// The question that is being asked about a key of this volume.
    pub question: Option<Asked>,
    /// Why a key of this volume is not used.
    pub not_cleared: Option<NotCleared>,
    /// Why the node has stopped for good.
    pub halted: Option<String>,
    /// How full the volume is.
    pub space: SpaceWatch,
}

impl Running {
    /// Tells the engine what it may sign with, and starts it.
    pub fn start(&mut self, superseded: bool) -> Result<(), PerformError> {
        self.space.check(&self.performer.metrics)?;
        if superseded {
            self.supersede()?;
        }
        let cleared: Vec<_> = self.performer.sessions.cleared().cloned().collect();
        for key in cleared {
            self.step(Input::Cleared(key))?;
        }
        self.tell_roster();
        self.step(Input::Start)?;
        for peer in self.performer.links.connected() {
            self.on_changed(peer)?;
        }
        self.on_tick()
    }

    /// A recovery is accepted: nothing more is signed for the incarnation that ends.
    pub fn supersede(&mut self) -> Result<(), PerformError> {
        self.step(Input::Superseded).map(|_| ())
    }

    /// Takes what a connection reports.
    pub fn on_event(&mut self, event: Event) -> Result<(), PerformError> {
        match event {
            Event::Changed(peer) => self.on_changed(peer),
            Event::Transactions { from, transactions } => {
                let outcome = self.step(Input::Submitted { origin: Origin::Peer(from), transactions })?;
                self.tell_refused(&outcome.refused);
                Ok(())
            }
            Event::Batch { from, batch } => self.step(Input::Batch { from, batch }).map(|_| ()),
            Event::Message { from, message } => self.on_message(from, *message),
        }
    }

    /// Batches are on the disk.
    pub fn on_stored(&mut self, stored: Stored) -> Result<(), PerformError> {
        self.step(Input::BatchesStored(stored?)).map(|_| ())
    }

    /// A timer of the engine is due.
    pub fn on_timer(&mut self, timer: TimerId) -> Result<(), PerformError> {
        self.step(Input::Timer(timer)).map(|_| ())
    }

    /// A block was executed.
    pub fn on_executed(&mut self, executed: Executed) -> Result<(), PerformError> {
        let metrics = Arc::clone(&self.performer.metrics);
        metrics.execution_seconds.observe(executed.duration.as_secs_f64());
        self.view.on_executed(&executed, Instant::now());
        let Executed { outcome, results, .. } = executed;
        let height = outcome.height;
        metrics.executed_height.set(i64::try_from(height.get()).unwrap_or(i64::MAX));
        metrics.count_transactions(&outcome.receipts);
        self.performer.receipts.on_executed(height, self.view.block(), &outcome.receipts);
        self.heights.send_replace(height);
        self.tell_roster();
        if let Some(absence) = &mut self.absence {
            absence.on_executed();
        }
        // The state after this block is durable, so nothing below needs to be executed again.
        if let Some(oldest) = self.keep_blocks.and_then(|keep| height.checked_sub(keep)) {
            self.performer.blocks.prune_below(oldest)?;
        }
        self.step(Input::Executed { outcome, results }).map(|_| ())
    }

    /// Looks after the session key and the gauges. Called a few times a second.
    pub fn on_tick(&mut self) -> Result<(), PerformError> {
        self.space.check(&self.performer.metrics)?;
        self.seek_clearance()?;
        let status = self.engine.status();
        self.performer.links.lag().set(status.tip, self.view.highest_claimed());
        let metrics = &self.performer.metrics;
        metrics.round.set(i64::from(status.round));
        metrics.signing.set(i64::from(status.signing && self.halted.is_none()));
        metrics.synced.set(i64::from(status.synced));
        metrics.block_age_seconds.set(self.view.block_age().as_secs_f64());
        metrics.mempool_transactions.set(i64::try_from(status.mempool_transactions).unwrap_or(i64::MAX));
        Ok(())
    }

    /// Stops for good: nothing is signed or executed any more, and the status says why.
    pub fn halt(&mut self, reason: &PerformError) {
        tracing::error!(%reason, "the node has halted");
        self.halted = Some(reason.to_string());
        self.performer.timers.clear();
    }

    /// True when the node has stopped because its volume was full, and there is space again.
    pub fn has_space_again(&mut self) -> bool {
        self.halted.is_some() && self.space.has_space_again(&self.performer.metrics)
    }

    /// Why this node should take a state from its peers, if it should.
    pub fn wanted_state(&self) -> Option<String> {
        let standing = Standing {
            height: self.view.height(),
            claimed: self.view.highest_claimed(),
            since: self.view.executed_at.elapsed(),
            peers: self.connected.len(),
        };
        self.absence.as_ref().filter(|_| self.halted.is_none())?.reason(standing)
    }

    /// Takes transactions of clients.
    pub fn on_submissions(&mut self, submissions: Vec<Submission>) -> Result<(), PerformError> {
        let height = self.view.height();
        let mut transactions = Vec::with_capacity(submissions.len());
        let mut accepted = Vec::new();
        for Submission { transaction, ticket } in submissions {
            let (id, valid_until) = (transaction.id(), transaction.transaction().body().valid_until);
            let receipts = &mut self.performer.receipts;
            if receipts.of(&id).is_none() {
                let refusal = if self.halted.is_some() {
                    Some(SubmitError::NotRunning)
                } else if valid_until <= height {
                    Some(SubmitError::Expired { valid_until, height })
                } else if !receipts.expect(id, valid_until) {
                    Some(SubmitError::Full)
                } else {
                    None
                };
                if let Some(refusal) = refusal {
                    ticket.answer(Answer::Refused(refusal));
                    continue;
                }
                transactions.push(transaction);
            }
            match ticket.wanted {
                Wanted::Accepted => accepted.push((id, ticket)),
                Wanted::Durable | Wanted::Final => receipts.wait(&id, ticket),
            }
        }
        let refused = self.submit(transactions)?;
        self.tell_refused(&refused);
        let refused: BTreeMap<_, _> = refused.into_iter().collect();
        for (id, ticket) in accepted {
            ticket.answer(match refused.get(&id) {
                None | Some(Refusal::Known) => Answer::Accepted,
                Some(reason) => Answer::Refused(SubmitError::Refused(*reason)),
            });
        }
        Ok(())
    }

    /// What is known of a transaction.
    pub fn transaction(&self, id: &TransactionId) -> proto::GetTransactionResponse {
        use proto::get_transaction_response::Status;
        let status = match self.performer.receipts.of(id) {
            Some(Fate::Final { block, receipt }) => Status::Final(final_to_proto(block, receipt)),
            Some(Fate::Expired { valid_until }) => Status::Expired(proto::Expired { valid_until: valid_until.get() }),
            None if self.performer.receipts.is_pending(id) => Status::Pending(proto::Pending {}),
            None => Status::Unknown(proto::Unknown {}),
        };
        proto::GetTransactionResponse { status: Some(status), height: self.view.height().get() }
    }

    /// Adds the running chain to a status.
    pub fn add_status(&self, status: &mut proto::GetStatusResponse) {
        let engine = self.engine.status();
        let waiting = self.not_cleared.filter(|_| !engine.signing).map(|reason| reason.to_string());
        let remark = waiting.or_else(|| self.performer.alarm.as_ref().map(Alarm::to_string));
        let remark = remark.or_else(|| self.space.remark());
        self.space.add_to(status);
        let running = RunningFacts {
            engine: &engine,
            view: &self.view,
            sessions: &self.performer.sessions,
            halted: self.halted.as_deref(),
            remark,
            asking: self.start_request().asking,
            lowest: self.performer.blocks.reader().first_height(),
            last_signed: self.engine.signing_record().last().map(|slot| slot.height).unwrap_or_default(),
        };
        report::add_running(status, &running);
    }

    /// Who votes and who was seen voting.
    pub fn validators(&self) -> proto::GetValidatorsResponse {
        let Performer { identity, seen, links, .. } = &self.performer;
        report::validators(identity, &self.view, seen, links)
    }

    /// What the operator could help with.
    pub fn start_request(&self) -> proto::StartRequest {
        let engine = self.engine.status();
        let mut request = self.performer.sessions.start_request(engine.session_key.as_ref());
        // A node that does not vote needs no key.
        request.asking &= engine.session_key.is_some();
        request
    }

    /// What the kubelet is told.
    pub fn turn(&self) -> Turn {
        let EngineStatus { synced, session_key, signing, .. } = self.engine.status();
        let running = self.halted.is_none();
        Turn { synced: running && synced, able_to_sign: running && (session_key.is_none() || signing) }
    }

    fn submit(
        &mut self,
        transactions: Vec<VerifiedTransaction>,
    ) -> Result<Vec<(TransactionId, Refusal)>, PerformError> {
        if transactions.is_empty() {
            return Ok(Vec::new());
        }
        let outcome = self.step(Input::Submitted { origin: Origin::Client, transactions })?;
        Ok(outcome.refused)
    }

    /// Answers those who wait for transactions that the mempool did not take, or that had to give way to others.
    fn tell_refused(&mut self, refused: &[(TransactionId, Refusal)]) {
        // The same bytes again are harmless.
        for (id, reason) in refused.iter().filter(|(_, reason)| *reason != Refusal::Known) {
            self.performer.receipts.on_refused(id, SubmitError::Refused(*reason));
        }
    }

    /// Who votes and who will is whose peer records count.
    fn tell_roster(&self) {
        let newest = self.view.roster();
        self.roster.send_if_modified(|told| {
            let changed = told.as_deref() != newest.as_ref();
            if changed {
                *told = newest.map(Arc::new);
            }
            changed
        });
    }

    fn on_changed(&mut self, peer: Identity) -> Result<(), PerformError> {
        let now_connected = self.performer.links.is_connected(&peer);
        if now_connected == self.connected.contains(&peer) {
            return Ok(());
        }
        let input = if now_connected {
            self.connected.insert(peer);
            Input::Connected(peer)
        } else {
            self.connected.remove(&peer);
            if let Some(absence) = &mut self.absence {
                absence.on_disconnected(&peer);
            }
            Input::Disconnected(peer)
        };
        self.step(input).map(|_| ())
    }

    fn on_message(&mut self, from: Identity, message: PeerMessage) -> Result<(), PerformError> {
        match message {
            PeerMessage::NewestVoteRequest { nonce, voter, session_key } => {
                let epoch = self.view.epoch_of(&voter, &session_key);
                let vote = epoch.and_then(|epoch| self.performer.newest_votes.get(&(voter, epoch))).copied();
                let certificate = self.performer.newest_certificate.clone();
                let answer = PeerMessage::NewestVoteResponse { nonce, vote, certificate };
                self.performer.perform(Effect::Send { to: from, message: Arc::new(answer) })?;
                Ok(())
            }
            PeerMessage::NewestVoteResponse { nonce, vote, certificate } => {
                if let Some(question) = &mut self.question {
                    question.on_answer(from, NewestVote { nonce, vote, certificate });
                }
                Ok(())
            }
            PeerMessage::StateRequest => {
                self.server.on_request(from);
                Ok(())
            }
            PeerMessage::StatePieceRequest { height, number } => {
                self.server.on_piece_request(from, height, number);
                Ok(())
            }
            message => {
                match (&message, &mut self.absence) {
                    (PeerMessage::Status { height }, _) => self.view.on_claim(from, *height),
                    (PeerMessage::BlocksPruned { first }, Some(absence)) => {
                        absence.on_pruned(from, *first, self.engine.status().tip.next());
                    }
                    _ => {}
                }
                let shown = self.performer.handle.votes_are_watched().then(|| message.clone());
                let outcome = self.step(Input::Message { from, message })?;
                if let Some(message) = shown {
                    self.show(from, &message, &outcome);
                }
                Ok(())
            }
        }
    }

    /// Shows a peer's message to the watchers, with what the engine found out about it.
    fn show(&self, from: Identity, message: &PeerMessage, outcome: &StepOutcome) {
        let (height, signer, verified) = match message {
            PeerMessage::Vote(vote) => (vote.vote.height, vote.vote.voter, outcome.verified),
            message => match proposal_of(message) {
                Some(proposal) => (proposal.height, proposal.proposer, !outcome.dropped),
                None => return,
            },
        };
        let entry = self.view.entry(height, &signer);
        let verified = verified && entry.is_some();
        watched::show(&self.performer.handle, message, Arrival { from, verified, entry });
    }

    /// Takes over the key that the chain names, as soon as that is proved to be safe.
    fn seek_clearance(&mut self) -> Result<(), PerformError> {
        let status = self.engine.status();
        let wanted = status
            .session_key
            .filter(|key| self.performer.sessions.entry(key).is_some())
            .filter(|key| self.performer.sessions.cleared_key(key).is_none() || self.abstains_too_long(key, &status));
        let (Some(key), None) = (wanted, &self.halted) else {
            self.question = None;
            self.not_cleared = None;
            return Ok(());
        };
        if self.question.as_ref().is_none_or(|question| question.session_key() != key) {
            self.question = self.ask(key);
        }
        let Some(question) = &mut self.question else { return Ok(()) };
        let result = question.result(&self.engine, &self.view);
        let request = question.request();
        let sessions = &mut self.performer.sessions;
        let cleared = match sessions.ask_again(&key, &result) {
            Some(again) => again,
            None => sessions.take_over(&key, &result)?,
        };
        match cleared {
            Ok(cleared) => {
                self.question = None;
                self.not_cleared = None;
                self.step(Input::Cleared(cleared)).map(|_| ())
            }
            Err(reason) => {
                if self.not_cleared != Some(reason) {
                    tracing::info!(session_key = %key, %reason, "the session key of this volume is not cleared");
                    self.not_cleared = Some(reason);
                }
                self.performer.perform(Effect::Broadcast(Arc::new(request))).map(|_| ())
            }
        }
    }

    /// The key is cleared and signs nothing at the next height, and the chain stands still there: it may be waiting for
    /// this very voter, if another one has died meanwhile.
    fn abstains_too_long(&self, key: &SessionKey, status: &EngineStatus) -> bool {
        let abstains = |cleared: &ClearedKey| cleared.nothing_up_to() > status.tip;
        let settle = Duration::from_millis(Question::settle_ms(self.engine.parameters()));
        let stands_still = self.view.executed_at.elapsed() > STANDING_MIN.max(settle);
        stands_still && self.performer.sessions.cleared_key(key).is_some_and(abstains)
    }

    fn ask(&self, session_key: SessionKey) -> Option<Asked> {
        let question = TripwireQuestion {
            nonce: CeremonyNonce::new(rand::random()),
            incarnation: self.view.incarnation,
            identity: self.performer.identity,
            session_key,
            voters: self.view.next_voters()?.clone(),
        };
        Some(Asked::new(question))
    }

    /// One input, and every input that follows from its effects at once.
    pub(super) fn step(&mut self, input: Input) -> Result<StepOutcome, PerformError> {
        let mut outcome = StepOutcome::default();
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            for effect in self.engine.step(watched::now_ms(), input) {
                self.look_at(&effect, &mut outcome);
                inputs.extend(self.performer.perform(effect)?);
            }
        }
        Ok(outcome)
    }

    /// What the caller of a step wants to know of its effects.
    fn look_at(&self, effect: &Effect, outcome: &mut StepOutcome) {
        match effect {
            Effect::VoteSeen(_) => outcome.verified = true,
            Effect::Dropped { .. } => outcome.dropped = true,
            Effect::Refused { id, reason } => outcome.refused.push((*id, *reason)),
            Effect::Broadcast(message) => self.show_own(message),
            _ => {}
        }
    }

    fn show_own(&self, message: &PeerMessage) {
        let (height, signer) = match message {
            PeerMessage::Vote(vote) => (vote.vote.height, vote.vote.voter),
            message => match proposal_of(message) {
                Some(proposal) => (proposal.height, proposal.proposer),
                None => return,
            },
        };
        let identity = self.performer.identity;
        if signer == identity {
            let arrival = Arrival { from: identity, verified: true, entry: self.view.entry(height, &identity) };
            watched::show(&self.performer.handle, message, arrival);
        }
    }
}

/// The proposal that a message carries.
fn proposal_of(message: &PeerMessage) -> Option<&UnsignedProposal> {
    match message {
        PeerMessage::Proposal(proposed) => Some(&proposed.proposal.proposal),
        PeerMessage::ProposedHeader(proposed) => Some(&proposed.proposal.proposal),
        _ => None,
    }
}

/// What one step did, as far as its caller wants to know.
#[derive(Debug, Default)]
pub(super) struct StepOutcome {
    /// A vote was verified.
    verified: bool,
    /// A message was dropped.
    dropped: bool,
    /// Transactions that the mempool did not take, or dropped.
    refused: Vec<(TransactionId, Refusal)>,
}
