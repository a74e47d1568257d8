//! Small files that are replaced as a whole: a few bytes, a format, a checksum.

use std::path::{Path, PathBuf};

use super::{StorageError, file};

/// The header: magic, format, length and checksum of the content.
const HEADER_BYTES: usize = 16;

/// What tells one kind of document from another, and what to do when one is damaged.
#[derive(Debug)]
pub struct Kind {
    /// The first bytes of the file.
    pub magic: [u8; 7],
    /// The format that this build writes and reads.
    pub format: u8,
    /// What the reader of an error can do.
    pub advice: &'static str,
}

/// One document at one place.
#[derive(Clone, Debug)]
pub struct Document {
    kind: &'static Kind,
    path: PathBuf,
}

impl Document {
    /// The document of this kind at this place, whether it is there or not.
    pub fn new(kind: &'static Kind, path: PathBuf) -> Self {
        Self { kind, path }
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The content, or nothing if there is no file.
    pub fn read(&self) -> Result<Option<Vec<u8>>, StorageError> {
        let Some(bytes) = file::read(&self.path)? else { return Ok(None) };
        self.check(&bytes).map(|content| Some(content.to_vec()))
    }

    /// Replaces the content. Afterwards, whatever happens, the file holds this content or a later one.
    pub fn write(&self, content: &[u8]) -> Result<(), StorageError> {
        let too_large = |_| StorageError::TooLarge {
            path: self.path.clone(),
            size: content.len() as u64,
            size_max: u64::from(u32::MAX),
        };
        let mut bytes = self.header(u32::try_from(content.len()).map_err(too_large)?, content);
        bytes.extend_from_slice(content);
        file::replace(&self.path, &bytes)
    }

    /// Removes the file, durably.
    pub fn remove(&self) -> Result<(), StorageError> {
        file::remove(&self.path)
    }

    fn header(&self, length: u32, content: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES + content.len());
        bytes.extend_from_slice(&self.kind.magic);
        bytes.push(self.kind.format);
        bytes.extend_from_slice(&length.to_be_bytes());
        let checksum = crc32c::crc32c_append(crc32c::crc32c(&bytes), content);
        bytes.extend_from_slice(&checksum.to_be_bytes());
        bytes
    }

    fn check<'a>(&self, bytes: &'a [u8]) -> Result<&'a [u8], StorageError> {
        let damaged = |offset: usize, reason: &str| StorageError::Damaged {
            path: self.path.clone(),
            offset: offset as u64,
            reason: reason.to_owned(),
            advice: self.kind.advice,
        };
        let Some((header, content)) = bytes.split_at_checked(HEADER_BYTES) else {
            return Err(damaged(bytes.len(), "the file ends inside its header"));
        };
        if !header.starts_with(&self.kind.magic) {
            return Err(damaged(0, "the file is of another kind"));
        }
        let length =
            header.get(8..).and_then(|rest| rest.first_chunk()).map_or(0, |length| u32::from_be_bytes(*length));
        let format = header.get(7).copied().unwrap_or(0);
        let mut sealed = header.to_vec();
        sealed.truncate(12);
        let checksum = crc32c::crc32c_append(crc32c::crc32c(&sealed), content);
        if header.get(12..) != Some(&checksum.to_be_bytes()) {
            return Err(damaged(12, "the content does not fit its checksum"));
        }
        if content.len() as u64 != u64::from(length) {
            return Err(damaged(8, "the file has another length than its header says"));
        }
        if format != self.kind.format {
            let path = self.path.clone();
            return Err(StorageError::Format { path, found: format, expected: self.kind.format });
        }
        Ok(content)
    }
}
