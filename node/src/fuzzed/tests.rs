//! Replays the committed inputs of every target, mutated too, in a process of its own whose memory is watched.

use std::{
    env, fs,
    process::{Command, Stdio},
};

use super::{Target, mutated, seeds, targets};

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
