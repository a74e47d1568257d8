//! `althing-node events`: prints the events of a chain, and compares those of a volume with its blocks.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use node_api::{
    events::{group_to_proto, id_to_proto},
    proto,
};
use node_core::{
    events::{EventGroup, EventId},
    ledger::Recoveries,
    types::Height,
};
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, ReflectMessage as _, Value as Field};
use serde_json::{Map, Value, json};

use super::{
    CommandError,
    connection::{Connection, failed},
    output::{self, Output},
};
use crate::adapters::{
    storage::{BlockReader, GenesisStore, Kept, Milestones, RecoveryStore, ReplayError, verify_events},
    volume::VolumeLock,
};

const EXAMPLES: &str = "\
Every final block gives events: blocks, transactions and their results, voters and parameters that change. An event has
the id height:index, and is the same on every node, so that a follower may go on with another node: remember the id of the
last event that you have taken, and ask from the next one on.

Observers keep events, for as long as their blocks; a validator does when node.yaml says `storage: {events: true}`.

Examples:
  All events so far, one JSON document a line (bytes as hex digits):
    althing-node events --endpoint 127.0.0.1:7200 --tls ./client
  From an id on, and every new one as it comes:
    althing-node events --from 1200:3 --follow
  Only changes of voters and parameters:
    althing-node events --group network --follow | jq -c '[.id, .type, .payload]'
  Whether the events on the volume of a stopped node are those that its blocks give (it executes them all again):
    althing-node events verify --data /var/lib/althing

Exit codes:
  0  done
  3  the certificate cannot be used
  4  verify: the volume is in use, broken, or its events are not those of its blocks
  5  no answer, or the stream broke
  6  refused: the node keeps no events, or has removed the ones that were asked for (it names the oldest id)";

/// Print the events of a chain, or compare those of a volume with its blocks.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    print: Print,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Compare the events on the volume of a stopped node with those that its blocks give.
    #[command(after_help = EXAMPLES)]
    Verify(Verify),
}

#[derive(Args, Debug)]
struct Print {
    #[command(flatten)]
    connection: Connection,
    /// First event to print, height:index or a height. The oldest that the node holds if left out.
    #[arg(long, value_name = "ID")]
    from: Option<EventId>,
    /// Wait for new events instead of ending after the newest.
    #[arg(long)]
    follow: bool,
    /// Print events of this group only; may be given several times.
    #[arg(long, value_enum)]
    group: Vec<Group>,
}

#[derive(Args, Debug)]
struct Verify {
    /// The data directory of the node.
    #[arg(long, default_value = "/var/lib/althing", value_name = "DIR")]
    data: PathBuf,
    /// Where the state is made again meanwhile, and removed. A folder in the data directory if left out.
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
    /// Form of the output.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// What an event is about.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Group {
    /// What the voters have checked.
    Validation,
    /// That they agree.
    Consensus,
    /// Blocks.
    Block,
    /// Transactions.
    Transaction,
    /// Voters, parameters, keys of governance, recoveries.
    Network,
}

impl From<Group> for EventGroup {
    fn from(group: Group) -> Self {
        match group {
            Group::Validation => Self::Validation,
            Group::Consensus => Self::Consensus,
            Group::Block => Self::Block,
            Group::Transaction => Self::Transaction,
            Group::Network => Self::Network,
        }
    }
}

/// Prints or compares.
pub async fn run(arguments: Arguments) -> Result<(), CommandError> {
    match arguments.command {
        None => print(arguments.print).await,
        Some(Command::Verify(verify)) => {
            // It waits for disks.
            let work = tokio::task::spawn_blocking(move || run_verify(verify));
            work.await.map_err(|error| CommandError::internal("the work was interrupted", error))?
        }
    }
}

async fn print(print: Print) -> Result<(), CommandError> {
    let Print { connection, from, follow, group } = print;
    let client = connection.open().await?;
    let groups = group.into_iter().map(|group| group_to_proto(group.into()).into()).collect();
    let request = proto::StreamEventsRequest { from: from.map(id_to_proto), groups, until_newest: !follow };
    let mut events = client.events(request).await.map_err(failed("failed to ask for the events"))?;
    let form = Form::new()?;
    loop {
        let message = events.message().await;
        let message = message.map_err(|status| match status.code() {
            tonic::Code::OutOfRange | tonic::Code::DataLoss => CommandError::refused("the events end", status),
            _ => CommandError::unavailable("the stream of events broke", status),
        })?;
        let Some(message) = message else { break };
        let mut lines = String::new();
        for event in &message.events {
            lines.push_str(&format!("{}\n", form.line(event)?));
        }
        output::print_text(&lines)?;
    }
    if follow { Err(CommandError::unavailable("the stream of events ended", "the node is stopping")) } else { Ok(()) }
}

/// Events as JSON: bytes are hex digits, ids `height:index`, names of enums without their prefix.
struct Form {
    event: MessageDescriptor,
}

impl Form {
    fn new() -> Result<Self, CommandError> {
        let failed = |reason: String| CommandError::internal("failed to read the descriptors", reason);
        let pool = DescriptorPool::decode(proto::FILE_DESCRIPTOR_SET).map_err(|error| failed(error.to_string()))?;
        let event = pool.get_message_by_name("althing.v1.Event");
        Ok(Self { event: event.ok_or_else(|| failed("there is no message Event".to_owned()))? })
    }

    fn line(&self, event: &proto::Event) -> Result<Value, CommandError> {
        let message = DynamicMessage::decode(self.event.clone(), event.encode_to_vec().as_slice());
        let message = message.map_err(|error| CommandError::internal("an event has another form", error))?;
        Ok(object(&message))
    }
}

fn object(message: &DynamicMessage) -> Value {
    let mut map = Map::new();
    for field in message.descriptor().fields() {
        let oneof = field.containing_oneof();
        if (oneof.is_some() || field.kind().as_message().is_some() && !field.is_list()) && !message.has_field(&field) {
            continue;
        }
        let value = json_of(&message.get_field(&field), field.kind().as_enum());
        match oneof {
            // The type says which one it is.
            Some(oneof) if oneof.name() == "payload" => map.insert("payload".to_owned(), value),
            _ => map.insert(field.json_name().to_owned(), value),
        };
    }
    if let ("EventId", Some(height), Some(index)) = (message.descriptor().name(), map.get("height"), map.get("index")) {
        return json!(format!("{height}:{index}"));
    }
    Value::Object(map)
}

fn json_of(value: &Field, names: Option<&prost_reflect::EnumDescriptor>) -> Value {
    match value {
        Field::Bool(value) => json!(value),
        Field::I32(value) => json!(value),
        Field::I64(value) => json!(value),
        Field::U32(value) => json!(value),
        Field::U64(value) => json!(value),
        Field::F32(value) => json!(value),
        Field::F64(value) => json!(value),
        Field::String(value) => json!(value),
        Field::Bytes(value) => json!(hex::encode(value)),
        Field::EnumNumber(number) => {
            names.and_then(|names| Some((names.get_value(*number)?, prefix(names.name())))).map_or_else(
                || json!(number),
                |(value, prefix)| json!(value.name().strip_prefix(&prefix).unwrap_or(value.name()).to_lowercase()),
            )
        }
        Field::Message(message) => object(message),
        Field::List(values) => values.iter().map(|value| json_of(value, names)).collect(),
        // Events have no maps: their order would be anybody's.
        Field::Map(_) => Value::Null,
    }
}

/// `EventType` as `EVENT_TYPE_`.
fn prefix(name: &str) -> String {
    let mut prefix = String::new();
    for (place, letter) in name.char_indices() {
        if place > 0 && letter.is_ascii_uppercase() {
            prefix.push('_');
        }
        prefix.push(letter.to_ascii_uppercase());
    }
    prefix.push('_');
    prefix
}

fn run_verify(verify: Verify) -> Result<(), CommandError> {
    let Verify { data, scratch, output } = verify;
    let step = format!("the events in {} are not verified", data.display());
    if !data.is_dir() {
        return Err(CommandError::Volume { step: format!("{step}: there is no such folder"), source: None });
    }
    let locked = format!("failed to lock {}; stop the node first", data.display());
    let _lock = VolumeLock::acquire(&data).map_err(|error| CommandError::volume(locked, error))?;
    let scratch = scratch.unwrap_or_else(|| data.clone()).join(format!("althing-events-{}", std::process::id()));
    let (first, last) = compare(&data, &scratch).map_err(|error| CommandError::volume(step, error))?;
    let document = json!({ "data": data, "oldest": first.get(), "newest": last.get(), "equal": true });
    output::print(output, &document)
}

fn compare(data: &Path, scratch: &Path) -> Result<(Height, Height), ReplayError> {
    let accepted = GenesisStore::open(&data.join("genesis"))?.accepted()?;
    let genesis = accepted.ok_or(ReplayError::NoEvents)?.genesis;
    let recoveries = RecoveryStore::open(&data.join("recovery"))?.complete()?;
    let recoveries = Recoveries::new(recoveries.iter().map(|recovery| recovery.manifest().clone()));
    let blocks = BlockReader::open(&data.join("blocks"))?;
    let milestones = Milestones::open(&data.join("light"))?;
    let chain = Kept { genesis: &genesis, recoveries: &recoveries, blocks: &blocks, milestones: &milestones };
    verify_events(data, chain, scratch, |height| {
        if height.get().is_multiple_of(1_000) {
            // On standard error, so that standard output stays one document.
            eprintln!("executed again: block {height}");
        }
    })
}
