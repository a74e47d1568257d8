//! What kstatus and an Argo CD health check say of every state that the operator can put into a status: the objects and
//! the expected words are its golden files, `operator/testdata/status/`.
//!
//! `ALTHING_JUDGE` is the path of the program that runs both; the cluster tool builds it (`cluster build --print judge`).

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The words of kstatus and Argo CD for an object.
fn judge(object: &Value) -> Value {
    let program = std::env::var("ALTHING_JUDGE").expect("ALTHING_JUDGE is set");
    let mut child = Command::new(&program)
        .arg(root().join("docs/argocd/health.lua"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("ALTHING_JUDGE can be run");
    let mut input = child.stdin.take().expect("piped");
    input.write_all(object.to_string().as_bytes()).expect("it reads");
    drop(input);
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{program} failed on {object}");
    let said: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    json!({ "kstatus": said.get("kstatus"), "argocd": said.get("argocd") })
}

/// Every golden file: path, verdict and object.
fn golden() -> BTreeMap<PathBuf, Value> {
    let folder = root().join("operator/testdata/status");
    let files = fs::read_dir(&folder).expect("the golden files are there");
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).expect("readable");
        (path, serde_yaml::from_str(&text).expect("YAML"))
    };
    files.map(|entry| read(entry.expect("readable").path())).collect()
}

#[test]
fn kstatus_and_argo_cd_say_of_every_state_what_stands_beside_it() {
    let golden = golden();
    assert!(golden.len() > 50, "found only {} states", golden.len());
    let mut wrong = Vec::new();
    for (path, state) in golden {
        let found = judge(&state["object"]);
        if std::env::var_os("ALTHING_BLESS").is_some() {
            let text = serde_yaml::to_string(&json!({ "verdict": found, "object": state["object"] })).expect("YAML");
            fs::write(&path, text).expect("writable");
        } else if found != state["verdict"] {
            wrong.push(format!("{}: {found} instead of {}", path.display(), state["verdict"]));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// What no verdict may be, whatever the golden files say: these four rules are why the conditions are as they are.
#[test]
fn nothing_that_is_not_carried_out_or_stands_still_is_called_done() {
    for (path, state) in golden() {
        let says = |kind: &str, value: &str| {
            let all = state["object"]["status"]["conditions"].as_array().into_iter().flatten();
            all.clone().any(|condition| condition["type"] == kind && condition["status"] == value)
        };
        let (kstatus, argocd) = (&state["verdict"]["kstatus"], &state["verdict"]["argocd"]);
        let path = path.display();
        if says("Stalled", "True") {
            assert_eq!((kstatus, argocd), (&json!("Failed"), &json!("Degraded")), "{path}: a person must help");
        }
        if says("Reconciling", "True") {
            assert_ne!(kstatus, &json!("Current"), "{path}: it is still changing");
        }
        if !says("Ready", "True") {
            assert_ne!(kstatus, &json!("Current"), "{path}: it is not ready");
            assert_ne!(argocd, &json!("Healthy"), "{path}: it is not ready");
        }
        if says("Available", "False") || says("Available", "Unknown") {
            assert_ne!(argocd, &json!("Healthy"), "{path}: its chain stands or is not known");
        }
    }
}
