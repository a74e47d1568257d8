//! Simulated networks keep the rules whatever goes wrong, and every checker of a rule notices when it is broken.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a simulation stops where a rule is broken"
)]

mod sim;

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use node_core::{consensus::Faults, ledger::LedgerFaults};
use sim::{
    checks::Violation,
    clocks::Clocks,
    counts::Counts,
    every_effect::{CrashPoint, EveryEffect, KINDS},
    plan::{Action, Plan, SCENARIOS},
    world::{Ending, World},
};

/// How many seeds run by default.
const SEEDS: u64 = 1_000;

/// How many long histories run.
const LONG_SEEDS: u64 = 50;

/// Repeats one long history.
const REPEAT_LONG: &str =
    "cargo test -p node-core --profile ci --test simulation -- --nocapture simulation_stands_long_histories";

/// Repeats one crash after a durable effect.
const REPEAT_CRASH: &str = "cargo test -p node-core --profile ci --test simulation -- --nocapture \
                            simulation_stands_a_crash_after_every_durable_effect";

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok().filter(|text| !text.is_empty());
    text.map(|text| text.parse().unwrap_or_else(|_| panic!("{variable} must be a number")))
}

fn repeat(seed: u64) -> String {
    format!(
        "ALTHING_SIM_SEED={seed} cargo test -p node-core --profile ci --test simulation -- --nocapture simulation_keeps_the_rules"
    )
}

fn run(seed: u64) -> Ending {
    World::new(seed, Plan::of(seed), Faults::default()).run()
}

/// Runs every number of a range once, on all cores.
fn on_all_cores(numbers: std::ops::Range<u64>, work: impl Fn(u64) + Sync) {
    let next = AtomicU64::new(numbers.start);
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= numbers.end {
                        break;
                    }
                    work(number);
                }
            });
        }
    });
}

#[test]
fn simulation_keeps_the_rules() {
    if let Some(seed) = number("ALTHING_SIM_SEED") {
        let plan = Plan::of(seed);
        println!("seed {seed}: {plan:#?}");
        let ending = run(seed);
        println!("{}", ending.counts.report());
        assert_eq!(ending.violation, None, "seed {seed} ({})\n{}", plan.name, repeat(seed));
        return;
    }
    let seeds = number("ALTHING_SIM_SEEDS").unwrap_or(SEEDS);
    let counts = Mutex::new(Counts::default());
    let failures = Mutex::new(BTreeMap::new());
    on_all_cores(0..seeds, |seed| {
        let ending = run(seed);
        counts.lock().unwrap().merge(&ending.counts);
        if let Some(violation) = ending.violation {
            failures.lock().unwrap().insert(seed, violation);
        }
    });
    let counts = counts.into_inner().unwrap();
    println!("{seeds} seeds, {SCENARIOS} scenarios; rare: {:?}\n{}", counts.rare(), counts.report());
    let failures = failures.into_inner().unwrap();
    for (seed, violation) in &failures {
        println!("seed {seed} ({}): {violation:?}\n  {}", Plan::of(*seed).name, repeat(*seed));
    }
    assert!(failures.is_empty(), "{} of {seeds} seeds broke a rule", failures.len());
    assert_eq!(counts.missing(), Vec::<&str>::new(), "these never happened");
}

/// Troubles one after the other: what one of them leaves behind meets the next.
#[test]
fn simulation_stands_long_histories() {
    let run = |seed| World::new(seed, Plan::long(&mut dice(seed)), Faults::default()).run();
    if let Some(seed) = number("ALTHING_SIM_LONG_SEED") {
        let ending = run(seed);
        println!("long seed {seed}: {:#?}\n{}", Plan::long(&mut dice(seed)), ending.counts.report());
        assert_eq!(ending.violation, None, "long seed {seed}");
        return;
    }
    let counts = Mutex::new(Counts::default());
    let failures = Mutex::new(BTreeMap::new());
    on_all_cores(0..LONG_SEEDS, |seed| {
        let ending = run(seed);
        counts.lock().unwrap().merge(&ending.counts);
        if let Some(violation) = ending.violation {
            failures.lock().unwrap().insert(seed, violation);
        }
    });
    println!("{LONG_SEEDS} long seeds\n{}", counts.into_inner().unwrap().report());
    let failures = failures.into_inner().unwrap();
    for (seed, violation) in &failures {
        println!("long seed {seed}: {violation:?}\n  ALTHING_SIM_LONG_SEED={seed} {}", REPEAT_LONG);
    }
    assert!(failures.is_empty(), "{} of {LONG_SEEDS} long seeds broke a rule", failures.len());
}

/// A voter that was away takes a state that the chain proves, whoever of its peers lies, and signs on with its old key.
#[test]
fn simulation_takes_only_states_that_the_chain_proves() {
    let counts = Mutex::new(Counts::default());
    on_all_cores(0..40, |seed| {
        let ending = World::new(seed, Plan::absence(&mut dice(seed)), Faults::default()).run();
        assert_eq!(ending.violation, None, "seed {seed}");
        counts.lock().unwrap().merge(&ending.counts);
    });
    let counts = counts.into_inner().unwrap();
    for what in ["states taken from peers", "states refused", "lies about a state"] {
        assert!(counts.of(what) > 0, "{what} never happened\n{}", counts.report());
    }
}

#[test]
fn simulation_notices_a_state_that_is_not_checked() {
    caught(
        Faults::default(),
        |seed| Plan { manifest_ignored: true, ..Plan::absence(&mut dice(seed)) },
        |violation| matches!(violation, Violation::SyncedOtherVoters(_)),
    );
}

/// A seed in which a voter that was cut off executes the last block before a recovery only when it is back.
#[test]
fn simulation_lets_those_who_return_execute_what_was_final_before_a_recovery() {
    let plan = Plan { delay_ms: (1, 200), ..Plan::recovery(&mut dice(59)) };
    let ending = World::new(59, plan, Faults::default()).run();
    assert_eq!(ending.violation, None);
    assert!(ending.counts.of("blocks executed after a recovery that stands on them") > 0, "nobody came late");
}

fn crashed_at(crash: Option<CrashPoint>) -> Ending {
    World::new(1, Plan::every_effect(&mut dice(1)), Faults::default()).with_crash_at(crash).run()
}

/// No rule is broken, and the volume is not taken for one that was rolled back: a crash costs nobody a key.
fn is_harmless(ending: &Ending) -> bool {
    ending.violation.is_none() && ending.counts.of("tripwires touched") == 0
}

/// What the victim does if nothing goes wrong.
fn whole_history() -> EveryEffect {
    let ending = crashed_at(None);
    assert_eq!(ending.violation, None);
    let whole = ending.every_effect.unwrap();
    for kind in KINDS {
        assert!(whole.seen.iter().any(|(seen, _)| *seen == kind), "the history has no {kind}");
    }
    for what in ["rotations that count", "powers changed", "transactions durable", "keys retired"] {
        assert!(ending.counts.of(what) > 0, "{what} never happened\n{}", ending.counts.report());
    }
    whole
}

/// Whatever the last thing was that reached the disk, a node goes on from there, says nothing else than before, and signs
/// again in the end.
#[test]
fn simulation_stands_a_crash_after_every_durable_effect() {
    if let Ok(text) = std::env::var("ALTHING_SIM_CRASH") {
        let (after, kept) = text.split_once(':').expect("ALTHING_SIM_CRASH is effect:kept");
        let crash = CrashPoint { after: after.parse().unwrap(), kept: kept.parse().unwrap() };
        let ending = crashed_at(Some(crash));
        assert!(is_harmless(&ending), "{crash:?}: {:?}\n{}", ending.violation, ending.counts.report());
        return;
    }
    let points = whole_history().points();
    let failures = Mutex::new(BTreeMap::new());
    on_all_cores(0..points.len() as u64, |index| {
        let crash = points[usize::try_from(index).unwrap()];
        let ending = crashed_at(Some(crash));
        // What comes before the crash is the same in all of them.
        let kind = ending.every_effect.as_ref().unwrap().seen.get(crash.after - 1).copied();
        if !is_harmless(&ending) || kind.is_none() {
            failures.lock().unwrap().insert(crash, (kind, ending.violation));
        }
    });
    let failures = failures.into_inner().unwrap();
    println!("{} crash points, {} failures", points.len(), failures.len());
    for (CrashPoint { after, kept }, found) in &failures {
        println!("{found:?}\n  ALTHING_SIM_CRASH={after}:{kept} {REPEAT_CRASH}");
    }
    assert!(failures.is_empty(), "{} of {} crash points broke a rule", failures.len(), points.len());
}

#[test]
fn simulation_notices_a_log_that_is_replaced_in_two_steps() {
    let points = whole_history().points();
    let costs_the_key = |crash: &&CrashPoint| {
        let plan = Plan { reset_in_two_steps: true, ..Plan::every_effect(&mut dice(1)) };
        !is_harmless(&World::new(1, plan, Faults::default()).with_crash_at(Some(**crash)).run())
    };
    let noticed = points.iter().take(50).any(|crash| costs_the_key(&crash));
    assert!(noticed, "no crash met a log without its first entry");
}

#[test]
fn simulation_repeats_itself() {
    on_all_cores(0..SCENARIOS, |seed| {
        let traces: Vec<_> =
            (0..2).map(|_| World::new(seed, Plan::of(seed), Faults::default()).traced().run().trace.unwrap()).collect();
        assert_eq!(traces[0], traces[1], "two runs of seed {seed} differ");
    });
}

/// The first violation among some seeds of an engine that breaks a rule.
fn caught(faults: Faults, plan: impl Fn(u64) -> Plan + Sync, expected: impl Fn(&Violation) -> bool + Sync) {
    caught_in(faults, LedgerFaults::default(), plan, expected);
}

fn caught_in(
    faults: Faults,
    ledger: LedgerFaults,
    plan: impl Fn(u64) -> Plan + Sync,
    expected: impl Fn(&Violation) -> bool + Sync,
) {
    let found = Mutex::new(BTreeMap::new());
    on_all_cores(0..60, |seed| {
        if found.lock().unwrap().values().any(&expected) {
            return;
        }
        let world = World::new(seed, plan(seed), faults).with_ledger_faults(ledger);
        if let Some(violation) = world.run().violation {
            found.lock().unwrap().insert(seed, violation);
        }
    });
    let found = found.into_inner().unwrap();
    let first = found.iter().find(|(_, violation)| expected(violation));
    println!("{faults:?} {ledger:?}: {first:?}");
    assert!(first.is_some(), "60 seeds did not notice {faults:?} {ledger:?}; they found {found:?}");
}

fn dice(seed: u64) -> sim::dice::Dice {
    sim::dice::Dice::new(seed)
}

#[test]
fn simulation_notices_a_log_that_is_not_flushed() {
    let faults = Faults { log_not_flushed: true, ..Faults::default() };
    caught(faults, |seed| Plan::crashes(&mut dice(seed)), |violation| matches!(violation, Violation::NotDurable(_)));
}

#[test]
fn simulation_notices_a_batch_that_is_acknowledged_before_it_is_durable() {
    let faults = Faults { acknowledged_early: true, ..Faults::default() };
    caught(
        faults,
        |seed| Plan::withheld_batches(&mut dice(seed)),
        |violation| matches!(violation, Violation::AcknowledgedEarly(_)),
    );
}

#[test]
fn simulation_notices_a_promise_of_one_disk_alone() {
    let faults = Faults { durable_alone: true, ..Faults::default() };
    caught(
        faults,
        |seed| {
            // What a client brings to a node that is cut off is nowhere else when its volume is gone.
            let actions = vec![(1_000, Action::Isolate(1)), (4_500, Action::LoseVolume(1))];
            Plan { actions, ..Plan::lost_volume(&mut dice(seed)) }
        },
        |violation| matches!(violation, Violation::Lost(_)),
    );
}

#[test]
fn simulation_notices_a_block_from_the_future() {
    let faults = Faults { time_unchecked: true, ..Faults::default() };
    caught(
        faults,
        |seed| {
            let clocks = Clocks { far: Some((seed % 4, 3_600_000)), ..Clocks::GOOD };
            Plan { clocks, ..Plan::clocks_differ(&mut dice(seed)) }
        },
        |violation| matches!(violation, Violation::TimeAhead(_)),
    );
}

/// A block is locked that one voter found too early, and another voter of the quorum is gone for good.
#[test]
fn simulation_goes_on_where_a_locked_block_was_too_early() {
    on_all_cores(0..80, |seed| {
        let mut plan = Plan { clocks: Clocks::WIDE, ..Plan::storms(&mut dice(seed)) };
        plan.chaos_ms = 4_000;
        plan.actions.retain(|(at, _)| *at < plan.chaos_ms);
        plan.actions.push((plan.chaos_ms, Action::Kill(seed % 4)));
        assert_eq!(World::new(seed, plan, Faults::default()).run().violation, None, "seed {seed}");
    });
}

#[test]
fn simulation_notices_a_block_that_is_not_after_the_one_before() {
    let faults = Faults { time_unchecked: true, ..Faults::default() };
    caught(
        faults,
        |seed| Plan { clocks: Clocks::WIDE, ..Plan::clocks_differ(&mut dice(seed)) },
        |violation| matches!(violation, Violation::TimeNotAfterParent(_)),
    );
}

#[test]
fn simulation_notices_a_node_that_goes_on_with_another_state() {
    let faults = Faults { results_unchecked: true, ..Faults::default() };
    caught(
        faults,
        |seed| Plan::execution_differs(&mut dice(seed)),
        |violation| matches!(violation, Violation::WentOnDiffering(_)),
    );
}

#[test]
fn simulation_notices_a_block_on_a_state_that_too_few_computed() {
    let faults = Faults { results_unchecked: true, ..Faults::default() };
    caught(
        faults,
        |seed| Plan::execution_differs(&mut dice(seed)),
        |violation| matches!(violation, Violation::MovedWithoutQuorum(_)),
    );
}

#[test]
fn simulation_notices_a_change_that_one_governor_of_three_signed() {
    let ledger = LedgerFaults { one_governor_enough: true, ..LedgerFaults::default() };
    caught_in(
        Faults::default(),
        ledger,
        |seed| Plan::members_change(&mut dice(seed)),
        |violation| matches!(violation, Violation::Unauthorised(_)),
    );
}

#[test]
fn simulation_notices_locks_that_are_ignored() {
    let faults = Faults { lock_ignored: true, ..Faults::default() };
    caught(
        faults,
        |seed| Plan::storms(&mut dice(seed)),
        |violation| matches!(violation, Violation::Fork(_) | Violation::Halted(_)),
    );
}

#[test]
fn simulation_notices_a_quorum_of_one_third() {
    let faults = Faults { quorum_of_one_third: true, ..Faults::default() };
    caught(
        faults,
        |seed| Plan::partitions(&mut dice(seed)),
        |violation| matches!(violation, Violation::Fork(_) | Violation::BadCertificate(_)),
    );
}

#[test]
fn simulation_notices_an_old_session_key_in_use() {
    let faults = Faults { old_key_kept: true, ..Faults::default() };
    caught(
        faults,
        |seed| Plan::copy_beside_the_living(&mut dice(seed)),
        |violation| matches!(violation, Violation::TwoKeys(_) | Violation::OtherKey(_) | Violation::TwoSigners(_)),
    );
}

#[test]
fn simulation_notices_a_record_that_is_ignored() {
    let faults = Faults { record_ignored: true, replay_skipped: true, ..Faults::default() };
    caught(
        faults,
        |seed| Plan { always_same_boot: true, ..Plan::crashes(&mut dice(seed)) },
        |violation| matches!(violation, Violation::Equivocation(_)),
    );
}

#[test]
fn simulation_notices_voters_that_change_at_once() {
    let faults = Faults { changes_count_at_once: true, ..Faults::default() };
    caught(
        faults,
        |seed| Plan::members_change(&mut dice(seed)),
        |violation| {
            let voters = matches!(violation, Violation::OtherKey(_) | Violation::BadCertificate(_));
            voters || matches!(violation, Violation::Halted(reason) if reason.contains("voters of height"))
        },
    );
}

#[test]
fn simulation_notices_too_much_power_moved_at_once() {
    let ledger = LedgerFaults { voter_bound_ignored: true, ..LedgerFaults::default() };
    caught_in(
        Faults::default(),
        ledger,
        |seed| Plan::members_change(&mut dice(seed)),
        |violation| matches!(violation, Violation::TooMuchPowerMoved(_)),
    );
}

#[test]
fn simulation_notices_a_session_key_that_comes_back() {
    let ledger = LedgerFaults { used_keys_forgotten: true, ..LedgerFaults::default() };
    caught_in(
        Faults::default(),
        ledger,
        |seed| Plan::members_change(&mut dice(seed)),
        |violation| matches!(violation, Violation::KeyCameBack(_)),
    );
}

#[test]
fn simulation_notices_a_tripwire_that_is_ignored() {
    caught(
        Faults::default(),
        |seed| Plan { tripwire_ignored: true, always_same_boot: true, ..Plan::rolled_back(&mut dice(seed)) },
        |violation| matches!(violation, Violation::Equivocation(_)),
    );
}

#[test]
fn simulation_notices_a_forged_set_that_a_light_client_believes() {
    caught(
        Faults::default(),
        |seed| Plan { forgers: 3, ..Plan::silent_leaders(&mut dice(seed)) },
        |violation| matches!(violation, Violation::ForgedSetBelieved(_)),
    );
}

#[test]
fn simulation_notices_objections_that_are_ignored() {
    let ledger = LedgerFaults { objections_ignored: true, ..LedgerFaults::default() };
    caught_in(
        Faults::default(),
        ledger,
        |seed| Plan::copy_beside_the_living(&mut dice(seed)),
        |violation| matches!(violation, Violation::Displaced(_)),
    );
}

#[test]
fn simulation_notices_an_abstention_that_never_ends() {
    caught(
        Faults::default(),
        |seed| Plan { abstains_for_good: true, ..Plan::one_abstains_and_another_dies(&mut dice(seed)) },
        |violation| matches!(violation, Violation::Stuck(_)),
    );
}

#[test]
fn simulation_notices_a_signature_for_the_incarnation_that_ends() {
    let faults = Faults { old_incarnation_kept: true, ..Faults::default() };
    caught(
        faults,
        |seed| Plan::recovery(&mut dice(seed)),
        |violation| matches!(violation, Violation::OldIncarnation(_)),
    );
}

#[test]
fn simulation_without_a_replay_is_safe_by_the_record_alone() {
    let faults = Faults { replay_skipped: true, ..Faults::default() };
    on_all_cores(0..12, |seed| {
        let plan = Plan { always_same_boot: true, ..Plan::crashes(&mut dice(seed)) };
        let violation = World::new(seed, plan, faults).run().violation;
        // The signer refuses, the node says so, and nothing contradicting leaves.
        let refused = violation.as_ref().is_none_or(|violation| matches!(violation, Violation::Failed(_)));
        assert!(refused, "seed {seed}: {violation:?}");
    });
}
