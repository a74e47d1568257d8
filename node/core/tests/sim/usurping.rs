//! Changes that too few governors have signed: no node takes one, and no block that names one changes anything.

use std::{collections::BTreeSet, sync::Arc};

use node_core::{
    codec::{Decode, Encode},
    consensus::{Effect, Input, Origin},
    crypto::{KeyPair, SigningBytes, VerifiedBatch, verify, verify_batch, verify_transaction},
    mempool::Refusal,
    types::{
        Batch, FailureReason, GovernanceChange, Height, Nonce, Parameters, ParametersDraft, Payload, PeerMessage,
        ReceiptStatus, Transaction, TransactionSignature,
    },
};

use super::{
    checks::Violation,
    people,
    world::{Event, World},
};

impl World {
    /// Somebody with one governor's key asks for a change: at the door of a node, and in a batch of a voter who lets it in.
    pub fn usurp(&mut self, nonce: Nonce, height: Height) -> Result<(), Violation> {
        let governor = people::governors()[self.dice.below(3) as usize].clone();
        let mut signers = vec![governor];
        if self.dice.below(2) == 0 {
            signers.push(people::pair("nobody"));
            signers.sort_by_key(KeyPair::public);
        }
        let block_interval_ms = 1_000 + self.dice.below(1_000);
        let draft = ParametersDraft { block_interval_ms, ..ParametersDraft::clone(&self.genesis.parameters) };
        let change = GovernanceChange::SetParameters(Parameters::new(draft).unwrap());
        let transaction = self.change_by(&signers, nonce, height, change);
        self.sign_twice(&transaction)?;
        let Some(process) = self.alive.first().copied() else { return Ok(()) };
        self.knock(process, &transaction)?;
        let batch = Arc::new(Batch::new(vec![transaction]).unwrap());
        let verified: VerifiedBatch = verify_batch(batch.clone()).expect("each signature is right");
        let message = Arc::new(PeerMessage::Batch(batch));
        let others: Vec<usize> = self.alive.iter().copied().filter(|other| *other != process).collect();
        for other in others {
            self.send(process, other, &message);
        }
        let from = people::identity(self.processes[process].node);
        self.after(1, Event::Feed { process, input: Box::new(Input::Batch { from, batch: verified }) });
        Ok(())
    }

    /// One key's signature twice: there is no such transaction, made here or come from elsewhere.
    fn sign_twice(&mut self, transaction: &Transaction) -> Result<(), Violation> {
        let [first, ..] = transaction.signatures() else { return Ok(()) };
        let twice: Vec<TransactionSignature> = vec![first.clone(), first.clone()];
        let made = Transaction::new(transaction.body().clone(), twice).is_ok();
        let one = Transaction::new(transaction.body().clone(), vec![first.clone()]).unwrap().encode();
        // The list is last: how many in four bytes, then the key and its signature.
        let (before, signature) = one.split_at(one.len() - 96);
        let (before, _) = before.split_at(before.len() - 4);
        let bytes = [before, &2_u32.to_be_bytes(), signature, signature].concat();
        if made || Transaction::decode(&bytes).is_ok() {
            return Err(Violation::Failed("one key's signature counts twice".to_owned()));
        }
        self.counts.add("signatures given twice", 1);
        Ok(())
    }

    /// A node refuses it at once.
    fn knock(&mut self, process: usize, transaction: &Transaction) -> Result<(), Violation> {
        let transactions = vec![verify_transaction(transaction.clone()).expect("each signature is right")];
        let clock = self.clock_of(process);
        let effects =
            self.processes[process].engine.step(clock, Input::Submitted { origin: Origin::Client, transactions });
        let refusal = Refusal::WouldFail(FailureReason::WrongSigners);
        let refused = effects.iter().any(
            |effect| matches!(effect, Effect::Refused { id, reason } if *id == transaction.id() && *reason == refusal),
        );
        self.perform(process, effects)?;
        if refused { Ok(()) } else { Err(Violation::Failed("a node takes what one governor signed".to_owned())) }
    }

    /// Whatever a block changes of the chain, two of the three governors have signed.
    pub fn check_authorised(
        &mut self,
        height: Height,
        transaction: &Transaction,
        status: ReceiptStatus,
    ) -> Result<(), Violation> {
        if !matches!(transaction.body().payload, Payload::Governance(_)) {
            return Ok(());
        }
        if status == ReceiptStatus::Failed(FailureReason::WrongSigners) {
            self.counts.add("changes that too few signed", 1);
        }
        let bytes = SigningBytes::transaction(transaction.body());
        let governors = people::governors().map(|governor| governor.public());
        let signed = transaction.signatures().iter().filter(|TransactionSignature { key, signature }| {
            governors.contains(key) && verify(key, &bytes, signature).is_ok()
        });
        let signers: BTreeSet<[u8; 32]> = signed.map(|signature| signature.key).collect();
        let enough = signers.len() >= people::GOVERNORS_NEEDED as usize;
        if status != ReceiptStatus::Executed || enough { Ok(()) } else { Err(Violation::Unauthorised(height)) }
    }
}
