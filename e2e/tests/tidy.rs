//! Layout and import rules of the repository, checked with nothing but the standard library.
//!
//! Each rule is a function from a file (path and text) to complaints; `bad_samples_are_refused` shows that every rule
//! can fail.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const LINES_MAX: usize = 500;

/// One source file as the rules see it.
struct Source {
    path: String,
    text: String,
}

/// Which workspace crates a crate may depend on.
const CRATES: &[(&str, &[&str])] = &[
    ("crds", &[]),
    ("node/core", &[]),
    ("node/api", &["node-core"]),
    ("operator", &["althing-crds", "node-api"]),
    ("node", &["node-core", "node-api"]),
    ("e2e", &["althing-crds", "node-core", "node-api", "althing-node", "althing-operator", "althing-cluster"]),
    ("e2e/cluster", &[]),
];

const OURS: &[&str] =
    &["althing-crds", "node-core", "node-api", "althing-node", "althing-operator", "althing-cluster", "althing-e2e"];

/// Inside a crate: files below the prefix never name the paths on the right.
const FORBIDDEN_NAMES: &[(&str, &[&str])] = &[
    ("node/core/src/types/", &["crate::ledger", "crate::consensus", "crate::mempool", "crate::session"]),
    ("node/core/src/codec/", &["crate::ledger", "crate::consensus", "crate::mempool", "crate::session"]),
    ("node/core/src/crypto/", &["crate::ledger", "crate::consensus", "crate::mempool", "crate::session"]),
    ("node/core/src/ledger/", &["crate::consensus", "crate::mempool", "crate::session"]),
    ("node/core/src/mempool/", &["crate::consensus", "crate::session"]),
    ("node/core/src/light/", &["crate::ledger", "crate::consensus", "crate::mempool", "crate::session"]),
    ("node/core/src/events/", &["crate::consensus", "crate::mempool", "crate::session"]),
    ("node/core/src/session/", &["crate::consensus", "crate::mempool", "crate::ledger"]),
    ("node/src/adapters/", &["crate::services", "crate::commands"]),
    ("node/src/services/", &["crate::commands"]),
    ("node/src/shell/", &["crate::commands", "crate::gateway"]),
    ("node/src/gateway/", &["crate::commands", "crate::shell", "crate::services", "crate::adapters"]),
    ("operator/src/parts/", &["crate::network", "crate::group", "crate::validator", "crate::apply", "crate::chain"]),
    ("operator/src/validator/", &["crate::network", "crate::group::"]),
    ("operator/src/group/", &["crate::network"]),
];

/// Words that a pure file never contains.
const IMPURE: &[&str] =
    &[".await", "async fn", "::now()", "kube::Client", "std::thread", "tokio::", "std::fs::", "std::net::", "rand::"];

fn is_pure(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    path.starts_with("node/core/src/")
        || path.starts_with("node/src/gateway/rules/")
        || path.starts_with("node/src/adapters/p2p/rules/")
        || path.starts_with("operator/src/parts/")
        || path == "operator/src/budget/mod.rs"
        || path == "operator/src/group/rollout/mod.rs"
        || (path.starts_with("operator/src/")
            && (name.starts_with("desired") || name == "validate.rs" || name == "status.rs"))
}

/// The code of a file without its comments and without its unit tests.
fn code_only(text: &str) -> String {
    let production = text.split("#[cfg(test)]").next().unwrap_or(text);
    production.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

fn opens_with_a_sentence(file: &Source) -> Vec<String> {
    let first = file.text.lines().next().unwrap_or("");
    if first.starts_with("//! ") { vec![] } else { vec![format!("{}: does not open with a `//!` sentence", file.path)] }
}

fn is_short_enough(file: &Source) -> Vec<String> {
    let lines = file.text.lines().count();
    if lines <= LINES_MAX { vec![] } else { vec![format!("{}: {lines} lines, at most {LINES_MAX}", file.path)] }
}

fn has_a_telling_name(file: &Source) -> Vec<String> {
    ["utils", "util", "helpers", "misc", "common"]
        .iter()
        .filter(|word| file.path.split(['/', '.']).any(|part| part == **word))
        .map(|word| format!("{}: `{word}` says nothing about what is inside", file.path))
        .collect()
}

fn stays_pure(file: &Source) -> Vec<String> {
    if !is_pure(&file.path) {
        return vec![];
    }
    let code = code_only(&file.text);
    IMPURE
        .iter()
        .filter(|word| code.contains(**word))
        .map(|word| format!("{}: a pure file names `{word}`", file.path))
        .collect()
}

fn names_only_what_it_may(file: &Source) -> Vec<String> {
    let code = code_only(&file.text);
    FORBIDDEN_NAMES
        .iter()
        .filter(|(prefix, _)| file.path.starts_with(prefix))
        .flat_map(|(_, words)| words.iter())
        .filter(|word| code.contains(**word))
        .map(|word| format!("{}: may not name `{word}`", file.path))
        .collect()
}

fn has_no_stub(file: &Source) -> Vec<String> {
    if file.path == "e2e/tests/tidy.rs" {
        return vec![];
    }
    ["todo!(", "unimplemented!(", "#[ignore", "assert!(true)"]
        .iter()
        .filter(|word| file.text.contains(**word))
        .map(|word| format!("{}: stub or skipped test `{word}`", file.path))
        .collect()
}

fn tests_do_not_sleep(file: &Source) -> Vec<String> {
    if !file.path.contains("tests") || file.path == "e2e/tests/tidy.rs" {
        return vec![];
    }
    ["thread::sleep", "time::sleep"]
        .iter()
        .filter(|word| file.text.contains(**word))
        .map(|word| format!("{}: a test waits with `{word}`", file.path))
        .collect()
}

/// A rule's complaints about a file.
type Rule = fn(&Source) -> Vec<String>;

const RULES: &[Rule] = &[
    opens_with_a_sentence,
    is_short_enough,
    has_a_telling_name,
    stays_pure,
    names_only_what_it_may,
    has_no_stub,
    tests_do_not_sleep,
];

/// Workspace crates that a manifest depends on without being allowed to.
fn depends_only_on_what_it_may(folder: &str, manifest: &str) -> Vec<String> {
    let allowed = CRATES.iter().find(|(name, _)| *name == folder).map_or(&[] as &[&str], |(_, allowed)| allowed);
    let mut section = String::new();
    let mut complaints = vec![];
    for line in manifest.lines() {
        if line.starts_with('[') {
            section = line.trim_matches(['[', ']']).to_string();
        }
        let name = line.split(['.', ' ', '=']).next().unwrap_or("");
        if section == "dependencies" && OURS.contains(&name) && !allowed.contains(&name) {
            complaints.push(format!("{folder}/Cargo.toml: may not depend on {name}"));
        }
    }
    complaints
}

fn root() -> PathBuf {
    let output = Command::new("git").args(["rev-parse", "--show-toplevel"]).output().expect("git runs");
    PathBuf::from(String::from_utf8(output.stdout).expect("path is UTF-8").trim())
}

fn files(pattern: &str) -> Vec<String> {
    let output = Command::new("git")
        .current_dir(root())
        .args(["ls-files", "--cached", "--others", "--exclude-standard", "--", pattern])
        .output()
        .expect("git runs");
    let listed = String::from_utf8(output.stdout).expect("paths are UTF-8");
    listed.lines().filter(|path| root().join(path).exists()).map(str::to_string).collect()
}

fn read(root: &Path, path: &str) -> Source {
    let text = fs::read_to_string(root.join(path)).expect("a listed file is readable UTF-8");
    Source { path: path.to_string(), text }
}

#[test]
fn every_source_file_follows_the_rules() {
    let root = root();
    let paths = files("*.rs");
    assert!(paths.len() > 10, "found only {} source files", paths.len());
    let complaints: Vec<String> = paths
        .iter()
        .map(|path| read(&root, path))
        .flat_map(|file| RULES.iter().flat_map(|rule| rule(&file)).collect::<Vec<_>>())
        .collect();
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

/// The reasons of conditions, from `crds/src/reasons.rs`, that a person may have to act upon.
fn alarming_reasons(text: &str) -> Vec<String> {
    const ALARMING: &[&str] = &[
        "PodNotRunning",
        "PodFailing",
        "QuorumLost",
        "BlocksStopped",
        "NotStarted",
        "ChainUnknown",
        "NoMarginLeft",
        "CoLocated",
        "SingleVoter",
        "CatchingUp",
        "Unreachable",
        "VotesMissing",
        "WaitingForGrant",
        "StartingTiers",
        "RollingAuthority",
        "AwaitingConfirmation",
        "AwaitingIssuer",
        "StepFailed",
        "NotAVoter",
    ];
    let stalls = text.lines().filter_map(|line| line.trim().strip_suffix(" = stalls,"));
    stalls.chain(ALARMING.iter().copied()).map(str::to_string).collect()
}

#[test]
fn every_alarming_reason_has_a_runbook() {
    let root = root();
    let books: String = files("docs/runbooks/*.md").iter().map(|path| read(&root, path).text).collect();
    let reasons = alarming_reasons(&read(&root, "crds/src/reasons.rs").text);
    assert!(reasons.len() > 30, "found only {} reasons", reasons.len());
    let missing: Vec<&String> =
        reasons.iter().filter(|reason| !books.lines().any(|line| line == format!("## {reason}"))).collect();
    assert!(missing.is_empty(), "docs/runbooks has no section for {missing:?}");
}

#[test]
fn every_crate_depends_only_on_what_it_may() {
    let root = root();
    let complaints: Vec<String> = CRATES
        .iter()
        .flat_map(|(folder, _)| depends_only_on_what_it_may(folder, &read(&root, &format!("{folder}/Cargo.toml")).text))
        .collect();
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

#[test]
fn documents_name_only_files_that_exist() {
    let root = root();
    let tracked = files("*");
    let mut complaints = vec![];
    for document in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"] {
        for word in read(&root, document).text.split('`').skip(1).step_by(2) {
            let is_path = word.contains('/') || word.ends_with(".rs") || word.ends_with(".md");
            let is_plain = word.chars().all(|letter| letter.is_ascii_alphanumeric() || "._-/".contains(letter));
            let is_ours = ["crds/", "operator/", "node/", "charts/", "examples/", "e2e/", "docs/", "tools/"]
                .iter()
                .any(|folder| word.starts_with(folder));
            if is_path
                && is_plain
                && is_ours
                && !tracked.iter().any(|path| path.starts_with(word.trim_end_matches('/')))
            {
                complaints.push(format!("{document}: names `{word}`, which does not exist"));
            }
        }
    }
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

#[test]
fn bad_samples_are_refused() {
    let file = |path: &str, text: &str| Source { path: path.to_string(), text: text.to_string() };
    let samples: &[(Source, Rule)] = &[
        (file("node/src/a.rs", "fn a() {}"), opens_with_a_sentence),
        (file("node/src/a.rs", &"\n".repeat(LINES_MAX + 1)), is_short_enough),
        (file("node/src/utils.rs", ""), has_a_telling_name),
        (file("node/core/src/ledger/a.rs", "let t = Instant::now();"), stays_pure),
        (file("operator/src/group/desired.rs", "client.get().await"), stays_pure),
        (file("node/core/src/ledger/a.rs", "use crate::consensus::Engine;"), names_only_what_it_may),
        (file("node/src/a.rs", "todo!()"), has_no_stub),
        (file("node/tests/a.rs", "thread::sleep(second)"), tests_do_not_sleep),
    ];
    for (sample, rule) in samples {
        assert!(!rule(sample).is_empty(), "the rule accepts {}: {}", sample.path, sample.text);
    }
    assert!(!depends_only_on_what_it_may("operator", "[dependencies]\nalthing-node.workspace = true").is_empty());
    assert!(depends_only_on_what_it_may("operator", "[dependencies]\nnode-api.workspace = true").is_empty());
}
