//! Programs of others that the gateway is tried with: `tools/companion` has them ready in the cache.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::timeout,
};

use crate::harness::STEP_TIME_MAX;

/// The folder in the cache of one of them.
pub async fn folder(name: &str) -> PathBuf {
    let tool = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tools/companion");
    let output = Command::new(tool).arg(name).stderr(Stdio::inherit()).output().await.expect("tools/companion runs");
    assert!(output.status.success(), "there is no {name}");
    PathBuf::from(String::from_utf8(output.stdout).expect("text").trim())
}

/// Where files that they use lie in the checkout.
pub fn source(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/companions").join(path)
}

/// A process that takes orders, one a line, and answers each with a line. It ends with this value.
pub struct Companion {
    _process: Child,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Companion {
    pub fn start(command: &mut Command) -> Self {
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut process = piped.spawn().expect("the program starts");
        let orders = process.stdin.take().expect("its input");
        let answers = BufReader::new(process.stdout.take().expect("its output")).lines();
        Self { _process: process, orders, answers }
    }

    pub async fn answer(&mut self) -> String {
        let line = timeout(STEP_TIME_MAX, self.answers.next_line()).await.expect("an answer in time");
        line.expect("an answer").expect("the program goes on")
    }

    pub async fn order(&mut self, order: &str) -> String {
        self.orders.write_all(format!("{order}\n").as_bytes()).await.expect("takes orders");
        self.answer().await
    }
}
