//! `althing-node devnet`: a network of real validators on this machine, for development.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use node_api::config::LogLevel;
use node_core::types::{ChainId, ParametersDraft};
use tokio::signal::unix::{SignalKind, signal};

use super::CommandError;
use crate::devnet::{
    Devnet, accounts,
    plan::{Plan, PlanRequest},
    ports,
};

/// Voters that a machine can reasonably carry.
const VALIDATORS_MAX: u16 = 32;
const OBSERVERS_MAX: u16 = 8;
/// How often the processes are looked at.
const LOOK: Duration = Duration::from_millis(200);

/// Options of a development network.
#[derive(Args, Debug)]
pub struct Arguments {
    /// Number of validators: 1, or 4 and more to survive the loss of one.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=i64::from(VALIDATORS_MAX)))]
    validators: u16,
    /// Number of observers, which follow the chain and never vote.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=i64::from(OBSERVERS_MAX)))]
    observers: u16,
    /// Number of validators that are not in genesis: they follow the chain until `tx governance add` votes them in.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=i64::from(OBSERVERS_MAX)))]
    candidates: u16,
    /// Directory for keys, certificates and data; must not hold a network yet. Without it a temporary directory is
    /// used, and removed at the end.
    #[arg(long)]
    data: Option<PathBuf>,
    /// First of three ports for each validator. Without it free ports are chosen.
    #[arg(long)]
    port_base: Option<u16>,
    /// Stop after this many seconds; without it, on Ctrl-C or SIGTERM.
    #[arg(long, value_name = "SECONDS")]
    duration: Option<u64>,
    /// Name of the chain.
    #[arg(long, default_value = "devnet")]
    chain_id: ChainId,
    /// Time between the blocks of an idle chain, in milliseconds.
    #[arg(long, default_value_t = 1000)]
    block_interval_ms: u64,
}

/// Makes the network, and runs it until it is told to stop.
pub async fn run(arguments: Arguments) -> Result<(), CommandError> {
    let Arguments { validators, observers, candidates, data, port_base, duration, chain_id, block_interval_ms } =
        arguments;
    let temporary = if data.is_none() { Some(TemporaryDirectory::new()?) } else { None };
    let directory = data.or_else(|| temporary.as_ref().map(|temporary| temporary.path.clone())).unwrap_or_default();
    let directory = std::path::absolute(&directory)
        .map_err(|error| CommandError::internal(format!("failed to resolve {}", directory.display()), error))?;
    let chosen = match port_base {
        Some(base) => ports::from_base(base, validators + candidates + observers),
        None => ports::free(validators + candidates + observers),
    };
    let ports = chosen.map_err(|error| CommandError::internal("failed to choose ports", error))?;
    let binary =
        std::env::current_exe().map_err(|error| CommandError::internal("failed to find this program's file", error))?;
    let (observers, candidates) = (usize::from(observers), usize::from(candidates));
    let directory_of_plan = directory.clone();
    let log_level = LogLevel::Info;
    let request = PlanRequest { directory: directory_of_plan, chain_id, ports, observers, candidates, log_level };
    let failed = |error| CommandError::internal("the development network failed", error);
    let mut devnet = Devnet::create(binary, &request).map_err(failed)?;
    let parameters = ParametersDraft { block_interval_ms, ..ParametersDraft::default() };
    let genesis = devnet.start_chain(parameters).await.map_err(failed)?;
    write_summary(&directory, devnet.plan(), &genesis.hash().to_string())?;
    describe(&directory, devnet.plan(), &genesis.hash().to_string());
    let ended = run_until_stop(&mut devnet, duration).await?;
    devnet.stop().await.map_err(failed)?;
    match ended {
        None => Ok(()),
        Some(number) => {
            let log = directory.join(format!("node-{number}/log.jsonl"));
            if let Some(temporary) = temporary {
                temporary.keep();
            }
            let step = format!("node {number} ended by itself, see {}", log.display());
            Err(CommandError::Internal { step, source: None })
        }
    }
}

/// Ends with the number of a node that ended by itself, or nothing when it is time to stop.
async fn run_until_stop(devnet: &mut Devnet, duration: Option<u64>) -> Result<Option<usize>, CommandError> {
    let listen = |kind| signal(kind).map_err(|error| CommandError::internal("failed to listen for signals", error));
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    let mut looks = tokio::time::interval(LOOK);
    let time_up = async {
        match duration {
            Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(time_up);
    let all = devnet.plan().nodes.len();
    let mut known = Vec::new();
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok(None),
            _ = interrupt.recv() => return Ok(None),
            () = &mut time_up => return Ok(None),
            _ = looks.tick() => {}
        }
        // A node that somebody killed on purpose is no reason to stop: the others must go on.
        for number in devnet.ended() {
            if !known.contains(&number) {
                println!("node {number} has ended");
                known.push(number);
            }
        }
        if known.len() == all {
            return Ok(known.first().copied());
        }
    }
}

fn describe(directory: &std::path::Path, plan: &Plan, genesis: &str) {
    println!("chain {} is running, genesis {genesis}", plan.chain_id);
    for (number, node) in plan.nodes.iter().enumerate() {
        let listen = node.listen;
        println!(
            "  node {number} ({:?}): gRPC {}  http://{}/metrics  log {}",
            node.role,
            listen.grpc,
            listen.http,
            node.log.display()
        );
    }
    let endpoint = plan.nodes.first().map(|node| node.listen.grpc.to_string()).unwrap_or_default();
    println!("development accounts (their keys are public knowledge): {}", plan.accounts.display());
    println!("look at it:   althing-node status --endpoint {endpoint} --tls {}", plan.client.display());
    println!(
        "send from it: althing-node tx send --endpoint {endpoint} --tls {} --key {} --to {} --amount 1",
        plan.client.display(),
        plan.accounts.join("0.pem").display(),
        accounts::account(1)
    );
    println!("governance (its key is public knowledge): {}", plan.governance.display());
    println!("files: {}; stop with Ctrl-C", directory.display());
}

fn write_summary(directory: &std::path::Path, plan: &Plan, genesis: &str) -> Result<(), CommandError> {
    let nodes: Vec<_> = plan
        .nodes
        .iter()
        .map(|node| {
            serde_json::json!({
                "identity": node.identity.to_string(),
                "grpc": node.listen.grpc,
                "http": node.listen.http,
                "p2p": node.listen.p2p,
                "config": node.config,
            })
        })
        .collect();
    let summary = serde_json::json!({
        "chainId": plan.chain_id.to_string(),
        "genesis": genesis,
        "client": plan.client,
        "operator": plan.operator,
        "accounts": plan.accounts,
        "governance": plan.governance,
        "nodes": nodes,
    });
    let path = directory.join("devnet.json");
    std::fs::write(&path, format!("{summary:#}\n"))
        .map_err(|error| CommandError::internal(format!("failed to write {}", path.display()), error))
}

/// Removed with this value.
#[derive(Debug)]
struct TemporaryDirectory {
    path: PathBuf,
}

impl TemporaryDirectory {
    fn new() -> Result<Self, CommandError> {
        let path = std::env::temp_dir().join(format!("althing-devnet-{}", std::process::id()));
        std::fs::create_dir(&path)
            .map_err(|error| CommandError::internal(format!("failed to make {}", path.display()), error))?;
        Ok(Self { path })
    }

    /// Leaves it in place, for somebody to look at.
    fn keep(mut self) {
        self.path = PathBuf::new();
    }
}

impl Drop for TemporaryDirectory {
    fn drop(&mut self) {
        if !self.path.as_os_str().is_empty() {
            // Nothing can be done about leftovers in a temporary directory.
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}
