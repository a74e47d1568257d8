//! `althing-node keygen`: makes a key file, shows the public key of one, and moves keys from and to CometBFT.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use node_api::{cometbft, keys};
use node_core::crypto::KeyPair;
use serde_json::json;
use zeroize::Zeroizing;

use super::{
    CommandError,
    output::{self, Output},
};

const EXAMPLES: &str = "\
Examples:
  althing-node keygen account.pem              a new key; prints its public key
  althing-node keygen --show account.pem       the public key of an old one
  althing-node keygen import priv_validator_key.json identity.pem
  althing-node keygen export identity.pem priv_validator_key.json

The public key is an account's id, and, where the key is a validator's identity.pem, the validator's identity.
Exit codes: 0 done, 3 the file is there already, or is no key.";

const IMPORT_NOTE: &str = "\
The key becomes the identity of a validator. An identity signs transactions and session rotations, never votes: votes
are signed by session keys that each node makes on its own volume. Stop the CometBFT validator for good before.";

/// Make an ed25519 key (PKCS#8 PEM) for an account or an identity.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// The key file. A new one is readable for its owner only; one that is there is never replaced.
    #[arg(required = true)]
    file: Option<PathBuf>,
    /// Show the public key of a file that is there.
    #[arg(long)]
    show: bool,
    /// Form of the output.
    #[arg(long, value_enum, default_value_t, global = true)]
    output: Output,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a key file from CometBFT's priv_validator_key.json.
    #[command(after_help = IMPORT_NOTE)]
    Import(Move),
    /// Write the key of a key file as CometBFT's priv_validator_key.json.
    Export(Move),
}

#[derive(Args, Debug)]
struct Move {
    /// The file to read.
    from: PathBuf,
    /// The file to make, readable for its owner only; one that is there is never replaced.
    to: PathBuf,
}

/// Makes, shows or moves a key.
pub async fn run(arguments: Arguments) -> Result<(), CommandError> {
    let Arguments { command, file, show, output } = arguments;
    let (key, file) = match (command, file) {
        (Some(Command::Import(Move { from, to })), _) => (import(&from, &to)?, to),
        (Some(Command::Export(Move { from, to })), _) => (export(&from, &to)?, to),
        (None, Some(file)) if show => {
            let key = keys::read_key_file(&file);
            (key.map_err(|error| CommandError::configuration("failed to show a key", error))?, file)
        }
        (None, Some(file)) => {
            let key = keys::generate().map_err(|error| CommandError::internal("failed to make a key", error))?;
            write(&file, &key)?;
            (key, file)
        }
        (None, None) => {
            let step = "no key file is named: see althing-node keygen --help".to_owned();
            return Err(CommandError::Configuration { step, source: None });
        }
    };
    let public = hex::encode(key.public());
    match output {
        Output::Text => output::print_text(&format!("{public}\n")),
        Output::Json => output::print(output, &json!({ "publicKey": public, "file": file })),
    }
}

fn import(from: &Path, to: &Path) -> Result<KeyPair, CommandError> {
    let step = || format!("failed to import {}", from.display());
    let text = fs::read_to_string(from).map_err(|error| CommandError::configuration(step(), error))?;
    let key = cometbft::from_json(&Zeroizing::new(text));
    let key = key.map_err(|error| CommandError::configuration(step(), error))?;
    write(to, &key)?;
    Ok(key)
}

fn export(from: &Path, to: &Path) -> Result<KeyPair, CommandError> {
    let failed = |error| CommandError::configuration("failed to export a key", error);
    let key = keys::read_key_file(from).map_err(failed)?;
    let mut options = OpenOptions::new();
    let written = options.write(true).create_new(true).mode(0o600).open(to).and_then(|mut file| {
        file.write_all(cometbft::to_json(&key).as_bytes())?;
        file.sync_all()
    });
    written.map_err(|error| CommandError::configuration(format!("failed to write {}", to.display()), error))?;
    Ok(key)
}

fn write(file: &Path, key: &KeyPair) -> Result<(), CommandError> {
    keys::write_key_file(file, key).map_err(|error| CommandError::configuration("failed to make a key", error))
}
