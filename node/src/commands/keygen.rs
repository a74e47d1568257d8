//! `althing-node keygen`: makes a key file, or shows the public key of one.

use std::path::PathBuf;

use clap::Args;
use node_api::keys;
use serde_json::json;

use super::{
    CommandError,
    output::{self, Output},
};

const EXAMPLES: &str = "\
Examples:
  althing-node keygen account.pem              a new key; prints its public key
  althing-node keygen --show account.pem       the public key of an old one

The public key is an account's id, and, where the key is a validator's identity.pem, the validator's identity.
Exit codes: 0 done, 3 the file is there already, or is no key.";

/// Make an ed25519 key (PKCS#8 PEM) for an account or an identity.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The key file. A new one is readable for its owner only; one that is there is never replaced.
    file: PathBuf,
    /// Show the public key of a file that is there.
    #[arg(long)]
    show: bool,
    /// Form of the output.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// Makes or shows a key.
pub async fn run(arguments: Arguments) -> Result<(), CommandError> {
    let Arguments { file, show, output } = arguments;
    let key = if show {
        keys::read_key_file(&file).map_err(|error| CommandError::configuration("failed to show a key", error))?
    } else {
        let key = keys::generate().map_err(|error| CommandError::internal("failed to make a key", error))?;
        keys::write_key_file(&file, &key)
            .map_err(|error| CommandError::configuration("failed to make a key", error))?;
        key
    };
    let public = hex::encode(key.public());
    match output {
        Output::Text => output::print_text(&format!("{public}\n")),
        Output::Json => output::print(output, &json!({ "publicKey": public, "file": file })),
    }
}
