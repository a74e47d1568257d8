//! `althing-node snapshot`: takes the state of a stopped node into one file, checks such a file, and starts a volume from it.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use node_api::checkpoint::TrustedHeader;
use node_core::types::Hash;
use serde_json::json;

use super::{
    CommandError,
    genesis::read as read_genesis,
    output::{self, Output},
};
use crate::{
    adapters::{storage::StorageError, volume::VolumeLock},
    snapshots::{self, Progress, SnapshotError, Summary, Trust},
};

const EXAMPLES: &str = "\
A snapshot is the state of the chain after one block, with the proof that the chain decided it: the headers that lead from
genesis to it over every change of voters, each signed by a quorum. It holds no key and nothing that a node has signed, so a
node that starts from it takes a new session key by the rules of the chain, and none that may have voted elsewhere.

Example:
  1. Stop a node (an observer is best: no vote is missed), and take its newest provable state, two blocks below its last one:
     althing-node snapshot create --data /var/lib/althing state.snapshot
  2. Wherever the file came from, check it against a genesis that you trust:
     althing-node snapshot verify --genesis genesis.json state.snapshot
  3. On the empty volume of another node (it checks everything again):
     althing-node snapshot restore --genesis genesis.json --data /var/lib/althing state.snapshot
     althing-node observer --genesis genesis.json
     The node fetches the blocks after the snapshot from its peers; it has none before it.

verify and restore need free space for the state once: beside the snapshot, or in --scratch; on the volume.

Exit codes:
  0  done: what was asked for is true, or is durable on the volume
  1  a failure without a code of its own
  3  the genesis was refused
  4  the volume is locked by a running node, broken, not empty, or could not be read or written
  7  the snapshot is damaged, of another chain, or proves nothing; nothing was restored";

/// Take, check or restore a snapshot of the state.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Take a snapshot of the volume of a stopped node.
    #[command(after_help = EXAMPLES)]
    Create(Create),
    /// Check a snapshot offline: that it is whole, of this chain, certified, and comes to the state root.
    #[command(after_help = EXAMPLES)]
    Verify(Verify),
    /// Start an empty volume from a snapshot, after checking it.
    #[command(after_help = EXAMPLES)]
    Restore(Restore),
}

#[derive(Args, Debug)]
struct Create {
    /// The data directory of the node.
    #[arg(long, default_value = "/var/lib/althing", value_name = "DIR")]
    data: PathBuf,
    /// The height of the state: at most two below the last block, and not much older. The newest one if left out.
    #[arg(long)]
    height: Option<u64>,
    /// The file to write; it is replaced when the new one is whole.
    file: PathBuf,
    /// Form of the output.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Args, Debug)]
struct Verify {
    /// The genesis of the chain, from a source that you trust.
    #[arg(long)]
    genesis: PathBuf,
    /// A late header that you trust, too, as `althing-node checkpoint` writes it: with --checkpoint-hash. The state must be
    /// above it.
    #[arg(long, requires = "checkpoint_hash", value_name = "FILE")]
    checkpoint: Option<PathBuf>,
    /// The hash of that header, from a source that you trust.
    #[arg(long, requires = "checkpoint", value_name = "HASH")]
    checkpoint_hash: Option<Hash>,
    /// Where the state is put together for the check, and removed again. A folder beside the snapshot if left out.
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
    /// The snapshot.
    file: PathBuf,
    /// Form of the output.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Args, Debug)]
struct Restore {
    /// The genesis of the chain, from a source that you trust.
    #[arg(long)]
    genesis: PathBuf,
    /// A late header that you trust, too, as `althing-node checkpoint` writes it: with --checkpoint-hash. The state must be
    /// above it.
    #[arg(long, requires = "checkpoint_hash", value_name = "FILE")]
    checkpoint: Option<PathBuf>,
    /// The hash of that header, from a source that you trust.
    #[arg(long, requires = "checkpoint", value_name = "HASH")]
    checkpoint_hash: Option<Hash>,
    /// The data directory of the new node. It must be empty, or not exist.
    #[arg(long, default_value = "/var/lib/althing", value_name = "DIR")]
    data: PathBuf,
    /// The snapshot.
    file: PathBuf,
    /// Form of the output.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// Works with snapshots.
pub async fn run(arguments: Arguments) -> Result<(), CommandError> {
    // Everything here waits for disks.
    let work = tokio::task::spawn_blocking(move || match arguments.command {
        Command::Create(create) => run_create(create),
        Command::Verify(verify) => run_verify(verify),
        Command::Restore(restore) => run_restore(restore),
    });
    work.await.map_err(|error| CommandError::internal("the work was interrupted", error))?
}

fn run_create(create: Create) -> Result<(), CommandError> {
    let Create { data, height, file, output } = create;
    let step = format!("failed to take a snapshot of {}", data.display());
    if !data.is_dir() {
        return Err(CommandError::Volume { step: format!("{step}: there is no such folder"), source: None });
    }
    let _lock = lock(&data)?;
    let summary = snapshots::create(&data, height, &file, report).map_err(|error| failed(&step, error))?;
    show(output, &file, &summary)
}

fn run_verify(verify: Verify) -> Result<(), CommandError> {
    let Verify { genesis, checkpoint, checkpoint_hash, scratch, file, output } = verify;
    let (genesis, checkpoint) = (read_genesis(&genesis)?, trusted(checkpoint.zip(checkpoint_hash))?);
    let trust = Trust { genesis: &genesis, checkpoint: checkpoint.as_ref() };
    let beside = || {
        let mut name = file.file_name().unwrap_or_default().to_os_string();
        name.push(".scratch");
        file.with_file_name(name)
    };
    let scratch = scratch.map_or_else(beside, |folder| folder.join(format!("althing-verify-{}", std::process::id())));
    let summary = snapshots::verify(&file, trust, &scratch, report);
    let step = format!("the snapshot {} is not verified", file.display());
    show(output, &file, &summary.map_err(|error| failed(&step, error))?)
}

fn run_restore(restore: Restore) -> Result<(), CommandError> {
    let Restore { genesis, checkpoint, checkpoint_hash, data, file, output } = restore;
    let (genesis, checkpoint) = (read_genesis(&genesis)?, trusted(checkpoint.zip(checkpoint_hash))?);
    let trust = Trust { genesis: &genesis, checkpoint: checkpoint.as_ref() };
    let step = format!("failed to restore {} into {}", file.display(), data.display());
    // Before the lock, which makes a file.
    snapshots::check_empty(&data).map_err(|error| failed(&step, error))?;
    let _lock = lock(&data)?;
    let summary = snapshots::restore(&file, trust, &data, report).map_err(|error| failed(&step, error))?;
    show(output, &file, &summary)
}

fn trusted(named: Option<(PathBuf, Hash)>) -> Result<Option<TrustedHeader>, CommandError> {
    let read = |(file, hash): (PathBuf, Hash)| TrustedHeader::read(&file, hash);
    let read = named.map(read).transpose();
    read.map_err(|error| CommandError::configuration("the checkpoint is refused", error))
}

fn lock(data: &Path) -> Result<VolumeLock, CommandError> {
    let step = format!("failed to lock {}; stop the node first", data.display());
    VolumeLock::acquire(data).map_err(|error| CommandError::volume(step, error))
}

/// On standard error, so that standard output stays one document.
fn report(progress: Progress) {
    let Progress { what, done, of } = progress;
    eprintln!("{what}: piece {done} of {of}");
}

fn failed(step: &str, error: SnapshotError) -> CommandError {
    match error {
        SnapshotError::Refused(_)
        | SnapshotError::Damaged(StorageError::Damaged { .. } | StorageError::Format { .. }) => {
            CommandError::snapshot(step, error)
        }
        SnapshotError::Genesis(_) | SnapshotError::Checkpoint(_) => CommandError::configuration(step, error),
        SnapshotError::Damaged(_)
        | SnapshotError::Storage(_)
        | SnapshotError::State(_)
        | SnapshotError::Proving(_)
        | SnapshotError::Restore(_)
        | SnapshotError::NoGenesis
        | SnapshotError::Levels { .. }
        | SnapshotError::TooNew { .. }
        | SnapshotError::Pruned { .. }
        | SnapshotError::NotEmpty { .. } => CommandError::volume(step, error),
    }
}

fn show(output: Output, file: &Path, summary: &Summary) -> Result<(), CommandError> {
    let Summary { chain_id, genesis, height, block, state_root, headers, pieces } = summary;
    output::print(
        output,
        &json!({
            "file": file,
            "chainId": chain_id.to_string(),
            "genesis": genesis.to_string(),
            "height": height.get(),
            "block": block.to_string(),
            "stateRoot": state_root.to_string(),
            "headers": headers,
            "pieces": pieces,
        }),
    )
}
