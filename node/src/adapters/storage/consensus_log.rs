//! The log of consensus: what this node received and signed at the height it works on, durable before anything leaves.
//!
//! Entries are gathered in memory, and one flush writes them as one record with one `fdatasync`. So at most one record is
//! ever half-written, and nothing in it was promised to anybody. Starting a height is an entry too: it becomes durable with
//! the first flush of that height, and until then the entries of the height before are still there, which is harmless
//! because its block is.

use std::path::{Path, PathBuf};

use node_core::{
    codec::{Reader, Writer},
    types::Height,
};

use super::{
    StorageError, file,
    segment::{Ending, Kind, Segment},
};

static KIND: Kind = Kind {
    magic: *b"ALCNLOG",
    ending: ".log",
    advice: "the session key of this volume may not sign again; the node makes a new key and asks the chain for it",
};
const SEGMENT_BYTES: u64 = 64 * 1024 * 1024;
/// No single entry is larger: a block with its proposal.
const ENTRY_BYTES_MAX: usize = 32 * 1024 * 1024;
const TAG_HEIGHT: u8 = 1;
const TAG_ENTRY: u8 = 2;

/// What was found when the log was opened.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LogCondition {
    /// There was no log. If this volume holds session keys from before, they signed into a log that is gone: treat it as
    /// broken.
    New,
    /// Everything that was ever flushed is there.
    Whole,
}

/// A log with what it holds.
#[derive(Debug)]
pub struct OpenedLog {
    /// To go on writing.
    pub log: ConsensusLog,
    /// What was found.
    pub condition: LogCondition,
    /// The height of the entries. Nothing below it may be signed.
    pub height: Option<Height>,
    /// The entries since that height was started, in order.
    pub entries: Vec<Vec<u8>>,
}

/// The one writer of the log.
#[derive(Debug)]
pub struct ConsensusLog {
    folder: PathBuf,
    segment_bytes: u64,
    pub(super) segment: Segment,
    offset: u64,
    /// Full files with entries that still count.
    older: Vec<u64>,
    pending: Writer,
    pending_bytes: usize,
    /// A height was started in the entries not yet flushed: with that flush, older files end to count.
    pending_height: bool,
    failed: bool,
}

impl ConsensusLog {
    /// Opens the log in this folder or makes one, and cuts off what a crash left of a flush that did not end.
    ///
    /// An error for which [`StorageError::is_damage`] holds means that the log is broken: the session keys of this volume
    /// are not clearable. Once that is durably noted in the key list, [`ConsensusLog::set_aside`] makes room for a new log.
    pub fn open(folder: &Path) -> Result<OpenedLog, StorageError> {
        Self::open_with(folder, SEGMENT_BYTES)
    }

    pub(super) fn open_with(folder: &Path, segment_bytes: u64) -> Result<OpenedLog, StorageError> {
        file::create_directory(folder)?;
        let Some(Found { segment, older, ending, contents }) = Found::read(folder)? else {
            let segment = Segment::create(folder, &KIND, 1, segment_bytes)?;
            let log = Self::new(folder, segment_bytes, segment);
            return Ok(OpenedLog { log, condition: LogCondition::New, height: None, entries: Vec::new() });
        };
        segment.cut(ending)?;
        let mut log = Self::new(folder, segment_bytes, segment);
        log.offset = ending.offset;
        log.older = older;
        Ok(OpenedLog { log, condition: LogCondition::Whole, height: contents.height, entries: contents.entries })
    }

    /// The entries of the log in this folder, read without changing it: of a volume that nobody uses, of a copy, or beside
    /// the node that writes it. Beside a writer a record in the making may look damaged: read again.
    pub fn read(folder: &Path) -> Result<Vec<Vec<u8>>, StorageError> {
        Ok(Found::read(folder)?.map(|found| found.contents.entries).unwrap_or_default())
    }

    /// Moves a broken log out of the way, to be looked at by a person. Only once no key that signed into it can ever be
    /// cleared again: the next log does not know what was signed.
    pub fn set_aside(folder: &Path) -> Result<(), StorageError> {
        let target = (1..=u32::MAX)
            .map(|attempt| folder.with_extension(format!("broken-{attempt}")))
            .find(|target| !target.exists())
            .ok_or_else(|| StorageError::Failed { path: folder.to_path_buf() })?;
        std::fs::rename(folder, &target).map_err(|error| StorageError::io("set aside", folder, error))?;
        folder.parent().map_or(Ok(()), file::sync_directory)
    }

    fn new(folder: &Path, segment_bytes: u64, segment: Segment) -> Self {
        Self {
            folder: folder.to_path_buf(),
            segment_bytes,
            segment,
            offset: Segment::FIRST,
            older: Vec::new(),
            pending: Writer::new(),
            pending_bytes: 0,
            pending_height: false,
            failed: false,
        }
    }

    /// Gathers an entry. It is on disk after the next [`ConsensusLog::flush`], not before.
    pub fn append(&mut self, entry: &[u8]) -> Result<(), StorageError> {
        let size_max = self.entries_bytes_max();
        let pending = self.pending_bytes.saturating_add(entry.len()).saturating_add(5);
        if pending as u64 > size_max {
            return Err(StorageError::TooLarge { path: self.folder.clone(), size: pending as u64, size_max });
        }
        self.pending.u8(TAG_ENTRY);
        self.pending.bytes(entry);
        self.pending_bytes = pending;
        Ok(())
    }

    /// Writes what was gathered, durably. Without new entries it does nothing.
    pub fn flush(&mut self) -> Result<(), StorageError> {
        if self.failed {
            return Err(StorageError::Failed { path: self.folder.clone() });
        }
        if self.pending_bytes == 0 {
            return Ok(());
        }
        // Until the write is known to have worked: what the disk holds after an error is unknown.
        self.failed = true;
        let body = std::mem::take(&mut self.pending).into_bytes();
        if !self.segment.fits(self.offset, body.len() as u64) {
            let number = self.segment.number() + 1;
            let full =
                std::mem::replace(&mut self.segment, Segment::create(&self.folder, &KIND, number, self.segment_bytes)?);
            self.older.push(full.number());
            self.offset = Segment::FIRST;
        }
        self.offset = self.segment.append(self.offset, &body)?;
        if std::mem::take(&mut self.pending_height) {
            self.remove_older()?;
        }
        self.pending_bytes = 0;
        self.failed = false;
        Ok(())
    }

    /// Starts a height with its first entry, in one step: the entries before do not count any more once the next flush has
    /// ended. Until then they are still there, so no crash loses what was signed.
    pub fn reset(&mut self, height: Height, first: &[u8]) -> Result<(), StorageError> {
        // What was gathered for the height before is not needed any more.
        self.pending = Writer::new();
        self.pending.u8(TAG_HEIGHT);
        self.pending.u64(height.get());
        self.pending_bytes = 9;
        self.pending_height = true;
        self.append(first)
    }

    fn entries_bytes_max(&self) -> u64 {
        Segment::body_length_max(self.segment_bytes)
    }

    fn remove_older(&mut self) -> Result<(), StorageError> {
        // Oldest first: a crash in between leaves no gap.
        for number in std::mem::take(&mut self.older) {
            let segment = Segment::open(&self.folder, &KIND, number)?;
            file::remove(segment.path())?;
        }
        Ok(())
    }
}

/// A log as it is on disk.
struct Found {
    segment: Segment,
    /// Full files before it.
    older: Vec<u64>,
    ending: Ending,
    contents: Contents,
}

impl Found {
    /// Reads all files of a folder; nothing if it has none.
    fn read(folder: &Path) -> Result<Option<Self>, StorageError> {
        let numbers = Segment::numbers(folder, &KIND)?;
        let Some((newest, older)) = numbers.split_last() else { return Ok(None) };
        if let Some((number, _)) =
            numbers.iter().zip(numbers.iter().skip(1)).find(|(first, next)| **first + 1 != **next)
        {
            let path = Segment::open(folder, &KIND, *number)?.path().to_path_buf();
            let reason = "the file after this one is missing".to_owned();
            return Err(StorageError::Damaged { path, offset: 0, reason, advice: KIND.advice });
        }
        let mut contents = Contents::default();
        for number in older {
            let segment = Segment::open(folder, &KIND, *number)?;
            let ending = segment.replay(|offset, body| contents.add(&segment, offset, body))?;
            if ending.remains_until.is_some() {
                // A file is only left for the next one after its last flush ended.
                return Err(segment.damaged(ending.offset, "a record is half-written in a file that was full"));
            }
        }
        let segment = Segment::open(folder, &KIND, *newest)?;
        let ending = segment.replay(|offset, body| contents.add(&segment, offset, body))?;
        Ok(Some(Self { segment, older: older.to_vec(), ending, contents }))
    }
}

/// What the records read so far say.
#[derive(Default)]
struct Contents {
    height: Option<Height>,
    entries: Vec<Vec<u8>>,
}

impl Contents {
    fn add(&mut self, segment: &Segment, offset: u64, body: &[u8]) -> Result<(), StorageError> {
        let mut reader = Reader::new(body);
        while reader.remaining() > 0 {
            self.add_item(&mut reader).map_err(|error| segment.damaged(offset, error.to_string()))?;
        }
        Ok(())
    }

    fn add_item(&mut self, reader: &mut Reader<'_>) -> Result<(), node_core::codec::DecodeError> {
        match reader.u8("log item")? {
            TAG_HEIGHT => {
                self.height = Some(Height::new(reader.u64("log height")?));
                self.entries.clear();
            }
            TAG_ENTRY => self.entries.push(reader.bytes("log entry", ENTRY_BYTES_MAX)?.to_vec()),
            found => return Err(node_core::codec::DecodeError::UnknownTag { field: "log item", found }),
        }
        Ok(())
    }
}
