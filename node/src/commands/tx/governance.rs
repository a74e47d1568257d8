//! `althing-node tx governance`: makes the transactions that change the voters, the parameters or the governance keys.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use node_api::{
    client::Client,
    fields,
    governance::{DOCUMENT_BYTES_MAX, GovernanceTerms, TransactionDocument, VoterReport, unsigned, with_signature},
    keys, proto,
};
use node_core::{
    codec::Decode,
    types::{
        Governance, GovernanceChange, GovernanceKey, Height, Identity, Incarnation, NewVoter, Nonce, Parameters,
        ParametersDraft, Power, Transaction,
    },
};
use serde_json::json;

use super::super::{
    CommandError,
    connection::{Connection, failed},
    input,
    output::{self, Output},
};

const EXAMPLES: &str = "\
How a validator is voted in:
  1. Start it with the chain's genesis: althing-node validator --config node.yaml --genesis genesis.json
     It follows the chain and votes for nothing.
  2. Let it make its session key (certificate of role operator):
     althing-node tx governance report --endpoint <new node> --tls operator > report.json
  3. Make the transaction and sign it: althing-node tx governance add --report report.json --power 1 --key gov-1.pem > tx.json
  4. Other keepers of governance keys add their signatures: althing-node tx sign --key gov-2.pem tx.json > tx2.json
  5. Send it: althing-node tx submit tx2.json
  It votes from three blocks later on.

Bounds that the chain keeps: in one block less than a third of the power changes hands; at least four voters stay; a
session key that was ever in use, or an epoch that an identity ever had, never comes back.

Exit codes: 0 done, 3 a key, certificate or document cannot be used, 5 no answer, 6 refused.";

/// Options of governance.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show who may change the chain, the next nonce and the parameters.
    Show(Show),
    /// Let a node that follows the chain make a session key and report it, so that it can be voted in.
    Report(Connection),
    /// Make the transaction that votes a node in.
    Add(Add),
    /// Make the transaction that gives a voter's place to another, or to itself with another session key.
    Replace(Replace),
    /// Make the transaction that votes a voter out.
    Remove(Remove),
    /// Make the transaction that changes a voter's power.
    Power(SetPower),
    /// Make the transaction that changes parameters; what is not given stays.
    Parameters(SetParameters),
    /// Make the transaction that replaces the governance keys.
    Keys(SetKeys),
}

#[derive(Args, Debug)]
struct Show {
    #[command(flatten)]
    connection: Connection,
    /// Form of the output.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// What every transaction needs.
#[derive(Args, Debug)]
struct Common {
    #[command(flatten)]
    connection: Connection,
    /// Key file of a governance key that signs at once (see keygen). May be repeated.
    #[arg(long, value_name = "FILE")]
    key: Vec<PathBuf>,
    /// Blocks for which it stays valid: the time to gather signatures.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    valid_for: u64,
    /// Nonce; without it the next one. Needed for several that are to be executed one after the other.
    #[arg(long)]
    nonce: Option<u64>,
}

#[derive(Args, Debug)]
struct Add {
    #[command(flatten)]
    common: Common,
    /// The report of the node, from `tx governance report`; `-` reads standard input.
    #[arg(long, value_name = "FILE")]
    report: PathBuf,
    /// Its power.
    #[arg(long, default_value_t = 1)]
    power: u64,
}

#[derive(Args, Debug)]
struct Replace {
    #[command(flatten)]
    common: Common,
    /// Identity of the voter that leaves, 64 hex digits.
    #[arg(long, value_name = "IDENTITY")]
    former: Identity,
    /// The report of the node that comes, from `tx governance report`; `-` reads standard input.
    #[arg(long, value_name = "FILE")]
    report: PathBuf,
    /// Its power; without it that of the voter that leaves.
    #[arg(long)]
    power: Option<u64>,
}

#[derive(Args, Debug)]
struct Remove {
    #[command(flatten)]
    common: Common,
    /// Identity of the voter, 64 hex digits.
    #[arg(long, value_name = "IDENTITY")]
    voter: Identity,
}

#[derive(Args, Debug)]
struct SetPower {
    #[command(flatten)]
    common: Common,
    /// Identity of the voter, 64 hex digits.
    #[arg(long, value_name = "IDENTITY")]
    voter: Identity,
    /// Its new power, at least 1.
    #[arg(long)]
    power: u64,
}

#[derive(Args, Debug)]
struct SetParameters {
    #[command(flatten)]
    common: Common,
    /// Time between the blocks of an idle chain, in milliseconds.
    #[arg(long)]
    block_interval_ms: Option<u64>,
    /// How long the first proposal of a height is waited for, in milliseconds.
    #[arg(long)]
    propose_timeout_ms: Option<u64>,
    /// How long prevotes are waited for in the first round, in milliseconds.
    #[arg(long)]
    prevote_timeout_ms: Option<u64>,
    /// How long precommits are waited for in the first round, in milliseconds.
    #[arg(long)]
    precommit_timeout_ms: Option<u64>,
    /// Most transactions of one block.
    #[arg(long)]
    transactions_per_block_max: Option<u32>,
    /// Most bytes of one block.
    #[arg(long)]
    block_bytes_max: Option<u32>,
    /// How far the time of a block may be ahead of a voter's clock, in milliseconds.
    #[arg(long)]
    time_drift_ms_max: Option<u64>,
}

#[derive(Args, Debug)]
struct SetKeys {
    #[command(flatten)]
    common: Common,
    /// How many of the new keys must sign from then on.
    #[arg(long)]
    threshold: u32,
    /// A public key of the new governance, 64 hex digits. Repeated for each.
    #[arg(long, required = true, value_name = "KEY")]
    governance_key: Vec<GovernanceKey>,
}

/// Makes one transaction, or asks.
pub async fn run(arguments: Arguments) -> Result<(), CommandError> {
    match arguments.command {
        Command::Show(Show { connection, output }) => show(&connection, output).await,
        Command::Report(connection) => report(&connection).await,
        Command::Add(Add { common, report, power }) => {
            let report = read_report(&report)?;
            make(&common, |chain| Ok(GovernanceChange::AddVoter(chain.newcomer(&report, Power::new(power))?))).await
        }
        Command::Replace(Replace { common, former, report, power }) => {
            let report = read_report(&report)?;
            make(&common, |chain| {
                let present = chain.voter(&former)?;
                let power = Power::new(power.unwrap_or(present.power));
                Ok(GovernanceChange::ReplaceVoter { former, voter: chain.newcomer(&report, power)? })
            })
            .await
        }
        Command::Remove(Remove { common, voter }) => {
            make(&common, |chain| {
                chain.voter(&voter)?;
                Ok(GovernanceChange::RemoveVoter { identity: voter })
            })
            .await
        }
        Command::Power(SetPower { common, voter, power }) => {
            make(&common, |chain| {
                let present = chain.voter(&voter)?;
                chain.check_moved(present.power.abs_diff(power))?;
                Ok(GovernanceChange::SetPower { identity: voter, power: Power::new(power) })
            })
            .await
        }
        Command::Parameters(arguments) => {
            let draft = |chain: &ChainFacts| arguments.change(chain);
            make(&arguments.common, draft).await
        }
        Command::Keys(SetKeys { common, threshold, governance_key: mut keys }) => {
            keys.sort();
            let governance = Governance { threshold, keys };
            if !governance.is_well_formed() {
                let step = format!(
                    "{threshold} of {} keys is no governance: 1 to 32 different keys, and a threshold of at least 1 and at most their number",
                    governance.keys.len()
                );
                return Err(CommandError::Configuration { step, source: None });
            }
            make(&common, |_| Ok(GovernanceChange::SetKeys(governance))).await
        }
    }
}

async fn show(connection: &Connection, output: Output) -> Result<(), CommandError> {
    let chain = ChainFacts::ask(&connection.open().await?).await?;
    let keys: Vec<String> = chain.governance.keys.iter().map(hex::encode).collect();
    let parameters = node_api::genesis::parameters_json(&chain.parameters);
    let mut document = json!({
        "height": chain.governance.height,
        "threshold": chain.governance.threshold,
        "keys": keys,
        "nonce": chain.governance.nonce,
        "parameters": parameters,
    });
    if let (Some(map), Some(pending)) = (document.as_object_mut(), &chain.pending) {
        map.insert("pendingParameters".to_owned(), node_api::genesis::parameters_json(pending));
        map.insert("pendingFromHeight".to_owned(), chain.governance.pending_from_height.into());
    }
    output::print(output, &document)
}

async fn report(connection: &Connection) -> Result<(), CommandError> {
    let client = connection.open().await?;
    let report = client.voter_report().await.map_err(failed("failed to let the node make a session key"))?;
    output::print_text(&format!("{}\n", VoterReport::from_proto(&report).to_json()))
}

/// Makes a transaction from what the chain says now, signs it with the keys at hand, and prints it.
async fn make(
    common: &Common,
    change: impl FnOnce(&ChainFacts) -> Result<GovernanceChange, CommandError>,
) -> Result<(), CommandError> {
    let chain = ChainFacts::ask(&common.connection.open().await?).await?;
    let change = change(&chain)?;
    let terms = GovernanceTerms {
        incarnation: chain.incarnation,
        nonce: Nonce::new(common.nonce.unwrap_or(chain.governance.nonce)),
        valid_until: Height::new(chain.governance.height).saturating_add(common.valid_for),
    };
    let mut transaction = unsigned(&terms, change);
    for path in &common.key {
        let key = keys::read_key_file(path)
            .map_err(|error| CommandError::configuration("failed to read a governance key", error))?;
        chain.check_key(&GovernanceKey::new(key.public()))?;
        transaction = with_signature(&transaction, &key)
            .map_err(|error| CommandError::configuration("failed to sign the transaction", error))?;
    }
    super::document::print(&transaction)?;
    let (signed, needed) = (transaction.signatures().len(), chain.governance.threshold);
    if u32::try_from(signed).is_ok_and(|signed| signed < needed) {
        eprintln!("signed by {signed} of {needed} needed keys: `althing-node tx sign --key FILE` adds a signature");
    }
    Ok(())
}

fn read_report(path: &Path) -> Result<VoterReport, CommandError> {
    let step = format!("failed to use the report {}", path.display());
    VoterReport::from_json(&read_text(path)?).map_err(|error| CommandError::configuration(step, error))
}

/// A small text from a file or standard input.
pub fn read_text(path: &Path) -> Result<String, CommandError> {
    let text = input::read_text(path, DOCUMENT_BYTES_MAX);
    text.map_err(|error| CommandError::configuration(format!("failed to read {}", path.display()), error))
}

/// What the chain says, to refuse here what it would refuse, with a better reason.
struct ChainFacts {
    incarnation: Incarnation,
    governance: proto::GetGovernanceResponse,
    validators: proto::GetValidatorsResponse,
    parameters: Parameters,
    pending: Option<Parameters>,
}

impl ChainFacts {
    async fn ask(client: &Client) -> Result<Self, CommandError> {
        let status = client.status().await.map_err(failed("failed to ask for the chain's state"))?;
        let unusable = |error: &dyn std::fmt::Display| {
            CommandError::unavailable("the node's answer cannot be used", error.to_string())
        };
        if status.incarnation.is_empty() {
            let step = format!("{} has no chain yet", client.target());
            return Err(CommandError::Unavailable { step, source: None });
        }
        let incarnation = fields::array("incarnation", &status.incarnation).map_err(|error| unusable(&error))?;
        let governance = client.governance().await.map_err(failed("failed to ask for the governance"))?;
        let validators = client.validators().await.map_err(failed("failed to ask for the voters"))?;
        let decode = |bytes: &[u8]| Parameters::decode(bytes).map_err(|error| unusable(&error));
        let parameters = decode(&governance.parameters)?;
        let pending = &governance.pending_parameters;
        let pending = if pending.is_empty() { None } else { Some(decode(pending)?) };
        Ok(Self { incarnation: Incarnation::new(incarnation), governance, validators, parameters, pending })
    }

    fn voter(&self, identity: &Identity) -> Result<&proto::Voter, CommandError> {
        let voters = &self.validators.voters;
        voters.iter().find(|voter| voter.identity == identity.as_bytes()).ok_or_else(|| {
            let known: Vec<String> = voters.iter().map(|voter| hex::encode(&voter.identity)).collect();
            let step = format!("{identity} is no voter; the voters are {}", known.join(", "));
            CommandError::Refused { step, source: None }
        })
    }

    /// The voter of a report, if it is of this chain and the chain's bounds allow its power.
    fn newcomer(&self, report: &VoterReport, power: Power) -> Result<NewVoter, CommandError> {
        let (incarnation, voter) =
            report.voter(power).map_err(|error| CommandError::configuration("failed to use the report", error))?;
        if incarnation != self.incarnation {
            let step = format!(
                "the report was made for incarnation {incarnation}, the chain has {}: let the node make another",
                self.incarnation
            );
            return Err(CommandError::Refused { step, source: None });
        }
        self.check_moved(power.get())?;
        Ok(voter)
    }

    fn check_moved(&self, power: u64) -> Result<(), CommandError> {
        let total = self.validators.total_power;
        if u128::from(power) * 3 < u128::from(total) {
            return Ok(());
        }
        let most = total.saturating_sub(1) / 3;
        let step = format!(
            "{power} of {total} power would change hands, and a block moves less than a third: at most {most}; use several transactions, a few blocks apart"
        );
        Err(CommandError::Refused { step, source: None })
    }

    fn check_key(&self, key: &GovernanceKey) -> Result<(), CommandError> {
        if self.governance.keys.iter().any(|known| known == key.as_bytes()) {
            return Ok(());
        }
        let known: Vec<String> = self.governance.keys.iter().map(hex::encode).collect();
        let step = format!("{key} is no governance key of this chain; those are {}", known.join(", "));
        Err(CommandError::Refused { step, source: None })
    }
}

impl SetParameters {
    fn change(&self, chain: &ChainFacts) -> Result<GovernanceChange, CommandError> {
        if chain.pending.is_some() {
            let height = chain.governance.pending_from_height;
            let step = format!("other parameters are pending and count from height {height}: wait until then");
            return Err(CommandError::Refused { step, source: None });
        }
        let mut draft = ParametersDraft::clone(&chain.parameters);
        let set = |value: &mut u64, given: Option<u64>| *value = given.unwrap_or(*value);
        set(&mut draft.block_interval_ms, self.block_interval_ms);
        set(&mut draft.propose_timeout.base_ms, self.propose_timeout_ms);
        set(&mut draft.prevote_timeout.base_ms, self.prevote_timeout_ms);
        set(&mut draft.precommit_timeout.base_ms, self.precommit_timeout_ms);
        set(&mut draft.time_drift_ms_max, self.time_drift_ms_max);
        draft.transactions_per_block_max = self.transactions_per_block_max.unwrap_or(draft.transactions_per_block_max);
        draft.block_bytes_max = self.block_bytes_max.unwrap_or(draft.block_bytes_max);
        let parameters = Parameters::new(draft)
            .map_err(|error| CommandError::configuration("the parameters are out of bounds", error))?;
        if parameters == chain.parameters {
            let step = "these are the parameters in force: nothing would change".to_owned();
            return Err(CommandError::Refused { step, source: None });
        }
        Ok(GovernanceChange::SetParameters(parameters))
    }
}

/// Reads a transaction document.
pub fn read_transaction(path: &Path) -> Result<Transaction, CommandError> {
    let step = format!("failed to use the transaction {}", path.display());
    TransactionDocument::read(&read_text(path)?).map_err(|error| CommandError::configuration(step, error))
}
