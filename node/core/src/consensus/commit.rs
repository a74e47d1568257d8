//! From a decision to a final, executed block.

use std::sync::Arc;

use arc_malachitebft_core_types as malachite;

use super::{
    Effect, Engine, HaltReason,
    context::{self, Chain},
    on_batch::named_batches,
    timers::TimerId,
};
use crate::{
    crypto::verify_certificate,
    ledger::Outcome,
    types::{Block, CertifiedBlock, CommitCertificate, CommitSignature, Height, Results},
};

/// The pace of a chain with something to include: shorter blocks would cost more than they bring, milliseconds.
const CONTENT_INTERVAL_MS: u64 = 100;
/// How many heights may be asked for execution before the first answer.
const EXECUTIONS_AHEAD_MAX: u64 = 4;

impl Engine {
    /// The protocol has decided.
    pub(super) fn decide(&mut self, certificate: &malachite::CommitCertificate<Chain>) {
        let height = certificate.height;
        let Some(voters) = self.chain.voters(height).cloned() else {
            return self.halt(HaltReason::NotExecutable { height });
        };
        let Some(block) = self.blocks.get(&certificate.value_id).cloned() else {
            // A batch of it was lost with the disk: the block comes from peers.
            self.stop_core();
            self.given_up_at = Some(height);
            return;
        };
        let signatures = certificate.commit_signatures.iter().map(|signature| CommitSignature {
            voter: signature.address,
            epoch: context::epoch_of(&voters, &signature.address),
            signature: signature.signature,
        });
        let round = context::round_of(certificate.round);
        match CommitCertificate::new(height, round, certificate.value_id, signatures.collect()) {
            Ok(certificate) => self.commit(block, certificate),
            Err(_) => self.halt(HaltReason::NotExecutable { height }),
        }
    }

    /// Commits the next block that came from peers, if it is there and its voters are known.
    pub(super) fn commit_synced(&mut self) -> bool {
        let height = self.chain.next();
        let may = self.chain.may_start_next() && !self.superseded;
        let Some(voters) = self.chain.voters(height).filter(|_| may).cloned() else { return false };
        let Some((from, CertifiedBlock { block, certificate })) = self.sync.take(height) else { return false };
        let proved = certificate.height() == height
            && certificate.value() == block.hash()
            && verify_certificate(&self.chain.incarnation_at(height), &voters, &certificate).is_ok();
        if proved {
            self.commit(Arc::new(block), certificate);
            self.ask_blocks();
        } else {
            self.sync.distrust(&from, self.chain.tip());
            self.out.push(Effect::Dropped { from, reason: super::DropReason::BadCertificate });
            self.ask_blocks();
        }
        true
    }

    /// A block is final.
    fn commit(&mut self, block: Arc<Block>, certificate: CommitCertificate) {
        self.stop_core();
        if let Err(reason) = self.chain.commit(block.header(), self.faults) {
            return self.halt(reason);
        }
        let height = self.chain.tip();
        self.gate.on_commit(&self.chain, &certificate);
        self.tip_certificate = Some(certificate.clone());
        self.mempool.on_decided(&block);
        self.batches.on_decided(block.header());
        self.unexecuted.insert(height, named_batches(&block));
        self.incomplete.clear();
        self.blocks.clear();
        self.out.commit(Effect::Commit { block, certificate });
        self.committed_ms = Some(self.now_ms);
        self.ask_execution();
        self.retire_keys(height);
        self.tell_status();
        let spent = self.now_ms.saturating_sub(self.height_started_ms);
        let after_ms = self.chain.parameters().block_interval_ms.saturating_sub(spent);
        self.out.push(Effect::SetTimer { id: TimerId::NextHeight(height.next()), after_ms });
        self.due = false;
        let after_ms = CONTENT_INTERVAL_MS.saturating_sub(spent);
        self.paced = after_ms == 0;
        if !self.paced {
            self.out.push(Effect::SetTimer { id: TimerId::NextContent(height.next()), after_ms });
        }
    }

    /// Asks for the execution of what is final, a few heights ahead.
    pub(super) fn ask_execution(&mut self) {
        let last = self.chain.executed().saturating_add(EXECUTIONS_AHEAD_MAX).min(self.chain.tip());
        while self.execution_asked < last {
            self.execution_asked = self.execution_asked.next();
            self.out.push(Effect::Execute { height: self.execution_asked });
        }
    }

    /// A block was executed: voters of one more height are known.
    pub(super) fn on_executed(&mut self, outcome: &Outcome, results: Results) {
        let before = self.chain.executed();
        if let Err(reason) = self.chain.execute(outcome, results, self.faults) {
            return self.halt(reason);
        }
        if self.chain.executed() == before {
            return;
        }
        let mut expired = self.mempool.on_executed(outcome.height, &outcome.receipts);
        expired.extend(self.drop_batches(outcome));
        if !expired.is_empty() {
            self.out.push(Effect::Expired(expired));
        }
        self.recount_batches();
        // What was deferred may be the next of its sender now.
        self.seal_when_due();
        for (from, message) in self.gate.take_waiting() {
            self.on_message(from, message);
        }
        self.look_after_session();
    }

    /// The session keys that the first height of a successor has made useless.
    fn retire_keys(&mut self, height: Height) {
        let key_at = |height: Height| self.chain.voters(height)?.get(&self.identity).map(|entry| entry.session_key);
        let Some(before) = height.checked_sub(1).and_then(key_at) else { return };
        if key_at(height) != Some(before)
            && self.session.is_on_volume(&before, &self.signer)
            && !self.faults.old_key_kept
        {
            self.signer.remove_key(&before);
            self.session.retired(&before);
            self.out.push(Effect::RetireKey(before));
        }
    }
}
