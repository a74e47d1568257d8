//! Execution of one block: a pure function of the state before it and the block.

use thiserror::Error;

use super::{
    Chain, PendingRotations, Progress, ReadError, Rules, StateKey, StateRead, WriteSet,
    accounts::Accounts,
    governance::Governing,
    recovery::{Recovered, Recoveries, recover},
    rotation::Rotations,
};
use crate::{
    codec::{Decode, DecodeError, Encode},
    types::{
        Block, FailureReason, Hash, Height, Payload, PendingSets, Receipt, ReceiptStatus, Results, StateRoots,
        Transaction, TransactionBody, VoterSetError, merkle_root,
    },
};

/// Why a block could not be executed. None of these is about its transactions: those fail with a receipt.
#[derive(Debug, Error)]
pub enum ExecuteError {
    /// The store failed.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// An entry of the state is not what its kind should be.
    #[error("state entry {key:?} is damaged: {error}")]
    Damaged {
        /// Its key.
        key: StateKey,
        /// What is wrong.
        error: DecodeError,
    },
    /// An entry that genesis writes does not exist.
    #[error("state entry {key:?} is missing")]
    Missing {
        /// Its key.
        key: StateKey,
    },
    /// Nothing was committed yet, not even genesis.
    #[error("the state has no genesis")]
    NoGenesis,
    /// The block is not the next one.
    #[error("block {found} does not follow state height {executed}")]
    WrongHeight {
        /// The height of the block.
        found: Height,
        /// The last executed height.
        executed: Height,
    },
    /// The block follows another one than the last executed.
    #[error("block {height} has another parent than the block that was executed before it")]
    WrongParent {
        /// The height of the block.
        height: Height,
    },
    /// A recovery does not name the voters of the state that it stands on.
    #[error("the recovery before height {height} does not name the voters of the state")]
    OtherRecovery {
        /// The first height after it.
        height: Height,
    },
    /// The voters of a height would not be a set.
    #[error("the voters of height {height} would not be a set: {error}")]
    VoterSet {
        /// The height.
        height: Height,
        /// Why.
        error: VoterSetError,
    },
}

/// What a block does.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Outcome {
    /// The height of the block.
    pub height: Height,
    /// What it changes in the state.
    pub writes: WriteSet,
    /// What became of its transactions, in their order.
    pub receipts: Vec<Receipt>,
    /// The Merkle root of the receipts.
    pub receipts_root: Hash,
    /// The voters of the three heights after it.
    pub sets: PendingSets,
    /// The rotations that do not count yet after it.
    pub rotations: PendingRotations,
    /// Parameters and governance after it.
    pub rules: Rules,
}

/// Rules that a test may switch off, to prove that its checkers notice. Nothing but a test can reach them.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct LedgerFaults {
    /// Governance moves as much power as it likes.
    pub voter_bound_ignored: bool,
    /// A session key that has left may come back.
    pub used_keys_forgotten: bool,
    /// An objection to a rotation voids nothing.
    pub objections_ignored: bool,
    /// One governance key changes the chain, whatever the threshold.
    pub one_governor_enough: bool,
}

/// Executes a decided block on the state of the height before. The signatures of its transactions were verified when
/// the block was; signatures by a *current* session key are verified here, where the key is known.
pub fn execute_block(state: &dyn StateRead, block: &Block) -> Result<Outcome, ExecuteError> {
    execute_block_after(state, block, &Recoveries::default(), LedgerFaults::default())
}

pub(super) fn execute_block_after(
    state: &dyn StateRead,
    block: &Block,
    recoveries: &Recoveries,
    faults: LedgerFaults,
) -> Result<Outcome, ExecuteError> {
    let header = block.header();
    let height = header.height;
    let (_, roots) = state.committed()?.ok_or(ExecuteError::NoGenesis)?;
    let progress: Progress = load_existing(state, &StateKey::progress())?;
    if height != progress.height.next() {
        return Err(ExecuteError::WrongHeight { found: height, executed: progress.height });
    }
    if header.parent != progress.block {
        return Err(ExecuteError::WrongParent { height });
    }
    let chain: Chain = load_existing(state, &StateKey::chain())?;
    let sets_before: PendingSets = load_existing(state, &StateKey::sets())?;
    let recovered = recoveries.before(height).map(|manifest| recover(manifest, chain.clone(), &sets_before));
    let recovered = recovered.transpose()?;
    let (chain, sets_before, recovery_writes) = match recovered {
        Some(Recovered { chain, sets, writes }) => (chain, sets, writes),
        None => (chain, sets_before, WriteSet::new()),
    };
    let mut accounts = Accounts::new(state);
    let mut rotations = Rotations::new(state, height, &sets_before, faults)?;
    if !recovery_writes.is_empty() {
        rotations.start_after_recovery(recovery_writes);
    }
    let mut governing = Governing::new(state, height, chain)?;
    let mut receipts = Vec::new();
    for (index, transaction) in (0u32..).zip(block.transactions()) {
        let status = match gate(governing.chain(), height, transaction.body()) {
            Some(status) => status,
            None => execute_transaction(&mut accounts, &mut rotations, &mut governing, transaction)?,
        };
        receipts.push(Receipt { transaction: transaction.id(), height, index, status });
    }
    let receipts_root = merkle_root(&receipts.iter().map(Receipt::hash).collect::<Vec<_>>());
    let finished = rotations.finish()?;
    let sets = PendingSets { first: sets_before.second, second: sets_before.third, third: finished.third };
    let progress = Progress {
        height,
        block: block.hash(),
        time: header.time,
        receipts_root,
        results_before: results_of(&roots, &progress),
    };
    let mut writes = finished.writes;
    writes.insert(StateKey::sets(), Some(sets.encode()));
    let rules = governing.finish(&mut writes);
    drop_unchanged(state, &mut writes)?;
    accounts.write_to(&mut writes);
    writes.insert(StateKey::progress(), Some(progress.encode()));
    Ok(Outcome { height, writes, receipts, receipts_root, sets, rotations: finished.pending, rules })
}

/// The results of the last executed height.
pub(super) fn results_of(roots: &StateRoots, progress: &Progress) -> Results {
    Results { roots: *roots, receipts_root: progress.receipts_root }
}

/// What is refused whatever it asks for.
fn gate(chain: &Chain, height: Height, body: &TransactionBody) -> Option<ReceiptStatus> {
    if body.incarnation != chain.incarnation {
        return Some(ReceiptStatus::Failed(FailureReason::WrongIncarnation));
    }
    (body.valid_until < height).then_some(ReceiptStatus::Expired)
}

fn execute_transaction(
    accounts: &mut Accounts<'_>,
    rotations: &mut Rotations<'_>,
    governing: &mut Governing,
    transaction: &Transaction,
) -> Result<ReceiptStatus, ExecuteError> {
    let body = transaction.body();
    match &body.payload {
        Payload::Transfer(transfer) => accounts.transfer(body, transfer),
        Payload::RotateSession(rotation) => rotations.rotate(body, rotation),
        Payload::KeepSession(keep) => Ok(rotations.keep(body, keep)),
        Payload::Governance(change) => governing.execute(accounts, rotations, transaction, change),
    }
}

/// Entries that are written as they were cost an operation in the store and say nothing.
fn drop_unchanged(state: &dyn StateRead, writes: &mut WriteSet) -> Result<(), ExecuteError> {
    let mut changed = WriteSet::new();
    for (key, value) in std::mem::take(writes) {
        if state.read(&key)? != value {
            changed.insert(key, value);
        }
    }
    *writes = changed;
    Ok(())
}

/// Reads an entry.
pub(super) fn load<T: Decode>(state: &dyn StateRead, key: &StateKey) -> Result<Option<T>, ExecuteError> {
    let Some(bytes) = state.read(key)? else { return Ok(None) };
    T::decode(&bytes).map(Some).map_err(|error| ExecuteError::Damaged { key: *key, error })
}

/// Reads an entry that genesis writes.
pub(super) fn load_existing<T: Decode>(state: &dyn StateRead, key: &StateKey) -> Result<T, ExecuteError> {
    load(state, key)?.ok_or(ExecuteError::Missing { key: *key })
}
