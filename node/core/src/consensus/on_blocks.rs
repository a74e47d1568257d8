//! Asking peers for blocks, and their answers.

use super::{DropReason, Effect, Engine, timers::TimerId};
use crate::{
    sync::REQUEST_TIMEOUT_MS,
    types::{CertifiedBlock, Identity, PeerMessage},
};

impl Engine {
    /// Asks a peer for blocks, if this node is behind.
    pub(super) fn ask_blocks(&mut self) {
        let Some(question) = self.sync.ask(self.chain.tip()) else { return };
        let message = PeerMessage::BlocksRequest { from: question.first, count: question.count };
        self.out.push(Effect::Send { to: question.peer, message: message.into() });
        let id = TimerId::SyncRequest { request: question.request };
        self.out.push(Effect::SetTimer { id, after_ms: REQUEST_TIMEOUT_MS });
    }

    /// Blocks from a peer; they are verified and committed one by one as their voters become known.
    pub(super) fn on_blocks(&mut self, from: Identity, blocks: Vec<CertifiedBlock>) -> Result<(), DropReason> {
        let taken = self.sync.on_blocks(from, blocks, self.chain.tip());
        self.ask_blocks();
        taken
    }
}
