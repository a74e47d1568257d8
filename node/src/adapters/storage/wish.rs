//! The note that this node wants a state from its peers at its next start, and what it has fetched of one.

use std::path::{Path, PathBuf};

use super::{
    StorageError,
    document::{Document, Kind},
    file,
};

static WANTED: Kind =
    Kind { magic: *b"ALWANTS", format: 1, advice: "remove the folder sync of this node: it fetches the blocks" };

/// The folder `sync` of a volume.
#[derive(Clone, Debug)]
pub struct StateWish {
    folder: PathBuf,
    wanted: Document,
}

impl StateWish {
    /// That of a data folder.
    #[must_use]
    pub fn of(data: &Path) -> Self {
        let folder = data.join("sync");
        let wanted = Document::new(&WANTED, folder.join("wanted"));
        Self { folder, wanted }
    }

    /// Whether a state is wanted.
    pub fn is_made(&self) -> Result<bool, StorageError> {
        Ok(self.wanted.read()?.is_some())
    }

    /// Wants a state, durably.
    pub fn make(&self) -> Result<(), StorageError> {
        file::create_directory(&self.folder)?;
        self.wanted.write(&[])
    }

    /// Where it is collected: a snapshot in the making.
    #[must_use]
    pub fn part(&self) -> PathBuf {
        self.folder.join("part.snapshot")
    }

    /// No state is wanted any more, and what was fetched of one is removed.
    pub fn clear(&self) -> Result<(), StorageError> {
        self.wanted.remove()?;
        self.forget_part()
    }

    /// Removes what was fetched.
    pub fn forget_part(&self) -> Result<(), StorageError> {
        file::remove(&self.part())
    }
}
