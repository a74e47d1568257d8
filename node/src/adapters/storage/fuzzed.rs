//! Fuzz targets of what is on a volume and in snapshot files: whole files, and contents whose checksums are right.
//!
//! A checksum refuses nearly every mutation, so each kind of record has a target that seals its input first.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use node_core::{
    sync::{PieceKind, StatePiece},
    types::Hash,
};

use super::{
    BatchLog, BlockLog, ConsensusLog, GenesisStore, Milestones, RecoveryStore, SessionStore, SnapshotReader,
    SnapshotWriter,
    document::{Document, Kind as DocumentKind},
    segment::{Kind, Segment},
    verify_piece,
};
use crate::fuzzed::Target;

/// The targets of this file.
pub const TARGETS: &[Target] = &[
    Target { name: "consensus-log-file", frozen: "", run: |input| file("wal/0000000000000001.log", input) },
    Target { name: "block-log-file", frozen: "", run: |input| file("blocks/0000000000000001.blocks", input) },
    Target { name: "batch-log-file", frozen: "", run: |input| file("batches/0000000000000001.batches", input) },
    Target { name: "session-keys-file", frozen: "", run: |input| file("session/keys", input) },
    Target { name: "genesis-file", frozen: "", run: |input| file("genesis/accepted", input) },
    Target { name: "consensus-log-record-file", frozen: "", run: |input| record(&CONSENSUS_LOG, "wal", input) },
    Target { name: "block-record-file", frozen: "", run: |input| record(&BLOCKS, "blocks", input) },
    Target { name: "batch-record-file", frozen: "", run: |input| record(&BATCHES, "batches", input) },
    Target {
        name: "accepted-recovery-file",
        frozen: "recovery",
        run: |input| sealed(&RECOVERY, "recovery/accepted", input),
    },
    Target {
        name: "complete-recoveries-file",
        frozen: "recovery",
        run: |input| sealed(&RECOVERIES, "recovery/complete", input),
    },
    Target { name: "milestone-file", frozen: "light-block", run: milestone },
    Target { name: "snapshot-file", frozen: "state-manifest", run: snapshot },
    Target { name: "snapshot-frame-file", frozen: "state-manifest", run: snapshot_frames },
    Target { name: "state-piece", frozen: "", run: state_piece },
];

/// Room for any input and its header.
const SEGMENT_BYTES: u64 = 64 * 1024;
const ADVICE: &str = "";
static CONSENSUS_LOG: Kind = Kind { magic: *b"ALCNLOG", ending: ".log", advice: ADVICE };
static BLOCKS: Kind = Kind { magic: *b"ALBLOCK", ending: ".blocks", advice: ADVICE };
static BATCHES: Kind = Kind { magic: *b"ALBATCH", ending: ".batches", advice: ADVICE };
static RECOVERY: DocumentKind = DocumentKind { magic: *b"ALRECAC", format: 1, advice: ADVICE };
static RECOVERIES: DocumentKind = DocumentKind { magic: *b"ALRECOV", format: 1, advice: ADVICE };
static MILESTONE: DocumentKind = DocumentKind { magic: *b"ALLIGHT", format: 1, advice: ADVICE };

/// A folder that goes with this value. In memory where there is such a place, for nothing here has to outlive a crash.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let shared = Path::new("/dev/shm");
        let parent = if shared.is_dir() { shared.to_path_buf() } else { std::env::temp_dir() };
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = parent.join(format!("althing-fuzz-{}-{number}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder can be made");
        Self(folder)
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Opens what there is of a volume. What opens once opens again with the same contents: reading repairs nothing by guessing.
fn open(volume: &Path) {
    // A store whose folder is not there would make it, with large files.
    let folder = |name: &str| Some(volume.join(name)).filter(|folder| folder.is_dir());
    let contents = || {
        let log = folder("wal").and_then(|folder| ConsensusLog::open(&folder).ok());
        let blocks = folder("blocks").and_then(|folder| BlockLog::open(&folder).ok()).map(|log| {
            let reader = log.reader();
            (reader.first_height(), reader.last_height(), reader.last_height().and_then(|last| reader.read(last).ok()))
        });
        let batches = folder("batches").and_then(|folder| BatchLog::open(&folder).ok()).map(|(_, batches)| batches);
        let keys = folder("session").and_then(|folder| SessionStore::open(&folder).ok()?.read().ok());
        let genesis = folder("genesis").and_then(|folder| GenesisStore::open(&folder).ok()?.accepted().ok());
        let recoveries = folder("recovery").and_then(|folder| {
            let store = RecoveryStore::open(&folder).ok()?;
            Some((store.accepted().ok()?, store.complete().ok()?, store.begun().ok()?))
        });
        let light = folder("light").map(|folder| Milestones::open(&folder).is_ok());
        let log = log.map(|opened| (opened.height, opened.entries));
        (log, blocks, batches, keys, genesis.flatten().map(|accepted| accepted.hash), recoveries, light)
    };
    let first = contents();
    assert!(first == contents(), "a volume has other contents when it is opened again");
}

/// A file with these first bytes, zeros after them up to the size in its header.
fn file(name: &str, input: &[u8]) {
    let scratch = Scratch::new();
    let path = scratch.0.join(name);
    fs::create_dir_all(path.parent().unwrap_or(&scratch.0)).expect("a folder can be made");
    fs::write(&path, input).expect("a file can be written");
    if name.contains('.') && input.len() < 4_096 {
        let file = fs::OpenOptions::new().write(true).open(&path).expect("it is there");
        file.set_len(4_096).expect("a file can grow");
    }
    open(&scratch.0);
}

/// A log whose only record is this one.
fn record(kind: &'static Kind, folder: &str, input: &[u8]) {
    let scratch = Scratch::new();
    let folder = scratch.0.join(folder);
    fs::create_dir_all(&folder).expect("a folder can be made");
    let segment = Segment::create(&folder, kind, 1, SEGMENT_BYTES).expect("a log can be made");
    segment.append(Segment::FIRST, input).expect("there is room");
    open(&scratch.0);
}

/// A document with this content.
fn sealed(kind: &'static DocumentKind, name: &str, input: &[u8]) {
    let scratch = Scratch::new();
    let path = scratch.0.join(name);
    fs::create_dir_all(path.parent().unwrap_or(&scratch.0)).expect("a folder can be made");
    Document::new(kind, path).write(input).expect("there is room");
    open(&scratch.0);
}

/// The frozen light block is of height 9.
fn milestone(input: &[u8]) {
    sealed(&MILESTONE, "light/0000000000000009.light", input);
}

fn snapshot(input: &[u8]) {
    let scratch = Scratch::new();
    let path = scratch.0.join("file");
    fs::write(&path, input).expect("a file can be written");
    read_snapshot(&path);
}

/// A snapshot whose first frame is this manifest; then the input as a piece, and an end.
fn snapshot_frames(input: &[u8]) {
    let scratch = Scratch::new();
    let path = scratch.0.join("file");
    let mut bytes = b"ALSNAPS\x01".to_vec();
    for (number, kind) in [(0_u64, 1_u8), (1, 2), (2, 3)] {
        let header = [&[kind][..], &u32::try_from(input.len()).unwrap_or(u32::MAX).to_be_bytes()].concat();
        let checksum = crc32c::crc32c_append(crc32c::crc32c(&header), &number.to_be_bytes());
        bytes.extend_from_slice(&header);
        bytes.extend_from_slice(&crc32c::crc32c_append(checksum, input).to_be_bytes());
        bytes.extend_from_slice(input);
    }
    fs::write(&path, bytes).expect("a file can be written");
    read_snapshot(&path);
}

/// What an interrupted writer left is gone on with, and then is whole.
fn read_snapshot(path: &Path) {
    if let Ok(mut reader) = SnapshotReader::open(path) {
        while let Ok(Some(_)) = reader.next_piece() {}
    }
    let Ok(Some((manifest, writer))) = SnapshotWriter::resume(path) else { return };
    let pieces = writer.pieces();
    writer.finish().expect("there is room");
    let mut reader = SnapshotReader::open(path).expect("a finished snapshot is read");
    assert_eq!(*reader.manifest(), manifest);
    for _ in 0..pieces {
        assert!(matches!(reader.next_piece(), Ok(Some(_))), "a piece is lost");
    }
    assert!(matches!(reader.next_piece(), Ok(None)), "a finished snapshot has no end");
}

/// The input names its place in the log and the root that it is proved against: size, start, count, kind, root.
fn state_piece(input: &[u8]) {
    let Some((head, bytes)) = input.split_first_chunk::<57>() else { return };
    let number =
        |place: usize| head.get(place..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u64::from_be_bytes(*bytes));
    let kind = if head.get(24) == Some(&0) { PieceKind::Boundary } else { PieceKind::Operations };
    let root = head.last_chunk::<32>().copied().unwrap_or_default();
    let wanted = StatePiece { size: number(0), start: number(8), count: number(16), kind };
    let _ = verify_piece(&wanted, &Hash::new(root), bytes);
}
