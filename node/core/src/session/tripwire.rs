//! The tripwire against volumes rolled back in place: others show the newest vote of a key, the volume must know it.

use std::collections::BTreeMap;

use super::{RecordEntry, Sighting, SigningRecord, Slot};
use crate::{
    crypto::{SigningBytes, verify},
    types::{CeremonyNonce, Height, Identity, Incarnation, Power, SessionKey, Vote, VoterSet},
};

/// What the answers say so far.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TripwireResult {
    /// Enough power has answered, and the volume knows everything that was shown.
    Passed {
        /// The key signs nothing at this height or below.
        nothing_up_to: Height,
    },
    /// Too little power has answered.
    Waiting {
        /// The power that has, this node included.
        answered: Power,
        /// The power that must.
        needed: Power,
    },
    /// Somebody showed a vote of this key that the volume does not know.
    RolledBack,
}

/// What one question is about.
#[derive(Clone, Debug)]
pub struct TripwireQuestion {
    /// Fresh for every question: answers to an earlier one do not count.
    pub nonce: CeremonyNonce,
    /// The chain.
    pub incarnation: Incarnation,
    /// This voter.
    pub identity: Identity,
    /// The key on its volume.
    pub session_key: SessionKey,
    /// The voters as far as this node has executed.
    pub voters: VoterSet,
}

/// One node's answer.
#[derive(Clone, Copy, Debug)]
pub struct TripwireAnswer {
    /// From the question.
    pub nonce: CeremonyNonce,
    /// The node, by the identity that its connection proved.
    pub from: Identity,
    /// The newest vote of the voter asked about that it knows.
    pub vote: Option<Vote>,
    /// The height of the highest certificate that it showed and that verified, on a live chain. Zero where the chain
    /// stands: nodes that all start again together would wait for each other at the two heights above it.
    pub certified: Height,
}

/// A question and its answers: one for each voter.
#[derive(Clone, Debug)]
pub struct Tripwire {
    question: TripwireQuestion,
    answers: BTreeMap<Identity, Answered>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Answered {
    shown: Option<RecordEntry>,
    certified: Height,
}

impl Tripwire {
    /// Asks.
    #[must_use]
    pub fn new(question: TripwireQuestion) -> Self {
        Self { question, answers: BTreeMap::new() }
    }

    /// What is asked.
    #[must_use]
    pub fn question(&self) -> &TripwireQuestion {
        &self.question
    }

    /// Takes an answer. Answers to other questions, of nodes that are not voters, or with a vote that this key did not
    /// sign do not count at all.
    pub fn on_answer(&mut self, answer: &TripwireAnswer) {
        let TripwireQuestion { nonce, incarnation, identity, session_key, voters } = &self.question;
        if answer.nonce != *nonce || voters.get(&answer.from).is_none() {
            return;
        }
        let mut shown = None;
        if let Some(Vote { vote, epoch, signature }) = &answer.vote {
            let bytes = SigningBytes::vote(incarnation, *epoch, vote);
            if vote.voter != *identity || verify(session_key.as_bytes(), &bytes, signature).is_err() {
                return;
            }
            let slot = Slot { height: vote.height, round: vote.round, step: vote.kind.step() };
            shown = Some(RecordEntry::new(slot, &bytes));
        }
        let answered = self.answers.entry(answer.from).or_default();
        // What was shown once stays: a later answer may add to it and takes nothing away.
        let newer = shown.filter(|entry| answered.shown.is_none_or(|before| before.slot < entry.slot));
        answered.shown = newer.or(answered.shown);
        answered.certified = answered.certified.max(answer.certified);
    }

    /// What the answers say, against the record of the volume.
    #[must_use]
    pub fn result(&self, record: &SigningRecord) -> TripwireResult {
        let unknown = |entry: &RecordEntry| record.sighting(entry) == Sighting::NotRecorded;
        if self.answers.values().filter_map(|answered| answered.shown.as_ref()).any(unknown) {
            return TripwireResult::RolledBack;
        }
        let TripwireQuestion { identity, voters, .. } = &self.question;
        let power_of = |identity: &Identity| voters.get(identity).map_or(0, |entry| entry.power.get());
        let others = self.answers.keys().filter(|from| *from != identity).map(power_of).sum::<u64>();
        let answered = Power::new(others + power_of(identity));
        let needed = voters.total_power().saturating_sub(voters.fault_budget().get());
        if answered < needed {
            return TripwireResult::Waiting { answered, needed };
        }
        let certified = self.answers.values().map(|answered| answered.certified).max().unwrap_or_default();
        let nothing_up_to = if certified == Height::ZERO { Height::ZERO } else { certified.saturating_add(2) };
        TripwireResult::Passed { nothing_up_to }
    }
}
