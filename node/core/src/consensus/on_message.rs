//! Messages of peers and transactions: verified, put in their place, or dropped with a reason.

use arc_malachitebft_core_consensus::Input as CoreInput;

use super::{
    Alarm, DropReason, Effect, Engine, Equivocation, Origin,
    certificates::{polka_certificate, power_of, round_certificate},
    context,
    gate::{Admission, Gate, Place, ROUNDS_AHEAD_MAX},
};
use crate::{
    crypto::{SigningBytes, VerifiedTransaction},
    mempool::Refusal,
    session::{RecordEntry, Sighting, Slot},
    types::{
        FailureReason, Height, Identity, Payload, PeerMessage, ProposedHeader, RoundCertificate, Step,
        TRANSACTIONS_PER_MESSAGE_MAX, Vote, VoteKind, VoterSet,
    },
};

/// How many blocks are sent in one answer at most.
pub const BLOCKS_PER_ANSWER_MAX: u32 = 16;

impl Engine {
    pub(super) fn on_message(&mut self, from: Identity, message: PeerMessage) {
        let taken = match message {
            PeerMessage::Vote(vote) => self.on_vote(from, vote),
            PeerMessage::Proposal(proposed) => self.on_proposal(from, (*proposed).into()),
            PeerMessage::ProposedHeader(proposed) => self.on_proposal(from, *proposed),
            PeerMessage::BatchAcknowledgements(list) if list.iter().all(|said| said.voter == from) => {
                self.on_acknowledgements(list)
            }
            // Everybody speaks for himself, so nobody can put a wrong one in the place of a right one.
            PeerMessage::BatchAcknowledgements(_) => Err(DropReason::Unrequested),
            PeerMessage::BatchesRequest(digests) => {
                self.on_batches_request(from, &digests);
                Ok(())
            }
            PeerMessage::RoundCertificate(certificate) => self.on_round_certificate(&certificate),
            PeerMessage::Status { height } => {
                self.sync.on_status(from, height, self.chain.tip());
                self.ask_blocks();
                Ok(())
            }
            PeerMessage::BlocksRequest { from: first, count } => {
                if first <= self.chain.tip() && first > Height::ZERO && count > 0 {
                    let count = count.min(BLOCKS_PER_ANSWER_MAX);
                    self.out.push(Effect::SendBlocks { to: from, first, count });
                }
                Ok(())
            }
            PeerMessage::BlocksResponse { blocks } => self.on_blocks(from, blocks),
            PeerMessage::NewestVoteRequest { nonce, voter: _, session_key } => {
                let vote = self.gate.newest(&session_key);
                let certificate = self.tip_certificate.clone();
                let answer = PeerMessage::NewestVoteResponse { nonce, vote, certificate };
                self.out.push(Effect::Send { to: from, message: answer.into() });
                Ok(())
            }
            PeerMessage::BlocksPruned { first } => {
                if first > self.chain.tip().next() {
                    self.sync.on_pruned(&from, self.chain.tip());
                    self.ask_blocks();
                }
                Ok(())
            }
            // The shell keeps these for itself.
            PeerMessage::NewestVoteResponse { .. }
            | PeerMessage::Transactions(_)
            | PeerMessage::Batch(_)
            | PeerMessage::StateRequest
            | PeerMessage::StateManifest(_)
            | PeerMessage::StatePieceRequest { .. }
            | PeerMessage::StatePiece { .. }
            | PeerMessage::PeerRecords(_) => Err(DropReason::Unrequested),
        };
        if let Err(reason) = taken {
            self.out.push(Effect::Dropped { from, reason });
        }
    }

    fn on_vote(&mut self, from: Identity, vote: Vote) -> Result<(), DropReason> {
        let height = vote.vote.height;
        let place = Gate::place(&self.chain, height)?;
        if place == Place::Unknown {
            return self.gate.keep_waiting(from, PeerMessage::Vote(vote));
        }
        let current = self.core.as_ref().filter(|_| place == Place::Current).map_or(0, |core| core.round().get());
        if place != Place::Final && vote.vote.round.get() > current.saturating_add(ROUNDS_AHEAD_MAX) {
            return Err(DropReason::TooFarAhead);
        }
        let Some(voters) = self.chain.voters(height).cloned() else { return Err(DropReason::OldHeight) };
        match self.gate.admit(&self.chain, &voters, &vote)? {
            Admission::Known => {}
            Admission::New => self.out.push(Effect::VoteSeen(vote)),
            Admission::Contradicts(other) => {
                self.out.push(Effect::VoteSeen(vote));
                self.out.push(Effect::Evidence(Box::new(Equivocation::Votes(other, vote))));
            }
        }
        if vote.vote.voter == self.identity {
            let slot = Slot { height, round: vote.vote.round, step: vote.vote.kind.step() };
            let bytes = SigningBytes::vote(&self.chain.incarnation_at(height), vote.epoch, &vote.vote);
            self.check_own(&voters, &RecordEntry::new(slot, &bytes));
        }
        if place == Place::Current {
            self.drive(CoreInput::Vote(context::signed_vote(&vote)), Some(vote.signature));
        }
        Ok(())
    }

    /// Something verified in the own name: if its key is in use here, it must be what this process signed.
    fn check_own(&mut self, voters: &VoterSet, entry: &RecordEntry) {
        let named = voters.get(&self.identity).map(|entry| entry.session_key);
        let Some(key) = named.filter(|key| self.signer.is_cleared(key)) else { return };
        if self.signer.record().sighting(entry) == Sighting::NotRecorded && !self.session.is_stopped() {
            self.out.push(Effect::Alarm(Alarm::SignedElsewhere { key, height: entry.slot.height }));
            self.signer.stop();
            self.session.stop();
            self.rebuild_core();
        }
    }

    fn on_proposal(&mut self, from: Identity, proposed: ProposedHeader) -> Result<(), DropReason> {
        let unsigned = proposed.proposal.proposal;
        let place = match Gate::place(&self.chain, unsigned.height)? {
            Place::Final => return Ok(()),
            Place::Unknown => return self.gate.keep_waiting(from, PeerMessage::ProposedHeader(Box::new(proposed))),
            place => place,
        };
        let core = self.core.as_ref().filter(|_| place == Place::Current);
        let round = core.map_or(0, |core| core.round().get());
        if unsigned.round.get() > round.saturating_add(ROUNDS_AHEAD_MAX) {
            return Err(DropReason::TooFarAhead);
        }
        let runs = core.is_some();
        if runs && self.blocks.has_proposal(&proposed.proposal) && self.blocks.get(&unsigned.value).is_some() {
            return Ok(());
        }
        let Some(voters) = self.chain.voters(unsigned.height).cloned() else { return Err(DropReason::OldHeight) };
        Gate::check_proposal(&self.chain, &voters, &proposed)?;
        if unsigned.proposer == self.identity {
            let slot = Slot { height: unsigned.height, round: unsigned.round, step: Step::Propose };
            let incarnation = self.chain.incarnation_at(unsigned.height);
            let bytes = SigningBytes::proposal(&incarnation, proposed.proposal.epoch, &unsigned);
            self.check_own(&voters, &RecordEntry::new(slot, &bytes));
        }
        if runs {
            self.complete_proposal(proposed);
        } else {
            self.gate.keep_early(proposed);
        }
        Ok(())
    }

    /// A certificate helps only at the current height; the protocol has it verified.
    fn on_round_certificate(&mut self, certificate: &RoundCertificate) -> Result<(), DropReason> {
        let Some(core) = self.core.as_ref().filter(|core| core.height() == certificate.height) else { return Ok(()) };
        let voters = core.voters().clone();
        let one_kind = certificate
            .signatures
            .iter()
            .all(|signature| voters.get(&signature.voter).is_some_and(|entry| entry.epoch == signature.epoch));
        if !one_kind {
            return Err(DropReason::BadCertificate);
        }
        let prevotes = certificate.signatures.iter().all(|signature| signature.kind == VoteKind::Prevote);
        let quorum = power_of(&voters, &certificate.signatures) >= voters.quorum();
        let polka = polka_certificate(certificate.height, certificate).filter(|_| prevotes && quorum);
        let input = match polka {
            Some(polka) => CoreInput::PolkaCertificate(polka),
            None => CoreInput::RoundCertificate(round_certificate(certificate, &voters)),
        };
        self.drive(input, None);
        Ok(())
    }

    /// Takes transactions into the mempool. Those of accounts travel in batches, those of sessions at once.
    pub(super) fn on_submitted(&mut self, origin: Origin, transactions: Vec<VerifiedTransaction>) {
        let (mut accepted, mut sessions) = (Vec::new(), Vec::new());
        for verified in transactions {
            let id = verified.id();
            let body = verified.transaction().body();
            let session = body.payload.is_session().then(|| verified.transaction().clone());
            let strange = matches!(body.payload, Payload::Governance(_))
                && !self.chain.governance().authorises(verified.transaction());
            let added = match (&session, self.chain.newest_voters()) {
                (Some(_), Some(voters)) => self.mempool.add_session(verified, voters).map(|()| Vec::new()),
                // Anybody could take the place of the governance's next nonce with it.
                _ if strange => Err(Refusal::WouldFail(FailureReason::WrongSigners)),
                _ if self.batches.has_room() => self.mempool.add(verified),
                _ => Err(Refusal::Full),
            };
            match added {
                Ok(evicted) => {
                    accepted.push(id);
                    sessions.extend(session);
                    let gone = |id| Effect::Refused { id, reason: Refusal::Evicted };
                    evicted.into_iter().map(gone).for_each(|effect| self.out.push(effect));
                }
                Err(reason) => self.out.push(Effect::Refused { id, reason }),
            }
        }
        if accepted.is_empty() {
            return;
        }
        self.out.push(Effect::Accepted(accepted));
        if origin == Origin::Client {
            for chunk in sessions.chunks(TRANSACTIONS_PER_MESSAGE_MAX) {
                self.out.push(Effect::Broadcast(PeerMessage::Transactions(chunk.to_vec()).into()));
            }
        }
        self.seal_when_due();
    }
}
