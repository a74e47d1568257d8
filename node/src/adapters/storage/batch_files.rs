//! Which files of the log of batches must be there, noted beside its folder: whoever loses them loses what was acknowledged.

use std::path::Path;

use super::{
    StorageError,
    document::{Document, Kind},
    file,
};

static KIND: Kind = Kind {
    magic: *b"ALKEEPS",
    format: 1,
    advice: "remove the folders batches and kept of this node: what it acknowledged counts as lost with them, the other voters have it",
};

/// The numbers of the oldest and of the newest file that must be there. Files outside of that may be there or not: a crash
/// came between a file and the note.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FileRange {
    /// The oldest.
    pub first: u64,
    /// The newest.
    pub last: u64,
}

/// The note.
#[derive(Debug)]
pub struct BatchFiles {
    document: Document,
}

impl BatchFiles {
    /// The note about the log in this folder.
    pub fn of(folder: &Path) -> Result<Self, StorageError> {
        let kept = folder.with_file_name("kept");
        file::create_directory(&kept)?;
        Ok(Self { document: Document::new(&KIND, kept.join("batches")) })
    }

    /// What it says, if there is one.
    pub fn read(&self) -> Result<Option<FileRange>, StorageError> {
        let Some(content) = self.document.read()? else { return Ok(None) };
        let numbers = content.first_chunk::<8>().zip(content.get(8..).and_then(|rest| rest.first_chunk::<8>()));
        match numbers.filter(|_| content.len() == 16) {
            Some((first, last)) => {
                Ok(Some(FileRange { first: u64::from_be_bytes(*first), last: u64::from_be_bytes(*last) }))
            }
            None => Err(StorageError::Damaged {
                path: self.document.path().to_path_buf(),
                offset: 0,
                reason: "it names no range of files".to_owned(),
                advice: KIND.advice,
            }),
        }
    }

    /// Notes it durably: after a file was made and before anything is in it, and before one is removed.
    pub fn write(&self, range: FileRange) -> Result<(), StorageError> {
        self.document.write(&[range.first.to_be_bytes(), range.last.to_be_bytes()].concat())
    }
}
