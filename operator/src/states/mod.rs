//! Every state of the three kinds, and the whole object as its status says it, compared with `testdata/status/`. What
//! kstatus and Argo CD say of each object stands beside it and is checked by `e2e/tests/verdicts.rs`.

mod groups;
mod networks;
mod nodes;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use althing_crds::Reason;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

/// Name of a state and the object in it.
type State = (&'static str, Value);

fn now() -> Time {
    Time("2026-01-01T01:00:00Z".parse().expect("a time"))
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/status")
}

fn states() -> Vec<(String, Value)> {
    let all = [("node", nodes::states()), ("group", groups::states()), ("network", networks::states())];
    let named = |(kind, states): (&str, Vec<State>)| -> Vec<(String, Value)> {
        states.into_iter().map(|(name, object)| (format!("{kind}-{name}.yaml"), object)).collect()
    };
    all.into_iter().flat_map(named).collect()
}

#[test]
fn every_state_is_said_as_its_file_says() {
    let states = states();
    let names: BTreeSet<String> = states.iter().map(|(name, _)| name.clone()).collect();
    assert_eq!(names.len(), states.len(), "two states have one name");
    let is_blessed = std::env::var_os("ALTHING_BLESS").is_some();
    for (name, object) in &states {
        let path = folder().join(name);
        let kept = fs::read_to_string(&path).ok().and_then(|text| serde_yaml::from_str::<Value>(&text).ok());
        if is_blessed {
            let unjudged = json!({ "kstatus": "unjudged", "argocd": "unjudged" });
            let verdict = kept.as_ref().and_then(|kept| kept.get("verdict")).cloned().unwrap_or(unjudged);
            let text = serde_yaml::to_string(&json!({ "verdict": verdict, "object": object })).expect("YAML");
            fs::create_dir_all(folder()).expect("writable");
            fs::write(&path, text).expect("writable");
            continue;
        }
        let expected = kept.as_ref().and_then(|kept| kept.get("object"));
        assert_eq!(Some(object), expected, "{name} differs: ALTHING_BLESS=1 cargo test -p althing-operator states");
    }
    let found = fs::read_dir(folder()).expect("it is there");
    let found = found.map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned());
    assert_eq!(found.collect::<BTreeSet<_>>(), names, "files without a state, or the other way round");
}

/// Refusals go one way: what is refused is said in the words of the refusal. Some of them are among the states.
fn is_refusal(reason: Reason) -> bool {
    let made_by_status = [
        Reason::SignersWaiting,
        Reason::IdentityContested,
        Reason::NodeHalted,
        Reason::RetainedDataMismatch,
        Reason::DrainBlocked,
        Reason::ChildStalled,
    ];
    reason.stalls() && !made_by_status.contains(&reason)
}

#[test]
fn every_reason_that_a_status_finds_is_in_a_state() {
    let mut said = BTreeSet::new();
    for (_, object) in states() {
        for condition in object.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten() {
            said.insert(condition.get("reason").and_then(Value::as_str).unwrap_or_default().to_string());
        }
    }
    let found = Reason::ALL.iter().filter(|reason| !is_refusal(**reason));
    let missing: Vec<&Reason> = found.filter(|reason| !said.contains(reason.as_str())).collect();
    assert!(missing.is_empty(), "no state shows {missing:?}");
}
