//! Puts a proved state in the place of blocks and state of a volume, all or nothing.
//!
//! Everything is made in the folder `incoming`. Only when all of it is durable and checked is it marked as complete; from
//! then on [`finish_install`] puts it in place however often it is interrupted. Keys, the signing log and the genesis are
//! never touched.

use std::{fs, path::Path};

use node_core::{
    ledger::{self, ExecuteError},
    sync::{ManifestError, VerifiedManifest},
};
use thiserror::Error;

use super::{
    BlockLog, ImportError, Milestones, Pieces, QmdbStore, StateError, StorageError,
    document::{Document, Kind},
    file, import_state,
};

static COMPLETE: Kind =
    Kind { magic: *b"ALREADY", format: 1, advice: "remove the folder incoming of this node and restore again" };
const INCOMING: &str = "incoming";
const MARK: &str = "complete";
/// What is replaced, in the order in which it is.
const REPLACED: [&str; 3] = ["light", "blocks", "state"];

/// Why a state was not restored.
#[derive(Debug, Error)]
pub enum RestoreError {
    /// The volume failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The pieces do not make the state.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// The state that they make could not be read.
    #[error(transparent)]
    State(#[from] StateError),
    /// An entry of it could not be read.
    #[error("failed to read the state")]
    Read(#[from] ExecuteError),
    /// It is not the state that is proved.
    #[error("the state is not the one that is proved")]
    NotProved(#[from] ManifestError),
}

impl RestoreError {
    /// What was to be restored is wrong, not the volume.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Import(ImportError::Wrong(_) | ImportError::Piece { .. } | ImportError::OtherRoot { .. })
            | Self::NotProved(_) => true,
            Self::Import(ImportError::Folder(_) | ImportError::Database { .. })
            | Self::Storage(_)
            | Self::State(_)
            | Self::Read(_) => false,
        }
    }
}

/// Makes the state in the folder `incoming` and checks it, without putting it in place.
pub fn prepare(data: &Path, manifest: &VerifiedManifest, pieces: Pieces) -> Result<(), RestoreError> {
    discard_incomplete(data)?;
    let incoming = data.join(INCOMING);
    import_state(&incoming.join("state"), *manifest.roots(), pieces)?;
    let store = QmdbStore::open(&incoming.join("state"))?;
    let snapshot = store.run(|local| ledger::snapshot(local))??.ok_or(ExecuteError::NoGenesis)?;
    manifest.check(&snapshot)?;
    drop(store);
    let mut blocks = BlockLog::open(&incoming.join("blocks"))?;
    let block = &manifest.manifest().block;
    blocks.append(&block.block, &block.certificate)?;
    let milestones = Milestones::open(&incoming.join("light"))?;
    for light in &manifest.manifest().path {
        milestones.keep(light.clone())?;
    }
    Ok(())
}

/// Makes the state, checks it, and puts it in the place of what is there.
pub fn install(data: &Path, manifest: &VerifiedManifest, pieces: Pieces) -> Result<(), RestoreError> {
    prepare(data, manifest, pieces)?;
    mark(data).write(manifest.height().get().to_be_bytes().as_slice())?;
    Ok(finish_install(data)?)
}

/// Ends what an interrupted restore has left: puts a complete state in place, and removes an incomplete one.
pub fn finish_install(data: &Path) -> Result<(), StorageError> {
    let incoming = data.join(INCOMING);
    if !incoming.exists() {
        return Ok(());
    }
    if mark(data).read()?.is_some() {
        for name in REPLACED {
            let (from, to) = (incoming.join(name), data.join(name));
            if from.exists() {
                file::remove_directory(&to)?;
                fs::rename(&from, &to).map_err(|error| StorageError::io("put in place", &to, error))?;
                file::sync_directory(data)?;
            }
        }
        mark(data).remove()?;
    }
    file::remove_directory(&incoming)?;
    file::sync_directory(data)
}

/// Removes what [`prepare`] made, unless it is complete.
pub fn discard_incomplete(data: &Path) -> Result<(), StorageError> {
    let incoming = data.join(INCOMING);
    if mark(data).read()?.is_none() {
        file::remove_directory(&incoming)?;
    }
    file::create_directory(&incoming)
}

fn mark(data: &Path) -> Document {
    Document::new(&COMPLETE, data.join(INCOMING).join(MARK))
}
