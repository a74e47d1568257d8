//! The command line as a person or a script uses it: what it prints, and the exit code that it ends with.

#![expect(clippy::indexing_slicing, clippy::panic, reason = "a test may fail anywhere")]

use std::{
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::Duration,
};

use althing_node::devnet::{Devnet, accounts, plan::PlanRequest, ports};
use node_api::config::LogLevel;
use node_core::types::ParametersDraft;
use serde_json::Value;
use tempfile::TempDir;
use tokio::{io::AsyncWriteExt, process::Command, time::interval};

const GENESIS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/api/testdata/genesis.json");
const GENESIS_HASH: &str = include_str!("../api/testdata/genesis.hash");
/// How often a node that is starting is asked.
const POLL: Duration = Duration::from_millis(50);
const POLLS_MAX: usize = 1200;

fn program() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_althing-node"))
}

/// What the program answered.
struct Answer {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Answer {
    fn json(&self) -> Value {
        assert_eq!(self.code, 0, "{}", self.stderr);
        serde_json::from_str(&self.stdout).expect("one JSON document")
    }
}

impl From<Output> for Answer {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().expect("ends by itself"),
            stdout: String::from_utf8(output.stdout).expect("text"),
            stderr: String::from_utf8(output.stderr).expect("text"),
        }
    }
}

async fn run<S: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = S>) -> Answer {
    Command::new(program()).args(arguments).stdin(Stdio::null()).output().await.expect("the program runs").into()
}

async fn run_words(line: &str) -> Answer {
    run(line.split_whitespace()).await
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of text")
}

#[tokio::test]
async fn keygen_makes_a_key_once_and_shows_it() {
    let directory = TempDir::new().expect("a directory");
    let file = directory.path().join("account.pem");
    let made = run(["keygen", text(&file)]).await;
    assert_eq!((made.code, made.stdout.len()), (0, 65), "{}", made.stderr);
    let shown = run(["keygen", "--show", "--output", "json", text(&file)]).await.json();
    assert_eq!(shown["publicKey"], made.stdout.trim());
    let again = run(["keygen", text(&file)]).await;
    assert_eq!(again.code, 3);
    assert_eq!(
        again.stderr,
        format!(
            "althing-node: failed to make a key: failed to write the key {}: File exists (os error 17)\n",
            file.display()
        )
    );
}

#[tokio::test]
async fn a_key_goes_to_cometbft_and_comes_back() {
    let directory = TempDir::new().expect("a directory");
    let file = |name: &str| directory.path().join(name);
    let (made, comet, back) = (file("identity.pem"), file("priv_validator_key.json"), file("back.pem"));
    let public = run(["keygen", text(&made)]).await.stdout;
    let exported = run(["keygen", "export", text(&made), text(&comet)]).await;
    assert_eq!((exported.code, &exported.stdout), (0, &public), "{}", exported.stderr);
    let imported = run(["keygen", "import", "--output", "json", text(&comet), text(&back)]).await.json();
    assert_eq!(imported["publicKey"], public.trim());
    let read = |path: &Path| std::fs::read_to_string(path).expect("reads");
    assert_eq!(read(&made), read(&back));
    let again = run(["keygen", "import", text(&comet), text(&back)]).await;
    assert_eq!(again.code, 3, "an existing key is never replaced");
    let wrong = run(["keygen", "import", text(&made), text(&file("none.pem"))]).await;
    assert_eq!(wrong.code, 3);
    assert!(wrong.stderr.contains("not a priv_validator_key.json"), "{}", wrong.stderr);
}

#[tokio::test]
async fn genesis_is_shown_and_hashed_and_a_changed_one_is_refused() {
    let hash = run(["genesis", "hash", GENESIS]).await;
    assert_eq!((hash.code, hash.stdout.as_str()), (0, GENESIS_HASH));
    let shown = run(["genesis", "show", "--output", "json", GENESIS]).await.json();
    assert_eq!((shown["hash"].as_str(), shown["chainId"].as_str()), (Some(GENESIS_HASH.trim()), Some("demo-main")));

    let mut piped = Command::new(program())
        .args(["genesis", "hash", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    let changed = std::fs::read_to_string(GENESIS).expect("reads").replace("\"power\": 10", "\"power\": 0");
    let mut stdin = piped.stdin.take().expect("a pipe");
    stdin.write_all(changed.as_bytes()).await.expect("written");
    drop(stdin);
    let answer = Answer::from(piped.wait_with_output().await.expect("ends"));
    assert_eq!(answer.code, 3);
    assert!(answer.stderr.starts_with("althing-node: failed to read a genesis from -: "), "{}", answer.stderr);
}

#[tokio::test]
async fn mistakes_end_with_their_exit_codes() {
    assert_eq!(run_words("tx send").await.code, 2);
    assert_eq!(run_words("status --tls /nowhere").await.code, 3);
    let no_folder = run_words("snapshot create --data /nowhere /nowhere/file").await;
    assert_eq!(no_folder.code, 4, "{}", no_folder.stderr);
    let no_snapshot = run(["snapshot", "verify", "--genesis", GENESIS, GENESIS]).await;
    assert_eq!(no_snapshot.code, 7, "{}", no_snapshot.stderr);
    assert!(no_snapshot.stderr.contains("it is no snapshot"), "{}", no_snapshot.stderr);
    let no_genesis = run_words("snapshot verify --genesis /nowhere /nowhere/file").await;
    assert_eq!(no_genesis.code, 3, "{}", no_genesis.stderr);
    let missing = run_words("config check /nowhere/node.yaml").await;
    assert_eq!(missing.code, 3);
    assert_eq!(
        missing.stderr,
        "althing-node: /nowhere/node.yaml is not usable: failed to read the configuration /nowhere/node.yaml: \
         No such file or directory (os error 2)\n"
    );
}

#[tokio::test]
async fn help_teaches_every_command_with_examples_and_exit_codes() {
    let genesis_and_snapshots =
        ["genesis show", "genesis hash", "snapshot create", "snapshot verify", "snapshot restore"];
    let others = ["keygen", "tx send", "tx status", "status", "checkpoint", "config check"];
    for command in others.into_iter().chain(genesis_and_snapshots) {
        let help = run_words(&format!("{command} --help")).await;
        assert_eq!(help.code, 0);
        assert!(help.stdout.contains("Example"), "{command}: {}", help.stdout);
        assert!(help.stdout.contains("Exit codes:"), "{command}: {}", help.stdout);
    }
}

/// A single voter, ready to take transactions.
struct Network {
    devnet: Devnet,
    endpoint: String,
    tls: PathBuf,
    _directory: TempDir,
}

impl Network {
    async fn start() -> Self {
        let directory = TempDir::new().expect("a directory");
        let request = PlanRequest {
            directory: directory.path().to_owned(),
            chain_id: "devnet".parse().expect("a chain id"),
            ports: ports::free(1).expect("free ports"),
            candidates: 0,
            observers: 0,
            log_level: LogLevel::Info,
        };
        let mut devnet = Devnet::create(program(), &request).expect("the process starts");
        let parameters = ParametersDraft { block_interval_ms: 100, ..ParametersDraft::default() };
        devnet.start_chain(parameters).await.expect("the ceremony succeeds");
        let endpoint = devnet.plan().nodes[0].listen.grpc.to_string();
        let tls = devnet.plan().client.clone();
        let network = Self { devnet, endpoint, tls, _directory: directory };
        let mut ticks = interval(POLL);
        for _ in 0..POLLS_MAX {
            ticks.tick().await;
            let status = network.ask("status --output json").await;
            if status.code == 0 && status.json()["signingEnabled"] == true {
                return network;
            }
        }
        panic!("the voter does not sign");
    }

    /// Runs a client command against the node.
    async fn ask(&self, line: &str) -> Answer {
        let connection = ["--endpoint", &self.endpoint, "--tls", text(&self.tls)];
        run(line.split_whitespace().chain(connection)).await
    }
}

#[tokio::test]
async fn transactions_are_sent_followed_and_refused_against_a_running_node() {
    let network = Network::start().await;
    let key = network.devnet.plan().accounts.join("0.pem");
    let send = format!("tx send --output json --key {} --to {}", text(&key), accounts::account(1));

    let sent = network.ask(&format!("{send} --amount 5 --count 3")).await.json();
    let sent = sent["transactions"].as_array().expect("a list");
    assert_eq!(sent.iter().map(|transaction| &transaction["status"]).collect::<Vec<_>>(), ["executed"; 3]);
    let id = sent[0]["id"].as_str().expect("an id");
    let status = network.ask(&format!("tx status --output json {id}")).await.json();
    assert_eq!(status, sent[0]);

    let told = network.ask(&format!("tx status {id}")).await;
    assert_eq!(told.stdout, format!("{id} executed at height {}, index {}\n", sent[0]["height"], sent[0]["index"]));

    let used = network.ask(&format!("{send} --amount 1 --nonce 0")).await;
    assert_eq!(used.code, 6, "{}{}", used.stdout, used.stderr);
    let too_much = network.ask(&format!("{send} --amount {}", u64::MAX)).await;
    assert_eq!(too_much.code, 6, "{}{}", too_much.stdout, too_much.stderr);
    let unknown = network.ask(&format!("tx status {}", "ab".repeat(32))).await;
    assert_eq!(unknown.code, 6);
    assert_eq!(unknown.stdout, format!("{} unknown\n", "ab".repeat(32)));

    let other = network.ask(&format!("status --expect {}", "ab".repeat(32))).await;
    assert_eq!(other.code, 5);
    assert!(other.stderr.contains("the peer is spiffe://devnet/validator/"), "{}", other.stderr);
    let validators = network.ask("status --validators --output json").await.json();
    assert_eq!(validators["validators"]["totalPower"], validators["validators"]["voters"][0]["power"]);

    let config = text(&network.devnet.plan().nodes[0].config).to_owned();
    let checked = run(["config", "check", "--output", "json", &config]).await.json();
    assert_eq!(checked["identity"], network.devnet.plan().nodes[0].identity.to_string());

    let mut network = network;
    network.devnet.stop_node(0).await.expect("the node stops");
    assert_eq!(network.ask("status --timeout 1").await.code, 5);
}
