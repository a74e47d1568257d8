//! A log of one record for each height: files of records one after the other, read by height while it grows.
//!
//! The logs of blocks and of events are such logs. A file goes as a whole when its records are not needed any more.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use node_core::types::Height;

use super::{
    StorageError, file,
    segment::{Ending, Kind, Segment},
};

/// The place of every so many records is kept in memory; those between are found by walking from record to record.
const INDEX_STRIDE: u64 = 64;

/// What a log holds.
#[derive(Clone, Copy, Debug)]
pub struct Form {
    /// What its files look like.
    pub kind: &'static Kind,
    /// The size of a file, which holds the largest record.
    pub segment_bytes: u64,
    /// Says what is wrong with the record of a height, if anything is. The newest file is checked so when it is opened.
    pub check: fn(u64, &[u8]) -> Result<(), String>,
}

/// The one writer of the log. Readers are made with [`HeightLog::reader`].
#[derive(Debug)]
pub struct HeightLog {
    reader: HeightReader,
    form: Form,
    /// A file takes no more records than this.
    records_per_file: u64,
    /// Where the next record goes in the last file.
    offset: u64,
    failed: bool,
}

/// Reads records from any thread, also while one is being appended.
#[derive(Clone, Debug)]
pub struct HeightReader {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    folder: PathBuf,
    state: RwLock<State>,
}

#[derive(Debug, Default)]
struct State {
    files: Vec<Arc<HeightFile>>,
    last: Option<u64>,
}

/// One file of the log. Its number is the height of its first record.
#[derive(Debug)]
struct HeightFile {
    segment: Segment,
    /// The offsets of records first, first + stride, ...; of files that were full at the start, as far as was asked for.
    index: Mutex<Vec<u64>>,
}

impl HeightLog {
    /// Opens the log in this folder, makes the folder if there is none, and cuts off what a crash left of the last write.
    ///
    /// The newest file is read in full; of the others, a record is checked when it is read.
    pub fn open(folder: &Path, form: Form) -> Result<Self, StorageError> {
        file::create_directory(folder)?;
        let (state, ending) = State::read(folder, form)?;
        let mut offset = Segment::FIRST;
        if let Some((newest, ending)) = state.files.last().zip(ending) {
            newest.segment.cut(ending)?;
            offset = ending.offset;
        }
        let reader = HeightReader::new(folder, state);
        Ok(Self { reader, form, records_per_file: u64::MAX, offset, failed: false })
    }

    /// From now on a file holds at most so many records, so that removing whole files removes about as many.
    pub fn limit_files(&mut self, records_max: u64) {
        self.records_per_file = records_max.max(1);
    }

    /// Removes the files in which every record is below this height. The newest file always stays.
    pub fn prune_below(&mut self, height: Height) -> Result<(), StorageError> {
        loop {
            let removed = self.reader.shared.write(|state| {
                let next = state.files.get(1).map(|file| file.segment.number());
                let unused = next.is_some_and(|next| next <= height.get());
                if unused { Some(state.files.remove(0)) } else { None }
            });
            let Some(removed) = removed else { return Ok(()) };
            // Whoever reads it still has it open.
            file::remove(removed.segment.path())?;
        }
    }

    /// A handle for reading.
    #[must_use]
    pub fn reader(&self) -> HeightReader {
        self.reader.clone()
    }

    /// Adds the record of the height that follows the last one. It is on disk when this returns.
    pub fn append(&mut self, height: Height, body: &[u8]) -> Result<(), StorageError> {
        let folder = self.reader.shared.folder.clone();
        if self.failed {
            return Err(StorageError::Failed { path: folder });
        }
        let height = height.get();
        let last = self.reader.shared.read(|state| state.last);
        if last.is_some_and(|last| last.checked_add(1) != Some(height)) {
            return Err(StorageError::OutOfOrder { path: folder, found: height, last: last.unwrap_or_default() });
        }
        let size_max = Segment::body_length_max(self.form.segment_bytes);
        if body.len() as u64 > size_max {
            return Err(StorageError::TooLarge { path: folder, size: body.len() as u64, size_max });
        }
        // Until the write is known to have worked: what the disk holds after an error is unknown.
        self.failed = true;
        self.append_body(&folder, height, body)?;
        self.failed = false;
        Ok(())
    }

    fn append_body(&mut self, folder: &Path, height: u64, body: &[u8]) -> Result<(), StorageError> {
        let newest = self.reader.shared.read(|state| state.files.last().cloned());
        let file = match newest {
            Some(file)
                if file.segment.fits(self.offset, body.len() as u64)
                    && height.saturating_sub(file.segment.number()) < self.records_per_file =>
            {
                file
            }
            _ => {
                let segment = Segment::create(folder, self.form.kind, height, self.form.segment_bytes)?;
                let file = Arc::new(HeightFile { segment, index: Mutex::default() });
                self.reader.shared.write(|state| state.files.push(Arc::clone(&file)));
                self.offset = Segment::FIRST;
                file
            }
        };
        let next = file.segment.append(self.offset, body)?;
        file.remember(height, self.offset);
        self.offset = next;
        self.reader.shared.write(|state| state.last = Some(height));
        Ok(())
    }

    /// Replaces the newest file by one whose disk is full.
    #[cfg(test)]
    pub fn fill_disk(&mut self) {
        self.reader.shared.write(|state| {
            if let Some(file) = state.files.pop() {
                let mut file = Arc::into_inner(file).expect("nobody reads in this test");
                file.segment.fill_disk();
                state.files.push(Arc::new(file));
            }
        });
    }
}

impl HeightReader {
    /// Reads the log in this folder without changing it: of a volume that nobody uses, of a copy, or beside the node that
    /// writes it, as far as that had come. Beside a writer a record in the making may look damaged: read again.
    pub fn open(folder: &Path, form: Form) -> Result<Self, StorageError> {
        State::read(folder, form).map(|(state, _)| Self::new(folder, state))
    }

    fn new(folder: &Path, state: State) -> Self {
        Self { shared: Arc::new(Shared { folder: folder.to_path_buf(), state: RwLock::new(state) }) }
    }

    /// The height of the first record that is kept.
    #[must_use]
    pub fn first_height(&self) -> Option<Height> {
        self.shared.read(|state| state.last.and(state.files.first()).map(|file| Height::new(file.segment.number())))
    }

    /// The height of the last record.
    #[must_use]
    pub fn last_height(&self) -> Option<Height> {
        self.shared.read(|state| state.last.map(Height::new))
    }

    /// What the record at this height decodes to, or nothing if it is not kept. `decode` says what is wrong with it.
    pub fn read<T>(
        &self,
        height: Height,
        decode: impl FnOnce(&[u8]) -> Result<T, String>,
    ) -> Result<Option<T>, StorageError> {
        let height = height.get();
        let file = self.shared.read(|state| {
            if state.last.is_none_or(|last| height > last) {
                return None;
            }
            let after = state.files.partition_point(|file| file.segment.number() <= height);
            state.files.get(after.checked_sub(1)?).cloned()
        });
        let Some(file) = file else { return Ok(None) };
        let (offset, body) = file.body(height)?;
        decode(&body).map(Some).map_err(|reason| file.segment.damaged(offset, reason))
    }
}

impl State {
    /// What the files of a folder hold, and where the newest ends.
    fn read(folder: &Path, form: Form) -> Result<(Self, Option<Ending>), StorageError> {
        let mut state = Self::default();
        for number in Segment::numbers(folder, form.kind)? {
            let file = HeightFile { segment: Segment::open(folder, form.kind, number)?, index: Mutex::default() };
            state.files.push(Arc::new(file));
        }
        let Some(newest) = state.files.last() else { return Ok((state, None)) };
        let (ending, last) = newest.replay(form.check)?;
        state.last = last.or_else(|| newest.segment.number().checked_sub(1));
        Ok((state, Some(ending)))
    }
}

impl Shared {
    // A panic while the lock was held leaves plain numbers and pointers behind, which are whole.
    fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.write().unwrap_or_else(PoisonError::into_inner))
    }
}

impl HeightFile {
    /// Reads the whole file, and returns where it ends and the height of its last record.
    fn replay(&self, check: fn(u64, &[u8]) -> Result<(), String>) -> Result<(Ending, Option<u64>), StorageError> {
        let mut last = None;
        let ending = self.segment.replay(|offset, body| {
            let height = last.map_or(Some(self.segment.number()), |last: u64| last.checked_add(1));
            let height = height.ok_or_else(|| self.segment.damaged(offset, "the height does not fit"))?;
            check(height, body).map_err(|reason| self.segment.damaged(offset, reason))?;
            self.remember(height, offset);
            last = Some(height);
            Ok(())
        })?;
        Ok((ending, last))
    }

    /// Keeps the place of a record if it is one of those that are kept.
    fn remember(&self, height: u64, offset: u64) {
        let position = height.saturating_sub(self.segment.number());
        let mut index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        if position.is_multiple_of(INDEX_STRIDE) && position / INDEX_STRIDE == index.len() as u64 {
            index.push(offset);
        }
    }

    fn body(&self, height: u64) -> Result<(u64, Vec<u8>), StorageError> {
        let (mut at, mut offset) = self.nearest(height);
        while at < height {
            self.remember(at, offset);
            offset = self.segment.skip(offset)?.ok_or_else(|| self.ends_before(offset, height))?;
            at += 1;
        }
        let (body, _) = self.segment.read(offset)?.ok_or_else(|| self.ends_before(offset, height))?;
        Ok((offset, body))
    }

    /// The nearest record at or below this height whose place is known.
    fn nearest(&self, height: u64) -> (u64, u64) {
        let first = self.segment.number();
        let index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = (height.saturating_sub(first) / INDEX_STRIDE).min((index.len() as u64).saturating_sub(1));
        let offset = usize::try_from(wanted).ok().and_then(|wanted| index.get(wanted).copied());
        offset.map_or((first, Segment::FIRST), |offset| (first + wanted * INDEX_STRIDE, offset))
    }

    fn ends_before(&self, offset: u64, height: u64) -> StorageError {
        self.segment.damaged(offset, format!("the record of height {height} is missing"))
    }
}
