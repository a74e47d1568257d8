//! A short measurement of four real processes: everything that leaves becomes final, and the report says what is amiss.

use std::process::Command;

use serde_json::Value;

#[test]
fn a_short_measurement_finds_every_transaction_final_on_all_nodes() {
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let out = directory.path().join("report/node.json");
    let status = Command::new(env!("CARGO_BIN_EXE_althing-node"))
        .args(["bench", "--accounts", "40", "--rates", "100", "--warm-up", "1", "--run", "2"])
        .arg("--data")
        .arg(directory.path().join("network"))
        .arg("--out")
        .arg(&out)
        .status()
        .expect("the program runs");
    assert!(status.success(), "{status}");
    let text = std::fs::read_to_string(&out).expect("the report is written");
    let report: Value = serde_json::from_str(&text).expect("the report is JSON");
    let trial = report.pointer("/trials/0").expect("there is one trial");
    let number = |name: &str| trial.get(name).and_then(Value::as_u64).unwrap_or(u64::MAX);
    assert_eq!((number("offered"), number("finalised")), (300, 300), "{trial}");
    assert_eq!((number("refused"), number("blocks_with_failures")), (0, 0), "{trial}");
    assert!(trial.get("finality_p50_ms").is_some_and(Value::is_f64), "{trial}");
    // The tests are no release build, and the report does not pass it over.
    let remarks = report.get("not_comparable").and_then(Value::as_array).expect("there is a list");
    assert!(remarks.iter().any(|remark| remark.as_str().is_some_and(|text| text.contains("release"))), "{report}");
}
