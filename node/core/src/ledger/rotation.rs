//! Rotations of session keys during one block: what is asked, what is objected to, what starts to count.

use super::{
    CHANGE_DELAY_BLOCKS, Consent, ExecuteError, LedgerFaults, PendingRotation, PendingRotations,
    SESSION_VALIDITY_BLOCKS_MAX, StateKey, StateRead, WriteSet, execute::load,
};
use crate::{
    codec::Encode,
    crypto::{RotationTerms, SigningBytes, verify},
    types::{
        AccountId, Epoch, FailureReason, Height, Identity, KeepSession, PendingSets, Power, ReceiptStatus,
        RotateSession, SessionKey, TransactionBody, VoterEntry, VoterSet,
    },
};

/// The voter sets and rotations while a block is executed.
pub(super) struct Rotations<'a> {
    pub(super) state: &'a dyn StateRead,
    height: Height,
    pub(super) pending: PendingRotations,
    /// The voters of `height + 2`: the newest set that is decided before this block.
    pub(super) before: VoterSet,
    /// The current entries: the same voters with what governance has changed in this block so far.
    pub(super) newest: VoterSet,
    pub(super) writes: WriteSet,
    pub(super) faults: LedgerFaults,
}

impl<'a> Rotations<'a> {
    /// Starts a block with the rotations that do not count yet at its height.
    pub(super) fn new(
        state: &'a dyn StateRead,
        height: Height,
        sets: &PendingSets,
        faults: LedgerFaults,
    ) -> Result<Self, ExecuteError> {
        let mut pending: PendingRotations = load(state, &StateKey::rotations())?.unwrap_or_default();
        pending.rotations.retain(|rotation| rotation.counts_from() > height);
        let (before, newest) = (sets.third.clone(), sets.third.clone());
        Ok(Self { state, height, pending, before, newest, writes: WriteSet::new(), faults })
    }

    /// The block is the first after a recovery: it starts without rotations, with what the manifest writes.
    pub(super) fn start_after_recovery(&mut self, writes: WriteSet) {
        self.pending = PendingRotations::default();
        self.writes = writes;
    }

    /// Executes `RotateSession`.
    pub(super) fn rotate(
        &mut self,
        body: &TransactionBody,
        rotation: &RotateSession,
    ) -> Result<ReceiptStatus, ExecuteError> {
        Ok(match self.check_rotation(body, rotation)? {
            Err(reason) => ReceiptStatus::Failed(reason),
            Ok(consent) => {
                let RotateSession { identity, epoch, new_key, .. } = *rotation;
                let executed = self.height;
                self.pending.rotations.push(PendingRotation { identity, epoch, new_key, executed, consent });
                ReceiptStatus::Executed
            }
        })
    }

    fn check_rotation(
        &self,
        body: &TransactionBody,
        rotation: &RotateSession,
    ) -> Result<Result<Consent, FailureReason>, ExecuteError> {
        let RotateSession { identity, epoch, new_key, possession: _, co_signature } = rotation;
        let entry = match self.check_session(body, identity) {
            Ok(entry) => entry,
            Err(reason) => return Ok(Err(reason)),
        };
        if self.pending.of(identity).is_some() {
            return Ok(Err(FailureReason::RotationPending));
        }
        let highest: Epoch = load(self.state, &StateKey::epoch(identity))?.unwrap_or_default();
        if *epoch != entry.epoch.saturating_add(1) || *epoch <= highest {
            return Ok(Err(FailureReason::WrongEpoch));
        }
        if self.key_is_taken(new_key)? {
            return Ok(Err(FailureReason::SessionKeyUsed));
        }
        Ok(match co_signature {
            Some(signature) => {
                let bytes = SigningBytes::rotate_session(&terms(body, *identity, *epoch, *new_key));
                match verify(entry.session_key.as_bytes(), &bytes, signature) {
                    Ok(()) => Ok(Consent::CoSigned),
                    Err(_) => Err(FailureReason::NotCurrentSessionKey),
                }
            }
            None => self.check_identity_only(&entry).map(|()| Consent::IdentityOnly),
        })
    }

    /// A rotation that only the identity signed: never of the only voter, and of at most `f` power at a time.
    fn check_identity_only(&self, entry: &VoterEntry) -> Result<(), FailureReason> {
        if self.newest.count() == 1 {
            return Err(FailureReason::SingleVoter);
        }
        let silent = self.pending.rotations.iter().filter(|rotation| rotation.consent == Consent::IdentityOnly);
        let pending: u64 =
            silent.filter_map(|rotation| self.newest.get(&rotation.identity)).map(|entry| entry.power.get()).sum();
        if Power::new(pending.saturating_add(entry.power.get())) > self.newest.fault_budget() {
            return Err(FailureReason::TooMuchPowerPending);
        }
        Ok(())
    }

    /// Executes `KeepSession`.
    pub(super) fn keep(&mut self, body: &TransactionBody, keep: &KeepSession) -> ReceiptStatus {
        match self.check_keep(body, keep) {
            Err(reason) => ReceiptStatus::Failed(reason),
            Ok(()) => {
                let voided = |identity| identity == keep.identity && !self.faults.objections_ignored;
                self.pending.rotations.retain(|rotation| !voided(rotation.identity));
                ReceiptStatus::Executed
            }
        }
    }

    fn check_keep(&self, body: &TransactionBody, keep: &KeepSession) -> Result<(), FailureReason> {
        let KeepSession { identity, voided_epoch, voided_key, signature } = keep;
        let entry = self.check_session(body, identity)?;
        let pending = self.pending.of(identity).ok_or(FailureReason::NothingToKeep)?;
        if pending.epoch != *voided_epoch || pending.new_key != *voided_key || !pending.voidable_at(self.height) {
            return Err(FailureReason::NothingToKeep);
        }
        let bytes = SigningBytes::keep_session(&terms(body, *identity, *voided_epoch, *voided_key));
        verify(entry.session_key.as_bytes(), &bytes, signature).map_err(|_| FailureReason::NotCurrentSessionKey)
    }

    /// What both payloads need: the sender is the identity, without a nonce, valid for a short time, and a voter.
    fn check_session(&self, body: &TransactionBody, identity: &Identity) -> Result<VoterEntry, FailureReason> {
        if body.sender != AccountId::from(*identity) || body.nonce.get() != 0 {
            return Err(FailureReason::WrongSigners);
        }
        if body.valid_until > self.height.saturating_add(SESSION_VALIDITY_BLOCKS_MAX) {
            return Err(FailureReason::ValidityTooLong);
        }
        self.newest.get(identity).copied().ok_or(FailureReason::NotAVoter)
    }

    /// A key that was ever in an entry, is about to be, or belongs to an identity.
    pub(super) fn key_is_taken(&self, key: &SessionKey) -> Result<bool, ExecuteError> {
        let pending = self.pending.rotations.iter().any(|rotation| rotation.new_key == *key);
        let identity = self.newest.get(&Identity::new(*key.as_bytes())).is_some();
        Ok(pending || identity || self.was_session_key(key)?)
    }

    /// A key that was ever in an entry, this block included.
    pub(super) fn was_session_key(&self, key: &SessionKey) -> Result<bool, ExecuteError> {
        if self.faults.used_keys_forgotten {
            return Ok(false);
        }
        let key = StateKey::used_session_key(key);
        Ok(self.writes.contains_key(&key) || self.state.read(&key)?.is_some())
    }

    /// Ends the block: the voters of `height + 3`, with every rotation that counts from there. The rest stays pending
    /// until the height from which it counts.
    pub(super) fn finish(mut self) -> Result<Finished, ExecuteError> {
        let decided = self.height.saturating_add(CHANGE_DELAY_BLOCKS);
        let mut third = self.newest.clone();
        for rotation in self.pending.rotations.iter().filter(|rotation| rotation.counts_from() == decided) {
            let PendingRotation { identity, epoch, new_key, .. } = *rotation;
            // An identity that was voted out in the meantime has no entry to change.
            let Some(entry) = third.get(&identity).copied() else { continue };
            let changed = third.with_entry(VoterEntry { session_key: new_key, epoch, ..entry });
            let changed = changed.map_err(|error| ExecuteError::VoterSet { height: decided, error })?;
            third = changed.unwrap_or(third);
            self.writes.insert(StateKey::epoch(&identity), Some(epoch.encode()));
            self.writes.insert(StateKey::used_session_key(&new_key), Some(identity.encode()));
        }
        self.writes.insert(StateKey::rotations(), Some(self.pending.encode()));
        Ok(Finished { third, pending: self.pending, writes: self.writes })
    }
}

/// What a block leaves behind.
pub(super) struct Finished {
    /// The voters of `height + 3`.
    pub(super) third: VoterSet,
    /// The rotations that do not count yet.
    pub(super) pending: PendingRotations,
    /// Changed entries, and maybe some that are what they were.
    pub(super) writes: WriteSet,
}

fn terms(body: &TransactionBody, identity: Identity, epoch: Epoch, new_key: SessionKey) -> RotationTerms {
    RotationTerms { incarnation: body.incarnation, identity, epoch, new_key, valid_until: body.valid_until }
}
