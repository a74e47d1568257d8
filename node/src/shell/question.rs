//! The question about a key of this volume that is being asked, on the clock of this process.

use node_core::{
    consensus::Engine,
    session::{Known, NewestVote, Question, TripwireQuestion, TripwireResult},
    types::{Identity, PeerMessage, SessionKey},
};
use tokio::time::Instant;

use super::view::View;

/// A question, and since when it is asked.
#[derive(Debug)]
pub struct Asked {
    question: Question,
    since: Instant,
}

impl Asked {
    /// Asks from now on.
    pub fn new(question: TripwireQuestion) -> Self {
        Self { question: Question::new(question), since: Instant::now() }
    }

    /// The key that it is about.
    pub fn session_key(&self) -> SessionKey {
        self.question.session_key()
    }

    /// What the other nodes are asked. Sent again until they have answered.
    pub fn request(&self) -> PeerMessage {
        self.question.request()
    }

    /// Takes an answer.
    pub fn on_answer(&mut self, from: Identity, answer: NewestVote) {
        self.question.on_answer(from, answer);
    }

    /// What is known by now.
    pub fn result(&mut self, engine: &Engine, view: &View) -> TripwireResult {
        let status = engine.status();
        self.question.result(&Known {
            record: engine.signing_record(),
            tip: status.tip,
            synced: status.synced,
            parameters: engine.parameters(),
            voters: &|height| view.voters(height),
            now_ms: u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX),
        })
    }
}
