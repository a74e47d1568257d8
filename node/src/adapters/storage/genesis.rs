//! The genesis that this node accepted, and whether the chain was started with it.

use std::path::Path;

use node_core::{
    codec::{Decode as _, Encode as _},
    types::{Genesis, Hash},
};

use super::{
    StorageError,
    document::{Document, Kind},
    file,
};

static ACCEPTED: Kind = Kind {
    magic: *b"ALGENES",
    format: 1,
    advice: "replace it by the file of another voter of this chain; all voters hold the same one",
};
static STARTED: Kind = Kind {
    magic: *b"ALSTART",
    format: 1,
    advice: "replace it by the file of another voter of this chain that is running; all voters hold the same one",
};

/// What is kept about the genesis of the chain.
#[derive(Debug)]
pub struct GenesisStore {
    accepted: Document,
    started: Document,
}

/// A genesis that this node stands by.
#[derive(Clone, Debug)]
pub struct AcceptedGenesis {
    /// The document.
    pub genesis: Genesis,
    /// Its hash, which names the chain in everything that is signed.
    pub hash: Hash,
    /// Whether the chain was started with it; from then on it cannot be dropped.
    pub started: bool,
}

impl GenesisStore {
    /// What is kept in this folder; makes the folder if there is none.
    pub fn open(folder: &Path) -> Result<Self, StorageError> {
        file::create_directory(folder)?;
        Ok(Self {
            accepted: Document::new(&ACCEPTED, folder.join("accepted")),
            started: Document::new(&STARTED, folder.join("started")),
        })
    }

    /// The accepted genesis, if there is one.
    pub fn accepted(&self) -> Result<Option<AcceptedGenesis>, StorageError> {
        let started = self.started_hash()?;
        let Some(bytes) = self.accepted.read()? else {
            return match started {
                None => Ok(None),
                Some(_) => {
                    let path = self.accepted.path().to_path_buf();
                    Err(StorageError::Missing { path, advice: ACCEPTED.advice })
                }
            };
        };
        let genesis = Genesis::decode(&bytes).map_err(|error| damaged(&self.accepted, &ACCEPTED, error.to_string()))?;
        let hash = genesis.hash();
        if started.is_some_and(|started| started != hash) {
            return Err(damaged(&self.started, &STARTED, "the chain was started with another genesis".to_owned()));
        }
        Ok(Some(AcceptedGenesis { genesis, hash, started: started.is_some() }))
    }

    /// Accepts a genesis, durably. Accepting the same one again is fine, another one is refused.
    pub fn accept(&self, genesis: &Genesis) -> Result<Hash, StorageError> {
        let hash = genesis.hash();
        match self.accepted()? {
            Some(accepted) => self.same(&accepted, hash)?,
            None => self.accepted.write(&genesis.encode())?,
        }
        Ok(hash)
    }

    /// Forgets the accepted genesis with this hash, durably, if the chain was not started with it.
    pub fn drop_accepted(&self, hash: Hash) -> Result<(), StorageError> {
        let Some(accepted) = self.accepted()? else { return Ok(()) };
        self.same(&accepted, hash)?;
        if accepted.started {
            return Err(StorageError::ChainStarted { path: self.accepted.path().to_path_buf() });
        }
        self.accepted.remove()
    }

    /// Notes durably that the chain was started with the accepted genesis of this hash.
    pub fn start(&self, hash: Hash) -> Result<(), StorageError> {
        let Some(accepted) = self.accepted()? else {
            let path = self.accepted.path().to_path_buf();
            return Err(StorageError::Missing { path, advice: "accept a genesis before the chain is started" });
        };
        self.same(&accepted, hash)?;
        if accepted.started { Ok(()) } else { self.started.write(hash.as_bytes()) }
    }

    fn started_hash(&self) -> Result<Option<Hash>, StorageError> {
        let Some(bytes) = self.started.read()? else { return Ok(None) };
        Hash::decode(&bytes).map(Some).map_err(|error| damaged(&self.started, &STARTED, error.to_string()))
    }

    fn same(&self, accepted: &AcceptedGenesis, asked: Hash) -> Result<(), StorageError> {
        if accepted.hash == asked {
            return Ok(());
        }
        Err(StorageError::OtherGenesis {
            path: self.accepted.path().to_path_buf(),
            accepted: accepted.hash.to_string(),
            asked: asked.to_string(),
        })
    }
}

fn damaged(document: &Document, kind: &Kind, reason: String) -> StorageError {
    StorageError::Damaged { path: document.path().to_path_buf(), offset: 0, reason, advice: kind.advice }
}
