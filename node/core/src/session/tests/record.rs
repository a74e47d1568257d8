//! The record: never two different bytes for one step, never backwards.

use std::collections::BTreeMap;

use crate::{
    codec::{Decode, Encode},
    fixtures::Dice,
    session::{RecordEntry, RecordError, Sighting, SigningRecord, Slot},
    types::{Height, Round, Step},
};

fn slot(height: u64, round: u32, step: Step) -> Slot {
    Slot { height: Height::new(height), round: Round::new(round), step }
}

fn entry(height: u64, round: u32, step: Step, bytes: &str) -> RecordEntry {
    RecordEntry::new(slot(height, round, step), bytes.as_bytes())
}

fn record(entries: &[RecordEntry]) -> SigningRecord {
    let mut record = SigningRecord::new();
    for entry in entries {
        record.add(*entry).unwrap();
    }
    record
}

#[test]
fn steps_go_forward() {
    let mut record = SigningRecord::new();
    assert_eq!(record.last(), None);
    for (height, round, step) in [
        (1, 0, Step::Propose),
        (1, 0, Step::Prevote),
        (1, 0, Step::Precommit),
        (1, 3, Step::Prevote),
        (2, 0, Step::Precommit),
        (9, 0, Step::Prevote),
    ] {
        record.add(entry(height, round, step, "bytes")).unwrap();
        assert_eq!(record.last(), Some(slot(height, round, step)));
    }
}

#[test]
fn other_bytes_for_a_signed_step_are_refused() {
    let record = record(&[entry(1, 0, Step::Prevote, "a"), entry(1, 0, Step::Precommit, "b")]);
    for step in [Step::Prevote, Step::Precommit] {
        let refusal = record.check(&entry(1, 0, step, "other")).unwrap_err();
        assert_eq!(refusal, RecordError::OtherBytes { slot: slot(1, 0, step) });
    }
}

/// A core that is rebuilt from the log says the same again.
#[test]
fn equal_bytes_are_allowed_again_within_the_height() {
    let mut record = record(&[entry(1, 0, Step::Prevote, "a"), entry(1, 1, Step::Prevote, "b")]);
    let before = record.clone();
    record.add(entry(1, 0, Step::Prevote, "a")).unwrap();
    assert_eq!(record, before);
}

#[test]
fn a_step_that_was_passed_over_is_refused() {
    let record = record(&[entry(1, 0, Step::Prevote, "a"), entry(2, 1, Step::Prevote, "b")]);
    for (height, round, step) in [(2, 1, Step::Propose), (2, 0, Step::Precommit), (1, 0, Step::Precommit)] {
        let refusal = record.check(&entry(height, round, step, "c")).unwrap_err();
        assert_eq!(refusal, RecordError::Passed { slot: slot(height, round, step) });
    }
}

#[test]
fn a_lower_height_is_refused_even_with_equal_bytes() {
    let record = record(&[entry(1, 0, Step::Prevote, "a"), entry(2, 0, Step::Prevote, "b")]);
    assert!(record.check(&entry(1, 0, Step::Prevote, "a")).is_err());
}

#[test]
fn a_foreign_signature_is_told_from_an_own_one() {
    let record = record(&[
        entry(1, 5, Step::Precommit, "old"),
        entry(2, 0, Step::Prevote, "a"),
        entry(2, 1, Step::Prevote, "b"),
    ]);
    for (height, round, step, bytes, expected) in [
        (2, 0, Step::Prevote, "a", Sighting::Recorded),
        (2, 0, Step::Prevote, "other", Sighting::NotRecorded),
        (2, 0, Step::Propose, "c", Sighting::NotRecorded),
        (2, 0, Step::Precommit, "c", Sighting::NotRecorded),
        (3, 0, Step::Prevote, "c", Sighting::NotRecorded),
        (1, 5, Step::Precommit, "old", Sighting::TooOld),
        (1, 0, Step::Prevote, "c", Sighting::TooOld),
    ] {
        assert_eq!(record.sighting(&entry(height, round, step, bytes)), expected, "{height} {round} {step:?} {bytes}");
    }
    assert_eq!(SigningRecord::new().sighting(&entry(1, 0, Step::Prevote, "a")), Sighting::NotRecorded);
}

#[test]
fn the_record_is_bounded_and_what_it_forgets_stays_refused() {
    let mut record = SigningRecord::new();
    for round in 0..2_000 {
        record.add(entry(1, round, Step::Prevote, "nil")).unwrap();
    }
    assert!(record.encode().len() < 1_024 * 64);
    assert!(record.check(&entry(1, 1_999, Step::Prevote, "nil")).is_ok());
    assert!(record.check(&entry(1, 0, Step::Prevote, "nil")).is_err());
    assert_eq!(record.sighting(&entry(1, 0, Step::Prevote, "nil")), Sighting::TooOld);
    assert_eq!(SigningRecord::decode(&record.encode()), Ok(record));
}

/// Crashes at any point, replays of what was written, random demands: no step ever gets two different bytes.
#[test]
fn no_step_ever_gets_two_different_bytes() {
    for seed in 0..200 {
        let mut dice = Dice::new(seed);
        let mut record = SigningRecord::new();
        let mut signed: BTreeMap<Slot, RecordEntry> = BTreeMap::new();
        for _ in 0..200 {
            let steps = [Step::Propose, Step::Prevote, Step::Precommit];
            let step = steps[usize::try_from(dice.below(3)).unwrap()];
            let round = u32::try_from(dice.below(3)).unwrap();
            let demand = entry(1 + dice.below(6), round, step, ["x", "y"][usize::try_from(dice.below(2)).unwrap()]);
            if record.add(demand).is_ok() {
                let first = signed.entry(demand.slot).or_insert(demand);
                assert_eq!(*first, demand, "seed {seed}");
                assert!(signed.keys().all(|slot| slot.height <= record.last().unwrap().height), "seed {seed}");
            }
            if dice.below(10) == 0 {
                record = SigningRecord::decode(&record.encode()).unwrap();
            }
        }
    }
}
