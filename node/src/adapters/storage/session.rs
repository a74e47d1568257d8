//! The list of session keys on this volume: secret, replaced as a whole, durable before any of its keys is used.

use std::path::Path;

use super::{
    StorageError,
    document::{Document, Kind},
    file,
};

static KIND: Kind = Kind {
    magic: *b"ALKEYLS",
    format: 1,
    advice: "the session keys of this volume are lost; move the file away, and the node makes a new key and asks the chain for it",
};
const FILE_NAME: &str = "keys";

/// Where the key list of `node_core::session` is kept. The bytes hold secret keys: the file belongs to the user of the
/// process alone (mode 0600).
#[derive(Clone, Debug)]
pub struct SessionStore {
    document: Document,
}

impl SessionStore {
    /// The list in this folder; makes the folder if there is none.
    pub fn open(folder: &Path) -> Result<Self, StorageError> {
        file::create_directory(folder)?;
        Ok(Self { document: Document::new(&KIND, folder.join(FILE_NAME)) })
    }

    /// The list, or nothing if none was ever written here.
    pub fn read(&self) -> Result<Option<Vec<u8>>, StorageError> {
        self.document.read()
    }

    /// Replaces the list. It is on disk when this returns; a crash before leaves the list as it was. The list that says
    /// that the key is released is the last thing a clean stop writes.
    pub fn write(&self, list: &[u8]) -> Result<(), StorageError> {
        self.document.write(list)
    }
}
