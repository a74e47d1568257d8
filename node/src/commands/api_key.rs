//! `althing-node api-key`: makes an API key for callers of a gateway.

use clap::Args;
use node_api::gateway::api_keys::NewKey;
use serde_json::json;

use super::{
    CommandError,
    output::{self, Output},
};

const EXAMPLES: &str = "\
Example:
  althing-node api-key --id ci --role service       prints the key once, and the entry for the file of keys

The gateway reads entries (hashes, never keys) from `gateway.authentication.apiKeysFile`, again when it changes.

Exit codes: 0 done, 3 the id is none.";

/// Options of the key.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// Name of the key, for logs: 1 to 63 of a-z, 0-9 and -.
    #[arg(long, value_name = "NAME")]
    id: String,
    /// A role of the gateway's configuration; may be given several times.
    #[arg(long = "role", required = true, value_name = "ROLE")]
    roles: Vec<String>,
    /// Form of the output.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// Makes a key and prints it.
pub fn run(arguments: Arguments) -> Result<(), CommandError> {
    let Arguments { id, roles, output } = arguments;
    let Some(new) = NewKey::generate(&id, roles) else {
        let step = format!("{id:?} is not an id: use 1 to 63 of a-z, 0-9 and -");
        return Err(CommandError::Configuration { step, source: None });
    };
    match output {
        Output::Json => output::print(output, &json!({"key": new.key, "entry": new.entry})),
        Output::Text => {
            let file = new.file().map_err(|error| CommandError::internal("failed to write the entry", error))?;
            output::print_text(&format!("# the key, shown only here: {}\n{file}", new.key))
        }
    }
}
