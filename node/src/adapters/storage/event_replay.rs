//! Brings the events up to the state when a node starts, and compares them with what the blocks give.
//!
//! Events need what a block did, and a state does not go back: so the blocks are executed once more from genesis on a
//! state beside that of the node, which is removed afterwards. Without the first blocks the events begin after the state.

use std::path::Path;

use node_core::types::Height;
use thiserror::Error;

use super::{EventLog, EventReader, ExecutedBlock, Kept, QmdbStore, RebuildError, StorageError, file, replay_blocks};

/// The folder of the log.
const EVENTS: &str = "events";
/// The folder of the state beside that of the node.
const SCRATCH: &str = "events.scratch";

/// Why events could not be compared.
#[derive(Debug, Error)]
pub enum ReplayError {
    /// The log could not be read.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The blocks could not be executed, or give other events.
    #[error(transparent)]
    Rebuild(#[from] RebuildError),
    /// Events need every block from the first on.
    #[error("the oldest block here is {first}: events can be made again only from block 1 on")]
    BlocksPruned {
        /// The oldest block.
        first: Height,
    },
    /// There is nothing to compare.
    #[error("no events are kept here")]
    NoEvents,
}

/// What is done about events that are missing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Past {
    /// They are made again from the blocks before the node starts, which takes as long as the chain is: for an observer.
    MadeAgain,
    /// They stay away: a validator is wanted for the next block.
    Left,
}

/// Opens the log of events so that those of the height after `executed` come next: `executed` is the height of the state
/// before blocks that it does not hold are executed. Blocks. `progress` is told each height that is made again.
///
/// A damaged log is named, set aside and replaced.
pub fn open_events(
    data: &Path,
    chain: Kept<'_>,
    executed: Height,
    past: Past,
    progress: impl Fn(Height) + Clone + Send + 'static,
) -> Result<EventLog, StorageError> {
    let folder = data.join(EVENTS);
    let mut log = open_whole(&folder, chain)?;
    if covers(&log, executed) {
        file::remove_directory(&data.join(SCRATCH))?;
        return Ok(log);
    }
    let all_blocks = chain.blocks.first_height() == Some(Height::new(1));
    // Once more, if the log turns out to be damaged in the middle: then it is all made again.
    let attempts = if past == Past::MadeAgain && all_blocks { 2 } else { 0 };
    for _ in 0..attempts {
        tracing::info!(to = %executed, "making the events again from the blocks");
        match make_again(data, chain, log, executed, progress.clone()) {
            Ok(made) => return Ok(made),
            Err(RebuildError::Events { source, .. }) if source.is_damage() => {
                tracing::error!(error = %source, "the log of events is damaged: it is set aside");
                EventLog::set_aside(&folder)?;
            }
            Err(RebuildError::Events { source, .. }) => return Err(source),
            Err(error) => {
                tracing::error!(%error, "the events cannot be made again from the blocks");
                break;
            }
        }
        log = open_whole(&folder, chain)?;
    }
    // A log has no gaps, so what is before the gap goes.
    tracing::warn!(from = %executed.next(), "the events before this height are not kept here");
    file::remove_directory(&data.join(SCRATCH))?;
    file::remove_directory(&folder)?;
    open_whole(&folder, chain)
}

/// Compares every event that is kept with what the blocks give, on a state in the folder `scratch`.
pub fn verify_events(
    data: &Path,
    chain: Kept<'_>,
    scratch: &Path,
    progress: impl Fn(Height) + Send + 'static,
) -> Result<(Height, Height), ReplayError> {
    let reader = EventReader::open(&data.join(EVENTS))?;
    let kept = reader.first_height().zip(reader.last_height());
    let (first, last) = kept.ok_or(ReplayError::NoEvents)?;
    let first_block = chain.blocks.first_height().unwrap_or_default();
    if first_block != Height::new(1) {
        return Err(ReplayError::BlocksPruned { first: first_block });
    }
    let chain_id = chain.genesis.chain_id.clone();
    let store = QmdbStore::open(scratch).map_err(RebuildError::State)?;
    let compare = Box::new(move |executed: ExecutedBlock<'_>| reader.verify(&chain_id, executed));
    let replayed = replay_blocks(chain, &store, last, compare, progress);
    drop(store);
    // The result is what counts; a folder that stays behind is in nobody's way.
    let _ = std::fs::remove_dir_all(scratch);
    replayed?;
    Ok((first, last))
}

fn open_whole(folder: &Path, chain: Kept<'_>) -> Result<EventLog, StorageError> {
    let open = || EventLog::open(folder, chain.genesis.chain_id.clone());
    match open() {
        Err(error) if error.is_damage() => {
            tracing::error!(%error, "the log of events is damaged: it is set aside");
            EventLog::set_aside(folder)?;
            open()
        }
        opened => opened,
    }
}

fn covers(log: &EventLog, executed: Height) -> bool {
    log.last_height().unwrap_or(Height::ZERO) >= executed
}

/// Makes the events up to a height again. An interruption costs nothing: log and state go on where they were.
fn make_again(
    data: &Path,
    chain: Kept<'_>,
    mut log: EventLog,
    until: Height,
    progress: impl Fn(Height) + Send + 'static,
) -> Result<EventLog, RebuildError> {
    let scratch = data.join(SCRATCH);
    let of_events = |source| RebuildError::Events { height: until, source };
    if log.last_height().is_none() {
        // What is there is of another log: this one begins with block 1.
        file::remove_directory(&scratch).map_err(of_events)?;
    }
    let store = QmdbStore::open(&scratch)?;
    let keep = Box::new(move |executed: ExecutedBlock<'_>| log.keep(executed).map(drop));
    replay_blocks(chain, &store, until, keep, progress)?;
    drop(store);
    file::remove_directory(&scratch).map_err(of_events)?;
    EventLog::open(&data.join(EVENTS), chain.genesis.chain_id.clone()).map_err(of_events)
}
