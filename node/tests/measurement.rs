//! Short measurements of four real processes: everything that leaves becomes final, also while one of them is killed, and
//! the report says what is amiss.

use std::process::Command;

use serde_json::Value;

/// The report of a measurement with these options.
fn measure(options: &[&str]) -> Value {
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let out = directory.path().join("report/node.json");
    let status = Command::new(env!("CARGO_BIN_EXE_althing-node"))
        .args(["bench", "--accounts", "40"])
        .args(options)
        .arg("--data")
        .arg(directory.path().join("network"))
        .arg("--out")
        .arg(&out)
        .status()
        .expect("the program runs");
    assert!(status.success(), "{status}");
    let text = std::fs::read_to_string(&out).expect("the report is written");
    serde_json::from_str(&text).expect("the report is JSON")
}

fn number(of: &Value, name: &str) -> u64 {
    of.get(name).and_then(Value::as_u64).unwrap_or(u64::MAX)
}

#[test]
fn a_short_measurement_finds_every_transaction_final_on_all_nodes() {
    let report = measure(&["--rates", "100", "--warm-up", "1", "--run", "2"]);
    let trial = report.pointer("/trials/0").expect("there is one trial");
    assert_eq!((number(trial, "offered"), number(trial, "finalised")), (300, 300), "{trial}");
    for none in ["refused", "repeated", "deferred", "blocks_with_failures"] {
        assert_eq!(number(trial, none), 0, "{none} in {trial}");
    }
    assert!(trial.get("finality_p50_ms").is_some_and(Value::is_f64), "{trial}");
    // The tests are no release build, and the report does not pass it over.
    let remarks = report.get("not_comparable").and_then(Value::as_array).expect("there is a list");
    assert!(remarks.iter().any(|remark| remark.as_str().is_some_and(|text| text.contains("release"))), "{report}");
}

#[test]
fn a_node_that_is_killed_under_load_comes_back_and_nothing_acknowledged_is_missing() {
    let report = measure(&["--kill", "100", "--away", "2", "--warm-up", "2", "--run", "8"]);
    let loss = report.get("at_kill").expect("there is the trial");
    assert_eq!((number(loss, "offered"), number(loss, "acknowledged_lost")), (1_000, 0), "{loss}");
    assert_eq!(number(loss, "finalised"), 1_000, "{loss}");
    assert_eq!(loss.get("equal"), Some(&Value::Bool(true)), "{loss}");
    // What the killed node had sent to the others and the generator sends again is in two blocks; nothing else fails.
    assert_eq!((number(loss, "refused"), number(loss, "blocks_with_failures")), (0, 0), "{loss}");
    assert!(number(loss, "repeated") <= number(loss, "resent") + number(loss, "resent_acknowledged"), "{loss}");
    // The steps of the return, in their order.
    let (opened, first_block) = (number(loss, "opened_ms"), number(loss, "first_block_ms"));
    assert!(opened <= number(loss, "connected_ms") && opened <= first_block, "{loss}");
    assert!(first_block <= number(loss, "synced_ms") && number(loss, "cleared_ms") < 60_000, "{loss}");
    assert!(number(loss, "catch_up_ms") < 60_000 && number(loss, "longest_gap_ms") < 60_000, "{loss}");
}
