//! A development network: several real validators as processes on this machine, with a genesis of their own.
//!
//! Everything is as on a cluster, except that this process plays the operator and that the accounts' keys are known to
//! everybody ([`accounts`]). Integration tests use it too: they kill and restart the processes.

pub mod accounts;
pub mod ceremony;
pub mod plan;
pub mod ports;
pub mod processes;

use std::{ffi::OsString, io, path::PathBuf};

use node_api::config::NodeRole;
use node_core::types::{AccountId, Amount, Genesis, ParametersDraft};
use thiserror::Error;

use ceremony::CeremonyError;
use plan::{Plan, PlanError, PlanRequest, PlannedNode};
use processes::NodeProcess;

/// Why there is no network.
#[derive(Debug, Error)]
pub enum DevnetError {
    /// The files could not be made.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A process could not be started or stopped.
    #[error("failed to control node {number}")]
    Process {
        /// The number of the node.
        number: usize,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The genesis could not be made.
    #[error(transparent)]
    Ceremony(#[from] CeremonyError),
    /// There is no such node.
    #[error("there is no node {number}")]
    NoNode {
        /// The number that was asked for.
        number: usize,
    },
}

/// The processes of one network; they end with this value.
#[derive(Debug)]
pub struct Devnet {
    binary: PathBuf,
    plan: Plan,
    processes: Vec<Option<NodeProcess>>,
}

impl Devnet {
    /// Writes the files of a new network and starts its processes from `binary`.
    pub fn create(binary: PathBuf, request: &PlanRequest) -> Result<Self, DevnetError> {
        let plan = plan::write(request)?;
        let processes = plan.nodes.iter().map(|_| None).collect();
        let mut devnet = Self { binary, plan, processes };
        for number in 0..devnet.plan.validators().count() {
            devnet.start_node(number)?;
        }
        Ok(devnet)
    }

    /// Makes a genesis with the validators, starts the chain, and then the observers.
    pub async fn start_chain(&mut self, parameters: ParametersDraft) -> Result<Genesis, DevnetError> {
        self.start_chain_with(parameters, accounts::funded()).await
    }

    /// The same with other accounts.
    pub async fn start_chain_with(
        &mut self,
        parameters: ParametersDraft,
        funded: Vec<(AccountId, Amount)>,
    ) -> Result<Genesis, DevnetError> {
        let genesis = ceremony::agree(&self.plan, parameters, funded).await?;
        self.start_agreed(&genesis).await?;
        Ok(genesis)
    }

    /// The first half of [`Devnet::start_chain`]: every validator accepts one genesis.
    pub async fn agree(&self, parameters: ParametersDraft) -> Result<Genesis, DevnetError> {
        Ok(ceremony::agree(&self.plan, parameters, accounts::funded()).await?)
    }

    /// The second half of [`Devnet::start_chain`].
    pub async fn start_agreed(&mut self, genesis: &Genesis) -> Result<(), DevnetError> {
        ceremony::start(&self.plan, genesis).await?;
        let path = self.plan.genesis.clone();
        std::fs::write(&path, node_api::genesis::to_json(genesis))
            .map_err(|source| PlanError::Write { path, source })?;
        for number in self.plan.validators().count()..self.plan.nodes.len() {
            self.start_node(number)?;
        }
        Ok(())
    }

    /// What is where.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The ids of the processes that run, in order of their nodes.
    pub fn process_ids(&self) -> Vec<u32> {
        self.processes.iter().flatten().filter_map(NodeProcess::id).collect()
    }

    /// Starts the process of one node, if it does not run.
    pub fn start_node(&mut self, number: usize) -> Result<(), DevnetError> {
        let PlannedNode { role, joins, config, log, .. } =
            self.plan.nodes.get(number).ok_or(DevnetError::NoNode { number })?;
        let mut arguments: Vec<OsString> = match role {
            NodeRole::Validator => vec!["validator".into()],
            NodeRole::Observer => vec!["observer".into()],
        };
        if *joins {
            arguments.extend(["--genesis".into(), self.plan.genesis.clone().into()]);
        }
        arguments.extend(["--config".into(), config.clone().into()]);
        let slot = self.processes.get_mut(number).ok_or(DevnetError::NoNode { number })?;
        if slot.is_none() {
            let process = NodeProcess::start(&self.binary, &arguments, log);
            *slot = Some(process.map_err(|source| DevnetError::Process { number, source })?);
        }
        Ok(())
    }

    /// From now on the node is given the genesis when it starts, as one that lost its volume needs it.
    pub fn give_genesis(&mut self, number: usize) {
        if let Some(node) = self.plan.nodes.get_mut(number) {
            node.joins = true;
        }
    }

    /// Ends one node as a power cut would.
    pub async fn kill_node(&mut self, number: usize) -> Result<(), DevnetError> {
        match self.processes.get_mut(number).ok_or(DevnetError::NoNode { number })?.take() {
            Some(process) => process.kill().await.map_err(|source| DevnetError::Process { number, source }),
            None => Ok(()),
        }
    }

    /// Stops one node in good order.
    pub async fn stop_node(&mut self, number: usize) -> Result<(), DevnetError> {
        match self.processes.get_mut(number).ok_or(DevnetError::NoNode { number })?.take() {
            Some(process) => process.stop().await.map(|_| ()).map_err(|source| DevnetError::Process { number, source }),
            None => Ok(()),
        }
    }

    /// Stops all nodes in good order.
    pub async fn stop(mut self) -> Result<(), DevnetError> {
        // All at once, so that the time of one is the time of all.
        let stopping = self.processes.iter_mut().map(|slot| {
            let process = slot.take();
            async move {
                match process {
                    Some(process) => process.stop().await.map(|_| ()),
                    None => Ok(()),
                }
            }
        });
        let results = futures::future::join_all(stopping).await;
        for (number, result) in results.into_iter().enumerate() {
            result.map_err(|source| DevnetError::Process { number, source })?;
        }
        Ok(())
    }

    /// The numbers of nodes whose process has ended by itself.
    pub fn ended(&mut self) -> Vec<usize> {
        let mut ended = Vec::new();
        for (number, process) in self.processes.iter_mut().enumerate() {
            if let Some(process) = process
                && !matches!(process.ended(), Ok(None))
            {
                ended.push(number);
            }
        }
        ended
    }
}
