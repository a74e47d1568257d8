//! The executed state: blocks go in one after the other beside the engine, readers ask in between.

use std::{sync::Arc, time::Duration};

use node_core::{
    ledger::{
        self, Account, Applied, ApplyError, ExecuteError, Outcome, Progress, Recoveries, RecoveryCheck,
        RecoveryRefused, Rules, Snapshot, StateKey, StateProof, StateRead, StateStore,
    },
    types::{AccountId, Block, Epoch, Genesis, Height, Identity, Nonce, Recovery, Results},
};
use thiserror::Error;
use tokio::{sync::mpsc, time::Instant};

use super::{events::EventKeeping, recovering::Completeness};
use crate::adapters::storage::{
    BlockReader, ExecutedBlock, LocalStore, MilestoneError, Milestones, QmdbStore, StateError, StorageError,
    changing_voters, keep_milestone,
};

/// Blocks that may wait for execution. The engine runs at most three heights ahead of it.
const BLOCKS_MAX: usize = 16;

/// Why the state cannot go on. The process ends.
#[derive(Debug, Error)]
pub enum ExecutionError {
    /// The store failed.
    #[error("failed to reach the state")]
    Store(#[from] StateError),
    /// The block could not be applied.
    #[error("failed to apply block {height}")]
    Apply {
        /// The block.
        height: Height,
        /// Why.
        #[source]
        source: ApplyError,
    },
    /// An entry could not be read.
    #[error("failed to read the state")]
    Read(#[from] ExecuteError),
    /// A change of voters could not be kept.
    #[error(transparent)]
    Milestone(#[from] MilestoneError),
    /// The certificate of a block could not be read.
    #[error("failed to read the certificate of block {height}")]
    Certificate {
        /// The block.
        height: Height,
        /// Why, if the volume failed.
        #[source]
        source: Option<StorageError>,
    },
    /// The events of a block could not be kept.
    #[error("failed to keep the events of block {height}")]
    Events {
        /// The block.
        height: Height,
        /// Why.
        #[source]
        source: StorageError,
    },
    /// A recovery does not stand on the state.
    #[error("failed to go on with a recovery")]
    Recovery(#[source] RecoveryRefused),
    /// The block was executed before, though the engine did not know.
    #[error("block {height} is executed already")]
    Twice {
        /// The block.
        height: Height,
    },
    /// The work on the state's thread did not end.
    #[error("the execution was interrupted")]
    Interrupted,
}

/// One executed block.
#[derive(Debug)]
pub struct Executed {
    /// What it did.
    pub outcome: Box<Outcome>,
    /// What header `height + 2` must name.
    pub results: Results,
    /// How far the chain has come.
    pub progress: Progress,
    /// How long it took, until the state was durable.
    pub duration: Duration,
}

/// Reads what a starting node needs. Blocks.
pub fn read(store: &QmdbStore, recoveries: &Recoveries) -> Result<Snapshot, ExecutionError> {
    let recoveries = recoveries.clone();
    store.run(move |local| {
        let snapshot = ledger::snapshot(local)?.ok_or(ExecutionError::Read(ExecuteError::NoGenesis))?;
        recoveries.recovered(snapshot).map_err(ExecutionError::Recovery)
    })?
}

/// What keeps the changes of voters for light clients.
#[derive(Clone, Debug)]
pub struct Light {
    /// Where they are kept.
    pub milestones: Milestones,
    /// Final blocks with their certificates.
    pub blocks: BlockReader,
}

impl Light {
    /// Looks whether the voters change after a height that is executed next.
    fn keep(&self, state: &LocalStore, height: Height) -> Result<(), ExecutionError> {
        // Most blocks change nothing, and need not be read again.
        if changing_voters(state, height)?.is_none() {
            return Ok(());
        }
        let block = self.blocks.read(height);
        let block = block.map_err(|source| ExecutionError::Certificate { height, source: Some(source) })?;
        let block = block.ok_or(ExecutionError::Certificate { height, source: None })?;
        Ok(keep_milestone(state, &self.milestones, &block)?)
    }
}

/// The queue of blocks to execute.
#[derive(Clone, Debug)]
pub struct Executor {
    blocks: mpsc::Sender<Arc<Block>>,
}

/// Starts the execution of blocks, in the order in which they are queued. Ends with the first error, or when the
/// executor is dropped.
pub fn start(
    store: QmdbStore,
    recoveries: Recoveries,
    light: Light,
    mut events: Option<EventKeeping>,
) -> (Executor, mpsc::Receiver<Result<Executed, ExecutionError>>, tokio::task::JoinHandle<()>) {
    let (blocks, mut queue) = mpsc::channel::<Arc<Block>>(BLOCKS_MAX);
    let (results, executed) = mpsc::channel(BLOCKS_MAX);
    let task = tokio::spawn(async move {
        while let Some(block) = queue.recv().await {
            let (store, recoveries, light) = (store.clone(), recoveries.clone(), light.clone());
            let keeping = events.take();
            let work = move || execute(&store, block, Execution { recoveries, light, events: keeping });
            let done = tokio::task::spawn_blocking(work).await;
            // What keeps events goes with each block and comes back: it has one owner at a time.
            let (result, keeping) = done.unwrap_or((Err(ExecutionError::Interrupted), None));
            events = keeping;
            let failed = result.is_err();
            if results.send(result).await.is_err() || failed {
                return;
            }
        }
    });
    (Executor { blocks }, executed, task)
}

impl Executor {
    /// Queues a block. False when the queue is full or the execution has ended, which the engine's bounds rule out.
    pub fn execute(&self, block: Arc<Block>) -> bool {
        self.blocks.try_send(block).is_ok()
    }
}

/// What the execution of a block needs beside the state.
struct Execution {
    recoveries: Recoveries,
    light: Light,
    events: Option<EventKeeping>,
}

fn execute(
    store: &QmdbStore,
    block: Arc<Block>,
    execution: Execution,
) -> (Result<Executed, ExecutionError>, Option<EventKeeping>) {
    let start = Instant::now();
    let ran = store.run(move |local| {
        let Execution { recoveries, light, mut events } = execution;
        (execute_on(local, &block, (&recoveries, &light), &mut events), events)
    });
    let (result, events) = match ran {
        Ok((result, events)) => (result, events),
        Err(error) => (Err(error.into()), None),
    };
    let executed =
        result.map(|(outcome, results, progress)| Executed { outcome, results, progress, duration: start.elapsed() });
    (executed, events)
}

/// On the thread of the store. The events of the block are durable before the state is, so that a crash loses none.
fn execute_on(
    local: &mut LocalStore,
    block: &Block,
    (recoveries, light): (&Recoveries, &Light),
    events: &mut Option<EventKeeping>,
) -> Result<(Box<Outcome>, Results, Progress), ExecutionError> {
    let height = block.header().height;
    let failed = |source| ExecutionError::Apply { height, source };
    let snapshot = |local: &LocalStore| ledger::snapshot(local)?.ok_or(ExecutionError::Read(ExecuteError::NoGenesis));
    light.keep(local, height)?;
    let outcome = ledger::execute_after(local, block, recoveries).map_err(failed)?;
    let outcome = outcome.ok_or(ExecutionError::Twice { height })?;
    if let Some(events) = events {
        let before = snapshot(local)?;
        let executed = ExecutedBlock { block, before: &before, recoveries, outcome: &outcome };
        events.keep(executed).map_err(|source| ExecutionError::Events { height, source })?;
    }
    match ledger::commit_outcome(local, outcome).map_err(failed)? {
        Applied::Now { outcome, results } => Ok((outcome, results, snapshot(local)?.progress)),
        Applied::Before => Err(ExecutionError::Twice { height }),
    }
}

/// Reading the state from the services.
#[derive(Clone, Debug)]
pub struct StateAccess {
    store: QmdbStore,
}

/// One account in the newest state.
#[derive(Debug)]
pub struct AccountView {
    /// The height of the state.
    pub height: Height,
    /// The account.
    pub account: Account,
    /// Whether the state has an entry for it.
    pub exists: bool,
    /// The proof, if it was asked for.
    pub proof: Option<StateProof>,
}

/// Whether a proof is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prove {
    /// Yes: some disk reads more.
    Yes,
    /// No.
    No,
}

/// What a recovery stands on.
#[derive(Debug)]
pub struct RecoveryFacts {
    /// The newest state, with former recoveries.
    pub snapshot: Snapshot,
    /// The epoch that a fresh session key must have.
    pub epoch: Epoch,
}

/// Who may change the chain, in the newest state.
#[derive(Debug)]
pub struct GovernanceView {
    /// The height of the state.
    pub height: Height,
    /// What the next governance transaction must carry.
    pub nonce: Nonce,
    /// Parameters and keys.
    pub rules: Rules,
}

impl StateAccess {
    /// Reads from `store`.
    pub fn new(store: QmdbStore) -> Self {
        Self { store }
    }

    /// Reads one account.
    pub async fn account(&self, id: AccountId, prove: Prove) -> Result<AccountView, ExecutionError> {
        let store = self.store.clone();
        tokio::task::spawn_blocking(move || store.run(move |local| read_account(local, &id, prove))?)
            .await
            .unwrap_or(Err(ExecutionError::Interrupted))
    }

    /// Reads who may change the chain.
    pub async fn governance(&self) -> Result<GovernanceView, ExecutionError> {
        let store = self.store.clone();
        tokio::task::spawn_blocking(move || store.run(move |local| read_governance(local))?)
            .await
            .unwrap_or(Err(ExecutionError::Interrupted))
    }

    /// What the next recovery stands on. Blocks.
    pub fn recovery_facts(
        &self,
        recoveries: &Recoveries,
        identity: &Identity,
    ) -> Result<RecoveryFacts, ExecutionError> {
        let (recoveries, identity) = (recoveries.clone(), *identity);
        self.store.run(move |local| {
            let snapshot = ledger::snapshot(local)?.ok_or(ExecutionError::Read(ExecuteError::NoGenesis))?;
            let snapshot = recoveries.recovered(snapshot).map_err(ExecutionError::Recovery)?;
            let epoch = ledger::recovery_epoch(local, &snapshot.sets, &identity)?;
            Ok(RecoveryFacts { snapshot, epoch })
        })?
    }

    /// Checks a recovery against the newest state. Blocks.
    pub fn check_recovery(
        &self,
        recoveries: &Recoveries,
        genesis: &Genesis,
        recovery: &Recovery,
        completeness: Completeness,
    ) -> Result<Result<(), RecoveryRefused>, ExecutionError> {
        let (recoveries, genesis, recovery) = (recoveries.clone(), genesis.clone(), recovery.clone());
        self.store.run(move |local| {
            let snapshot = ledger::snapshot(local)?.ok_or(ExecutionError::Read(ExecuteError::NoGenesis))?;
            let snapshot = recoveries.recovered(snapshot).map_err(ExecutionError::Recovery)?;
            let number_before = recoveries.newest().map_or(0, |manifest| manifest.number);
            let check = RecoveryCheck { state: local, snapshot: &snapshot, genesis: &genesis, number_before };
            Ok(match completeness {
                Completeness::Approved => check.acceptable(&recovery),
                Completeness::Accepted => check.complete(&recovery),
            })
        })?
    }

    /// The epoch that the next session key of an identity must have.
    pub async fn next_epoch(&self, identity: Identity) -> Result<Epoch, ExecutionError> {
        let store = self.store.clone();
        let read = move || store.run(move |local| Ok::<_, ExecutionError>(ledger::highest_epoch(local, &identity)?))?;
        let highest = tokio::task::spawn_blocking(read).await.unwrap_or(Err(ExecutionError::Interrupted))?;
        Ok(highest.map_or(Epoch::FIRST, |highest| highest.saturating_add(1)))
    }
}

fn read_governance<S: StateRead>(state: &S) -> Result<GovernanceView, ExecutionError> {
    let snapshot = ledger::snapshot(state)?.ok_or(ExecutionError::Read(ExecuteError::NoGenesis))?;
    let nonce = ledger::account(state, &AccountId::governance())?.nonce;
    Ok(GovernanceView { height: snapshot.progress.height, nonce, rules: snapshot.rules() })
}

fn read_account<S>(state: &S, id: &AccountId, prove: Prove) -> Result<AccountView, ExecutionError>
where
    S: StateStore<Error = StateError>,
{
    let key = StateKey::account(id);
    let account = ledger::account(state, id)?;
    let exists = state.read(&key).map_err(ExecuteError::from)?.is_some();
    let height = state.roots()?.map(|(height, _)| height).unwrap_or_default();
    let proof = match prove {
        Prove::Yes => Some(state.prove(&key)?),
        Prove::No => None,
    };
    Ok(AccountView { height, account, exists, proof })
}
