//! `althing-node config check`: reads a node.yaml and the files that it names, as a node would.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use node_api::{
    config::NodeConfig,
    gateway::GatewayConfig,
    keys,
    roles::Role,
    tls::{TlsMaterial, TlsPem},
};
use node_core::types::Identity;
use serde_json::json;

use super::{
    CommandError,
    output::{self, Output},
};

/// Work with configuration files.
#[derive(Args, Debug)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check a node.yaml, and the key and certificates that it names.
    Check(Check),
}

const EXAMPLES: &str = "\
Examples:
  althing-node config check                                    the file at its usual place
  althing-node config check --syntax-only node.yaml            only the file itself

Exit codes: 0 a node would start with it, 3 it would not; the message names the key and says what to do.";

/// Options of the check.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
struct Check {
    /// The configuration file.
    #[arg(default_value = "/etc/althing/node.yaml")]
    file: PathBuf,
    /// Do not look at the files that it names.
    #[arg(long)]
    syntax_only: bool,
    /// Form of the output.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// Checks a configuration.
pub async fn run(arguments: Arguments) -> Result<(), CommandError> {
    let Command::Check(Check { file, syntax_only, output }) = arguments.command;
    let refused = |error| CommandError::configuration(format!("{} is not usable", file.display()), error);
    if is_gateway(&file) {
        return check_gateway(&file, syntax_only, output);
    }
    let config = NodeConfig::load(&file).map_err(refused)?;
    let mut document = json!({
        "file": file,
        "chainId": config.chain_id.to_string(),
        "role": config.role,
        "peers": config.peers.len(),
    });
    if !syntax_only {
        let checked = check_files(&config)?;
        if let (Some(document), Some(checked)) = (document.as_object_mut(), checked.as_object()) {
            document.extend(checked.clone());
        }
    }
    output::print(output, &document)
}

/// Whether the file says that it is of a gateway. A file that says nothing is checked as one of a node.
fn is_gateway(file: &Path) -> bool {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let document: serde_yaml::Value = serde_yaml::from_str(&text).unwrap_or_default();
    document.get("role").and_then(serde_yaml::Value::as_str) == Some("gateway")
}

fn check_gateway(file: &Path, syntax_only: bool, output: Output) -> Result<(), CommandError> {
    let refused = |error| CommandError::configuration(format!("{} is not usable", file.display()), error);
    let config = GatewayConfig::load(file).map_err(refused)?;
    let mut document = json!({
        "file": file,
        "chainId": config.chain_id.to_string(),
        "role": config.role,
        "issuers": config.gateway.authentication.issuers.len(),
    });
    if !syntax_only {
        let facts = material(&config.tls_directory)?.facts().clone();
        if facts.id.role() != Role::Gateway || *facts.id.chain_id() != config.chain_id {
            let step = format!("tlsDirectory: the certificate names {}, a gateway needs one of role gateway", facts.id);
            return Err(CommandError::Configuration { step, source: None });
        }
        if let Some(document) = document.as_object_mut() {
            document.insert("certificateExpiresS".to_owned(), json!(facts.validity.not_after_s()));
        }
    }
    output::print(output, &document)
}

/// The identity and the certificate must be there and name the same node of the same chain.
fn check_files(config: &NodeConfig) -> Result<serde_json::Value, CommandError> {
    let key = keys::read_key_file(&config.identity_file)
        .map_err(|error| CommandError::configuration("identityFile is not usable", error))?;
    let identity = Identity::new(key.public());
    let material = material(&config.tls_directory)?;
    let facts = material.facts();
    let expected = node_api::roles::SpiffeId::node(&config.chain_id, config.role, &identity);
    if facts.id != expected {
        let step = format!(
            "tlsDirectory: the certificate names {}, this node is {expected}: use the certificate and the identity of one node",
            facts.id
        );
        return Err(CommandError::Configuration { step, source: None });
    }
    Ok(json!({
        "identity": identity.to_string(),
        "certificateExpiresS": facts.validity.not_after_s(),
    }))
}

fn material(directory: &Path) -> Result<TlsMaterial, CommandError> {
    TlsPem::read(directory)
        .and_then(|pem| TlsMaterial::from_pem(&pem))
        .map_err(|error| CommandError::configuration("tlsDirectory is not usable", error))
}
