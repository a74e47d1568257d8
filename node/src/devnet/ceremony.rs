//! Makes a genesis with the validators of a development network, as the operator does on a cluster.

use std::{sync::Arc, time::Duration};

use node_api::{
    client::{Client, ClientError, ClientOptions},
    fields::{self, FieldError},
    proto,
    tls::{Expected, TcpDialer, TlsDialer, TlsError, TlsStore},
};
use node_core::types::{
    AccountId, Amount, CeremonyNonce, Epoch, Genesis, GenesisDraft, GenesisError, GenesisVoter, Governance,
    GovernanceKey, Hash, Parameters, ParametersDraft, ParametersError, Power, TimeMs, VoterEntry,
};
use thiserror::Error;
use tokio::time::Instant;

use super::{accounts::governance_key, plan::Plan};
use crate::shell::watched::now_ms;

/// How long the nodes may take to answer their first call.
const START_TIME_MAX: Duration = Duration::from_secs(30);
const RETRY: Duration = Duration::from_millis(50);
const PROTOCOL_VERSION: u32 = 1;
const STATE_VERSION: u32 = 1;

/// Why there is no genesis.
#[derive(Debug, Error)]
pub enum CeremonyError {
    /// The operator's certificate could not be read.
    #[error("failed to read the operator's certificate")]
    Tls(#[from] TlsError),
    /// A node did not answer as it should.
    #[error("failed to make a genesis with the nodes")]
    Client(#[from] ClientError),
    /// A node's answer has another form.
    #[error("a node answered with something else")]
    Field(#[from] FieldError),
    /// The parameters are out of bounds.
    #[error("failed to choose parameters")]
    Parameters(#[from] ParametersError),
    /// The reports do not make a genesis.
    #[error("failed to assemble a genesis")]
    Genesis(#[from] GenesisError),
    /// A node accepted another genesis.
    #[error("a node accepted genesis {found}, not {expected}")]
    OtherGenesis {
        /// What it said.
        found: Hash,
        /// What it was given.
        expected: Hash,
    },
}

/// Collects the voters' reports and has one genesis with these accounts accepted by all of them.
pub async fn agree(
    plan: &Plan,
    parameters: ParametersDraft,
    accounts: Vec<(AccountId, Amount)>,
) -> Result<Genesis, CeremonyError> {
    let clients = connect(plan).await?;
    let nonce = CeremonyNonce::new(rand::random());
    let mut voters = Vec::new();
    for client in &clients {
        voters.push(voter(&client.genesis_report(&nonce).await?)?);
    }
    let genesis = Genesis::new(GenesisDraft {
        chain_id: plan.chain_id.clone(),
        time: TimeMs::new(now_ms()),
        protocol_version: PROTOCOL_VERSION,
        state_version: STATE_VERSION,
        ceremony: nonce,
        voters,
        accounts,
        governance: Governance { threshold: 1, keys: vec![GovernanceKey::new(governance_key().public())] },
        parameters: Parameters::new(parameters)?,
    })?;
    let expected = genesis.hash();
    for client in &clients {
        let accepted = client.accept_genesis(&genesis).await?;
        let found = fields::hash("genesis_hash", &accepted.genesis_hash)?;
        if found != expected {
            return Err(CeremonyError::OtherGenesis { found, expected });
        }
    }
    Ok(genesis)
}

/// Starts the chain on every voter.
pub async fn start(plan: &Plan, genesis: &Genesis) -> Result<(), CeremonyError> {
    for client in &connect(plan).await? {
        client.start_chain(&genesis.hash()).await?;
    }
    Ok(())
}

/// Clients of role operator for all nodes, once each of them answers.
async fn connect(plan: &Plan) -> Result<Vec<Client>, CeremonyError> {
    let tls = TlsStore::from_directory(&plan.operator)?;
    let deadline = Instant::now() + START_TIME_MAX;
    let mut clients = Vec::new();
    for node in plan.validators() {
        let expected = Expected::node(&plan.chain_id, &node.identity);
        let dialer = TlsDialer::new(TcpDialer::new(node.listen.grpc.to_string()), Arc::clone(&tls), expected);
        let client = Client::lazy(dialer, ClientOptions::default());
        // The listener comes up some time after the process.
        while let Err(error) = client.status().await {
            if Instant::now() >= deadline {
                return Err(error.into());
            }
            tokio::time::sleep(RETRY).await;
        }
        clients.push(client);
    }
    Ok(clients)
}

fn voter(report: &proto::GenesisReport) -> Result<GenesisVoter, FieldError> {
    Ok(GenesisVoter {
        entry: VoterEntry {
            identity: fields::identity("identity", &report.identity)?,
            power: Power::new(1),
            session_key: fields::session_key("session_key", &report.session_key)?,
            epoch: Epoch::new(report.epoch),
        },
        possession: fields::signature("possession", &report.possession)?,
    })
}
