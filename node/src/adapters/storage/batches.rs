//! The log of batches that no block holds yet: many are made durable by one write, and a file goes once none of its batches
//! is wanted.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use node_core::{
    codec::{Decode as _, DecodeError, Encode as _, Reader, Writer},
    types::{BLOCK_BYTES_CEILING, Batch, Hash},
};

use super::{
    StorageError,
    batch_files::{BatchFiles, FileRange},
    file,
    segment::{Kind, Segment},
};

static KIND: Kind = Kind {
    magic: *b"ALBATCH",
    ending: ".batches",
    advice: "remove the folder batches of this node: what it acknowledged counts as lost with it, the other voters have it",
};
const SEGMENT_BYTES: u64 = 32 * 1024 * 1024;
const TAG_BATCH: u8 = 1;
const TAG_DROPPED: u8 = 2;

/// The one writer of the log.
#[derive(Debug)]
pub struct BatchLog {
    folder: PathBuf,
    segment_bytes: u64,
    segment: Segment,
    offset: u64,
    /// The file of each batch that is wanted.
    places: BTreeMap<Hash, u64>,
    /// The wanted batches of each file but the last.
    older: BTreeMap<u64, BTreeSet<Hash>>,
    files: BatchFiles,
    noted: Option<FileRange>,
    lost: bool,
    failed: bool,
}

impl BatchLog {
    /// Opens the log in this folder or makes one, cuts off what a crash left of the last write, and returns the batches that
    /// are wanted in the order in which they were stored. One that was there before and is gone as a whole is made anew, and
    /// [`Self::was_lost`]; one of which a file is gone is damaged.
    pub fn open(folder: &Path) -> Result<(Self, Vec<Batch>), StorageError> {
        Self::open_with(folder, SEGMENT_BYTES)
    }

    pub(super) fn open_with(folder: &Path, segment_bytes: u64) -> Result<(Self, Vec<Batch>), StorageError> {
        file::create_directory(folder)?;
        let files = BatchFiles::of(folder)?;
        let numbers = Segment::numbers(folder, &KIND)?;
        let noted = files.read()?;
        let lost = noted.is_some() && numbers.is_empty();
        if let Some(FileRange { first, last }) = noted.filter(|_| !lost) {
            // Whoever opens a file that is not there learns its name.
            let missing = (first..=last).find(|number| !numbers.contains(number));
            missing.map(|number| Segment::open(folder, &KIND, number)).transpose()?;
        }
        let mut contents = Contents::default();
        let mut last = None;
        for number in &numbers {
            let segment = Segment::open(folder, &KIND, *number)?;
            let ending = segment.replay(|offset, body| contents.add(&segment, offset, body))?;
            segment.cut(ending)?;
            last = Some((segment, ending.offset));
        }
        let (segment, offset) = match last {
            Some(last) => last,
            None => (Segment::create(folder, &KIND, 1, segment_bytes)?, Segment::FIRST),
        };
        let mut older: BTreeMap<u64, BTreeSet<Hash>> = numbers
            .iter()
            .filter(|number| **number != segment.number())
            .map(|number| (*number, BTreeSet::new()))
            .collect();
        let mut wanted: Vec<(usize, Batch)> = Vec::new();
        let mut places = BTreeMap::new();
        for (digest, (order, number, batch)) in contents.batches {
            places.insert(digest, number);
            if let Some(digests) = older.get_mut(&number) {
                digests.insert(digest);
            }
            wanted.push((order, batch));
        }
        wanted.sort_by_key(|(order, _)| *order);
        let folder = folder.to_path_buf();
        let mut log = Self { folder, segment_bytes, segment, offset, places, older, files, noted, lost, failed: false };
        log.note_files()?;
        log.remove_unwanted()?;
        Ok((log, wanted.into_iter().map(|(_, batch)| batch).collect()))
    }

    /// Whether the log that was here before is gone, and with it what this node has acknowledged.
    #[must_use]
    pub fn was_lost(&self) -> bool {
        self.lost
    }

    fn note_files(&mut self) -> Result<(), StorageError> {
        let last = self.segment.number();
        let range = FileRange { first: self.older.keys().next().copied().unwrap_or(last), last };
        if self.noted != Some(range) {
            self.files.write(range)?;
            self.noted = Some(range);
        }
        Ok(())
    }

    /// Stores batches and forgets others, in one durable write. `batches` must take less than a file.
    pub fn append(&mut self, batches: &[Arc<Batch>], dropped: &[Hash]) -> Result<(), StorageError> {
        if self.failed {
            return Err(StorageError::Failed { path: self.folder.clone() });
        }
        let mut writer = Writer::new();
        for batch in batches {
            writer.u8(TAG_BATCH);
            writer.bytes(&batch.encode());
        }
        for digest in dropped {
            writer.u8(TAG_DROPPED);
            digest.encode_to(&mut writer);
        }
        let body = writer.into_bytes();
        // Until the write is known to have worked: what the disk holds after an error is unknown.
        self.failed = true;
        if !self.segment.fits(self.offset, body.len() as u64) {
            self.next_file()?;
        }
        self.offset = self.segment.append(self.offset, &body)?;
        for batch in batches {
            self.places.insert(batch.digest(), self.segment.number());
        }
        for digest in dropped {
            if let Some(number) = self.places.remove(digest)
                && let Some(digests) = self.older.get_mut(&number)
            {
                digests.remove(digest);
            }
        }
        self.remove_unwanted()?;
        self.failed = false;
        Ok(())
    }

    fn next_file(&mut self) -> Result<(), StorageError> {
        let number = self.segment.number();
        let wanted = self.places.iter().filter(|(_, place)| **place == number).map(|(digest, _)| *digest).collect();
        self.older.insert(number, wanted);
        self.segment = Segment::create(&self.folder, &KIND, number + 1, self.segment_bytes)?;
        self.offset = Segment::FIRST;
        self.note_files()
    }

    /// Oldest first, and none behind one that stays: a file may hold what says that batches of an earlier one are dropped.
    fn remove_unwanted(&mut self) -> Result<(), StorageError> {
        let unwanted: Vec<u64> =
            self.older.iter().take_while(|(_, digests)| digests.is_empty()).map(|(number, _)| *number).collect();
        if unwanted.is_empty() {
            return Ok(());
        }
        self.older.retain(|number, _| !unwanted.contains(number));
        self.note_files()?;
        for number in unwanted {
            file::remove(Segment::open(&self.folder, &KIND, number)?.path())?;
        }
        Ok(())
    }
}

/// The batches that were found, with their order and the number of their file.
#[derive(Default)]
struct Contents {
    batches: BTreeMap<Hash, (usize, u64, Batch)>,
    count: usize,
}

impl Contents {
    fn add(&mut self, segment: &Segment, offset: u64, body: &[u8]) -> Result<(), StorageError> {
        let mut reader = Reader::new(body);
        while reader.remaining() > 0 {
            self.add_item(segment.number(), &mut reader).map_err(|error| segment.damaged(offset, error.to_string()))?;
        }
        Ok(())
    }

    fn add_item(&mut self, number: u64, reader: &mut Reader<'_>) -> Result<(), DecodeError> {
        match reader.u8("batch log item")? {
            TAG_BATCH => {
                let batch = Batch::decode(reader.bytes("stored batch", BLOCK_BYTES_CEILING)?)?;
                self.count += 1;
                self.batches.insert(batch.digest(), (self.count, number, batch));
            }
            TAG_DROPPED => {
                self.batches.remove(&Hash::decode_from(reader)?);
            }
            found => return Err(DecodeError::UnknownTag { field: "batch log item", found }),
        }
        Ok(())
    }
}

#[cfg(test)]
impl BatchLog {
    /// From now on every write finds the disk full.
    pub fn fill_disk(&mut self) {
        self.segment.fill_disk();
    }
}
