//! The log of final blocks with their certificates: one durable write a block, read by height while it grows.

use std::{
    collections::VecDeque,
    path::Path,
    sync::{Arc, PoisonError, RwLock},
};

use node_core::{
    codec::{Decode as _, DecodeError, Encode as _, Reader, Writer},
    types::{BLOCK_BYTES_CEILING, Block, CertifiedBlock, CommitCertificate, Header, Height},
};

use super::{
    StorageError,
    heights::{Form, HeightLog, HeightReader},
    segment::Kind,
};

static KIND: Kind = Kind {
    magic: *b"ALBLOCK",
    ending: ".blocks",
    advice: "remove the folders blocks and state of this node, it fetches the blocks again from its peers",
};
/// Holds the largest block with the largest certificate, and many of the usual size.
const SEGMENT_BYTES: u64 = 32 * 1024 * 1024;
/// Blocks that are kept in memory, too.
const NEWEST_MAX: usize = 16;

/// The one writer of the log. Readers are made with [`BlockLog::reader`].
#[derive(Debug)]
pub struct BlockLog {
    log: HeightLog,
    reader: BlockReader,
}

/// Reads blocks from any thread, also while one is being appended.
#[derive(Clone, Debug)]
pub struct BlockReader {
    heights: HeightReader,
    /// The last blocks that were appended: execution, peers and clients want them at once.
    newest: Arc<RwLock<VecDeque<CertifiedBlock>>>,
}

impl BlockLog {
    /// Opens the log in this folder, makes the folder if there is none, and cuts off what a crash left of the last write.
    ///
    /// The newest file is read in full; of the others, a block is checked when it is read.
    pub fn open(folder: &Path) -> Result<Self, StorageError> {
        Self::open_with(folder, SEGMENT_BYTES)
    }

    pub(super) fn open_with(folder: &Path, segment_bytes: u64) -> Result<Self, StorageError> {
        let log = HeightLog::open(folder, form(segment_bytes))?;
        let reader = BlockReader { heights: log.reader(), newest: Arc::default() };
        Ok(Self { log, reader })
    }

    /// From now on a file holds at most so many blocks, so that removing whole files removes about as many.
    pub fn limit_files(&mut self, blocks_max: u64) {
        self.log.limit_files(blocks_max);
    }

    /// Removes the files in which every block is below this height. The newest file always stays.
    pub fn prune_below(&mut self, height: Height) -> Result<(), StorageError> {
        self.log.prune_below(height)
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
        let height = block.header().height;
        self.log.append(height, &encode(height.get(), block, certificate))?;
        let block = CertifiedBlock { block: block.clone(), certificate: certificate.clone() };
        let mut newest = self.reader.newest.write().unwrap_or_else(PoisonError::into_inner);
        newest.push_back(block);
        if newest.len() > NEWEST_MAX {
            newest.pop_front();
        }
        Ok(())
    }
}

impl BlockReader {
    /// Reads the log in this folder without changing it: of a volume that nobody uses, of a copy, or beside the node that
    /// writes it, as far as that had come. Beside a writer a record in the making may look damaged: read again.
    pub fn open(folder: &Path) -> Result<Self, StorageError> {
        Ok(Self { heights: HeightReader::open(folder, form(SEGMENT_BYTES))?, newest: Arc::default() })
    }

    /// The height of the first block that is kept.
    #[must_use]
    pub fn first_height(&self) -> Option<Height> {
        self.heights.first_height()
    }

    /// The height of the last block.
    #[must_use]
    pub fn last_height(&self) -> Option<Height> {
        self.heights.last_height()
    }

    /// The block at this height, or nothing if it is not kept.
    pub fn read(&self, height: Height) -> Result<Option<CertifiedBlock>, StorageError> {
        if let Some(block) = self.newest(height) {
            return Ok(Some(block));
        }
        self.heights.read(height, |body| decode(height.get(), body))
    }

    /// The header of the block at this height, or nothing if it is not kept. The transactions are not looked at, which saves
    /// nearly everything: that the record is whole is certain by its checksum.
    pub fn read_header(&self, height: Height) -> Result<Option<Header>, StorageError> {
        if let Some(block) = self.newest(height) {
            return Ok(Some(block.block.header().clone()));
        }
        self.heights.read(height, |body| decode_header(height, body))
    }

    fn newest(&self, height: Height) -> Option<CertifiedBlock> {
        let newest = self.newest.read().unwrap_or_else(PoisonError::into_inner);
        let first = newest.front()?.block.header().height.get();
        let position = usize::try_from(height.get().checked_sub(first)?).ok()?;
        newest.get(position).cloned()
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

fn form(segment_bytes: u64) -> Form {
    Form { kind: &KIND, segment_bytes, check: |height, body| decode(height, body).map(drop) }
}

fn encode(height: u64, block: &Block, certificate: &CommitCertificate) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.u64(height);
    writer.bytes(&block.encode());
    writer.raw(&certificate.encode());
    writer.into_bytes()
}

fn decode(height: u64, body: &[u8]) -> Result<CertifiedBlock, String> {
    let decoded = decode_any(body).map_err(|error| format!("block {height}: {error}"))?;
    let found = decoded.block.header().height.get();
    if found != height {
        return Err(format!("block {found} stands where block {height} should be"));
    }
    Ok(decoded)
}

fn decode_header(height: Height, body: &[u8]) -> Result<Header, String> {
    let decode = || {
        let mut reader = Reader::new(body);
        reader.u64("stored height")?;
        let block = reader.bytes("stored block", BLOCK_BYTES_CEILING)?;
        // A block begins with its header.
        Header::decode_from(&mut Reader::new(block))
    };
    let header: Result<Header, DecodeError> = decode();
    let header = header.map_err(|error| format!("block {height}: {error}"))?;
    let found = header.height;
    if found == height { Ok(header) } else { Err(format!("block {found} stands where block {height} should be")) }
}

fn decode_any(body: &[u8]) -> Result<CertifiedBlock, DecodeError> {
    let mut reader = Reader::new(body);
    reader.u64("stored height")?;
    let block = Block::decode(reader.bytes("stored block", BLOCK_BYTES_CEILING)?)?;
    let certificate = CommitCertificate::decode(reader.raw("stored certificate", reader.remaining())?)?;
    Ok(CertifiedBlock { block, certificate })
}
