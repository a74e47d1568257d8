//! `althing-node tx`: sends transfers and governance transactions, and asks what became of a transaction.

mod document;
mod governance;

use std::{path::PathBuf, time::Duration};

use clap::{Args, Subcommand, ValueEnum};
use node_api::{
    client::Client,
    fields, keys,
    proto::{self, get_transaction_response::Status, submit_response::Answer},
    transactions::{TransferTerms, transfer},
};
use node_core::{
    crypto::KeyPair,
    mempool::TRANSFER_VALIDITY_BLOCKS_MAX,
    types::{AccountId, Amount, Height, Incarnation, Nonce, Transaction, TransactionId},
};
use serde_json::{Value, json};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};

use super::{
    CommandError,
    connection::{Connection, failed},
    output::{self, Output},
};

/// How often it is asked whether a transaction is final.
const POLL: Duration = Duration::from_millis(100);

const SEND_EXAMPLES: &str = "\
Examples:
  althing-node tx send --key account.pem --to <account> --amount 5
  althing-node tx send --key account.pem --to <account> --amount 1 --count 100 --output json

Exit codes: 0 all are final and executed (or accepted, with --wait accepted), 3 key or certificate cannot be used,
5 no answer, or not final within --timeout; 6 refused, failed or expired.";

const STATUS_EXAMPLES: &str = "\
Example:
  althing-node tx status <transaction id>

Exit codes: 0 it is final and executed, or pending; 3 the certificate cannot be used, 5 no answer, 6 the node does not
know it, it failed, or it expired.";

/// Send transactions, or ask what became of one.
#[derive(Args, Debug)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Transfer an amount to an account.
    Send(Send),
    /// Ask a node what became of a transaction.
    Status(StatusArguments),
    /// Make a transaction that changes voters, parameters or governance keys; prints it for those who sign.
    Governance(governance::Arguments),
    /// Add a signature to a governance transaction.
    Sign(document::Sign),
    /// Send a signed governance transaction.
    Submit(document::Submit),
}

/// Options of a transfer.
#[derive(Args, Debug)]
#[command(after_help = SEND_EXAMPLES)]
struct Send {
    #[command(flatten)]
    connection: Connection,
    /// Key file of the account that pays (see keygen).
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Account that gets the amount, 64 hex digits.
    #[arg(long, value_name = "ACCOUNT")]
    to: AccountId,
    /// Amount in the smallest unit.
    #[arg(long)]
    amount: u64,
    /// Send so many transfers, one after the other in nonce.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    count: u32,
    /// Nonce of the first; without it the account's next one. Needed while older transfers are still in a mempool.
    #[arg(long)]
    nonce: Option<u64>,
    /// Blocks for which a transfer stays valid.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=TRANSFER_VALIDITY_BLOCKS_MAX))]
    valid_for: u64,
    /// What to wait for.
    #[arg(long, value_enum, default_value_t)]
    wait: Wait,
    /// Form of the output.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// What the sender waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Wait {
    /// The node has it in its mempool.
    Accepted,
    /// It is in a final block.
    #[default]
    Final,
}

/// Options of the question.
#[derive(Args, Debug)]
#[command(after_help = STATUS_EXAMPLES)]
struct StatusArguments {
    #[command(flatten)]
    connection: Connection,
    /// Id of the transaction, 64 hex digits.
    id: TransactionId,
    /// Form of the output.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// Sends or asks.
pub async fn run(arguments: Arguments) -> Result<(), CommandError> {
    match arguments.command {
        Command::Send(send) => run_send(send).await,
        Command::Status(status) => run_status(status).await,
        Command::Governance(arguments) => governance::run(arguments).await,
        Command::Sign(sign) => document::sign(sign),
        Command::Submit(submit) => document::submit(submit).await,
    }
}

/// What is known of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fate {
    Unknown,
    Accepted,
    Executed(Value),
    Failed(Value),
    Expired { valid_until: u64 },
}

async fn run_send(send: Send) -> Result<(), CommandError> {
    let Send { connection, key, to, amount, count, nonce, valid_for, wait, output } = send;
    let key = keys::read_key_file(&key)
        .map_err(|error| CommandError::configuration("failed to read the account's key", error))?;
    let client = connection.open().await?;
    let first = first_terms(&client, &key, nonce, valid_for).await?;
    let deadline = Instant::now() + Duration::from_secs(connection.timeout);
    let mut sent = Vec::new();
    let mut result = Ok(());
    for number in 0..u64::from(count) {
        let nonce = first.nonce.saturating_add(number);
        let terms = TransferTerms { nonce, to, amount: Amount::new(amount), ..first };
        let transaction = transfer(&key, &terms);
        match submit(&client, &transaction).await {
            Ok(fate) => sent.push((transaction.id(), fate)),
            Err(error) => {
                result = Err(error);
                break;
            }
        }
    }
    if wait == Wait::Final {
        for (id, fate) in &mut sent {
            result = result.and(until_final(&client, id, fate, deadline).await);
        }
    }
    // What was sent is told in any case: the ids are needed to ask again.
    print_sent(output, count, &sent)?;
    result?;
    match sent.iter().find(|(_, fate)| !matches!(fate, Fate::Executed(_) | Fate::Accepted)) {
        Some((id, fate)) => Err(bad_end(id, fate)),
        None => Ok(()),
    }
}

/// Sends one transaction, waits for it as asked, and says what became of it.
async fn send_one(
    client: &Client,
    transaction: &Transaction,
    wait: Wait,
    output: Output,
    timeout_s: u64,
) -> Result<(), CommandError> {
    let deadline = Instant::now() + Duration::from_secs(timeout_s);
    let id = transaction.id();
    let mut fate = submit(client, transaction).await?;
    let waited = if wait == Wait::Final { until_final(client, &id, &mut fate, deadline).await } else { Ok(()) };
    print_sent(output, 1, &[(id, fate.clone())])?;
    waited?;
    if matches!(fate, Fate::Executed(_) | Fate::Accepted) { Ok(()) } else { Err(bad_end(&id, &fate)) }
}

/// One document for one transaction, a list for more; for people a line for each.
fn print_sent(output: Output, count: u32, sent: &[(TransactionId, Fate)]) -> Result<(), CommandError> {
    let mut documents: Vec<Value> = sent.iter().map(|(id, fate)| describe(id, fate.clone())).collect();
    match output {
        Output::Text => output::print_text(&sent.iter().map(|(id, fate)| line(id, fate)).collect::<String>()),
        Output::Json if count == 1 => output::print(output, &documents.pop().unwrap_or_default()),
        Output::Json => output::print(output, &json!({ "transactions": documents })),
    }
}

/// Incarnation, nonce and last height, as the node says them.
async fn first_terms(
    client: &Client,
    key: &KeyPair,
    nonce: Option<u64>,
    valid_for: u64,
) -> Result<TransferTerms, CommandError> {
    let sender = AccountId::new(key.public());
    let status = client.status().await.map_err(failed("failed to ask for the chain's state"))?;
    if status.incarnation.is_empty() {
        let step = format!("{} has no chain yet", client.target());
        return Err(CommandError::Unavailable { step, source: None });
    }
    let incarnation = fields::array("incarnation", &status.incarnation)
        .map_err(|error| CommandError::unavailable("the node's answer cannot be used", error))?;
    let nonce = match nonce {
        Some(nonce) => nonce,
        None => client.account(&sender).await.map_err(failed("failed to ask for the account's nonce"))?.nonce,
    };
    Ok(TransferTerms {
        incarnation: Incarnation::new(incarnation),
        nonce: Nonce::new(nonce),
        valid_until: Height::new(status.height).saturating_add(valid_for),
        to: sender,
        amount: Amount::ZERO,
    })
}

async fn submit(client: &Client, transaction: &Transaction) -> Result<Fate, CommandError> {
    let answer =
        client.submit(transaction, proto::Wait::Accepted).await.map_err(failed("failed to send a transaction"))?;
    Ok(match answer.answer {
        Some(Answer::Accepted(_) | Answer::Durable(_)) | None => Fate::Accepted,
        Some(Answer::Final(end)) => in_block(end),
        Some(Answer::Expired(proto::Expired { valid_until })) => Fate::Expired { valid_until },
    })
}

/// Asks again until the transaction has an end, or the time is up. A node that is away meanwhile is asked again.
async fn until_final(
    client: &Client,
    id: &TransactionId,
    fate: &mut Fate,
    deadline: Instant,
) -> Result<(), CommandError> {
    let mut ticks = interval(POLL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = None;
    while matches!(fate, Fate::Accepted | Fate::Unknown) {
        if timeout_at(deadline, ticks.tick()).await.is_err() || Instant::now() >= deadline {
            let step = format!("transaction {id} is not final yet; `althing-node tx status {id}` asks again");
            return Err(last.unwrap_or(CommandError::Unavailable { step, source: None }));
        }
        match ask(client, id).await {
            Ok(answer) => (*fate, last) = (answer, None),
            Err(error @ CommandError::Unavailable { .. }) => last = Some(error),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

async fn run_status(arguments: StatusArguments) -> Result<(), CommandError> {
    let StatusArguments { connection, id, output } = arguments;
    let client = connection.open().await?;
    let fate = ask(&client, &id).await?;
    match output {
        Output::Text => output::print_text(&line(&id, &fate))?,
        Output::Json => output::print(output, &describe(&id, fate.clone()))?,
    }
    match fate {
        Fate::Executed(_) | Fate::Accepted => Ok(()),
        Fate::Unknown | Fate::Failed(_) | Fate::Expired { .. } => Err(bad_end(&id, &fate)),
    }
}

async fn ask(client: &Client, id: &TransactionId) -> Result<Fate, CommandError> {
    let answer = client.transaction(id).await.map_err(failed("failed to ask for a transaction"))?;
    Ok(match answer.status {
        Some(Status::Unknown(_)) | None => Fate::Unknown,
        Some(Status::Pending(_)) => Fate::Accepted,
        Some(Status::Final(end)) => in_block(end),
        Some(Status::Expired(proto::Expired { valid_until })) => Fate::Expired { valid_until },
    })
}

fn in_block(end: proto::Final) -> Fate {
    let proto::Final { height, index, receipt, block_hash } = end;
    let receipt = receipt.unwrap_or_default();
    let place = json!({
        "height": height,
        "index": index,
        "blockHash": hex::encode(block_hash),
        "reason": receipt.reason.clone(),
        "receipt": hex::encode(&receipt.receipt),
    });
    match receipt.outcome() {
        proto::Outcome::Executed => Fate::Executed(place),
        proto::Outcome::Failed | proto::Outcome::Unspecified => Fate::Failed(place),
    }
}

fn describe(id: &TransactionId, fate: Fate) -> Value {
    let (status, place) = match fate {
        Fate::Unknown => ("unknown", json!({})),
        Fate::Accepted => ("accepted", json!({})),
        Fate::Executed(place) => ("executed", place),
        Fate::Failed(place) => ("failed", place),
        Fate::Expired { valid_until } => ("expired", json!({ "validUntil": valid_until })),
    };
    let mut document = json!({ "id": id.to_string(), "status": status });
    if let (Some(document), Value::Object(place)) = (document.as_object_mut(), place) {
        document.extend(place);
    }
    document
}

fn line(id: &TransactionId, fate: &Fate) -> String {
    let number = |place: &Value, key| place.get(key).and_then(Value::as_u64).unwrap_or_default();
    let reason = |place: &Value| place.get("reason").and_then(Value::as_str).unwrap_or_default().to_owned();
    match fate {
        Fate::Unknown => format!("{id} unknown\n"),
        Fate::Accepted => format!("{id} accepted\n"),
        Fate::Executed(place) => {
            format!("{id} executed at height {}, index {}\n", number(place, "height"), number(place, "index"))
        }
        Fate::Failed(place) => format!("{id} failed at height {}: {}\n", number(place, "height"), reason(place)),
        Fate::Expired { valid_until } => format!("{id} expired after height {valid_until}\n"),
    }
}

fn bad_end(id: &TransactionId, fate: &Fate) -> CommandError {
    let step = match fate {
        Fate::Failed(place) => {
            let reason = place.get("reason").and_then(Value::as_str).unwrap_or_default();
            format!("transaction {id} failed: {reason}")
        }
        Fate::Expired { valid_until } => format!("transaction {id} expired after height {valid_until}"),
        Fate::Unknown => format!("this node does not know transaction {id}"),
        Fate::Accepted | Fate::Executed(_) => format!("transaction {id}"),
    };
    CommandError::Refused { step, source: None }
}
