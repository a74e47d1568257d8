//! `althing-node recover`: lets a chain go on after more voters than may fail have lost their session keys for good.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use node_api::{
    client::Client,
    fields, keys,
    recovery::{DOCUMENT_BYTES_MAX, RecoveryDocument, collect, with_acceptance, with_approval},
};
use node_core::types::{GovernanceKey, Recovery};

use super::{
    CommandError,
    connection::{Connection, failed},
    input, output,
};

const EXAMPLES: &str = "\
When more voters than may fail have lost their volumes, nobody can decide a block, and no key can be rotated in. A recovery
manifest names the last block and a fresh session key for every voter; its hash becomes part of every signature, so nothing
that was signed before counts any more.

  1. Make sure that the old processes of the lost voters have really ended: a manifest cannot tell.
  2. Start the lost voters on empty volumes with the chain's genesis (althing-node validator --genesis genesis.json), and
     wait until all nodes hold the same last block (althing-node status).
  3. Ask every voter, with a certificate of role operator:
     althing-node recover collect --tls operator --endpoint A:7200 --node B:7200 --node C:7200 > manifest.json
  4. Each keeper of a governance key compares height, block and voters with what he knows, and signs:
     althing-node recover sign --key gov-1.pem manifest.json > signed.json
  5. Look at it:   althing-node recover check --tls client --endpoint A:7200 signed.json
  6. Apply it everywhere: althing-node recover apply --tls operator --endpoint A:7200 --node B:7200 --node C:7200 signed.json
     Every node signs that it goes on with this manifest and no other of its number, and ends; start them again. Keep what
     it prints: applied to a node that comes later, it only tells that node.

Exit codes: 0 done, 3 a key, certificate or document cannot be used, 5 no answer, 6 refused.";

/// Collect, sign, check or apply a recovery manifest.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Ask all nodes for their last block and a fresh session key, and make the manifest.
    Collect(Nodes),
    /// Add the approval of a governance key. Needs no connection.
    Sign(Sign),
    /// Say what is still missing. Changes nothing.
    Check(Check),
    /// Have the manifest accepted by all nodes, and let them go on with it.
    Apply(Apply),
}

/// The nodes that are asked.
#[derive(Args, Debug)]
struct Nodes {
    #[command(flatten)]
    connection: Connection,
    /// gRPC address of another node. Repeated for each.
    #[arg(long, value_name = "HOST:PORT")]
    node: Vec<String>,
}

#[derive(Args, Debug)]
struct Sign {
    /// Key file of the governance key. May be repeated.
    #[arg(long, required = true, value_name = "FILE")]
    key: Vec<PathBuf>,
    /// The manifest, from `recover collect`; `-` reads standard input.
    file: PathBuf,
}

#[derive(Args, Debug)]
struct Check {
    #[command(flatten)]
    connection: Connection,
    /// The manifest; `-` reads standard input.
    file: PathBuf,
}

#[derive(Args, Debug)]
struct Apply {
    #[command(flatten)]
    nodes: Nodes,
    /// The signed manifest; `-` reads standard input.
    file: PathBuf,
}

/// Runs one step.
pub async fn run(arguments: Arguments) -> Result<(), CommandError> {
    match arguments.command {
        Command::Collect(nodes) => run_collect(&nodes).await,
        Command::Sign(sign) => run_sign(&sign),
        Command::Check(check) => run_check(&check).await,
        Command::Apply(apply) => run_apply(&apply).await,
    }
}

impl Nodes {
    async fn open(&self) -> Result<Vec<Client>, CommandError> {
        let mut clients = vec![self.connection.open().await?];
        for endpoint in &self.node {
            let connection = Connection { endpoint: endpoint.clone(), expect: None, ..self.connection.clone() };
            clients.push(connection.open().await?);
        }
        Ok(clients)
    }
}

async fn run_collect(nodes: &Nodes) -> Result<(), CommandError> {
    let mut reports = Vec::new();
    for client in nodes.open().await? {
        let step = format!("failed to ask {} for its part of a recovery", client.target());
        reports.push(client.recovery_report().await.map_err(failed(&step))?);
    }
    let recovery = collect(&reports).map_err(|error| CommandError::refused("failed to make a manifest", error))?;
    print(&recovery)
}

fn run_sign(sign: &Sign) -> Result<(), CommandError> {
    let mut recovery = read(&sign.file)?;
    for path in &sign.key {
        let key = keys::read_key_file(path)
            .map_err(|error| CommandError::configuration("failed to read a governance key", error))?;
        recovery = with_approval(&recovery, &key)
            .map_err(|error| CommandError::configuration("failed to sign the manifest", error))?;
    }
    print(&recovery)
}

async fn run_check(check: &Check) -> Result<(), CommandError> {
    let recovery = read(&check.file)?;
    let client = check.connection.open().await?;
    check_approvals(&client, &recovery).await?;
    let status = client.status().await.map_err(failed("failed to ask for the chain's state"))?;
    let manifest = recovery.manifest();
    if status.height != manifest.height.get() || status.block_hash != manifest.block.as_bytes() {
        let step = format!(
            "the manifest stands on block {} of height {}, {} is at height {}: collect it again",
            manifest.block,
            manifest.height,
            client.target(),
            status.height
        );
        return Err(CommandError::Refused { step, source: None });
    }
    if status.incarnation != manifest.parent.as_bytes() {
        let step = format!(
            "the manifest ends incarnation {}, and the chain is in another: it was applied, or collect again",
            manifest.parent
        );
        return Err(CommandError::Refused { step, source: None });
    }
    output::print_text(&format!(
        "recovery {} of {} at height {}: {} voters, approved by {} governance keys; `recover apply` lets the chain go on\n",
        manifest.number,
        manifest.chain_id,
        manifest.height,
        manifest.voters.len(),
        recovery.approvals().len()
    ))
}

async fn check_approvals(client: &Client, recovery: &Recovery) -> Result<(), CommandError> {
    let governance = client.governance().await.map_err(failed("failed to ask for the governance"))?;
    let known = |key: &GovernanceKey| governance.keys.iter().any(|known| known == key.as_bytes());
    if let Some(stranger) = recovery.approvers().find(|key| !known(key)) {
        let step =
            format!("{stranger} has signed and is no governance key of this chain: sign the manifest again without it");
        return Err(CommandError::Refused { step, source: None });
    }
    let (signed, needed) = (recovery.approvals().len(), governance.threshold);
    if u32::try_from(signed).is_ok_and(|signed| signed < needed) {
        let step = format!(
            "{signed} of {needed} needed governance keys have signed: add others with `althing-node recover sign`"
        );
        return Err(CommandError::Refused { step, source: None });
    }
    Ok(())
}

/// First all accept, then all go on: a node that could not be reached is told later by the same command.
async fn run_apply(apply: &Apply) -> Result<(), CommandError> {
    let mut recovery = read(&apply.file)?;
    let clients = apply.nodes.open().await?;
    if let Some(first) = clients.first() {
        check_approvals(first, &recovery).await?;
    }
    // A document that was accepted by all before is only told to those who do not know it.
    let accepted = !recovery.acceptances().is_empty();
    let mut waiting = Vec::new();
    for client in clients {
        let status = client.status().await.map_err(failed("failed to ask a node who it is"))?;
        if status.incarnation == recovery.manifest().incarnation().as_bytes() {
            continue;
        }
        let unusable = |error| CommandError::unavailable("the node's answer cannot be used", error);
        let identity = fields::identity("identity", &status.identity).map_err(unusable)?;
        if !accepted && recovery.manifest().voter(&identity).is_some() {
            let step = format!("{} does not accept the recovery", client.target());
            let answer = client.accept_recovery(&recovery).await.map_err(failed(&step))?;
            let signature = fields::signature("acceptance", &answer.acceptance).map_err(unusable)?;
            recovery = with_acceptance(&recovery, &identity, signature)
                .map_err(|error| CommandError::internal("failed to keep an acceptance", error))?;
        }
        waiting.push(client);
    }
    for client in &waiting {
        let step = format!("{} does not go on with the recovery", client.target());
        client.complete_recovery(&recovery).await.map_err(failed(&step))?;
    }
    print(&recovery)
}

fn print(recovery: &Recovery) -> Result<(), CommandError> {
    output::print_text(&format!("{}\n", RecoveryDocument::new(recovery).to_json()))
}

fn read(path: &Path) -> Result<Recovery, CommandError> {
    let step = format!("failed to use the manifest {}", path.display());
    let text = input::read_text(path, DOCUMENT_BYTES_MAX);
    let text = text.map_err(|error| CommandError::configuration(step.clone(), error))?;
    RecoveryDocument::read(&text).map_err(|error| CommandError::configuration(step, error))
}
