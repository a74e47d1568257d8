//! The recoveries that this node has accepted, and those that it has gone through.

use std::path::Path;

use node_core::{
    codec::{Decode, DecodeError, Encode, Reader, Writer},
    types::Recovery,
};

use super::{
    StorageError,
    document::{Document, Kind},
    file,
};

/// The most recoveries of one chain.
const RECOVERIES_MAX: usize = 64;

static ACCEPTED: Kind = Kind {
    magic: *b"ALRECAC",
    format: 1,
    advice: "this node may have accepted a recovery: replace it by a fresh volume",
};
static COMPLETE: Kind = Kind {
    magic: *b"ALRECOV",
    format: 1,
    advice: "replace it by the file of another node of this chain; all nodes hold the same one",
};
static BEGUN: Kind = Kind {
    magic: *b"ALRECBE",
    format: 1,
    advice: "remove it: the session keys of this volume are then given up, and the node asks the chain for another",
};

/// What is kept about recoveries.
#[derive(Debug)]
pub struct RecoveryStore {
    accepted: Document,
    complete: Document,
    begun: Document,
}

impl RecoveryStore {
    /// What is kept in this folder; makes the folder if there is none.
    pub fn open(folder: &Path) -> Result<Self, StorageError> {
        file::create_directory(folder)?;
        Ok(Self {
            accepted: Document::new(&ACCEPTED, folder.join("accepted")),
            complete: Document::new(&COMPLETE, folder.join("complete")),
            begun: Document::new(&BEGUN, folder.join("begun")),
        })
    }

    /// The recovery that this node has signed for last.
    pub fn accepted(&self) -> Result<Option<Recovery>, StorageError> {
        read(&self.accepted, &ACCEPTED)
    }

    /// Keeps the recovery that this node signs for.
    pub fn accept(&self, recovery: &Recovery) -> Result<(), StorageError> {
        self.accepted.write(&recovery.encode())
    }

    /// The recoveries with which the chain went on, oldest first.
    pub fn complete(&self) -> Result<Vec<Recovery>, StorageError> {
        Ok(read::<Complete>(&self.complete, &COMPLETE)?.map(|complete| complete.0).unwrap_or_default())
    }

    /// Keeps the recoveries with which the chain went on.
    pub fn set_complete(&self, recoveries: Vec<Recovery>) -> Result<(), StorageError> {
        self.complete.write(&Complete(recoveries).encode())
    }

    /// The number of the last recovery for which the keys and the log of this volume were made new.
    pub fn begun(&self) -> Result<u32, StorageError> {
        Ok(read::<Number>(&self.begun, &BEGUN)?.map_or(0, |number| number.0))
    }

    /// See [`RecoveryStore::begun`].
    pub fn set_begun(&self, number: u32) -> Result<(), StorageError> {
        self.begun.write(&Number(number).encode())
    }
}

fn read<T: Decode>(document: &Document, kind: &Kind) -> Result<Option<T>, StorageError> {
    let Some(bytes) = document.read()? else { return Ok(None) };
    T::decode(&bytes).map(Some).map_err(|error| StorageError::Damaged {
        path: document.path().to_path_buf(),
        offset: 0,
        reason: error.to_string(),
        advice: kind.advice,
    })
}

struct Complete(Vec<Recovery>);

impl Encode for Complete {
    fn encode_to(&self, writer: &mut Writer) {
        writer.list(&self.0);
    }
}

impl Decode for Complete {
    fn decode_from(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self(reader.list("recoveries", RECOVERIES_MAX)?))
    }
}

struct Number(u32);

impl Encode for Number {
    fn encode_to(&self, writer: &mut Writer) {
        writer.u32(self.0);
    }
}

impl Decode for Number {
    fn decode_from(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self(reader.u32("recovery number")?))
    }
}
