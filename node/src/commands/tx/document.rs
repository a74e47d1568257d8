//! `althing-node tx sign` and `tx submit`: a governance transaction on its way from signer to signer, and to the chain.

use std::path::PathBuf;

use clap::Args;
use node_api::{
    governance::{TransactionDocument, with_signature},
    keys,
};
use node_core::types::Transaction;

use super::{Wait, governance::read_transaction};
use crate::commands::{
    CommandError,
    connection::Connection,
    output::{self, Output},
};

const SIGN_EXAMPLES: &str = "\
Example:
  althing-node tx sign --key gov-2.pem tx.json > tx2.json

The document says in words what the transaction does (field change); it is refused when the words and the transaction
differ. Needs no connection: it may run on a machine without network.

Exit codes: 0 signed, 3 the key or the document cannot be used.";

const SUBMIT_EXAMPLES: &str = "\
Example:
  althing-node tx submit --endpoint 127.0.0.1:7200 tx2.json

Exit codes: 0 it is final and executed (or accepted, with --wait accepted), 3 the document or certificate cannot be used,
5 no answer, or not final within --timeout; 6 refused, failed or expired.";

/// Options of a signature.
#[derive(Args, Debug)]
#[command(after_help = SIGN_EXAMPLES)]
pub struct Sign {
    /// Key file of the governance key. May be repeated.
    #[arg(long, required = true, value_name = "FILE")]
    key: Vec<PathBuf>,
    /// The transaction, from `tx governance`; `-` reads standard input.
    file: PathBuf,
}

/// Options of the submission.
#[derive(Args, Debug)]
#[command(after_help = SUBMIT_EXAMPLES)]
pub struct Submit {
    #[command(flatten)]
    connection: Connection,
    /// The signed transaction; `-` reads standard input.
    file: PathBuf,
    /// What to wait for.
    #[arg(long, value_enum, default_value_t)]
    wait: Wait,
    /// Form of the output.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// Adds signatures.
pub fn sign(arguments: Sign) -> Result<(), CommandError> {
    let mut transaction = read_transaction(&arguments.file)?;
    for path in &arguments.key {
        let key = keys::read_key_file(path)
            .map_err(|error| CommandError::configuration("failed to read a governance key", error))?;
        transaction = with_signature(&transaction, &key)
            .map_err(|error| CommandError::configuration("failed to sign the transaction", error))?;
    }
    print(&transaction)
}

/// Sends the transaction.
pub async fn submit(arguments: Submit) -> Result<(), CommandError> {
    let Submit { connection, file, wait, output } = arguments;
    let transaction = read_transaction(&file)?;
    let client = connection.open().await?;
    let governance =
        client.governance().await.map_err(crate::commands::connection::failed("failed to ask for the governance"))?;
    let strangers =
        transaction.signatures().iter().filter(|signature| !governance.keys.iter().any(|key| *key == signature.key));
    if let Some(stranger) = strangers.map(|signature| hex::encode(signature.key)).next() {
        let step =
            format!("{stranger} has signed and is no governance key of this chain: make the document again without it");
        return Err(CommandError::Refused { step, source: None });
    }
    let (signed, needed) = (transaction.signatures().len(), governance.threshold);
    if u32::try_from(signed).is_ok_and(|signed| signed < needed) {
        let step = format!("{signed} of {needed} needed keys have signed: add others with `althing-node tx sign`");
        return Err(CommandError::Refused { step, source: None });
    }
    if transaction.body().nonce.get() < governance.nonce {
        let step = format!(
            "the transaction has governance nonce {}, and the chain is at {}: make it again",
            transaction.body().nonce,
            governance.nonce
        );
        return Err(CommandError::Refused { step, source: None });
    }
    super::send_one(&client, &transaction, wait, output, connection.timeout).await
}

/// Prints the document of a transaction.
pub fn print(transaction: &Transaction) -> Result<(), CommandError> {
    let document = TransactionDocument::new(transaction)
        .map_err(|error| CommandError::internal("failed to show the transaction", error))?;
    output::print_text(&format!("{}\n", document.to_json()))
}
