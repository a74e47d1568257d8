//! The final headers at which the voters changed, with both sets: what a light client needs to follow the chain.
//!
//! One small file for each change. They are never pruned: a chain of a thousand changes takes some MiB.

use std::{
    collections::BTreeMap,
    ops::Bound,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use node_core::{
    codec::{Decode as _, Encode as _},
    light::LightBlock,
    types::{Genesis, Height, VoterSet},
};

use super::{
    StorageError,
    document::{Document, Kind},
    file,
};

static KIND: Kind = Kind {
    magic: *b"ALLIGHT",
    format: 1,
    advice: "remove the folders light and state of this node, both are made again from the blocks",
};
const ENDING: &str = ".light";

/// The changes of voters of one chain. Handles are cheap to clone.
#[derive(Clone, Debug)]
pub struct Milestones {
    folder: PathBuf,
    known: Arc<RwLock<BTreeMap<Height, Arc<LightBlock>>>>,
}

impl Milestones {
    /// Those in this folder; makes the folder if there is none.
    pub fn open(folder: &Path) -> Result<Self, StorageError> {
        file::create_directory(folder)?;
        let mut known = BTreeMap::new();
        for name in file::names_ending(folder, ENDING)? {
            let path = folder.join(&name);
            let damaged =
                |reason: String| StorageError::Damaged { path: path.clone(), offset: 0, reason, advice: KIND.advice };
            let Some(bytes) = Document::new(&KIND, path.clone()).read()? else { continue };
            let block = LightBlock::decode(&bytes).map_err(|error| damaged(error.to_string()))?;
            if file_name(block.header.height) != name {
                return Err(damaged("it is of another height than its name says".to_owned()));
            }
            known.insert(block.header.height, Arc::new(block));
        }
        Ok(Self { folder: folder.to_path_buf(), known: Arc::new(RwLock::new(known)) })
    }

    /// Keeps one, durably. Keeping the same height again changes nothing.
    pub fn keep(&self, block: LightBlock) -> Result<(), StorageError> {
        let height = block.header.height;
        if self.known.read().unwrap_or_else(PoisonError::into_inner).contains_key(&height) {
            return Ok(());
        }
        Document::new(&KIND, self.folder.join(file_name(height))).write(&block.encode())?;
        self.known.write().unwrap_or_else(PoisonError::into_inner).insert(height, Arc::new(block));
        Ok(())
    }

    /// All below a height, in ascending order.
    #[must_use]
    pub fn below(&self, height: Height) -> Vec<LightBlock> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.range(..height).map(|(_, block)| LightBlock::clone(block)).collect()
    }

    /// The first of those between two heights, both excluded, in ascending order.
    #[must_use]
    pub fn between(&self, after: Height, before: Height, most: usize) -> Vec<LightBlock> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let later = known.range((Bound::Excluded(after), Bound::Unbounded));
        later
            .take_while(|(height, _)| **height < before)
            .take(most)
            .map(|(_, block)| LightBlock::clone(block))
            .collect()
    }

    /// The voters of a height, if all heights before it are executed here.
    #[must_use]
    pub fn voters_of(&self, genesis: &Genesis, height: Height) -> VoterSet {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let before = known.range(..height).next_back();
        before.map_or_else(|| genesis.voter_set().clone(), |(_, block)| block.next_voters.clone())
    }
}

fn file_name(height: Height) -> String {
    format!("{:016x}{ENDING}", height.get())
}
