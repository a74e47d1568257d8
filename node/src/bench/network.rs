//! The network that is measured: four local processes made for one trial, or nodes that somebody else runs.

use std::{path::PathBuf, sync::Arc, time::Duration};

use node_api::{
    client::{Client, ClientOptions},
    config::LogLevel,
    fields,
    tls::{Expected, TcpDialer, TlsDialer, TlsStore},
};
use node_core::types::{
    AccountId, Amount, ChainId, Epoch, Genesis, Height, Incarnation, ParametersDraft, Power, VoterEntry, VoterSet,
};
use tokio::time::Instant;

use super::{BenchError, corpus::Wallets, machine::Watched};
use crate::devnet::{Devnet, accounts, plan::PlanRequest, ports};

/// Longest wait for one answer.
const DEADLINE: Duration = Duration::from_secs(30);
/// How long a new network may take until all of its nodes vote.
const START_TIME_MAX: Duration = Duration::from_secs(60);
const RETRY: Duration = Duration::from_millis(50);
/// Validators of a local network.
pub const VALIDATORS: u16 = 4;

/// Where the nodes come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// Started for every trial, in a directory that is removed before the next.
    Local {
        /// The directory.
        directory: PathBuf,
    },
    /// Running already.
    Endpoints {
        /// `host:port` of each.
        endpoints: Vec<String>,
        /// Directory with the certificate of a client.
        tls: PathBuf,
        /// Chooses the accounts.
        seed: u64,
    },
}

/// A network that is ready for load.
#[derive(Debug)]
pub struct Network {
    /// One client a node.
    pub clients: Vec<Client>,
    /// What transactions are bound to.
    pub incarnation: Incarnation,
    /// Who signs certificates.
    pub voters: VoterSet,
    /// The newest height when it was ready.
    pub height: Height,
    /// What to measure.
    pub watched: Watched,
    /// Of nodes that the measurement started: what proves who votes when that changes.
    pub genesis: Option<Arc<Genesis>>,
    devnet: Option<Devnet>,
}

impl Network {
    /// Starts or reaches the nodes.
    pub async fn open(source: &Source, wallets: &Wallets) -> Result<Self, BenchError> {
        match source {
            Source::Local { directory } => Self::start(directory.clone(), wallets.funded(accounts::BALANCE)).await,
            Source::Endpoints { endpoints, tls, seed: _ } => {
                let tls = TlsStore::from_directory(tls)?;
                let chain_id = tls.current().facts().id.chain_id().clone();
                let clients = endpoints.iter().map(|endpoint| client(&tls, &chain_id, endpoint)).collect();
                Self::reach(clients, Watched::default(), None).await
            }
        }
    }

    async fn start(directory: PathBuf, funded: Vec<(AccountId, Amount)>) -> Result<Self, BenchError> {
        if directory.exists() {
            std::fs::remove_dir_all(&directory).map_err(BenchError::file("remove", &directory))?;
        }
        let request = PlanRequest {
            directory: directory.clone(),
            chain_id: "bench".parse().expect("the name is a chain id"),
            ports: ports::free(VALIDATORS).map_err(BenchError::file("find ports for", &directory))?,
            observers: 0,
            candidates: 0,
            log_level: LogLevel::Warn,
        };
        let binary = std::env::current_exe().map_err(BenchError::file("find the program for", &directory))?;
        let mut devnet = Devnet::create(binary, &request)?;
        let genesis = devnet.start_chain_with(ParametersDraft::default(), funded).await?;
        let plan = devnet.plan();
        let tls = TlsStore::from_directory(&plan.client)?;
        let nodes = plan.nodes.iter();
        let clients = nodes.map(|node| client(&tls, &plan.chain_id, &node.listen.grpc.to_string())).collect();
        let data = (0..plan.nodes.len()).map(|number| directory.join(format!("node-{number}/data"))).collect();
        let watched = Watched { nodes: devnet.process_ids(), data };
        let network = Self::reach(clients, watched, Some(devnet)).await?;
        Ok(Self { genesis: Some(Arc::new(genesis)), ..network })
    }

    /// Waits until every node votes on the same chain.
    async fn reach(clients: Vec<Client>, watched: Watched, devnet: Option<Devnet>) -> Result<Self, BenchError> {
        let deadline = Instant::now() + START_TIME_MAX;
        let mut incarnations = Vec::new();
        let mut height = Height::ZERO;
        for client in &clients {
            let status = loop {
                match client.status().await {
                    Ok(status) if status.height > 0 => break status,
                    Ok(_) if Instant::now() < deadline => {}
                    Ok(_) => return Err(BenchError::Endpoints(format!("{} makes no block", client.target()))),
                    Err(error) if Instant::now() >= deadline => return Err(error.into()),
                    Err(_) => {}
                }
                tokio::time::sleep(RETRY).await;
            };
            incarnations.push(status.incarnation);
            height = height.max(Height::new(status.height));
        }
        incarnations.dedup();
        let incarnation = match incarnations.as_slice() {
            [one] => fields::hash("incarnation", one).map_err(malformed)?.into(),
            _ => return Err(BenchError::Endpoints("they follow different chains".to_owned())),
        };
        let first = clients.first().ok_or_else(|| BenchError::Endpoints("there are none".to_owned()))?;
        let voters = voters(first).await?;
        Ok(Self { clients, incarnation, voters, height, watched, genesis: None, devnet })
    }

    /// Ends the process of one node as a power cut would.
    pub async fn kill(&mut self, node: usize) -> Result<(), BenchError> {
        Ok(self.own()?.kill_node(node).await?)
    }

    /// Starts the process of one node again, on the data that it left.
    pub fn start_again(&mut self, node: usize) -> Result<(), BenchError> {
        Ok(self.own()?.start_node(node)?)
    }

    fn own(&mut self) -> Result<&mut Devnet, BenchError> {
        let foreign = || BenchError::Endpoints("only nodes that the measurement started can be killed".to_owned());
        self.devnet.as_mut().ok_or_else(foreign)
    }

    /// Stops the processes, if they are own ones.
    pub async fn close(self) -> Result<(), BenchError> {
        match self.devnet {
            Some(devnet) => Ok(devnet.stop().await?),
            None => Ok(()),
        }
    }
}

fn client(tls: &Arc<TlsStore>, chain_id: &ChainId, endpoint: &str) -> Client {
    let options = ClientOptions { deadline: DEADLINE, ..ClientOptions::default() };
    let expected = Expected::any_server(chain_id);
    Client::lazy(TlsDialer::new(TcpDialer::new(endpoint), Arc::clone(tls), expected), options)
}

/// The voters as one node says; each header's hash of its voters is compared with them.
async fn voters(client: &Client) -> Result<VoterSet, BenchError> {
    let answer = client.validators().await?;
    let entry = |voter: &node_api::proto::Voter| {
        Ok(VoterEntry {
            identity: fields::identity("identity", &voter.identity)?,
            power: Power::new(voter.power),
            session_key: fields::session_key("session_key", &voter.session_key)?,
            epoch: Epoch::new(voter.epoch),
        })
    };
    let entries = answer.voters.iter().map(entry).collect::<Result<Vec<_>, _>>().map_err(malformed)?;
    VoterSet::new(entries).map_err(|error| BenchError::Endpoints(error.to_string()))
}

fn malformed(error: node_api::fields::FieldError) -> BenchError {
    BenchError::Endpoints(error.to_string())
}
