//! Bringing the state up to the blocks when a node starts: what a crash left undone is executed again, block by block.

use node_core::{
    ledger::{
        Applied, ApplyError, ExecuteError, Recoveries, StateStore, apply_block_after, apply_genesis_before, snapshot,
    },
    types::{Genesis, Height},
};
use thiserror::Error;

use super::{BlockReader, QmdbStore, StateError, StorageError};

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

/// Executes genesis and every block that the state does not hold yet, up to the last one that is kept. `progress` is told
/// each height that was done, to be shown to whoever waits.
///
/// Execution is deterministic, so the results come out as they were, and each block shows it by naming those of the block
/// two heights before.
pub fn rebuild_state_from_blocks(
    genesis: &Genesis,
    recoveries: &Recoveries,
    blocks: &BlockReader,
    state: &QmdbStore,
    progress: impl Fn(Height) + Send + 'static,
) -> Result<Rebuilt, RebuildError> {
    let (genesis, recoveries, blocks) = (genesis.clone(), recoveries.clone(), blocks.clone());
    // On the thread of the store, so that its many reads cost no change of thread.
    state.run(move |store| rebuild(&genesis, &recoveries, &blocks, store, progress))?
}

fn rebuild<S: StateStore<Error = StateError>>(
    genesis: &Genesis,
    recoveries: &Recoveries,
    blocks: &BlockReader,
    store: &mut S,
    progress: impl Fn(Height),
) -> Result<Rebuilt, RebuildError> {
    let from = store.roots()?.map(|(height, _)| height);
    let last = blocks.last_height().unwrap_or(Height::ZERO);
    if let Some(executed) = from.filter(|executed| *executed > last) {
        return Err(RebuildError::BlocksLost { executed, last });
    }
    apply_genesis_before(store, genesis, recoveries)?;
    let Some(start) = snapshot(store)? else { return Err(ExecuteError::NoGenesis.into()) };
    let (mut two_before, mut one_before) = (start.progress.results_before, start.results);
    let mut height = from.unwrap_or(Height::ZERO);
    while height < last {
        height = height.next();
        let block = blocks.read(height).map_err(|source| RebuildError::Block { height, source })?;
        let block = block.ok_or(RebuildError::Gap { missing: height, executed: from })?;
        if block.block.header().results != two_before {
            return Err(RebuildError::ResultsDiffer { height });
        }
        if let Applied::Now { outcome: _, results } = apply_block_after(store, &block.block, recoveries)? {
            (two_before, one_before) = (one_before, results);
        }
        progress(height);
    }
    Ok(Rebuilt { from, to: height })
}
