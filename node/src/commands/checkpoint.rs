//! `althing-node checkpoint`: writes a late header of a chain to a file, for nodes that shall trust it like the genesis.

use std::path::PathBuf;

use clap::Args;
use node_core::{
    codec::{Decode as _, Encode as _},
    light::{LightBlock, LightClient},
    types::{Genesis, Height},
};
use serde_json::json;

use super::{
    CommandError,
    connection::{Connection, failed},
    genesis::read as read_genesis,
    output::{self, Output},
};

const EXAMPLES: &str = "\
A node with a checkpoint believes no chain that has another block at that height, whatever signatures it has: keys of voters
of long ago may have leaked. What this command writes is only as good as the node that was asked: compare height and hash with
those that other nodes say (`althing-node status`), or with people, before you put them into a configuration.

Example:
  althing-node checkpoint --genesis genesis.json --endpoint node-0:7200 --file checkpoint.light
  and in node.yaml of the new node:
    stateSync:
      checkpoint:
        height: 1200000
        hash: 5a..
        file: /etc/althing/checkpoint.light

Exit codes:
  0  done: the file is written
  1  a failure without a code of its own
  3  the certificate or the genesis was refused
  5  no answer from the node, or not in time
  6  the node refused the request, or what it shows is not signed for this chain";

/// Write a late header of a chain to a file, for nodes that shall trust it like the genesis.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[command(flatten)]
    connection: Connection,
    /// The genesis of the chain: the header must be signed for it.
    #[arg(long)]
    genesis: PathBuf,
    /// The height; the newest one that the node has executed if left out.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    height: Option<u64>,
    /// The file to write.
    #[arg(long, default_value = "checkpoint.light")]
    file: PathBuf,
    /// Form of the output.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// Asks, checks and writes.
pub async fn run(arguments: Arguments) -> Result<(), CommandError> {
    let Arguments { connection, genesis, height, file, output } = arguments;
    let genesis = read_genesis(&genesis)?;
    let client = connection.open().await?;
    let height = match height {
        Some(height) => Height::new(height),
        None => Height::new(client.status().await.map_err(failed("failed to ask for the height"))?.height),
    };
    let before = height.checked_sub(1).ok_or_else(|| refused("the node has executed no block yet"))?;
    let answer = client.light_blocks(before, Some(height)).await.map_err(failed("failed to ask for the header"))?;
    let last = answer.light_blocks.last().ok_or_else(|| refused("the node shows no header"))?;
    let block = check(&genesis, height, last)?;
    let hash = block.header.hash();
    std::fs::write(&file, block.encode())
        .map_err(|error| CommandError::internal(format!("failed to write {}", file.display()), error))?;
    let file = std::path::absolute(&file).unwrap_or(file);
    let checkpoint = json!({ "height": height.get(), "hash": hash.to_string(), "file": file });
    output::print(output, &json!({ "stateSync": { "checkpoint": checkpoint } }))
}

/// What the node sent is a header of this height that a quorum of the voters which it names has signed for this chain.
fn check(genesis: &Genesis, height: Height, bytes: &[u8]) -> Result<LightBlock, CommandError> {
    let block = LightBlock::decode(bytes).map_err(|error| refused(&error.to_string()))?;
    if block.header.height != height {
        return Err(refused(&format!("it shows height {} instead of {height}", block.header.height)));
    }
    let hash = block.header.hash();
    LightClient::from_checkpoint(genesis, genesis.incarnation(), block.clone(), hash)
        .map_err(|error| refused(&error.to_string()))?;
    Ok(block)
}

fn refused(problem: &str) -> CommandError {
    CommandError::refused("the node's answer is no checkpoint", std::io::Error::other(problem.to_owned()))
}
