//! The answers to everything that the protocol asks for while it handles one input.

use std::{collections::BTreeSet, sync::Arc};

use arc_malachitebft_core_consensus as consensus;
use arc_malachitebft_core_types as malachite;
use consensus::{
    ConsensusMsg, Effect as CoreEffect, Input as CoreInput, LivenessMsg, Resumable, Resume, SignedConsensusMsg,
};
use malachite::{CertificateError, RoundCertificateType, SignedMessage, Timeout};

use super::{
    blocks::Blocks,
    certificates::{check_votes, travelling_polka, travelling_round, votes_of},
    context::{self, Chain},
    core::{CoreFailure, CoreOutcome},
    effect::Effect,
    faults::Faults,
    log::{HeightLog, LogEntry, LoggedValue},
    outbox::Outbox,
    timers::{FirstProposer, TimeoutKind, TimerId},
};
use crate::{
    crypto::{verify_proposal, verify_vote},
    mempool::Batches,
    session::{ClearedKey, SignRefusal, Signed, Signer, SigningRecord},
    types::{
        Block, Hash, Height, Incarnation, Parameters, PeerMessage, Proposal, ProposedHeader, Round, Signature,
        UnsignedProposal, UnsignedVote, Vote, VoterSet,
    },
};

/// Everything that the protocol may ask for, at one height.
pub struct Answers<'a> {
    /// The height.
    pub height: Height,
    /// Its voters.
    pub voters: Arc<VoterSet>,
    /// The voters whose entry names the key that signs: those of the height, but for a test.
    pub signing_voters: Arc<VoterSet>,
    /// What signatures are bound to.
    pub incarnation: Incarnation,
    /// Timeouts.
    pub parameters: &'a Parameters,
    /// What is known of the proposer of round 0.
    pub first_proposer: FirstProposer,
    /// Signs, or refuses.
    pub signer: &'a mut Signer,
    /// The log of the height.
    pub log: &'a mut HeightLog,
    /// Effects.
    pub out: &'a mut Outbox,
    /// The blocks that proposals name.
    pub blocks: &'a Blocks,
    /// Batches that are on the disk, or that others have.
    pub batches: &'a Batches,
    /// A message that was verified before it came here, so that it is not verified twice.
    pub verified: Option<Signature>,
    /// The log is being replayed: its entries are not appended again.
    pub replaying: bool,
    /// The keys, for a test that ignores the record.
    pub fault_keys: &'a [ClearedKey],
    /// Rules that a test breaks.
    pub faults: Faults,
    /// What came out.
    pub outcome: CoreOutcome,
}

impl Answers<'_> {
    /// Answers one question of the protocol.
    pub fn answer(
        &mut self,
        effect: CoreEffect<Chain>,
        timers: &mut BTreeSet<TimerId>,
        wanted: &mut Option<Round>,
    ) -> Resume<Chain> {
        match effect {
            CoreEffect::CancelAllTimeouts(resume) => {
                for id in std::mem::take(timers) {
                    self.out.push(Effect::CancelTimer(id));
                }
                resume.resume_with(())
            }
            CoreEffect::CancelTimeout(timeout, resume) => {
                if let Some(id) = self.timer_id(timeout).filter(|id| timers.remove(id)) {
                    self.out.push(Effect::CancelTimer(id));
                }
                resume.resume_with(())
            }
            CoreEffect::ScheduleTimeout(timeout, resume) => {
                self.set_timer(timeout, timers);
                resume.resume_with(())
            }
            CoreEffect::StartRound(_, _, _, _, resume) => {
                *wanted = None;
                resume.resume_with(())
            }
            CoreEffect::GetValue(_, round, _, resume) => {
                *wanted = Some(context::round_of(round));
                resume.resume_with(())
            }
            CoreEffect::PublishConsensusMsg(message, resume) => {
                self.publish(&message);
                resume.resume_with(())
            }
            CoreEffect::PublishLivenessMsg(message, resume) => {
                let message = match message {
                    LivenessMsg::Vote(vote) => PeerMessage::Vote(context::travelling_vote(&vote, &self.voters)),
                    LivenessMsg::PolkaCertificate(certificate) => {
                        PeerMessage::RoundCertificate(travelling_polka(&certificate, &self.voters))
                    }
                    LivenessMsg::SkipRoundCertificate(certificate) => {
                        PeerMessage::RoundCertificate(travelling_round(&certificate, &self.voters))
                    }
                };
                self.send(message);
                resume.resume_with(())
            }
            CoreEffect::RepublishVote(vote, resume) => {
                self.send(PeerMessage::Vote(context::travelling_vote(&vote, &self.voters)));
                resume.resume_with(())
            }
            CoreEffect::RepublishRoundCertificate(certificate, resume) => {
                self.send(PeerMessage::RoundCertificate(travelling_round(&certificate, &self.voters)));
                resume.resume_with(())
            }
            // Every proposal travels with its block.
            CoreEffect::RestreamProposal(_, _, _, _, _, resume) => resume.resume_with(()),
            // Blocks of other nodes are committed beside the protocol, never through it.
            CoreEffect::CertVerifiedSyncValue(_, _, resume) => resume.resume_with(()),
            CoreEffect::CertRejectedSyncValue(_, _, _, resume) => resume.resume_with(()),
            CoreEffect::Decide(certificate, _, resume) => {
                self.outcome.decided = Some(certificate);
                resume.resume_with(())
            }
            CoreEffect::Finalize(_, _, _, resume) => resume.resume_with(()),
            CoreEffect::WalAppend(_, input, resume) => {
                self.append(input);
                resume.resume_with(())
            }
            CoreEffect::ExtendVote(_, _, _, _, resume) => resume.resume_with(None),
            CoreEffect::VerifyVoteExtension(_, _, _, _, _, _, resume) => resume.resume_with(Ok(())),
            signature => self.answer_signature(signature),
        }
    }

    /// The questions about signatures.
    fn answer_signature(&mut self, effect: CoreEffect<Chain>) -> Resume<Chain> {
        match effect {
            CoreEffect::SignVote(vote, resume) => resume.resume_with(self.sign_vote(vote.unsigned())),
            CoreEffect::SignProposal(proposal, resume) => resume.resume_with(self.sign_proposal(proposal.unsigned())),
            CoreEffect::VerifySignature(message, _, resume) => resume.resume_with(self.verify(&message)),
            // Made here, of votes that were verified one by one when they came.
            CoreEffect::VerifyCommitCertificate(_, _, _, resume) => resume.resume_with(Ok(())),
            CoreEffect::VerifyPolkaCertificate(certificate, _, thresholds, resume) => {
                let votes = votes_of(&travelling_polka(&certificate, &self.voters));
                resume.resume_with(check_votes(&self.incarnation, &self.voters, &votes, thresholds.quorum))
            }
            CoreEffect::VerifyRoundCertificate(certificate, _, thresholds, resume) => {
                let votes = votes_of(&travelling_round(&certificate, &self.voters));
                let threshold = match certificate.cert_type {
                    RoundCertificateType::Precommit => thresholds.quorum,
                    RoundCertificateType::Skip => thresholds.honest,
                };
                resume.resume_with(check_votes(&self.incarnation, &self.voters, &votes, threshold))
            }
            CoreEffect::VerifyExtendedCommitCertificate(_, _, _, _, resume) => {
                resume.resume_with(Err(CertificateError::VerificationError(None)))
            }
            // All others are answered before.
            _ => Resume::Continue,
        }
    }

    fn timer_id(&self, timeout: Timeout) -> Option<TimerId> {
        let kind = TimeoutKind::from_core(timeout.kind)?;
        Some(TimerId::Consensus { height: self.height, round: context::round_of(timeout.round), kind })
    }

    fn set_timer(&mut self, timeout: Timeout, timers: &mut BTreeSet<TimerId>) {
        if let Some(id) = self.timer_id(timeout)
            && let TimerId::Consensus { kind, round, .. } = id
        {
            timers.insert(id);
            let after_ms = kind.wait_ms(self.parameters, round, self.first_proposer);
            self.out.push(Effect::SetTimer { id, after_ms });
        }
    }

    /// After a refusal nothing of this input leaves: its signatures are not signatures.
    fn send(&mut self, message: PeerMessage) {
        if self.outcome.failed.is_none() {
            self.out.promise(message);
        }
    }

    fn publish(&mut self, message: &SignedConsensusMsg<Chain>) {
        match message {
            SignedConsensusMsg::Vote(vote) => {
                self.send(PeerMessage::Vote(context::travelling_vote(vote, &self.signing_voters)))
            }
            SignedConsensusMsg::Proposal(proposal) => {
                let own = proposal.message.unsigned().proposer == self.signer.identity();
                let voters = if own { &self.signing_voters } else { &self.voters };
                let proposal = context::travelling_proposal(proposal, voters);
                if let Some(block) = self.blocks.get(&proposal.proposal.value) {
                    let proposed =
                        ProposedHeader::new(proposal, block, |digest: &Hash| !self.batches.is_certified(digest));
                    self.send(PeerMessage::ProposedHeader(Box::new(proposed)));
                }
            }
        }
    }

    fn append(&mut self, input: CoreInput<Chain>) {
        if self.replaying {
            return;
        }
        let entry = match input {
            CoreInput::Vote(vote) if self.log.ends_with_own(&vote.signature) => return,
            CoreInput::Vote(vote) => LogEntry::Vote(context::travelling_vote(&vote, &self.voters)),
            CoreInput::Proposal(proposal) if self.log.ends_with_own(&proposal.signature) => return,
            CoreInput::Proposal(proposal) => LogEntry::Proposal(context::travelling_proposal(&proposal, &self.voters)),
            CoreInput::ProposedValue(value, _) => {
                let value = LoggedValue::from_core(&value);
                if let Some(block) = self.blocks.get(&value.value).filter(|_| !self.log.has_block(&value.value)) {
                    self.append_block(&block.clone());
                }
                LogEntry::Value(value)
            }
            CoreInput::TimeoutElapsed(timeout) => match TimeoutKind::from_core(timeout.kind) {
                Some(kind) => LogEntry::Timeout(kind, context::round_of(timeout.round)),
                None => return,
            },
            CoreInput::PolkaCertificate(certificate) => LogEntry::Polka(travelling_polka(&certificate, &self.voters)),
            // The protocol never asks for these to be kept.
            CoreInput::StartHeight(..)
            | CoreInput::RoundCertificate(_)
            | CoreInput::Propose(_)
            | CoreInput::SyncValueResponse(_) => return,
        };
        self.out.append(self.log.add(entry));
    }

    /// The header, and those batches that are not on the disk already: a vote for the block promises all of them.
    fn append_block(&mut self, block: &Block) {
        for batch in block.batches().iter().filter(|batch| !self.batches.is_durable(&batch.digest())) {
            if !self.log.has_batch(&batch.digest()) {
                self.out.append(self.log.add(LogEntry::Batch(batch.clone())));
            }
        }
        self.out.append(self.log.add(LogEntry::Header(Arc::new(block.header().clone()))));
    }

    fn sign_vote(&mut self, vote: UnsignedVote) -> malachite::SignedVote<Chain> {
        let vote = self.fault_vote(vote);
        let signed = self.refusable(|signer, voters| signer.sign_vote(voters, vote));
        match signed {
            Ok(Signed { statement, entry }) => {
                self.out.append(self.log.add(LogEntry::OwnVote(entry, statement)));
                context::signed_vote(&statement)
            }
            Err(refusal) => {
                self.outcome.failed.get_or_insert(CoreFailure::Refused(refusal));
                context::signed_vote(&Vote {
                    vote,
                    epoch: context::epoch_of(&self.voters, &vote.voter),
                    signature: no_signature(),
                })
            }
        }
    }

    fn sign_proposal(&mut self, proposal: UnsignedProposal) -> malachite::SignedProposal<Chain> {
        let signed = self.refusable(|signer, voters| signer.sign_proposal(voters, proposal));
        match signed {
            Ok(Signed { statement, entry }) => {
                self.out.append(self.log.add(LogEntry::OwnProposal(entry, statement)));
                context::signed_proposal(&statement)
            }
            Err(refusal) => {
                self.outcome.failed.get_or_insert(CoreFailure::Refused(refusal));
                let epoch = context::epoch_of(&self.voters, &proposal.proposer);
                context::signed_proposal(&Proposal { proposal, epoch, signature: no_signature() })
            }
        }
    }

    /// Asks the signer. After one refusal it is not asked again within the same input.
    fn refusable<T>(
        &mut self,
        sign: impl Fn(&mut Signer, &VoterSet) -> Result<Signed<T>, SignRefusal>,
    ) -> Result<Signed<T>, SignRefusal> {
        if self.outcome.failed.is_some() {
            return Err(SignRefusal::Stopped);
        }
        match sign(self.signer, &self.signing_voters) {
            Err(SignRefusal::Record(_)) if self.faults.record_ignored => {
                let mut forgetful = Signer::new(self.incarnation, self.signer.identity(), SigningRecord::new());
                for key in self.fault_keys {
                    forgetful.add_key(key.clone());
                }
                sign(&mut forgetful, &self.signing_voters)
            }
            signed => signed,
        }
    }

    /// The vote to sign; another one only where a test ignores locks.
    fn fault_vote(&self, vote: UnsignedVote) -> UnsignedVote {
        if self.faults.lock_ignored
            && vote.kind == crate::types::VoteKind::Prevote
            && vote.value.is_none()
            && let Some(value) = self.blocks.valid_in_round(vote.round)
        {
            return UnsignedVote { value: Some(value), ..vote };
        }
        vote
    }

    fn verify(&self, message: &SignedMessage<Chain, ConsensusMsg<Chain>>) -> bool {
        if self.verified == Some(message.signature) {
            return true;
        }
        if message.signature == no_signature() {
            return false;
        }
        match &message.message {
            ConsensusMsg::Vote(vote) => {
                let unsigned = vote.unsigned();
                let epoch = context::epoch_of(&self.signing_voters, &unsigned.voter);
                let vote = Vote { vote: unsigned, epoch, signature: message.signature };
                verify_vote(&self.incarnation, &self.signing_voters, &vote).is_ok()
            }
            ConsensusMsg::Proposal(proposal) => {
                let unsigned = proposal.unsigned();
                let epoch = context::epoch_of(&self.signing_voters, &unsigned.proposer);
                let proposal = Proposal { proposal: unsigned, epoch, signature: message.signature };
                verify_proposal(&self.incarnation, &self.signing_voters, &proposal).is_ok()
            }
        }
    }
}

/// Stands where the protocol insists on a signature and there is none. Verifies nowhere.
fn no_signature() -> Signature {
    Signature::new([0; Signature::SIZE])
}
