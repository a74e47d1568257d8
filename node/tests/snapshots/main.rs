//! Snapshots: what comes out of a volume starts another one, and whatever is wrong with a snapshot is noticed.

#![expect(clippy::unwrap_used, reason = "a test may fail anywhere")]

mod certified;

use std::{
    fs,
    path::{Path, PathBuf},
};

use althing_node::{
    adapters::storage::{
        GenesisStore, PieceError, SnapshotReader, SnapshotWriter, StorageError, finish_install, verify_piece,
    },
    snapshots::{self, Refusal, SnapshotError, Summary, Trust},
};
use certified::{Node, genesis};
use node_core::{
    ledger::StateStore as _,
    light::LightError,
    sync::{ManifestError, piece, piece_count},
    types::{Genesis, Height},
};
use tempfile::TempDir;

struct Volume {
    folder: TempDir,
    genesis: Genesis,
}

impl Volume {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn snapshot(&self, height: Option<u64>) -> Result<Summary, SnapshotError> {
        snapshots::create(&self.path("data"), height, &self.path("file"), |_| {})
    }

    fn verify(&self, file: &Path) -> Result<Summary, SnapshotError> {
        snapshots::verify(file, Trust::of(&self.genesis), &self.path("scratch"), |_| {})
    }
}

/// The volume of a stopped node at this height.
fn stopped(height: u64) -> Volume {
    let volume = Volume { folder: tempfile::tempdir().unwrap(), genesis: genesis("snapshot-test") };
    let accepted = GenesisStore::open(&volume.path("data/genesis")).unwrap();
    let hash = accepted.accept(&volume.genesis).unwrap();
    accepted.start(hash).unwrap();
    Node::open(&volume.path("data"), &volume.genesis).run_to(height);
    volume
}

#[test]
fn a_restored_node_goes_on_as_the_one_that_executed_everything() {
    let volume = stopped(40);
    let made = volume.snapshot(None).unwrap();
    assert_eq!(made.height, Height::new(38));
    assert!(made.pieces > 2 && made.headers > 3, "{made:?}");
    volume.verify(&volume.path("file")).unwrap();
    assert!(!volume.path("scratch").exists());
    let restored =
        snapshots::restore(&volume.path("file"), Trust::of(&volume.genesis), &volume.path("new"), |_| {}).unwrap();
    assert_eq!(restored.state_root, made.state_root);
    let mut names: Vec<_> = fs::read_dir(volume.path("new"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["blocks", "light", "state"], "no key, no log, nothing that could sign");

    // The restored node executes what the other one does, over prunings of the log of operations, to the same roots.
    let mut full = Node::open(&volume.path("data"), &volume.genesis);
    let mut new = Node::open(&volume.path("new"), &volume.genesis);
    assert_eq!(new.blocks.last_height(), Some(Height::new(38)));
    for height in 39..=40 {
        let block = full.blocks.reader().read(Height::new(height)).unwrap().unwrap();
        assert_eq!(new.make().block, block.block);
        new.take(&block);
    }
    while full.blocks.last_height() < Some(Height::new(1_100)) {
        let block = full.make();
        full.take(&block);
        new.take(&block);
    }
    assert_eq!(new.store.roots().unwrap(), full.store.roots().unwrap());
    // And it can itself prove what it has executed.
    new.prover().prove(Height::new(1_098)).unwrap();
    let missing = new.prover().prove(Height::new(20)).unwrap_err();
    assert_eq!(missing.to_string(), "block 20 is not kept here");
}

#[test]
fn a_late_snapshot_of_a_pruned_log_begins_with_its_boundary() {
    let volume = stopped(2_100);
    let made = volume.snapshot(None).unwrap();
    let reader = SnapshotReader::open(&volume.path("file")).unwrap();
    let last = reader.manifest().path.last().unwrap().header.results.roots.operations_range;
    assert!(last.start > 0, "nothing is pruned: {last:?}");
    assert_eq!(piece(&last, 0).unwrap().count, 1);
    assert_eq!(piece_count(&last), made.pieces);
    volume.verify(&volume.path("file")).unwrap();
    snapshots::restore(&volume.path("file"), Trust::of(&volume.genesis), &volume.path("new"), |_| {}).unwrap();
    // What was pruned long ago is taken as long as its files are there, and never wrongly.
    match volume.snapshot(Some(5)) {
        Ok(_) => assert_eq!(volume.verify(&volume.path("file")).unwrap().height, Height::new(5)),
        Err(error) => assert!(matches!(error, SnapshotError::Pruned { .. } | SnapshotError::State(_)), "{error:?}"),
    }
}

#[test]
fn a_snapshot_of_a_height_that_cannot_be_proved_is_not_made() {
    let volume = stopped(8);
    assert!(matches!(volume.snapshot(Some(7)), Err(SnapshotError::TooNew { newest }) if newest == Height::new(6)));
    assert_eq!(volume.snapshot(Some(4)).unwrap().height, Height::new(4));
    volume.verify(&volume.path("file")).unwrap();
    let volume = stopped(2);
    assert!(matches!(volume.snapshot(None), Err(SnapshotError::Proving(_))));
    assert!(!volume.path("file").exists() && !volume.path("file.new").exists());
}

#[test]
fn a_cut_or_flipped_snapshot_is_noticed_wherever_it_is() {
    let volume = stopped(12);
    volume.snapshot(None).unwrap();
    let whole = fs::read(volume.path("file")).unwrap();
    let wrong = volume.path("wrong");
    let step = whole.len() / 97;
    for place in (0..whole.len()).step_by(step) {
        fs::write(&wrong, &whole[..place]).unwrap();
        let cut = volume.verify(&wrong).unwrap_err();
        assert!(matches!(cut, SnapshotError::Damaged(StorageError::Damaged { .. })), "cut at {place}: {cut:?}");
        let mut bytes = whole.clone();
        bytes[place] ^= 0x10;
        fs::write(&wrong, &bytes).unwrap();
        let flipped = volume.verify(&wrong).unwrap_err();
        let noticed =
            matches!(flipped, SnapshotError::Damaged(StorageError::Damaged { .. } | StorageError::Format { .. }));
        assert!(noticed, "flipped at {place}: {flipped:?}");
    }
    fs::write(&wrong, [whole.as_slice(), &[0]].concat()).unwrap();
    let longer = volume.verify(&wrong).unwrap_err();
    assert!(longer.to_string().contains("something follows the end"), "{longer}");
}

/// Writes the snapshot again with other pieces, every checksum right.
fn forge(volume: &Volume, change: impl Fn(&mut Vec<Vec<u8>>)) -> PathBuf {
    let mut reader = SnapshotReader::open(&volume.path("file")).unwrap();
    let mut pieces = Vec::new();
    while let Some(piece) = reader.next_piece().unwrap() {
        pieces.push(piece);
    }
    change(&mut pieces);
    let mut writer = SnapshotWriter::create(&volume.path("forged"), reader.manifest()).unwrap();
    for piece in &pieces {
        writer.piece(piece).unwrap();
    }
    writer.finish().unwrap();
    volume.path("forged")
}

#[test]
fn forged_pieces_under_right_checksums_are_refused_and_nothing_is_restored() {
    let volume = stopped(12);
    volume.snapshot(None).unwrap();
    volume.verify(&forge(&volume, |_| {})).unwrap();
    let forgeries: [fn(&mut Vec<Vec<u8>>); 5] = [
        |pieces| *pieces[1].last_mut().unwrap() ^= 1,
        |pieces| pieces.swap(0, 1),
        |pieces| drop(pieces.pop()),
        |pieces| pieces.push(pieces[0].clone()),
        |pieces| pieces[0].truncate(10),
    ];
    for (number, change) in forgeries.into_iter().enumerate() {
        let file = forge(&volume, change);
        let refused = volume.verify(&file).unwrap_err();
        assert!(matches!(refused, SnapshotError::Refused(_)), "forgery {number}: {refused:?}");
        let refused = snapshots::restore(&file, Trust::of(&volume.genesis), &volume.path("new"), |_| {}).unwrap_err();
        assert!(matches!(refused, SnapshotError::Refused(_)), "forgery {number}: {refused:?}");
        assert_eq!(fs::read_dir(volume.path("new")).map_or(0, Iterator::count), 0, "forgery {number}");
    }
}

#[test]
fn a_snapshot_of_another_chain_or_with_other_signatures_is_refused() {
    let volume = stopped(12);
    volume.snapshot(None).unwrap();
    let other = Volume { folder: tempfile::tempdir().unwrap(), genesis: genesis("other") };
    let refused = other.verify(&volume.path("file")).unwrap_err();
    assert!(matches!(refused, SnapshotError::Refused(Refusal::Manifest(ManifestError::OtherChain { .. }))));
    let mut reader = SnapshotReader::open(&volume.path("file")).unwrap();
    let mut manifest = reader.manifest().clone();
    manifest.path.last_mut().unwrap().header.results.roots.state_root = manifest.genesis;
    let mut writer = SnapshotWriter::create(&volume.path("forged"), &manifest).unwrap();
    while let Some(piece) = reader.next_piece().unwrap() {
        writer.piece(&piece).unwrap();
    }
    writer.finish().unwrap();
    let refused = volume.verify(&volume.path("forged")).unwrap_err();
    let expected = matches!(
        &refused,
        SnapshotError::Refused(Refusal::Manifest(ManifestError::Path { source: LightError::OtherHeader { .. }, .. }))
    );
    assert!(expected, "{refused:?}");
}

#[test]
fn a_piece_is_checked_by_itself() {
    let volume = stopped(12);
    volume.snapshot(None).unwrap();
    let mut reader = SnapshotReader::open(&volume.path("file")).unwrap();
    let roots = reader.manifest().path.last().unwrap().header.results.roots;
    let (first, second) = (reader.next_piece().unwrap().unwrap(), reader.next_piece().unwrap().unwrap());
    let wanted = |number| piece(&roots.operations_range, number).unwrap();
    assert_eq!(verify_piece(&wanted(0), &roots.operations_root, &first), Ok(()));
    assert_eq!(verify_piece(&wanted(1), &roots.operations_root, &second), Ok(()));
    let wrong = verify_piece(&wanted(0), &roots.operations_root, &second);
    assert_eq!(wrong, Err(PieceError::Wrong { start: wanted(0).start }));
    assert!(verify_piece(&wanted(0), &roots.state_root, &first).is_err());
    assert!(matches!(verify_piece(&wanted(0), &roots.operations_root, &[]), Err(PieceError::Unreadable { .. })));
}

#[test]
fn only_an_empty_folder_takes_a_snapshot() {
    let volume = stopped(6);
    volume.snapshot(None).unwrap();
    let new = volume.path("new");
    fs::create_dir_all(new.join("lost+found")).unwrap();
    fs::write(new.join("lock"), "process 1\n").unwrap();
    fs::create_dir_all(new.join("session")).unwrap();
    let refused = snapshots::restore(&volume.path("file"), Trust::of(&volume.genesis), &new, |_| {}).unwrap_err();
    assert!(matches!(&refused, SnapshotError::NotEmpty { found, .. } if found == "session"), "{refused:?}");
    fs::remove_dir(new.join("session")).unwrap();
    snapshots::restore(&volume.path("file"), Trust::of(&volume.genesis), &new, |_| {}).unwrap();
}

#[test]
fn a_restore_that_was_interrupted_is_ended_or_begun_anew() {
    let volume = stopped(12);
    volume.snapshot(None).unwrap();
    let (file, new) = (volume.path("file"), volume.path("new"));
    // Before everything was made: nothing of it counts.
    fs::create_dir_all(new.join("incoming/state")).unwrap();
    fs::write(new.join("incoming/state/junk"), "half").unwrap();
    snapshots::restore(&file, Trust::of(&volume.genesis), &new, |_| {}).unwrap();
    assert!(!new.join("incoming").exists() && !new.join("state/junk").exists());

    // After it was marked as complete: what is left to do is done, whatever was done already.
    let incoming = new.join("incoming");
    fs::create_dir_all(&incoming).unwrap();
    for name in ["blocks", "state"] {
        fs::rename(new.join(name), incoming.join(name)).unwrap();
    }
    fs::create_dir_all(new.join("blocks")).unwrap();
    fs::write(new.join("blocks/old"), "of before").unwrap();
    let mut mark = [b"ALREADY".as_slice(), &[1], &8u32.to_be_bytes()].concat();
    let height = 10u64.to_be_bytes();
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&mark), &height);
    mark.extend_from_slice(&checksum.to_be_bytes());
    mark.extend_from_slice(&height);
    fs::write(incoming.join("complete"), mark).unwrap();
    finish_install(&new).unwrap();
    assert!(!incoming.exists() && !new.join("blocks/old").exists());
    assert_eq!(Node::open(&new, &volume.genesis).blocks.last_height(), Some(Height::new(10)));

    // Without the mark nothing is put in place.
    fs::create_dir_all(incoming.join("blocks")).unwrap();
    finish_install(&new).unwrap();
    assert!(!incoming.exists());
    assert_eq!(Node::open(&new, &volume.genesis).blocks.last_height(), Some(Height::new(10)));
}

#[test]
fn an_interrupted_file_goes_on_after_its_last_whole_piece() {
    let volume = stopped(12);
    volume.snapshot(None).unwrap();
    let whole = fs::read(volume.path("file")).unwrap();
    let mut reader = SnapshotReader::open(&volume.path("file")).unwrap();
    let mut pieces = Vec::new();
    while let Some(piece) = reader.next_piece().unwrap() {
        pieces.push(piece);
    }
    let part = volume.path("part");
    for place in (0..=whole.len()).step_by(whole.len() / 53) {
        fs::write(&part, &whole[..place]).unwrap();
        let Some((manifest, mut writer)) = SnapshotWriter::resume(&part).unwrap() else { continue };
        assert_eq!(&manifest, reader.manifest());
        for piece in pieces.iter().skip(usize::try_from(writer.pieces()).unwrap()) {
            writer.piece(piece).unwrap();
        }
        writer.finish().unwrap();
        assert!(fs::read(&part).unwrap() == whole, "cut at {place}");
    }
}

#[test]
fn old_files_of_blocks_are_removed_and_the_newest_one_never() {
    let folder = tempfile::tempdir().unwrap();
    let mut node = Node::open(folder.path(), &genesis("pruning-test"));
    node.blocks.limit_files(10);
    node.run_to(95);
    let all = node.blocks.reader().read_range(Height::new(1), usize::MAX, usize::MAX).unwrap();
    assert_eq!(all.len(), 95);
    node.blocks.prune_below(Height::new(50)).unwrap();
    let kept = |node: &Node| {
        let reader = node.blocks.reader();
        let first = reader.first_height().unwrap();
        assert_eq!(reader.read(Height::new(first.get() - 1)).unwrap(), None);
        (first.get(), reader.read_range(first, usize::MAX, usize::MAX).unwrap())
    };
    let (first, blocks) = kept(&node);
    assert!((41..=50).contains(&first), "block 50 stays, and no whole file below it: {first}");
    assert_eq!(blocks, all[usize::try_from(first).unwrap() - 1..]);
    drop(node);
    let mut node = Node::open(folder.path(), &genesis("pruning-test"));
    assert_eq!(kept(&node), (first, blocks));
    node.run_to(96);
    node.blocks.prune_below(Height::new(1_000)).unwrap();
    let (first, blocks) = kept(&node);
    assert_eq!((first + blocks.len() as u64, node.blocks.last_height()), (97, Some(Height::new(96))));
    node.prover().prove(Height::new(94)).unwrap();
}
