//! The tripwire in action: asks the other nodes for the newest vote of this volume's key before the key is taken over.

use std::collections::BTreeMap;

use super::{SigningRecord, Tripwire, TripwireAnswer, TripwireQuestion, TripwireResult};
use crate::{
    crypto::verify_certificate,
    types::{
        CeremonyNonce, CommitCertificate, Height, Identity, Parameters, PeerMessage, Round, SessionKey, Vote, VoterSet,
    },
};

/// How many rounds of a height may fail on a living chain that is watched: more proposers in a row are rarely dead.
const FAILED_ROUNDS: u32 = 2;

/// One question about one key, and the answers so far.
#[derive(Debug)]
pub struct Question {
    question: TripwireQuestion,
    answers: BTreeMap<Identity, Answer>,
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
pub struct Known<'a> {
    /// What its keys have signed.
    pub record: &'a SigningRecord,
    /// The height up to which it has verified certificates.
    pub tip: Height,
    /// It is not behind its peers.
    pub synced: bool,
    /// The parameters in force at the next height: governance may have changed those of genesis.
    pub parameters: &'a Parameters,
    /// The voters of a height, if they are known.
    pub voters: &'a dyn Fn(Height) -> Option<&'a VoterSet>,
    /// Now, milliseconds of any clock that does not go back.
    pub now_ms: u64,
}

impl Known<'_> {
    /// Whether the chain has come as far as a certificate says.
    fn proves(&self, question: &TripwireQuestion, certificate: &CommitCertificate) -> bool {
        let height = certificate.height();
        let verified = |voters| verify_certificate(&question.incarnation, voters, certificate).is_ok();
        height <= self.tip || (self.voters)(height).is_some_and(verified)
    }
}

/// The moment when enough nodes had answered.
#[derive(Clone, Copy, Debug)]
struct Complete {
    since_ms: u64,
    /// The highest height that one of them, or this node, had.
    height: Height,
}

impl Question {
    /// A question with a fresh nonce.
    #[must_use]
    pub fn new(question: TripwireQuestion) -> Self {
        Self { question, answers: BTreeMap::new(), complete: None }
    }

    /// The time in which a living chain makes a block, also where two rounds fail from their first moment to their last,
    /// milliseconds.
    #[must_use]
    pub fn settle_ms(parameters: &Parameters) -> u64 {
        let steps = [parameters.propose_timeout, parameters.prevote_timeout, parameters.precommit_timeout];
        let rounds = (0..FAILED_ROUNDS).map(Round::new);
        let waits = rounds.flat_map(|round| steps.map(|step| step.in_round_ms(round)));
        waits.fold(parameters.block_interval_ms, u64::saturating_add)
    }

    /// The key that it is about.
    #[must_use]
    pub fn session_key(&self) -> SessionKey {
        self.question.session_key
    }

    /// What the other nodes are asked. Sent again until they have answered.
    #[must_use]
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
        let Known { record, tip, synced, now_ms, .. } = *known;
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
        let shown = shown
            .filter(|shown| known.proves(&self.question, shown))
            .map(CommitCertificate::height)
            .max()
            .unwrap_or_default();
        let complete = *self.complete.get_or_insert(Complete { since_ms: now_ms, height: shown.max(tip) });
        if tip > complete.height {
            return self.evaluate(record, tip);
        }
        // A single voter has nobody who could go on without it.
        let alone = self.question.voters.count() == 1;
        let settle_ms = if alone { 0 } else { Self::settle_ms(known.parameters) };
        if now_ms.saturating_sub(complete.since_ms) < settle_ms { wait } else { result }
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
