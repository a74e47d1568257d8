//! The genesis as a JSON document, as it stands in ConfigMaps and files.
//!
//! The document repeats every field of [`Genesis`]; its hash is that of the fixed layout, never of the JSON. Reading
//! checks everything, also that each voter proved that it holds its session key.

use node_core::{
    crypto::verify_genesis,
    types::{
        AccountId, Amount, CeremonyNonce, ChainId, Epoch, Genesis, GenesisDraft, GenesisError, GenesisVoter,
        Governance, GovernanceKey, Identity, InvalidIdentifier, Parameters, ParametersDraft, ParametersError, Power,
        SessionKey, Signature, TimeMs, Timeout, VoterEntry,
    },
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The only version of the document.
pub const GENESIS_DOCUMENT_VERSION: u32 = 1;
/// Largest document that is read, in bytes.
pub const GENESIS_DOCUMENT_BYTES_MAX: usize = 8 << 20;

/// Why a text is not a genesis.
#[derive(Debug, Error)]
pub enum GenesisDocumentError {
    /// Larger than any genesis.
    #[error("the genesis document has {found} bytes, at most {GENESIS_DOCUMENT_BYTES_MAX} are read")]
    TooLarge {
        /// Its length.
        found: usize,
    },
    /// Not JSON, or with unknown or missing keys.
    #[error("failed to read the genesis document: {0}")]
    Json(#[from] serde_json::Error),
    /// Another version.
    #[error("the genesis document has version {found}, this program reads {GENESIS_DOCUMENT_VERSION}")]
    Version {
        /// What it says.
        found: u32,
    },
    /// A key, id or signature with wrong digits.
    #[error("genesis document: {0}")]
    Identifier(#[from] InvalidIdentifier),
    /// A parameter outside its bounds.
    #[error("genesis document: {0}")]
    Parameters(#[from] ParametersError),
    /// The whole does not hold together.
    #[error("genesis document: {0}")]
    Genesis(#[from] GenesisError),
}

/// The document of a genesis: indented JSON with a fixed order of keys. Equal genesis, equal text.
pub fn to_json(genesis: &Genesis) -> String {
    let mut text = serde_json::to_string_pretty(&Document::from(genesis))
        .expect("a document of texts and numbers always has a JSON form");
    text.push('\n');
    text
}

/// Reads and checks a document.
pub fn from_json(text: &str) -> Result<Genesis, GenesisDocumentError> {
    if text.len() > GENESIS_DOCUMENT_BYTES_MAX {
        return Err(GenesisDocumentError::TooLarge { found: text.len() });
    }
    let document: Document = serde_json::from_str(text)?;
    if document.version != GENESIS_DOCUMENT_VERSION {
        return Err(GenesisDocumentError::Version { found: document.version });
    }
    let genesis = Genesis::new(document.into_draft()?)?;
    verify_genesis(&genesis)?;
    Ok(genesis)
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Document {
    version: u32,
    chain_id: String,
    time_ms: u64,
    protocol_version: u32,
    state_version: u32,
    ceremony: String,
    voters: Vec<DocumentVoter>,
    accounts: Vec<DocumentAccount>,
    governance: DocumentGovernance,
    parameters: DocumentParameters,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct DocumentVoter {
    identity: String,
    power: u64,
    session_key: String,
    epoch: u64,
    possession: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct DocumentAccount {
    account: String,
    amount: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct DocumentGovernance {
    threshold: u32,
    keys: Vec<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct DocumentParameters {
    block_interval_ms: u64,
    propose_timeout: DocumentTimeout,
    prevote_timeout: DocumentTimeout,
    precommit_timeout: DocumentTimeout,
    transactions_per_block_max: u32,
    block_bytes_max: u32,
    time_drift_ms_max: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct DocumentTimeout {
    base_ms: u64,
    delta_ms: u64,
}

impl From<&Genesis> for Document {
    fn from(genesis: &Genesis) -> Self {
        let GenesisDraft {
            chain_id,
            time,
            protocol_version,
            state_version,
            ceremony,
            voters,
            accounts,
            governance: Governance { threshold, keys },
            parameters,
        } = &**genesis;
        Self {
            version: GENESIS_DOCUMENT_VERSION,
            chain_id: chain_id.to_string(),
            time_ms: time.get(),
            protocol_version: *protocol_version,
            state_version: *state_version,
            ceremony: ceremony.to_string(),
            voters: voters.iter().map(DocumentVoter::from).collect(),
            accounts: accounts
                .iter()
                .map(|(account, amount)| DocumentAccount { account: account.to_string(), amount: amount.get() })
                .collect(),
            governance: DocumentGovernance {
                threshold: *threshold,
                keys: keys.iter().map(GovernanceKey::to_string).collect(),
            },
            parameters: DocumentParameters::from(parameters),
        }
    }
}

impl Document {
    fn into_draft(self) -> Result<GenesisDraft, GenesisDocumentError> {
        let Self {
            version: _,
            chain_id,
            time_ms,
            protocol_version,
            state_version,
            ceremony,
            voters,
            accounts,
            governance: DocumentGovernance { threshold, keys },
            parameters,
        } = self;
        let accounts = accounts.into_iter().map(|DocumentAccount { account, amount }| {
            Ok::<_, InvalidIdentifier>((account.parse::<AccountId>()?, Amount::new(amount)))
        });
        let keys = keys.iter().map(|key| key.parse::<GovernanceKey>());
        Ok(GenesisDraft {
            chain_id: ChainId::new(chain_id)?,
            time: TimeMs::new(time_ms),
            protocol_version,
            state_version,
            ceremony: ceremony.parse::<CeremonyNonce>()?,
            voters: voters.into_iter().map(DocumentVoter::into_voter).collect::<Result<_, _>>()?,
            accounts: accounts.collect::<Result<_, _>>()?,
            governance: Governance { threshold, keys: keys.collect::<Result<_, _>>()? },
            parameters: Parameters::new(parameters.into())?,
        })
    }
}

impl From<&GenesisVoter> for DocumentVoter {
    fn from(voter: &GenesisVoter) -> Self {
        let GenesisVoter { entry: VoterEntry { identity, power, session_key, epoch }, possession } = voter;
        Self {
            identity: identity.to_string(),
            power: power.get(),
            session_key: session_key.to_string(),
            epoch: epoch.get(),
            possession: possession.to_string(),
        }
    }
}

impl DocumentVoter {
    fn into_voter(self) -> Result<GenesisVoter, InvalidIdentifier> {
        let Self { identity, power, session_key, epoch, possession } = self;
        let entry = VoterEntry {
            identity: identity.parse::<Identity>()?,
            power: Power::new(power),
            session_key: session_key.parse::<SessionKey>()?,
            epoch: Epoch::new(epoch),
        };
        Ok(GenesisVoter { entry, possession: possession.parse::<Signature>()? })
    }
}

/// The parameters as they stand in the genesis document.
pub fn parameters_json(parameters: &Parameters) -> serde_json::Value {
    serde_json::to_value(DocumentParameters::from(parameters)).expect("numbers are always JSON")
}

impl From<&Parameters> for DocumentParameters {
    fn from(parameters: &Parameters) -> Self {
        let ParametersDraft {
            block_interval_ms,
            propose_timeout,
            prevote_timeout,
            precommit_timeout,
            transactions_per_block_max,
            block_bytes_max,
            time_drift_ms_max,
        } = **parameters;
        Self {
            block_interval_ms,
            propose_timeout: propose_timeout.into(),
            prevote_timeout: prevote_timeout.into(),
            precommit_timeout: precommit_timeout.into(),
            transactions_per_block_max,
            block_bytes_max,
            time_drift_ms_max,
        }
    }
}

impl From<DocumentParameters> for ParametersDraft {
    fn from(parameters: DocumentParameters) -> Self {
        let DocumentParameters {
            block_interval_ms,
            propose_timeout,
            prevote_timeout,
            precommit_timeout,
            transactions_per_block_max,
            block_bytes_max,
            time_drift_ms_max,
        } = parameters;
        Self {
            block_interval_ms,
            propose_timeout: propose_timeout.into(),
            prevote_timeout: prevote_timeout.into(),
            precommit_timeout: precommit_timeout.into(),
            transactions_per_block_max,
            block_bytes_max,
            time_drift_ms_max,
        }
    }
}

impl From<Timeout> for DocumentTimeout {
    fn from(Timeout { base_ms, delta_ms }: Timeout) -> Self {
        Self { base_ms, delta_ms }
    }
}

impl From<DocumentTimeout> for Timeout {
    fn from(DocumentTimeout { base_ms, delta_ms }: DocumentTimeout) -> Self {
        Self { base_ms, delta_ms }
    }
}
