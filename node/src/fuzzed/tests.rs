//! Replays the committed inputs of every target, mutated too, in a process of its own whose memory is watched.

use std::{
    env, fs,
    path::Path,
    process::{Command, Stdio},
};

use node_api::{governance::TransactionDocument, recovery::RecoveryDocument};
use node_core::{
    codec::Decode as _,
    ledger::{StateKey, StateStore as _},
    sync::{PieceKind, StateManifest, StatePiece, piece},
    types::{AccountId, Height, Recovery, StateRoots, Transaction},
};

use super::{Target, mutated, seeds, targets};
use crate::adapters::storage::{QmdbStore, RecoveryStore, SnapshotWriter, verify_piece};

/// Mutations of all inputs of one target together. A bound on work and not on time: the same on every machine.
const MUTATIONS: u64 = 6_000;
/// Targets whose every input is written to a file.
const MUTATIONS_OF_FILES: u64 = 600;
/// How much more memory one target may take than what was there before it. Inputs have some KiB.
const GROWTH_KIB_MAX: u64 = 24 << 10;
/// Far more than a replay takes anywhere.
const SECONDS_MAX: &str = "600";
/// Tells the process that is watched from the one that started it.
const WATCHED: &str = "ALTHING_FUZZ_REPLAY";
const OWN_NAME: &str = "fuzzed::tests::no_input_breaks_a_decoder_or_takes_much_memory";

#[test]
fn no_input_breaks_a_decoder_or_takes_much_memory() {
    if env::var_os(WATCHED).is_some() {
        return targets().for_each(replay);
    }
    let program = env::current_exe().unwrap();
    let mut command = Command::new("timeout");
    command.arg(SECONDS_MAX).arg(program).args(["--exact", OWN_NAME, "--nocapture", "--test-threads=1"]);
    let output = command.env(WATCHED, "1").stdin(Stdio::null()).output().unwrap();
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}: {said}\n{errors}", output.status);
    assert!(said.contains("1 passed"), "the test has another name: {said}");
}

fn replay(target: &Target) {
    let inputs = seeds(target).unwrap();
    assert!(!inputs.is_empty(), "{} has no inputs", target.name);
    let of_file = target.name.ends_with("-file");
    let mutations = if of_file { MUTATIONS_OF_FILES } else { MUTATIONS } / inputs.len() as u64;
    // The peak begins anew with what is there now.
    fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = memory_kib("VmRSS");
    println!("{}: {} inputs", target.name, inputs.len());
    mutated(&inputs, mutations, target.run);
    let growth = memory_kib("VmHWM").saturating_sub(before);
    assert!(growth < GROWTH_KIB_MAX, "{} took {growth} KiB", target.name);
}

fn memory_kib(field: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim_matches([':', ' ', '\t', 'k', 'B']).parse().unwrap()
}

#[test]
fn every_target_has_a_name_of_its_own_and_every_folder_a_target() {
    let mut names: Vec<&str> = targets().map(|target| target.name).collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
    for entry in fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/fuzz")).unwrap() {
        let name = entry.unwrap().file_name();
        assert!(names.iter().any(|known| *known == name), "{name:?} belongs to no target");
    }
}

#[test]
fn a_count_of_all_ones_in_any_message_is_refused() {
    let message = targets().find(|target| target.name == "message").unwrap();
    // Transactions, blocks, batches, acknowledgements: a tag, and a count of all ones.
    for tag in 0..=255 {
        (message.run)(&[&[tag][..], &[0xff; 64]].concat());
    }
}

/// Compares committed inputs with what this build writes; with ALTHING_BLESS set, writes them.
#[test]
fn inputs_that_only_a_program_can_make_are_what_it_makes() {
    let folder = tempfile::tempdir().unwrap();
    let frozen = |name: &str| {
        let target = Target { name: "none", frozen: "", run: |_| {} };
        let found = seeds(&Target { frozen: Box::leak(name.to_owned().into_boxed_str()), ..target }).unwrap();
        found.into_iter().next().unwrap()
    };
    let recovery = Recovery::decode(&frozen("recovery")).unwrap();
    same("recovery-document/frozen.json", RecoveryDocument::new(&recovery).to_json().as_bytes());
    for change in ["add-voter", "set-parameters", "set-keys"] {
        let transaction = Transaction::decode(&frozen(&format!("transaction-{change}"))).unwrap();
        let document = TransactionDocument::new(&transaction).unwrap().to_json();
        same(&format!("transaction-document/{change}.json"), document.as_bytes());
    }
    let recoveries = RecoveryStore::open(&folder.path().join("recovery")).unwrap();
    recoveries.set_complete(vec![recovery]).unwrap();
    let sealed = fs::read(folder.path().join("recovery/complete")).unwrap();
    same("complete-recoveries-file/frozen.bin", &sealed[16..]);
    let (roots, pieces) = state_pieces(&folder.path().join("state"));
    for (number, (wanted, bytes)) in pieces.iter().enumerate() {
        let kind = u8::from(wanted.kind == PieceKind::Operations);
        let place = [wanted.size, wanted.start, wanted.count].map(u64::to_be_bytes).concat();
        let input = [&place[..], &[kind], roots.operations_root.as_bytes(), bytes].concat();
        same(&format!("state-piece/{number}.bin"), &input);
    }
    let path = folder.path().join("snapshot");
    let manifest = StateManifest::decode(&frozen("state-manifest")).unwrap();
    let mut writer = SnapshotWriter::create(&path, &manifest).unwrap();
    writer.piece(b"first piece").unwrap();
    same("snapshot-file/interrupted.bin", &fs::read(&path).unwrap());
    writer.piece(b"second piece").unwrap();
    writer.finish().unwrap();
    same("snapshot-file/whole.bin", &fs::read(&path).unwrap());
}

/// The operations of a state of a few entries, in one piece, and a part of them as a piece of its own.
fn state_pieces(folder: &Path) -> (StateRoots, Vec<(StatePiece, Vec<u8>)>) {
    let mut store = QmdbStore::open(folder).unwrap();
    let key = |number: u8| StateKey::account(&AccountId::new([number; 32]));
    let writes = (1..6).map(|number| (key(number), Some(vec![number; 9]))).collect();
    store.commit(Height::new(0), writes).unwrap();
    let writes = [(key(2), Some(vec![9])), (key(3), None)].into_iter().collect();
    let roots = store.commit(Height::new(1), writes).unwrap();
    let whole = piece(&roots.operations_range, 0).unwrap();
    let part = StatePiece { count: 3, start: whole.start + 1, ..whole };
    let boundary = StatePiece { count: 1, start: whole.start + 2, kind: PieceKind::Boundary, ..whole };
    let pieces = [whole, part, boundary].map(|wanted| {
        let bytes = store.run(move |local| local.piece(&wanted)).unwrap().unwrap();
        assert_eq!(verify_piece(&wanted, &roots.operations_root, &bytes), Ok(()));
        (wanted, bytes)
    });
    (roots, pieces.into())
}

fn same(name: &str, made: &[u8]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/fuzz").join(name);
    if env::var_os("ALTHING_BLESS").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, made).unwrap();
    }
    assert!(fs::read(&path).is_ok_and(|found| found == made), "{name} differs: ALTHING_BLESS=1 writes it");
}
