//! `althing-node genesis`: shows a genesis and its hash, from its JSON document or its encoded form.

use std::{
    io::Read as _,
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use node_api::genesis::{self, GENESIS_DOCUMENT_BYTES_MAX};
use node_core::{codec::Decode, crypto::verify_genesis, types::Genesis};
use serde_json::Value;

use super::{
    CommandError, input,
    output::{self, Output},
};

const EXAMPLES: &str = "\
Examples:
  althing-node genesis hash genesis.json
  kubectl get configmap demo-main-genesis -o jsonpath='{.data.genesis\\.json}' | althing-node genesis show -

Every check that a node makes is made: order, bounds, and that each voter proved that it holds its session key.
Exit codes: 0 done, 3 the file is no genesis.";

/// Look at a genesis.
#[derive(Args, Debug)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print the hash of a genesis: the first incarnation of its chain.
    #[command(after_help = EXAMPLES)]
    Hash(Source),
    /// Print a genesis and its hash.
    #[command(after_help = EXAMPLES)]
    Show(Source),
}

/// Options of both.
#[derive(Args, Debug)]
struct Source {
    /// The genesis: its JSON document, or its encoded form as a node keeps it; `-` reads standard input.
    file: PathBuf,
    /// Form of the output.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// Shows a genesis.
pub async fn run(arguments: Arguments) -> Result<(), CommandError> {
    match arguments.command {
        Command::Hash(Source { file, output }) => {
            let hash = read(&file)?.hash().to_string();
            match output {
                Output::Text => output::print_text(&format!("{hash}\n")),
                Output::Json => output::print(output, &serde_json::json!({ "hash": hash })),
            }
        }
        Command::Show(Source { file, output }) => {
            let genesis = read(&file)?;
            let mut document: Value = serde_json::from_str(&genesis::to_json(&genesis))
                .map_err(|error| CommandError::internal("failed to show the genesis", error))?;
            if let Some(map) = document.as_object_mut() {
                map.insert("hash".to_owned(), genesis.hash().to_string().into());
            }
            output::print(output, &document)
        }
    }
}

/// Reads a genesis and makes every check.
pub fn read(file: &Path) -> Result<Genesis, CommandError> {
    let step = format!("failed to read a genesis from {}", file.display());
    let mut bytes = Vec::new();
    let result = input::open(file, GENESIS_DOCUMENT_BYTES_MAX.saturating_add(1))
        .and_then(|mut source| source.read_to_end(&mut bytes));
    result.map_err(|error| CommandError::configuration(step.clone(), error))?;
    match std::str::from_utf8(&bytes) {
        Ok(text) if text.trim_start().starts_with('{') => {
            genesis::from_json(text).map_err(|error| CommandError::configuration(step, error))
        }
        _ => {
            let genesis = Genesis::decode(&bytes).map_err(|error| CommandError::configuration(step.clone(), error))?;
            verify_genesis(&genesis).map_err(|error| CommandError::configuration(step, error))?;
            Ok(genesis)
        }
    }
}
