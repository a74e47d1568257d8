//! Governance during one block: who may change the chain, and what the bounds of each change are.
//!
//! A change of voters or parameters in block `h` counts from `h + 3`; another set of governance keys counts from the
//! next transaction. The bounds hold for all changes of one block together, so that no block moves more than one change
//! could.

use super::{
    CHANGE_DELAY_BLOCKS, Chain, ExecuteError, PendingParameters, Rules, StateKey, StateRead, WriteSet,
    accounts::{Accounts, NonceCheck},
    execute::load,
    rotation::Rotations,
};
use crate::{
    codec::Encode,
    types::{
        Epoch, FailureReason, Governance, GovernanceChange, GovernanceKey, Height, Identity, NewVoter, Parameters,
        Power, ReceiptStatus, SessionKey, Transaction, VoterEntry, VoterSet, VoterSetError,
    },
};

/// Governance never leaves fewer voters than this, unless the chain has fewer already: then it removes none.
pub const VOTERS_MIN: usize = 4;

/// The chain's rules while a block is executed.
pub(super) struct Governing {
    height: Height,
    chain: Chain,
    /// As they were before the block.
    before: Rules,
    pending: Option<PendingParameters>,
}

impl Governing {
    pub(super) fn new(state: &dyn StateRead, height: Height, chain: Chain) -> Result<Self, ExecuteError> {
        let pending: Option<PendingParameters> = load(state, &StateKey::parameters())?;
        let before = Rules {
            parameters: chain.parameters.clone(),
            pending: pending.clone(),
            governance: chain.governance.clone(),
        };
        Ok(Self { height, chain, before, pending })
    }

    pub(super) fn chain(&self) -> &Chain {
        &self.chain
    }

    /// Executes a governance transaction. Its nonce is taken once the right keys have signed, whatever becomes of it.
    pub(super) fn execute(
        &mut self,
        accounts: &mut Accounts<'_>,
        voters: &mut Rotations<'_>,
        transaction: &Transaction,
        change: &GovernanceChange,
    ) -> Result<ReceiptStatus, ExecuteError> {
        let governance = &self.chain.governance;
        let one_of_them = || {
            let mut keys = transaction.signatures().iter().map(|signature| GovernanceKey::new(signature.key));
            keys.any(|key| governance.keys.contains(&key))
        };
        let authorised = governance.authorises(transaction) || (voters.faults.one_governor_enough && one_of_them());
        if !authorised {
            return Ok(ReceiptStatus::Failed(FailureReason::WrongSigners));
        }
        if let NonceCheck::Refused(status) = accounts.take_nonce(transaction.body())? {
            return Ok(status);
        }
        let changed = match change {
            GovernanceChange::AddVoter(voter) => voters.vote_in(None, voter)?,
            GovernanceChange::ReplaceVoter { former, voter } => voters.vote_in(Some(former), voter)?,
            GovernanceChange::RemoveVoter { identity } => voters.vote_out(identity),
            GovernanceChange::SetPower { identity, power } => voters.set_power(identity, *power),
            GovernanceChange::SetParameters(parameters) => self.set_parameters(parameters),
            GovernanceChange::SetKeys(governance) => self.set_keys(governance),
        };
        Ok(match changed {
            Ok(()) => ReceiptStatus::Executed,
            Err(reason) => ReceiptStatus::Failed(reason),
        })
    }

    fn set_parameters(&mut self, parameters: &Parameters) -> Result<(), FailureReason> {
        if self.pending.is_some() {
            return Err(FailureReason::ParametersPending);
        }
        if *parameters == self.chain.parameters {
            return Err(FailureReason::NothingChanges);
        }
        let counts_from = self.height.saturating_add(CHANGE_DELAY_BLOCKS);
        self.pending = Some(PendingParameters { counts_from, parameters: parameters.clone() });
        Ok(())
    }

    fn set_keys(&mut self, governance: &Governance) -> Result<(), FailureReason> {
        if *governance == self.chain.governance {
            return Err(FailureReason::NothingChanges);
        }
        self.chain.governance = governance.clone();
        Ok(())
    }

    /// Ends the block: parameters that count from the next height are the chain's.
    pub(super) fn finish(mut self, writes: &mut WriteSet) -> Rules {
        if let Some(due) = self.pending.take_if(|pending| pending.counts_from <= self.height.next()) {
            self.chain.parameters = due.parameters;
        }
        let rules = Rules {
            parameters: self.chain.parameters.clone(),
            pending: self.pending,
            governance: self.chain.governance.clone(),
        };
        if rules != self.before {
            writes.insert(StateKey::chain(), Some(self.chain.encode()));
            writes.insert(StateKey::parameters(), rules.pending.as_ref().map(Encode::encode));
        }
        rules
    }
}

impl Rotations<'_> {
    /// A voter comes, in the place of another or beside all.
    fn vote_in(
        &mut self,
        former: Option<&Identity>,
        voter: &NewVoter,
    ) -> Result<Result<(), FailureReason>, ExecuteError> {
        let NewVoter { identity, power, epoch, session_key, possession: _ } = *voter;
        if former.is_some_and(|former| self.newest.get(former).is_none()) {
            return Ok(Err(FailureReason::NotAVoter));
        }
        if former != Some(&identity) && self.newest.get(&identity).is_some() {
            return Ok(Err(FailureReason::AlreadyAVoter));
        }
        let next = self.highest_epoch(&identity)?.map_or(Epoch::FIRST, |highest| highest.saturating_add(1));
        if epoch != next {
            return Ok(Err(FailureReason::WrongEpoch));
        }
        let own = session_key.as_bytes() == identity.as_bytes();
        if own || self.key_is_taken(&session_key)? || self.was_session_key(&SessionKey::new(*identity.as_bytes()))? {
            return Ok(Err(FailureReason::SessionKeyUsed));
        }
        let staying = self.newest.entries().iter().filter(|entry| Some(&entry.identity) != former).copied();
        let coming = VoterEntry { identity, power, session_key, epoch };
        let set = match self.within_bounds(staying.chain([coming]).collect()) {
            Ok(set) => set,
            Err(reason) => return Ok(Err(reason)),
        };
        self.newest = set;
        // A rotation that was on its way is of an entry that is gone.
        self.pending.rotations.retain(|rotation| Some(&rotation.identity) != former);
        self.writes.insert(StateKey::epoch(&identity), Some(epoch.encode()));
        self.writes.insert(StateKey::used_session_key(&session_key), Some(identity.encode()));
        Ok(Ok(()))
    }

    fn vote_out(&mut self, identity: &Identity) -> Result<(), FailureReason> {
        self.newest.get(identity).ok_or(FailureReason::NotAVoter)?;
        let staying = self.newest.entries().iter().filter(|entry| entry.identity != *identity).copied();
        self.newest = self.within_bounds(staying.collect())?;
        self.pending.rotations.retain(|rotation| rotation.identity != *identity);
        Ok(())
    }

    fn set_power(&mut self, identity: &Identity, power: Power) -> Result<(), FailureReason> {
        let entry = *self.newest.get(identity).ok_or(FailureReason::NotAVoter)?;
        if entry.power == power {
            return Err(FailureReason::NothingChanges);
        }
        let changed =
            |other: &VoterEntry| if other.identity == *identity { VoterEntry { power, ..entry } } else { *other };
        self.newest = self.within_bounds(self.newest.entries().iter().map(changed).collect())?;
        Ok(())
    }

    /// The set of these entries, if the block may change the voters this much.
    fn within_bounds(&self, entries: Vec<VoterEntry>) -> Result<VoterSet, FailureReason> {
        if entries.len() < self.before.count().min(VOTERS_MIN) {
            return Err(FailureReason::TooFewVoters);
        }
        let set = VoterSet::new(entries).map_err(|error| match error {
            VoterSetError::Count { .. } => FailureReason::TooManyVoters,
            VoterSetError::DuplicateIdentity { .. } => FailureReason::AlreadyAVoter,
            VoterSetError::DuplicateSessionKey { .. } => FailureReason::SessionKeyUsed,
            VoterSetError::NoPower { .. } | VoterSetError::PowerOverflow => FailureReason::PowerOutOfBounds,
        })?;
        let moved = u128::from(moved_power(&self.before, &set).get());
        if moved * 3 >= u128::from(self.before.total_power().get()) && !self.faults.voter_bound_ignored {
            return Err(FailureReason::ChangeTooLarge);
        }
        Ok(set)
    }

    /// The highest epoch that an identity ever had, this block included.
    fn highest_epoch(&self, identity: &Identity) -> Result<Option<Epoch>, ExecuteError> {
        let now = self.newest.get(identity).map(|entry| entry.epoch);
        let ever: Option<Epoch> = load(self.state, &StateKey::epoch(identity))?;
        Ok(now.max(ever).max(self.voted_in_epoch(identity)))
    }

    /// The epoch that this block gave an identity, which it may have taken away again.
    fn voted_in_epoch(&self, identity: &Identity) -> Option<Epoch> {
        let written = self.writes.get(&StateKey::epoch(identity))?.as_deref()?;
        crate::codec::Decode::decode(written).ok()
    }
}

/// How much power changes hands between two sets: the larger of what is lost and what is won. A voter with another
/// session key loses all and wins all, since nobody else can tell that it is the same.
#[must_use]
pub fn moved_power(before: &VoterSet, after: &VoterSet) -> Power {
    let beyond = |from: &VoterSet, to: &VoterSet| {
        let lost = |entry: &VoterEntry| match to.get(&entry.identity) {
            Some(other) if other.session_key == entry.session_key => {
                entry.power.get().saturating_sub(other.power.get())
            }
            _ => entry.power.get(),
        };
        from.entries().iter().map(lost).sum::<u64>()
    };
    Power::new(beyond(before, after).max(beyond(after, before)))
}
