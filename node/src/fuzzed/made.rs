//! Inputs that only a program can make, made of the frozen ones: documents for people, snapshots, pieces of a state.

use std::{fs, path::Path};

use node_api::{governance::TransactionDocument, recovery::RecoveryDocument};
use node_core::{
    codec::{Decode as _, Encode as _, Writer},
    ledger::{StateKey, StateStore as _},
    sync::{PieceKind, StateManifest, StatePiece, piece},
    types::{AccountId, Height, Recovery, Transaction},
};

use crate::adapters::storage::{QmdbStore, SnapshotWriter, fuzzed::Scratch};

/// The inputs of the target of this name, made from its frozen ones.
pub fn inputs(name: &str, frozen: &[Vec<u8>]) -> Vec<Vec<u8>> {
    match name {
        "recovery-document" => frozen.iter().filter_map(|bytes| recovery_document(bytes)).collect(),
        "transaction-document" => frozen.iter().filter_map(|bytes| transaction_document(bytes)).collect(),
        "complete-recoveries-file" => frozen.iter().filter_map(|bytes| recoveries(bytes)).collect(),
        "snapshot-file" => frozen.iter().flat_map(|bytes| snapshots(bytes)).collect(),
        "state-piece" => state_pieces(&Scratch::new().folder().join("state")),
        _ => frozen.to_vec(),
    }
}

fn recovery_document(bytes: &[u8]) -> Option<Vec<u8>> {
    let recovery = Recovery::decode(bytes).ok()?;
    Some(RecoveryDocument::new(&recovery).to_json().into_bytes())
}

/// Of those that are governance.
fn transaction_document(bytes: &[u8]) -> Option<Vec<u8>> {
    let document = TransactionDocument::new(&Transaction::decode(bytes).ok()?).ok()?;
    Some(document.to_json().into_bytes())
}

fn recoveries(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut writer = Writer::new();
    writer.list(&[Recovery::decode(bytes).ok()?]);
    Some(writer.into_bytes())
}

/// A snapshot whose writer was interrupted, and a whole one.
fn snapshots(manifest: &[u8]) -> Vec<Vec<u8>> {
    let scratch = Scratch::new();
    let path = scratch.folder().join("snapshot");
    let read = || fs::read(&path).expect("it was written");
    let manifest = StateManifest::decode(manifest).expect("the frozen manifest is read");
    let mut writer = SnapshotWriter::create(&path, &manifest).expect("there is room");
    writer.piece(b"first piece").expect("there is room");
    let interrupted = read();
    writer.piece(b"second piece").expect("there is room");
    writer.finish().expect("there is room");
    vec![interrupted, read()]
}

/// The operations of a state of a few entries in one piece, and parts of them as pieces of their own.
fn state_pieces(folder: &Path) -> Vec<Vec<u8>> {
    let mut store = QmdbStore::open(folder).expect("there is room");
    let key = |number: u8| StateKey::account(&AccountId::new([number; 32]));
    let writes = (1..6).map(|number| (key(number), Some(vec![number; 9]))).collect();
    store.commit(Height::new(0), writes).expect("there is room");
    let writes = [(key(2), Some(vec![9])), (key(3), None)].into_iter().collect();
    let roots = store.commit(Height::new(1), writes).expect("there is room");
    let whole = piece(&roots.operations_range, 0).expect("there are operations");
    let part = StatePiece { count: 3, start: whole.start + 1, ..whole };
    let boundary = StatePiece { count: 1, start: whole.start + 2, kind: PieceKind::Boundary, ..whole };
    let input = |wanted: StatePiece| {
        let bytes = store.run(move |local| local.piece(&wanted)).and_then(|piece| piece).expect("it is kept");
        let place = [wanted.size, wanted.start, wanted.count].map(u64::to_be_bytes).concat();
        let kind = u8::from(wanted.kind == PieceKind::Operations);
        [&place[..], &[kind], &roots.operations_root.encode(), &bytes].concat()
    };
    [whole, part, boundary].map(input).into()
}
