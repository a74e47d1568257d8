//! Serves states to peers that are too far behind: proofs and pieces from the live stores, off the engine's task.

use std::sync::Arc;

use node_core::{
    codec::Encode as _,
    ledger::StateStore as _,
    sync::piece,
    types::{Height, Identity, PeerMessage, STATE_BYTES_MAX},
};
use tokio::sync::Semaphore;

use super::perform::frame;
use crate::adapters::{
    p2p::Links,
    storage::{Prover, QmdbStore},
};

/// Answers in preparation at a time.
const ANSWERS_MAX: usize = 2;

/// What answers are made from. A peer that gets none asks somebody else.
#[derive(Debug)]
pub struct StateServer {
    prover: Prover,
    store: QmdbStore,
    links: Links,
    places: Arc<Semaphore>,
}

impl StateServer {
    /// Serves what these stores hold.
    pub fn new(prover: Prover, store: QmdbStore, links: Links) -> Self {
        Self { prover, store, links, places: Arc::new(Semaphore::new(ANSWERS_MAX)) }
    }

    /// A peer asks for the proof of the newest state.
    pub fn on_request(&self, from: Identity) {
        let (prover, store) = (self.prover.clone(), self.store.clone());
        self.answer(from, move || {
            let manifest = newest_manifest(&prover, &store).unwrap_or_else(|problem| {
                tracing::info!(%problem, "there is no proof of a state for a peer");
                Vec::new()
            });
            PeerMessage::StateManifest(manifest)
        });
    }

    /// A peer asks for a piece of the state of a height.
    pub fn on_piece_request(&self, from: Identity, height: Height, number: u64) {
        let (prover, store) = (self.prover.clone(), self.store.clone());
        self.answer(from, move || {
            let bytes = piece_of(&prover, &store, height, number).unwrap_or_else(|problem| {
                tracing::info!(%problem, %height, number, "there is no piece of a state for a peer");
                Vec::new()
            });
            PeerMessage::StatePiece { height, number, bytes }
        });
    }

    fn answer(&self, to: Identity, make: impl FnOnce() -> PeerMessage + Send + 'static) {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else { return };
        let links = self.links.clone();
        tokio::task::spawn_blocking(move || {
            links.send(&to, &frame(&make()));
            drop(place);
        });
    }
}

fn newest_manifest(prover: &Prover, store: &QmdbStore) -> Result<Vec<u8>, String> {
    let executed = store.roots().map_err(|error| error.to_string())?.map(|(height, _)| height).unwrap_or_default();
    let height = Prover::newest(executed).map_err(|error| error.to_string())?;
    let manifest = prover.prove(height).map_err(|error| crate::causes::chain(&error))?;
    let bytes = manifest.manifest().encode();
    if bytes.len() <= STATE_BYTES_MAX { Ok(bytes) } else { Err("its block is too large for a message".to_owned()) }
}

fn piece_of(prover: &Prover, store: &QmdbStore, height: Height, number: u64) -> Result<Vec<u8>, String> {
    let proof = height.checked_add(2).ok_or("there is no such height")?;
    let block = prover.blocks.read(proof).map_err(|error| error.to_string())?.ok_or("its proof is not kept")?;
    let range = block.block.header().results.roots.operations_range;
    let wanted = piece(&range, number).ok_or("it has fewer pieces")?;
    let taken = store.run(move |local| {
        let kept = local.operations_kept()?;
        if wanted.start < kept.start { Ok(None) } else { local.piece(&wanted).map(Some) }
    });
    let bytes = taken.and_then(|piece| piece).map_err(|error| error.to_string())?;
    let bytes = bytes.ok_or("its operations are not kept any more")?;
    if bytes.len() <= STATE_BYTES_MAX { Ok(bytes) } else { Err("it is too large for a message".to_owned()) }
}
