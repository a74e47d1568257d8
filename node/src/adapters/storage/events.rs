//! The log of events: what each executed block means, one durable record a height, made before the state holds the block.
//!
//! So a crash loses no event: a height that the state does not hold is executed again when the node starts, and gives the
//! same events; those that are kept already are compared, byte by byte.

use std::path::Path;

use node_api::{
    events::{decode, encode},
    proto,
};
use node_core::{
    codec::{Reader, Writer},
    events::{Decided, events_of},
    ledger::{Outcome, Recoveries, Snapshot},
    types::{Block, ChainId, Height},
};

use super::{
    StorageError, file,
    heights::{Form, HeightLog, HeightReader},
    segment::Kind,
};

static KIND: Kind = Kind {
    magic: *b"ALEVENT",
    ending: ".events",
    advice: "remove the folder events of this node, an observer with all blocks makes it again",
};
/// Holds the events of the largest block, which take more than twice its size.
const SEGMENT_BYTES: u64 = 64 * 1024 * 1024;

/// A block with the state before it and its execution.
#[derive(Clone, Copy, Debug)]
pub struct ExecutedBlock<'a> {
    /// The block.
    pub block: &'a Block,
    /// The state before it.
    pub before: &'a Snapshot,
    /// The recoveries of the chain.
    pub recoveries: &'a Recoveries,
    /// What it did.
    pub outcome: &'a Outcome,
}

/// The one writer of the log. Readers are made with [`EventLog::reader`].
#[derive(Debug)]
pub struct EventLog {
    log: HeightLog,
    chain_id: ChainId,
}

/// Reads events from any thread, also while some are being appended.
#[derive(Clone, Debug)]
pub struct EventReader {
    heights: HeightReader,
}

impl EventLog {
    /// Opens the log in this folder, makes the folder if there is none, and cuts off what a crash left of the last write.
    ///
    /// The newest file is read in full; of the others, a record is checked when it is read.
    pub fn open(folder: &Path, chain_id: ChainId) -> Result<Self, StorageError> {
        Self::open_with(folder, chain_id, SEGMENT_BYTES)
    }

    pub(super) fn open_with(folder: &Path, chain_id: ChainId, segment_bytes: u64) -> Result<Self, StorageError> {
        Ok(Self { log: HeightLog::open(folder, form(segment_bytes))?, chain_id })
    }

    /// Moves a damaged log out of the way, to be looked at by a person; a former one is removed.
    pub fn set_aside(folder: &Path) -> Result<(), StorageError> {
        let target = folder.with_extension("damaged");
        file::remove_directory(&target)?;
        std::fs::rename(folder, &target).map_err(|error| StorageError::io("set aside", folder, error))?;
        folder.parent().map_or(Ok(()), file::sync_directory)
    }

    /// From now on a file holds at most so many heights, so that removing whole files removes about as many.
    pub fn limit_files(&mut self, heights_max: u64) {
        self.log.limit_files(heights_max);
    }

    /// Removes the files in which every height is below this one. The newest file always stays.
    pub fn prune_below(&mut self, height: Height) -> Result<(), StorageError> {
        self.log.prune_below(height)
    }

    /// A handle for reading.
    #[must_use]
    pub fn reader(&self) -> EventReader {
        EventReader { heights: self.log.reader() }
    }

    /// The newest height whose events are kept.
    #[must_use]
    pub fn last_height(&self) -> Option<Height> {
        self.reader().last_height()
    }

    /// Keeps the events of the height that follows the last one, and says how many they are: they are on disk when this
    /// returns. Those of a height that is kept are compared instead.
    pub fn keep(&mut self, executed: ExecutedBlock<'_>) -> Result<usize, StorageError> {
        let height = executed.block.header().height;
        let (count, record) = record(&self.chain_id, executed);
        if self.last_height().is_some_and(|last| height <= last) {
            self.reader().compare(height, &record)?;
        } else {
            self.log.append(height, &record)?;
        }
        Ok(count)
    }

    /// Makes every following write find the disk full.
    #[cfg(test)]
    pub fn fill_disk(&mut self) {
        self.log.fill_disk();
    }
}

impl EventReader {
    /// Reads the log in this folder without changing it.
    pub fn open(folder: &Path) -> Result<Self, StorageError> {
        Ok(Self { heights: HeightReader::open(folder, form(SEGMENT_BYTES))? })
    }

    /// The oldest height whose events are kept.
    #[must_use]
    pub fn first_height(&self) -> Option<Height> {
        self.heights.first_height()
    }

    /// The newest one.
    #[must_use]
    pub fn last_height(&self) -> Option<Height> {
        self.heights.last_height()
    }

    /// All events of a height, or nothing if they are not kept.
    pub fn read(&self, height: Height) -> Result<Option<Vec<proto::Event>>, StorageError> {
        self.heights.read(height, |record| events(height.get(), record))
    }

    /// Whether the events of a block are those that are kept; an error names the place of those that are not. A height
    /// that is not kept any more is right.
    pub fn verify(&self, chain_id: &ChainId, executed: ExecutedBlock<'_>) -> Result<(), StorageError> {
        let (_, record) = record(chain_id, executed);
        self.compare(executed.block.header().height, &record)
    }

    fn compare(&self, height: Height, expected: &[u8]) -> Result<(), StorageError> {
        let differs = || format!("the events of height {height} are not those of its block");
        let same = |kept: &[u8]| if kept == expected { Ok(()) } else { Err(differs()) };
        self.heights.read(height, same).map(|_| ())
    }
}

fn form(segment_bytes: u64) -> Form {
    Form { kind: &KIND, segment_bytes, check: |height, record| events(height, record).map(drop) }
}

/// How many events a block has, and the record of its height.
fn record(chain_id: &ChainId, executed: ExecutedBlock<'_>) -> (usize, Vec<u8>) {
    let ExecutedBlock { block, before, recoveries, outcome } = executed;
    let height = block.header().height;
    let events = events_of(Decided { block, before, recovery: recoveries.before(height), outcome });
    let mut writer = Writer::new();
    writer.u64(height.get());
    writer.raw(&encode(chain_id, &events));
    (events.len(), writer.into_bytes())
}

/// The events of a record, each of which stands where its id says.
fn events(height: u64, record: &[u8]) -> Result<Vec<proto::Event>, String> {
    let mut reader = Reader::new(record);
    let wrong = |error: &dyn std::fmt::Display| format!("the events of height {height}: {error}");
    let found = reader.u64("stored height").map_err(|error| wrong(&error))?;
    if found != height {
        return Err(format!("the events of height {found} stand where those of height {height} should be"));
    }
    let bytes = reader.raw("stored events", reader.remaining()).map_err(|error| wrong(&error))?;
    let events = decode(bytes).map_err(|error| wrong(&error))?;
    let in_place = |(index, event): (u32, &proto::Event)| event.id == Some(proto::EventId { height, index });
    if events.is_empty() || !(0..).zip(&events).all(in_place) {
        return Err(wrong(&"their ids do not follow each other"));
    }
    Ok(events)
}
