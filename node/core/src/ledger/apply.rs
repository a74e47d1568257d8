//! Execution and commit together, once for each height however often it is asked, and what a restart reads back.

use thiserror::Error;

use super::{
    Account, Chain, ExecuteError, Outcome, PendingParameters, PendingRotations, Progress, Recoveries, Rules, StateKey,
    StateRead, StateStore, WriteSet,
    execute::{LedgerFaults, execute_block_after, load, load_existing, results_of},
};
use crate::{
    codec::Encode,
    types::{AccountId, Block, Epoch, Genesis, Hash, Height, Identity, Incarnation, Nonce, PendingSets, Results},
};

/// Why a block or genesis was not applied.
#[derive(Debug, Error)]
pub enum ApplyError {
    /// Execution failed.
    #[error(transparent)]
    Execute(#[from] ExecuteError),
    /// The store failed to commit: the process ends.
    #[error("failed to commit height {height}: {reason}")]
    Commit {
        /// The height.
        height: Height,
        /// What the store said.
        reason: String,
    },
    /// The state belongs to another chain.
    #[error("the state is of incarnation {found}, not of {expected}")]
    OtherChain {
        /// The incarnation of the state.
        found: Incarnation,
        /// The incarnation of the genesis.
        expected: Incarnation,
    },
}

/// What became of a block that was to be applied.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Applied {
    /// It was executed and is durable.
    Now {
        /// What it did.
        outcome: Box<Outcome>,
        /// What header `height + 2` must name.
        results: Results,
    },
    /// It was applied before: a crash between the block log and the answer.
    Before,
}

/// What a node that starts knows from its state.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Snapshot {
    /// What the chain is.
    pub chain: Chain,
    /// How far it has come.
    pub progress: Progress,
    /// The results of the last executed height.
    pub results: Results,
    /// The voters of the three heights after it.
    pub sets: PendingSets,
    /// The rotations that do not count yet.
    pub rotations: PendingRotations,
    /// The parameters that do not count yet.
    pub pending_parameters: Option<PendingParameters>,
}

impl Snapshot {
    /// Parameters and governance.
    #[must_use]
    pub fn rules(&self) -> Rules {
        let Chain { parameters, governance, .. } = self.chain.clone();
        Rules { parameters, pending: self.pending_parameters.clone(), governance }
    }
}

/// Writes the state of genesis, unless it is there.
pub fn apply_genesis<S: StateStore>(store: &mut S, genesis: &Genesis) -> Result<(), ApplyError> {
    apply_genesis_before(store, genesis, &Recoveries::default())
}

/// [`apply_genesis`] of a chain with recoveries, one of which the state may have come to.
pub fn apply_genesis_before<S: StateStore>(
    store: &mut S,
    genesis: &Genesis,
    recoveries: &Recoveries,
) -> Result<(), ApplyError> {
    let expected = genesis.incarnation();
    let committed = store.committed().map_err(ExecuteError::from)?;
    if committed.is_some() {
        let chain: Chain = load_existing(store, &StateKey::chain())?;
        let found = chain.incarnation;
        let known = found == expected || recoveries.all().any(|manifest| manifest.incarnation() == found);
        return if known { Ok(()) } else { Err(ApplyError::OtherChain { found, expected }) };
    }
    commit(store, Height::ZERO, genesis_writes(genesis)).map(|_| ())
}

/// Executes a block and makes its changes durable. A block that the state already holds is not executed again.
pub fn apply_block<S: StateStore>(store: &mut S, block: &Block) -> Result<Applied, ApplyError> {
    apply_block_after(store, block, &Recoveries::default())
}

/// [`apply_block`] on a chain with recoveries.
pub fn apply_block_after<S: StateStore>(
    store: &mut S,
    block: &Block,
    recoveries: &Recoveries,
) -> Result<Applied, ApplyError> {
    apply_block_with_faults(store, block, recoveries, LedgerFaults::default())
}

/// Breaks rules, for tests that prove that their checkers notice.
#[doc(hidden)]
pub fn apply_block_with_faults<S: StateStore>(
    store: &mut S,
    block: &Block,
    recoveries: &Recoveries,
    faults: LedgerFaults,
) -> Result<Applied, ApplyError> {
    match execute_once(store, block, recoveries, faults)? {
        Some(outcome) => commit_outcome(store, outcome),
        None => Ok(Applied::Before),
    }
}

/// Executes a block without making anything durable, for a caller that keeps what the block does before the state does:
/// so a crash in between loses nothing. Nothing comes back for a block that the state already holds.
pub fn execute_after<S: StateStore>(
    store: &S,
    block: &Block,
    recoveries: &Recoveries,
) -> Result<Option<Outcome>, ApplyError> {
    execute_once(store, block, recoveries, LedgerFaults::default())
}

/// Makes what [`execute_after`] gave durable. No other block may have been executed in between.
pub fn commit_outcome<S: StateStore>(store: &mut S, mut outcome: Outcome) -> Result<Applied, ApplyError> {
    let roots = commit(store, outcome.height, std::mem::take(&mut outcome.writes))?;
    let results = Results { roots, receipts_root: outcome.receipts_root };
    Ok(Applied::Now { outcome: Box::new(outcome), results })
}

fn execute_once<S: StateStore>(
    store: &S,
    block: &Block,
    recoveries: &Recoveries,
    faults: LedgerFaults,
) -> Result<Option<Outcome>, ApplyError> {
    let height = block.header().height;
    let progress: Progress = load_existing(store, &StateKey::progress())?;
    if height <= progress.height && height > Height::ZERO {
        let other = height == progress.height && block.hash() != progress.block;
        return if other { Err(ExecuteError::WrongParent { height }.into()) } else { Ok(None) };
    }
    Ok(Some(execute_block_after(store, block, recoveries, faults)?))
}

/// Reads back everything that a starting node needs. Nothing before genesis.
pub fn snapshot(state: &dyn StateRead) -> Result<Option<Snapshot>, ExecuteError> {
    let Some((_, roots)) = state.committed()? else { return Ok(None) };
    let progress: Progress = load_existing(state, &StateKey::progress())?;
    Ok(Some(Snapshot {
        chain: load_existing(state, &StateKey::chain())?,
        progress,
        results: results_of(&roots, &progress),
        sets: load_existing(state, &StateKey::sets())?,
        rotations: load(state, &StateKey::rotations())?.unwrap_or_default(),
        pending_parameters: load(state, &StateKey::parameters())?,
    }))
}

/// One account; one that does not exist has nothing and made no transaction.
pub fn account(state: &dyn StateRead, id: &AccountId) -> Result<Account, ExecuteError> {
    Ok(load(state, &StateKey::account(id))?.unwrap_or_default())
}

/// The highest epoch that an identity ever had.
pub fn highest_epoch(state: &dyn StateRead, identity: &Identity) -> Result<Option<Epoch>, ExecuteError> {
    load(state, &StateKey::epoch(identity))
}

fn commit<S: StateStore>(
    store: &mut S,
    height: Height,
    writes: WriteSet,
) -> Result<crate::types::StateRoots, ApplyError> {
    store.commit(height, writes).map_err(|error| ApplyError::Commit { height, reason: error.to_string() })
}

/// The state before block 1.
fn genesis_writes(genesis: &Genesis) -> WriteSet {
    let chain = Chain {
        incarnation: genesis.incarnation(),
        chain_id: genesis.chain_id.clone(),
        protocol_version: genesis.protocol_version,
        state_version: genesis.state_version,
        governance: genesis.governance.clone(),
        parameters: genesis.parameters.clone(),
    };
    let progress = Progress {
        height: Height::ZERO,
        block: genesis.hash(),
        time: genesis.time,
        receipts_root: Hash::ZERO,
        results_before: Results::NONE,
    };
    let mut writes = WriteSet::new();
    writes.insert(StateKey::chain(), Some(chain.encode()));
    writes.insert(StateKey::progress(), Some(progress.encode()));
    writes.insert(StateKey::sets(), Some(PendingSets::from_genesis(genesis.voter_set()).encode()));
    writes.insert(StateKey::rotations(), Some(PendingRotations::default().encode()));
    for entry in genesis.voter_set().entries() {
        writes.insert(StateKey::epoch(&entry.identity), Some(entry.epoch.encode()));
        writes.insert(StateKey::used_session_key(&entry.session_key), Some(entry.identity.encode()));
    }
    for (id, balance) in &genesis.accounts {
        let account = Account { nonce: Nonce::ZERO, balance: *balance };
        writes.insert(StateKey::account(id), Some(account.encode()));
    }
    writes
}
