//! The tripwire in action: asks the other nodes for the newest vote of this volume's key before the key is taken over.

use std::{collections::BTreeMap, time::Duration};

use node_core::{
    crypto::verify_certificate,
    session::{SigningRecord, Tripwire, TripwireAnswer, TripwireQuestion, TripwireResult},
    types::{CeremonyNonce, CommitCertificate, Genesis, Height, Identity, PeerMessage, SessionKey, Vote},
};
use tokio::time::Instant;

use super::view::View;

/// One question about one key, and the answers so far.
#[derive(Debug)]
pub struct Question {
    question: TripwireQuestion,
    answers: BTreeMap<Identity, Answer>,
    /// How long a chain that goes on without this node may take for a block.
    settle: Duration,
    complete: Option<Complete>,
}

#[derive(Clone, Debug)]
struct Answer {
    vote: Option<Vote>,
    certificate: Option<CommitCertificate>,
}

/// What one node answers.
#[derive(Clone, Debug)]
pub struct NewestVote {
    /// From the question.
    pub nonce: CeremonyNonce,
    /// The newest vote of the key that it knows.
    pub vote: Option<Vote>,
    /// The newest certificate that it knows.
    pub certificate: Option<CommitCertificate>,
}

/// What this node knows itself.
#[derive(Debug)]
pub struct Known<'a> {
    /// What its keys have signed.
    pub record: &'a SigningRecord,
    /// The height up to which it has verified certificates.
    pub tip: Height,
    /// It is not behind its peers.
    pub synced: bool,
    /// The voters of some heights.
    pub view: &'a View,
    /// Now.
    pub now: Instant,
}

impl Known<'_> {
    /// Whether the chain has come as far as a certificate says.
    fn proves(&self, certificate: &CommitCertificate) -> bool {
        let height = certificate.height();
        height <= self.tip
            || self
                .view
                .voters(height)
                .is_some_and(|voters| verify_certificate(&self.view.incarnation, voters, certificate).is_ok())
    }
}

/// The moment when enough nodes had answered.
#[derive(Clone, Copy, Debug)]
struct Complete {
    since: Instant,
    /// The highest height that one of them, or this node, had.
    height: Height,
}

impl Question {
    /// A question with a fresh nonce.
    pub fn new(question: TripwireQuestion, genesis: &Genesis) -> Self {
        // A single voter has nobody who could go on without it.
        let alone = question.voters.count() == 1;
        let settle = if alone { Duration::ZERO } else { Self::settle(genesis) };
        Self { question, answers: BTreeMap::new(), settle, complete: None }
    }

    /// The time in which a living chain makes a block, also where the first proposal does not come.
    pub fn settle(genesis: &Genesis) -> Duration {
        let interval_ms = genesis.parameters.block_interval_ms.saturating_mul(2);
        Duration::from_millis(interval_ms.saturating_add(genesis.parameters.propose_timeout.base_ms))
    }

    /// The key that it is about.
    pub fn session_key(&self) -> SessionKey {
        self.question.session_key
    }

    /// What the other nodes are asked. Sent again until they have answered.
    pub fn request(&self) -> PeerMessage {
        let TripwireQuestion { nonce, identity, session_key, .. } = &self.question;
        PeerMessage::NewestVoteRequest { nonce: *nonce, voter: *identity, session_key: *session_key }
    }

    /// Takes an answer.
    pub fn on_answer(&mut self, from: Identity, answer: NewestVote) {
        let NewestVote { nonce, vote, certificate } = answer;
        // Only voters count, so their number bounds what is kept. A later answer knows at least as much.
        if nonce == self.question.nonce && self.question.voters.get(&from).is_some() {
            self.answers.insert(from, Answer { vote, certificate });
        }
    }

    /// What is known by now.
    ///
    /// Whether the chain lives without this node is observed, not asked: it does when a block above everything that the
    /// answers showed was decided. Then nothing is signed up to two heights above. If no such block comes in the time
    /// that a living chain needs for some, the chain waits for nodes like this one, and the record alone decides.
    pub fn result(&mut self, known: &Known<'_>) -> TripwireResult {
        let Known { record, tip, synced, now, .. } = *known;
        let result = self.evaluate(record, Height::ZERO);
        if !matches!(result, TripwireResult::Passed { .. }) {
            return result;
        }
        let total = self.question.voters.total_power();
        let wait = TripwireResult::Waiting { answered: total, needed: total };
        if !synced {
            return wait;
        }
        let shown = self.answers.values().filter_map(|answer| answer.certificate.as_ref());
        let shown = shown.filter(|shown| known.proves(shown)).map(CommitCertificate::height).max().unwrap_or_default();
        let complete = *self.complete.get_or_insert(Complete { since: now, height: shown.max(tip) });
        if tip > complete.height {
            return self.evaluate(record, tip);
        }
        if now.saturating_duration_since(complete.since) < self.settle { wait } else { result }
    }

    fn evaluate(&self, record: &SigningRecord, certified: Height) -> TripwireResult {
        let mut tripwire = Tripwire::new(self.question.clone());
        let nonce = self.question.nonce;
        for (from, answer) in &self.answers {
            tripwire.on_answer(&TripwireAnswer { nonce, from: *from, vote: answer.vote, certified });
        }
        tripwire.result(record)
    }
}

#[cfg(test)]
mod tests;
