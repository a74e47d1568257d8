//! The log of final blocks with their certificates: one durable write a block, read by height while it grows.

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use node_core::{
    codec::{Decode as _, Encode as _, Reader, Writer},
    types::{BLOCK_BYTES_CEILING, Block, CertifiedBlock, CommitCertificate, Height},
};

use super::{
    StorageError, file,
    segment::{Ending, Kind, Segment},
};

static KIND: Kind = Kind {
    magic: *b"ALBLOCK",
    ending: ".blocks",
    advice: "remove the folders blocks and state of this node, it fetches the blocks again from its peers",
};
/// Holds the largest block with the largest certificate, and many of the usual size.
const SEGMENT_BYTES: u64 = 32 * 1024 * 1024;
/// The place of every so many blocks is kept in memory; those between are found by walking from record to record.
const INDEX_STRIDE: u64 = 64;
/// Blocks that are kept in memory, too.
const NEWEST_MAX: usize = 16;

/// The one writer of the log. Readers are made with [`BlockLog::reader`].
#[derive(Debug)]
pub struct BlockLog {
    reader: BlockReader,
    segment_bytes: u64,
    /// A file takes no more blocks than this.
    blocks_per_file: u64,
    /// Where the next record goes in the last file.
    offset: u64,
    failed: bool,
}

/// Reads blocks from any thread, also while one is being appended.
#[derive(Clone, Debug)]
pub struct BlockReader {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    folder: PathBuf,
    state: RwLock<State>,
}

#[derive(Debug, Default)]
struct State {
    files: Vec<Arc<BlockFile>>,
    last: Option<u64>,
    /// The last blocks that were appended: execution, peers and clients want them at once.
    newest: VecDeque<CertifiedBlock>,
}

/// One file of the log. Its number is the height of its first block.
#[derive(Debug)]
struct BlockFile {
    segment: Segment,
    /// The offsets of blocks first, first + stride, ...; of files that were full at the start, as far as was asked for.
    index: Mutex<Vec<u64>>,
}

impl BlockLog {
    /// Opens the log in this folder, makes the folder if there is none, and cuts off what a crash left of the last write.
    ///
    /// The newest file is read in full; of the others, a block is checked when it is read.
    pub fn open(folder: &Path) -> Result<Self, StorageError> {
        Self::open_with(folder, SEGMENT_BYTES)
    }

    pub(super) fn open_with(folder: &Path, segment_bytes: u64) -> Result<Self, StorageError> {
        file::create_directory(folder)?;
        let (state, ending) = State::read(folder)?;
        let mut offset = Segment::FIRST;
        if let Some((newest, ending)) = state.files.last().zip(ending) {
            newest.segment.cut(ending)?;
            offset = ending.offset;
        }
        Ok(Self {
            reader: BlockReader::new(folder, state),
            segment_bytes,
            blocks_per_file: u64::MAX,
            offset,
            failed: false,
        })
    }

    /// From now on a file holds at most so many blocks, so that removing whole files removes about as many.
    pub fn limit_files(&mut self, blocks_max: u64) {
        self.blocks_per_file = blocks_max.max(1);
    }

    /// Removes the files in which every block is below this height. The newest file always stays.
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
    pub fn reader(&self) -> BlockReader {
        self.reader.clone()
    }

    /// The height of the last block.
    #[must_use]
    pub fn last_height(&self) -> Option<Height> {
        self.reader.last_height()
    }

    /// Adds the block that follows the last one. It is on disk when this returns.
    pub fn append(&mut self, block: &Block, certificate: &CommitCertificate) -> Result<(), StorageError> {
        let folder = self.reader.shared.folder.clone();
        if self.failed {
            return Err(StorageError::Failed { path: folder });
        }
        let height = block.header().height.get();
        let last = self.reader.shared.read(|state| state.last);
        if last.is_some_and(|last| last.checked_add(1) != Some(height)) {
            return Err(StorageError::OutOfOrder { path: folder, found: height, last: last.unwrap_or_default() });
        }
        let body = encode(height, block, certificate);
        let length_max = Segment::body_length_max(self.segment_bytes);
        if body.len() as u64 > length_max {
            return Err(StorageError::TooLarge { path: folder, size: body.len() as u64, size_max: length_max });
        }
        // Until the write is known to have worked: what the disk holds after an error is unknown.
        self.failed = true;
        self.append_body(&folder, height, &body)?;
        self.failed = false;
        let block = CertifiedBlock { block: block.clone(), certificate: certificate.clone() };
        self.reader.shared.write(|state| {
            state.newest.push_back(block);
            if state.newest.len() > NEWEST_MAX {
                state.newest.pop_front();
            }
        });
        Ok(())
    }

    fn append_body(&mut self, folder: &Path, height: u64, body: &[u8]) -> Result<(), StorageError> {
        let newest = self.reader.shared.read(|state| state.files.last().cloned());
        let file = match newest {
            Some(file)
                if file.segment.fits(self.offset, body.len() as u64)
                    && height.saturating_sub(file.segment.number()) < self.blocks_per_file =>
            {
                file
            }
            _ => {
                let segment = Segment::create(folder, &KIND, height, self.segment_bytes)?;
                let file = Arc::new(BlockFile { segment, index: Mutex::default() });
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
}

impl BlockReader {
    /// Reads the log in this folder without changing it: of a volume that nobody uses, of a copy, or beside the node that
    /// writes it, as far as that had come. Beside a writer a record in the making may look damaged: read again.
    pub fn open(folder: &Path) -> Result<Self, StorageError> {
        State::read(folder).map(|(state, _)| Self::new(folder, state))
    }

    fn new(folder: &Path, state: State) -> Self {
        Self { shared: Arc::new(Shared { folder: folder.to_path_buf(), state: RwLock::new(state) }) }
    }

    /// The height of the first block that is kept.
    #[must_use]
    pub fn first_height(&self) -> Option<Height> {
        self.shared.read(|state| state.last.and(state.files.first()).map(|file| Height::new(file.segment.number())))
    }

    /// The height of the last block.
    #[must_use]
    pub fn last_height(&self) -> Option<Height> {
        self.shared.read(|state| state.last.map(Height::new))
    }

    /// The block at this height, or nothing if it is not kept.
    pub fn read(&self, height: Height) -> Result<Option<CertifiedBlock>, StorageError> {
        let newest = |state: &State| {
            let first = state.newest.front()?.block.header().height.get();
            let position = usize::try_from(height.get().checked_sub(first)?).ok()?;
            state.newest.get(position).cloned()
        };
        if let Some(block) = self.shared.read(newest) {
            return Ok(Some(block));
        }
        let height = height.get();
        let file = self.shared.read(|state| {
            if state.last.is_none_or(|last| height > last) {
                return None;
            }
            let after = state.files.partition_point(|file| file.segment.number() <= height);
            state.files.get(after.checked_sub(1)?).cloned()
        });
        file.map(|file| file.block(height)).transpose()
    }

    /// Up to `count_max` blocks from this height on, ending early once they take more than `bytes_max` as stored.
    pub fn read_range(
        &self,
        from: Height,
        count_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<CertifiedBlock>, StorageError> {
        let mut blocks = Vec::new();
        let mut bytes = 0;
        let mut height = Some(from);
        while let Some(next) = height.filter(|_| blocks.len() < count_max && bytes <= bytes_max) {
            let Some(block) = self.read(next)? else { break };
            bytes += block.block.bytes();
            blocks.push(block);
            height = next.checked_add(1);
        }
        Ok(blocks)
    }
}

impl State {
    /// What the files of a folder hold, and where the newest ends.
    fn read(folder: &Path) -> Result<(Self, Option<Ending>), StorageError> {
        let mut state = Self::default();
        for number in Segment::numbers(folder, &KIND)? {
            let file = BlockFile { segment: Segment::open(folder, &KIND, number)?, index: Mutex::default() };
            state.files.push(Arc::new(file));
        }
        let Some(newest) = state.files.last() else { return Ok((state, None)) };
        let (ending, last) = newest.replay()?;
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

impl BlockFile {
    /// Reads the whole file, and returns where it ends and the height of its last block.
    fn replay(&self) -> Result<(Ending, Option<u64>), StorageError> {
        let mut last = None;
        let ending = self.segment.replay(|offset, body| {
            let height = last.map_or(Some(self.segment.number()), |last: u64| last.checked_add(1));
            let height = height.ok_or_else(|| self.segment.damaged(offset, "the height does not fit"))?;
            self.decode(offset, height, body)?;
            self.remember(height, offset);
            last = Some(height);
            Ok(())
        })?;
        Ok((ending, last))
    }

    /// Keeps the place of a block if it is one of those that are kept.
    fn remember(&self, height: u64, offset: u64) {
        let position = height.saturating_sub(self.segment.number());
        let mut index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        if position.is_multiple_of(INDEX_STRIDE) && position / INDEX_STRIDE == index.len() as u64 {
            index.push(offset);
        }
    }

    fn block(&self, height: u64) -> Result<CertifiedBlock, StorageError> {
        let (mut at, mut offset) = self.nearest(height);
        while at < height {
            self.remember(at, offset);
            offset = self.segment.skip(offset)?.ok_or_else(|| self.ends_before(offset, height))?;
            at += 1;
        }
        let (body, _) = self.segment.read(offset)?.ok_or_else(|| self.ends_before(offset, height))?;
        self.decode(offset, height, &body)
    }

    /// The nearest block at or below this height whose place is known.
    fn nearest(&self, height: u64) -> (u64, u64) {
        let first = self.segment.number();
        let index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = (height.saturating_sub(first) / INDEX_STRIDE).min((index.len() as u64).saturating_sub(1));
        let offset = usize::try_from(wanted).ok().and_then(|wanted| index.get(wanted).copied());
        offset.map_or((first, Segment::FIRST), |offset| (first + wanted * INDEX_STRIDE, offset))
    }

    fn ends_before(&self, offset: u64, height: u64) -> StorageError {
        self.segment.damaged(offset, format!("block {height} is missing"))
    }

    fn decode(&self, offset: u64, height: u64, body: &[u8]) -> Result<CertifiedBlock, StorageError> {
        let decoded = decode(body).map_err(|error| self.segment.damaged(offset, format!("block {height}: {error}")))?;
        let found = decoded.block.header().height.get();
        if found != height {
            return Err(self.segment.damaged(offset, format!("block {found} stands where block {height} should be")));
        }
        Ok(decoded)
    }
}

fn encode(height: u64, block: &Block, certificate: &CommitCertificate) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.u64(height);
    writer.bytes(&block.encode());
    writer.raw(&certificate.encode());
    writer.into_bytes()
}

fn decode(body: &[u8]) -> Result<CertifiedBlock, node_core::codec::DecodeError> {
    let mut reader = Reader::new(body);
    reader.u64("stored height")?;
    let block = Block::decode(reader.bytes("stored block", BLOCK_BYTES_CEILING)?)?;
    let certificate = CommitCertificate::decode(reader.raw("stored certificate", reader.remaining())?)?;
    Ok(CertifiedBlock { block, certificate })
}
