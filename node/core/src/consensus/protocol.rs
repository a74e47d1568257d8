//! The protocol within the engine: when a height starts, what it is fed, what follows from what it says.

use std::sync::Arc;

use arc_malachitebft_core_consensus::Input as CoreInput;
use arc_malachitebft_core_types::ThresholdParam;

use super::{
    Alarm, Effect, Engine,
    answers::Answers,
    context::{self, Chain},
    core::{Core, CoreFailure, CoreMode, CoreOutcome},
    log::LogEntry,
    on_batch::assemble,
    proposer::proposer_at,
    timers::{FirstProposer, TimeoutKind},
};
use crate::types::{Block, Hash, Height, PeerMessage, Proposal, ProposedHeader, Round, Signature, VoterSet};

/// At how many heights in a row a proposer must have been silent to be waited for less: at one or two it may have been
/// slow, or its votes late.
const SILENT_HEIGHTS: u64 = 4;

impl Engine {
    /// This process may sign at a height: the voters of the height name a key that is cleared, and nothing stands
    /// against it.
    pub(super) fn may_sign(&self, height: Height) -> bool {
        let able = match self.signing_voters(height) {
            Some(voters) => self.signer.can_sign(height, &voters),
            None => false,
        };
        let superseded = height <= self.chain.recovered_height();
        able && !superseded && height > self.nothing_up_to && self.disabled_at != Some(height)
    }

    /// The voters whose entry names the signing key: those of the height. Only a test goes on with older ones.
    fn signing_voters(&self, height: Height) -> Option<Arc<VoterSet>> {
        let voters = self.chain.voters(height)?.clone();
        if self.faults.old_key_kept && !self.signer.can_sign(height, &voters) {
            return self.chain.oldest_voters(|voters| self.signer.can_sign(height, voters)).or(Some(voters));
        }
        Some(voters)
    }

    /// Starts the next height, if it can and should.
    pub(super) fn start_height(&mut self) -> bool {
        let height = self.chain.next();
        let resumes = self.log.height() == Some(height) && !self.log.entries().is_empty();
        // What the log says was said when `height - 2` was executed; the same must hold when it is said again.
        let may = if resumes { self.chain.may_vote_next() } else { self.chain.may_start_next() };
        let content = self.paced && (self.mempool.has_sessions() || self.batches.has_ready());
        let wanted = self.due || resumes || content || self.gate.has_early(height);
        if self.core.is_some() || self.superseded || !may || !wanted || self.given_up_at == Some(height) {
            return false;
        }
        self.due = false;
        self.paced = false;
        self.height_started_ms = self.now_ms;
        if self.log.height() != Some(height) {
            let first = self.log.reset(height, self.signer.record());
            self.out.reset_log(height, first);
        }
        self.run_core(height);
        true
    }

    /// Builds the protocol at a height from the log, then feeds what came early.
    fn run_core(&mut self, height: Height) {
        let Some(voters) = self.chain.voters(height).cloned() else { return };
        self.remember_logged_blocks();
        let quorum =
            if self.faults.quorum_of_one_third { ThresholdParam::F_PLUS_ONE } else { ThresholdParam::TWO_F_PLUS_ONE };
        let mode = CoreMode { enabled: self.may_sign(height), quorum };
        let mut core = Core::new(self.identity, height, &voters, mode);
        let inputs: Vec<_> = self.log.entries().iter().filter_map(|entry| entry.for_core(height)).collect();
        let restart = !inputs.is_empty();
        let mut answers = self.answers(height, &voters);
        answers.replaying = restart;
        core.start(restart, &mut answers);
        core.replay(inputs, &mut answers);
        let outcome = std::mem::take(&mut answers.outcome);
        self.core = Some(core);
        self.settle(outcome);
        // The replay has said the own votes again; the proposal may not have left either.
        if restart {
            self.repeat_proposals();
        }
        self.feed_early(height);
    }

    /// What the log knows about blocks.
    fn remember_logged_blocks(&mut self) {
        self.blocks.clear();
        let logged = self.log.batches();
        for entry in self.log.entries() {
            match entry {
                LogEntry::Block(block) => self.blocks.insert(block.hash(), block.clone()),
                LogEntry::Header(header) => {
                    let found = |digest: &Hash| logged.get(digest).or_else(|| self.batches.get(digest)).cloned();
                    if let Some(block) = assemble(header, found) {
                        self.blocks.insert(block.hash(), Arc::new(block));
                    }
                }
                LogEntry::Value(value) => self.blocks.judge(&value.value, value.valid),
                LogEntry::Proposal(proposal) | LogEntry::OwnProposal(_, proposal) => {
                    self.blocks.propose(proposal);
                }
                LogEntry::Start { .. }
                | LogEntry::Batch(_)
                | LogEntry::OwnVote(..)
                | LogEntry::Vote(_)
                | LogEntry::Timeout(..)
                | LogEntry::Polka(_) => {}
            }
        }
    }

    /// Sends the proposals of the current round again, whoever made them.
    pub(super) fn repeat_proposals(&mut self) {
        let Some(core) = &self.core else { return };
        for proposal in self.blocks.proposals(core.round()) {
            if let Some(block) = self.blocks.get(&proposal.proposal.value) {
                let travels = |digest: &Hash| !self.batches.is_certified(digest);
                let proposed = ProposedHeader::new(*proposal, block, travels);
                self.out.promise(PeerMessage::ProposedHeader(Box::new(proposed)));
            }
        }
    }

    /// Feeds what was verified before the height started.
    fn feed_early(&mut self, height: Height) {
        for proposed in self.gate.take_early(height) {
            self.complete_proposal(proposed);
        }
        for vote in self.gate.votes(height) {
            self.drive(CoreInput::Vote(context::signed_vote(&vote)), Some(vote.signature));
        }
    }

    /// Takes a verified proposal of the current height: now its block must be judged.
    pub(super) fn take_proposal(&mut self, proposal: Proposal, block: Block) {
        self.blocks.insert(proposal.proposal.value, Arc::new(block));
        if let Some(other) = self.blocks.propose(&proposal) {
            self.out.push(Effect::Evidence(Box::new(super::Equivocation::Proposals(other, proposal))));
        }
        self.judge_again(&proposal);
        self.drive(CoreInput::Proposal(context::signed_proposal(&proposal)), Some(proposal.signature));
    }

    /// Feeds one input to the protocol, if it runs. `verified` is the signature that was checked already.
    pub(super) fn drive(&mut self, input: CoreInput<Chain>, verified: Option<Signature>) {
        let Some(mut core) = self.core.take() else { return };
        let voters = core.voters().clone();
        let mut answers = self.answers(core.height(), &voters);
        answers.verified = verified;
        core.drive(input, &mut answers);
        let outcome = std::mem::take(&mut answers.outcome);
        self.core = Some(core);
        self.settle(outcome);
    }

    fn answers<'a>(&'a mut self, height: Height, voters: &'a Arc<VoterSet>) -> Answers<'a> {
        Answers {
            height,
            voters: voters.clone(),
            signing_voters: self.signing_voters(height).unwrap_or_else(|| voters.clone()),
            incarnation: self.chain.incarnation_at(height),
            parameters: self.chain.parameters(),
            first_proposer: self.first_proposer(height, voters),
            signer: &mut self.signer,
            log: &mut self.log,
            out: &mut self.out,
            blocks: &self.blocks,
            batches: &self.batches,
            verified: None,
            replaying: false,
            fault_keys: &self.fault_keys,
            faults: self.faults,
            outcome: CoreOutcome::default(),
        }
    }

    /// Acts on what one input led to.
    fn settle(&mut self, outcome: CoreOutcome) {
        let CoreOutcome { decided, failed } = outcome;
        if let Some(certificate) = decided {
            self.decide(&certificate);
        } else if let Some(failure) = failed {
            self.run_without_signing(failure);
        } else {
            self.end_futile_round();
        }
    }

    /// Where a quorum precommitted nothing the timeout elapses at once. It is logged as every timeout is, so a replay
    /// ends the round at the same place.
    fn end_futile_round(&mut self) {
        let Some(core) = &mut self.core else { return };
        let Some(timer) = core.futile_timer() else { return };
        let round = core.round();
        core.timers.remove(&timer);
        self.rounds_ended_early += 1;
        self.out.push(Effect::CancelTimer(timer));
        self.drive(CoreInput::TimeoutElapsed(TimeoutKind::Precommit.for_core(round)), None);
    }

    /// The proposer of round 0 is silent if it was a voter at each of the last heights and no vote of it came for any of
    /// them, while at each of them votes of another came.
    fn first_proposer(&self, height: Height, voters: &VoterSet) -> FirstProposer {
        let proposer = proposer_at(voters, height, Round::ZERO).identity;
        let was_silent = |back: u64| {
            let before = height.checked_sub(back)?;
            let was_voter = self.chain.voters(before)?.get(&proposer).is_some();
            let mut heard = self.gate.voted(before).peekable();
            Some(was_voter && heard.peek().is_some() && !heard.any(|voter| *voter == proposer))
        };
        let silent = proposer != self.identity && (1..=SILENT_HEIGHTS).all(|back| was_silent(back) == Some(true));
        if silent { FirstProposer::Silent } else { FirstProposer::Expected }
    }

    /// The protocol was told that something is signed that is not, or contradicts itself: build it anew from the log and
    /// sign nothing more at this height.
    fn run_without_signing(&mut self, failure: CoreFailure) {
        let height = self.chain.next();
        let again = self.disabled_at == Some(height);
        self.out.push(Effect::Alarm(match failure {
            CoreFailure::Refused(_) => Alarm::RecordRefused { height },
            CoreFailure::Protocol(reason) => Alarm::CoreFailed { height, reason },
        }));
        self.stop_core();
        self.disabled_at = Some(height);
        if again {
            self.given_up_at = Some(height);
        } else {
            self.run_core(height);
        }
    }

    /// Forgets the protocol of the current height, with its timers.
    pub(super) fn stop_core(&mut self) {
        for id in self.core.take().into_iter().flat_map(|core| core.timers) {
            self.out.push(Effect::CancelTimer(id));
        }
    }

    /// Whether this process signs has changed: build the protocol anew from the log, so that it says what it would have
    /// said, or stays silent.
    pub(super) fn rebuild_core(&mut self) {
        let height = self.chain.next();
        if self.core.as_ref().is_some_and(|core| core.enabled() != self.may_sign(height)) {
            self.stop_core();
            self.run_core(height);
        }
    }
}
