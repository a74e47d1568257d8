//! The lane of session transactions: few, checked against the current voters, ahead of everything else.

use std::collections::BTreeMap;

use super::{Filling, Fit, Refusal, Waiting};
use crate::{
    crypto::{RotationTerms, SigningBytes, verify},
    ledger::SESSION_VALIDITY_BLOCKS_MAX,
    types::{
        FailureReason, Height, Identity, KeepSession, Payload, RotateSession, TransactionBody, TransactionId,
        VoterEntry, VoterSet,
    },
};

/// The most session transactions of one kind and identity that wait.
pub const SESSION_TRANSACTIONS_PER_IDENTITY_MAX: usize = 4;
/// The most session transactions that one block takes from the mempool.
pub const SESSION_TRANSACTIONS_PER_BLOCK_MAX: usize = 64;

/// The kinds, in the order in which a block takes them. Each identity has a place of its own in each, so that a copy of
/// an identity key cannot keep out what the current session key signed.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Kind {
    Keep,
    RotateCoSigned,
    RotateIdentityOnly,
}

/// What waits of sessions. Bounded by the number of voters.
#[derive(Clone, Debug, Default)]
pub(super) struct SessionLane {
    waiting: BTreeMap<(Kind, Identity), Vec<Waiting>>,
    bytes: usize,
}

impl SessionLane {
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn add(&mut self, waiting: Waiting, voters: &VoterSet, decided: Height) -> Result<(), Refusal> {
        let body = waiting.transaction.transaction().body();
        let place = check(body, voters).map_err(Refusal::WouldFail)?;
        if body.valid_until > decided.saturating_add(SESSION_VALIDITY_BLOCKS_MAX) {
            return Err(Refusal::WouldFail(FailureReason::ValidityTooLong));
        }
        let list = self.waiting.entry(place).or_default();
        if list.len() >= SESSION_TRANSACTIONS_PER_IDENTITY_MAX {
            return Err(Refusal::SenderFull);
        }
        self.bytes += waiting.bytes;
        list.push(waiting);
        Ok(())
    }

    pub(super) fn pick(&self, filling: &mut Filling) {
        for waiting in self.waiting.values().flatten().take(SESSION_TRANSACTIONS_PER_BLOCK_MAX) {
            if filling.take(waiting) == Fit::Full {
                return;
            }
        }
    }

    pub(super) fn remove(&mut self, id: &TransactionId) -> Option<Waiting> {
        self.drop_where(|waiting| waiting.transaction.id() == *id).pop()
    }

    pub(super) fn drop_expired(&mut self, decided: Height) -> Vec<TransactionId> {
        let expired = self.drop_where(|waiting| waiting.valid_until() <= decided);
        expired.iter().map(|waiting| waiting.transaction.id()).collect()
    }

    fn drop_where(&mut self, gone: impl Fn(&Waiting) -> bool) -> Vec<Waiting> {
        let mut dropped = Vec::new();
        for list in self.waiting.values_mut() {
            dropped.extend(list.extract_if(.., |waiting| gone(waiting)));
        }
        self.waiting.retain(|_, list| !list.is_empty());
        self.bytes -= dropped.iter().map(|waiting| waiting.bytes).sum::<usize>();
        dropped
    }
}

/// What execution would say, as far as the voters tell. Anybody can send an objection: without this check a flood of
/// wrong ones would take the place of the right one.
fn check(body: &TransactionBody, voters: &VoterSet) -> Result<(Kind, Identity), FailureReason> {
    match &body.payload {
        Payload::Transfer(_) | Payload::Governance(_) => Err(FailureReason::WrongSigners),
        Payload::RotateSession(RotateSession { identity, epoch, new_key, possession: _, co_signature }) => {
            let entry = voters.get(identity).ok_or(FailureReason::NotAVoter)?;
            if *epoch != entry.epoch.saturating_add(1) {
                return Err(FailureReason::WrongEpoch);
            }
            let Some(signature) = co_signature else { return Ok((Kind::RotateIdentityOnly, *identity)) };
            let terms = RotationTerms {
                incarnation: body.incarnation,
                identity: *identity,
                epoch: *epoch,
                new_key: *new_key,
                valid_until: body.valid_until,
            };
            by_current_key(entry, &SigningBytes::rotate_session(&terms), signature)?;
            Ok((Kind::RotateCoSigned, *identity))
        }
        Payload::KeepSession(KeepSession { identity, voided_epoch, voided_key, signature }) => {
            let entry = voters.get(identity).ok_or(FailureReason::NotAVoter)?;
            let terms = RotationTerms {
                incarnation: body.incarnation,
                identity: *identity,
                epoch: *voided_epoch,
                new_key: *voided_key,
                valid_until: body.valid_until,
            };
            by_current_key(entry, &SigningBytes::keep_session(&terms), signature)?;
            Ok((Kind::Keep, *identity))
        }
    }
}

fn by_current_key(entry: &VoterEntry, bytes: &[u8], signature: &crate::types::Signature) -> Result<(), FailureReason> {
    verify(entry.session_key.as_bytes(), bytes, signature).map_err(|_| FailureReason::NotCurrentSessionKey)
}
