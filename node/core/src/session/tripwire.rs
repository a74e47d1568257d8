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
    /// The height of the highest certificate that it showed and that verified.
    pub certified: Height,
}

/// A question and its answers.
#[derive(Clone, Debug)]
pub struct Tripwire {
    question: TripwireQuestion,
    answers: BTreeMap<Identity, Height>,
    newest: BTreeMap<Slot, RecordEntry>,
}

/// How many shown votes are kept: the newest decide.
const SHOWN_MAX: usize = 16;

impl Tripwire {
    /// Asks.
    #[must_use]
    pub fn new(question: TripwireQuestion) -> Self {
        Self { question, answers: BTreeMap::new(), newest: BTreeMap::new() }
    }

    /// What is asked.
    #[must_use]
    pub fn question(&self) -> &TripwireQuestion {
        &self.question
    }

    /// Takes an answer. Answers to other questions and of nodes that are not voters do not count; nor does a vote
    /// without the key's signature, and then the whole answer.
    pub fn on_answer(&mut self, answer: &TripwireAnswer) {
        let TripwireQuestion { nonce, incarnation, identity, session_key, voters } = &self.question;
        if answer.nonce != *nonce || voters.get(&answer.from).is_none() {
            return;
        }
        if let Some(Vote { vote, epoch, signature }) = &answer.vote {
            let bytes = SigningBytes::vote(incarnation, *epoch, vote);
            if vote.voter != *identity {
                return;
            }
            match verify(session_key.as_bytes(), &bytes, signature) {
                Ok(()) => {
                    let slot = Slot { height: vote.height, round: vote.round, step: vote.kind.step() };
                    self.newest.insert(slot, RecordEntry::new(slot, &bytes));
                    while self.newest.len() > SHOWN_MAX {
                        self.newest.pop_first();
                    }
                }
                // The newest vote of this voter may well be by another of its keys: that says nothing about this one.
                Err(_) => {}
            }
        }
        self.answers.insert(answer.from, answer.certified);
    }

    /// What the answers say, against the record of the volume.
    #[must_use]
    pub fn result(&self, record: &SigningRecord) -> TripwireResult {
        let unknown = |entry: &RecordEntry| record.sighting(entry) == Sighting::NotRecorded;
        if self.newest.values().any(unknown) {
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
        let certified = self.answers.values().max().copied().unwrap_or_default();
        let nothing_up_to = if certified == Height::ZERO { Height::ZERO } else { certified.saturating_add(2) };
        TripwireResult::Passed { nothing_up_to }
    }
}
