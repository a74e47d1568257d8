//! Bringing the state up to the blocks when a node starts: what a crash left undone is executed again, block by block.

use node_core::{
    ledger::{
        Applied, ApplyError, ExecuteError, Recoveries, RecoveryRefused, Snapshot, StateStore, apply_genesis_before,
        commit_outcome, execute_after, snapshot,
    },
    light::LightBlock,
    types::{CertifiedBlock, Genesis, Header, Height, VoterSet, voters_hash},
};
use thiserror::Error;

use super::{BlockReader, EventLog, ExecutedBlock, LocalStore, Milestones, QmdbStore, StateError, StorageError};

/// Why the state could not be brought up to the blocks.
#[derive(Debug, Error)]
pub enum RebuildError {
    /// A block could not be read.
    #[error("failed to read block {height} for the state: {source}")]
    Block {
        /// Its height.
        height: Height,
        /// Why.
        source: StorageError,
    },
    /// A block between the state and the last block is not kept.
    #[error(
        "block {missing} is not kept and the state is at height {}; fetch the blocks again: remove the folders blocks and state of this node",
        executed.map_or_else(|| "none".to_owned(), |executed| executed.to_string())
    )]
    Gap {
        /// The height that is not kept.
        missing: Height,
        /// The height of the state.
        executed: Option<Height>,
    },
    /// The state is ahead of the blocks: blocks were lost that had been executed.
    #[error(
        "the state is at height {executed}, the blocks end at {last}; blocks were lost: remove the folders blocks and state of this node, it fetches the blocks again from its peers"
    )]
    BlocksLost {
        /// The height of the state.
        executed: Height,
        /// The last block.
        last: Height,
    },
    /// A block names other results than execution gives.
    #[error(
        "block {height} names other results of block {} than the state here gives; remove the folder state of this node, \
         and if it repeats, this release does not execute as the chain does",
        height.checked_sub(2).unwrap_or_default()
    )]
    ResultsDiffer {
        /// The height of the block that names them.
        height: Height,
    },
    /// A block names other voters than execution gives.
    #[error(
        "block {height} names other voters than the state here gives; remove the folder state of this node, and if it \
         repeats, this release does not execute as the chain does"
    )]
    VotersDiffer {
        /// Its height.
        height: Height,
    },
    /// A block names other parameters than execution gives.
    #[error(
        "block {height} names other parameters than the state here gives; remove the folder state of this node, and if it \
         repeats, this release does not execute as the chain does"
    )]
    ParametersDiffer {
        /// Its height.
        height: Height,
    },
    /// A recovery does not fit the state.
    #[error("the recovery after block {height} does not fit the state: {source}")]
    Recovery {
        /// The last height before it.
        height: Height,
        /// Why.
        source: RecoveryRefused,
    },
    /// A change of voters could not be kept.
    #[error(transparent)]
    Milestone(#[from] MilestoneError),
    /// The events of a block could not be kept, or are not those that are kept.
    #[error("failed to keep the events of block {height}: {source}")]
    Events {
        /// Its height.
        height: Height,
        /// Why.
        source: StorageError,
    },
    /// The state could not be read.
    #[error("failed to read the state: {0}")]
    Read(#[from] ExecuteError),
    /// The state failed.
    #[error(transparent)]
    State(#[from] StateError),
    /// A block that was final could not be executed.
    #[error("failed to execute the blocks again: {0}")]
    Apply(#[from] ApplyError),
}

/// What was done.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rebuilt {
    /// The height of the state before; nothing if it was empty.
    pub from: Option<Height>,
    /// The height of the state now.
    pub to: Height,
}

/// What a node keeps of its chain beside the state.
#[derive(Clone, Copy, Debug)]
pub struct Kept<'a> {
    /// The genesis.
    pub genesis: &'a Genesis,
    /// The recoveries with which the chain went on.
    pub recoveries: &'a Recoveries,
    /// The blocks.
    pub blocks: &'a BlockReader,
    /// The changes of voters.
    pub milestones: &'a Milestones,
}

/// Why a change of voters was not kept.
#[derive(Debug, Error)]
pub enum MilestoneError {
    /// The state could not be read.
    #[error("failed to read the state: {0}")]
    Read(#[from] ExecuteError),
    /// The volume failed.
    #[error("failed to keep a change of voters: {0}")]
    Storage(#[from] StorageError),
}

/// The voters of the height that is executed next and of the one after it, if they differ.
pub fn changing_voters<S: StateStore>(
    state: &S,
    height: Height,
) -> Result<Option<(VoterSet, VoterSet)>, MilestoneError> {
    let Some(before) = snapshot(state)? else { return Ok(None) };
    let (first, second) = (before.sets.first, before.sets.second);
    Ok((before.progress.height.next() == height && first != second).then_some((first, second)))
}

/// Keeps the header of a block with both sets, durably, if the next height has other voters. To be called on the state
/// before the block is executed on it: so no change is missing, whenever a crash comes.
pub fn keep_milestone<S: StateStore>(
    state: &S,
    milestones: &Milestones,
    block: &CertifiedBlock,
) -> Result<(), MilestoneError> {
    let header = block.block.header();
    let Some((voters, next_voters)) = changing_voters(state, header.height)? else { return Ok(()) };
    let certificate = block.certificate.clone();
    Ok(milestones.keep(LightBlock { header: header.clone(), certificate, voters, next_voters })?)
}

/// What is done with each block after its execution, before the state holds it.
pub type EventSink<'a> = dyn FnMut(ExecutedBlock<'_>) -> Result<(), StorageError> + Send + 'a;

/// Executes genesis and every block that the state does not hold yet, up to the last one that is kept, and keeps their
/// events if there is a log for them, which is given back. `progress` is told each height that was done, to be shown to
/// whoever waits.
///
/// Execution is deterministic, so the results come out as they were, and each block shows it by naming those of the block
/// two heights before, with its voters and its parameters.
pub fn rebuild_state_from_blocks(
    chain: Kept<'_>,
    state: &QmdbStore,
    mut events: Option<EventLog>,
    progress: impl Fn(Height) + Send + 'static,
) -> Result<(Rebuilt, Option<EventLog>), RebuildError> {
    let last = chain.blocks.last_height().unwrap_or(Height::ZERO);
    on_thread(chain, state, move |chain, store| {
        let Some(log) = &mut events else { return Ok((rebuild(chain, store, last, None, progress)?, None)) };
        let mut keep = |executed: ExecutedBlock<'_>| log.keep(executed).map(drop);
        let rebuilt = rebuild(chain, store, last, Some(&mut keep), progress)?;
        Ok((rebuilt, events))
    })
}

/// Executes genesis and the blocks up to a height on another state than the node's, and gives each to `sink`.
pub fn replay_blocks(
    chain: Kept<'_>,
    state: &QmdbStore,
    until: Height,
    mut sink: Box<EventSink<'static>>,
    progress: impl Fn(Height) + Send + 'static,
) -> Result<Rebuilt, RebuildError> {
    on_thread(chain, state, move |chain, store| rebuild(chain, store, until, Some(&mut *sink), progress))
}

/// On the thread of the store, so that its many reads cost no change of thread.
fn on_thread<T: Send + 'static>(
    chain: Kept<'_>,
    state: &QmdbStore,
    work: impl FnOnce(Kept<'_>, &mut LocalStore) -> Result<T, RebuildError> + Send + 'static,
) -> Result<T, RebuildError> {
    let Kept { genesis, recoveries, blocks, milestones } = chain;
    let (genesis, recoveries) = (genesis.clone(), recoveries.clone());
    let (blocks, milestones) = (blocks.clone(), milestones.clone());
    state.run(move |store| {
        let chain = Kept { genesis: &genesis, recoveries: &recoveries, blocks: &blocks, milestones: &milestones };
        work(chain, store)
    })?
}

fn rebuild<S: StateStore<Error = StateError>>(
    chain: Kept<'_>,
    store: &mut S,
    last: Height,
    mut sink: Option<&mut EventSink<'_>>,
    progress: impl Fn(Height),
) -> Result<Rebuilt, RebuildError> {
    let Kept { genesis, recoveries, blocks, milestones } = chain;
    let from = store.roots()?.map(|(height, _)| height);
    if let Some(executed) = from.filter(|executed| *executed > last) {
        return Err(RebuildError::BlocksLost { executed, last });
    }
    apply_genesis_before(store, genesis, recoveries)?;
    let Some(mut before) = snapshot(store)? else { return Err(ExecuteError::NoGenesis.into()) };
    let (mut two_before, mut one_before) = (before.progress.results_before, before.results);
    let mut height = from.unwrap_or(Height::ZERO);
    while height < last {
        height = height.next();
        let block = blocks.read(height).map_err(|source| RebuildError::Block { height, source })?;
        let block = block.ok_or(RebuildError::Gap { missing: height, executed: from })?;
        if block.block.header().results != two_before {
            return Err(RebuildError::ResultsDiffer { height });
        }
        check_rules(block.block.header(), before.clone(), recoveries)?;
        keep_milestone(store, milestones, &block)?;
        if let Some(outcome) = execute_after(store, &block.block, recoveries)? {
            if let Some(sink) = &mut sink {
                let executed = ExecutedBlock { block: &block.block, before: &before, recoveries, outcome: &outcome };
                sink(executed).map_err(|source| RebuildError::Events { height, source })?;
            }
            if let Applied::Now { outcome: _, results } = commit_outcome(store, outcome)? {
                (two_before, one_before) = (one_before, results);
            }
            before = snapshot(store)?.ok_or(ExecuteError::NoGenesis)?;
        }
        progress(height);
    }
    Ok(Rebuilt { from, to: height })
}

/// A block names the voters and the parameters that the state before it gives.
fn check_rules(header: &Header, before: Snapshot, recoveries: &Recoveries) -> Result<(), RebuildError> {
    let height = header.height;
    if before.rules().at(height).hash() != header.parameters_hash {
        return Err(RebuildError::ParametersDiffer { height });
    }
    let executed = before.progress.height;
    let before = recoveries.recovered(before);
    let sets = before.map_err(|source| RebuildError::Recovery { height: executed, source })?.sets;
    if voters_hash(&sets.first, &sets.second) == header.voters_hash {
        Ok(())
    } else {
        Err(RebuildError::VotersDiffer { height })
    }
}
