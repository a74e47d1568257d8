//! The node's part in a recovery: a fresh key, one acceptance of each number, and a new beginning of keys and log.

use std::{path::Path, time::Duration};

use node_api::{config::NodeConfig, proto};
use node_core::{
    crypto::{KeyPair, SigningBytes},
    ledger::{Recoveries, RecoveryRefused},
    session::{NotCleared, SessionStatement},
    types::{Epoch, Genesis, Identity, Recovery, RecoveryManifest, SessionKey},
};

use super::{
    lifecycle::LifecycleError,
    running::Running,
    sessions::{Sessions, SessionsError},
    startup::StartupError,
    state::{RecoveryFacts, StateAccess},
};
use crate::adapters::storage::{ConsensusLog, RecoveryStore, StorageError};

/// A chain that made a block in this time needs no recovery.
const STANDING_MIN: Duration = Duration::from_secs(10);

/// The recoveries of this node's volume.
#[derive(Debug)]
pub struct RecoveryBook {
    store: RecoveryStore,
    accepted: Option<Recovery>,
    complete: Vec<Recovery>,
}

/// What the log of the volume must look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpectedLog {
    /// It goes on.
    Kept,
    /// A recovery has made all keys new: there is none, and that is right.
    New,
}

impl RecoveryBook {
    /// What the volume holds.
    pub fn open(config: &NodeConfig) -> Result<Self, StorageError> {
        let store = RecoveryStore::open(&config.data_directory.join("recovery"))?;
        let (accepted, complete) = (store.accepted()?, store.complete()?);
        Ok(Self { store, accepted, complete })
    }

    /// The recoveries with which the chain went on.
    pub fn recoveries(&self) -> Recoveries {
        Recoveries::new(self.complete.iter().map(|recovery| recovery.manifest().clone()))
    }

    /// This node has signed for a recovery that is not complete here: it signs nothing for the incarnation that ends.
    pub fn is_superseded(&self) -> bool {
        self.accepted.as_ref().is_some_and(|accepted| accepted.manifest().number > self.number())
    }

    /// The number of the last recovery; 0 if there was none.
    fn number(&self) -> u32 {
        self.complete.last().map_or(0, |recovery| recovery.manifest().number)
    }

    /// Before the log is opened: after a recovery every key but the one that it names is given up, and the log with them.
    /// Only once the new log is there is this noted, so a crash does it again.
    pub fn begin(&self, identity: &Identity, sessions: &mut Sessions, log: &Path) -> Result<ExpectedLog, StartupError> {
        let Some(newest) = self.complete.last().map(Recovery::manifest) else { return Ok(ExpectedLog::Kept) };
        if self.store.begun()? >= newest.number {
            return Ok(ExpectedLog::Kept);
        }
        let key = newest.voter(identity).map(|voter| voter.session_key);
        sessions.keep_only(key.as_ref())?;
        if log.exists() {
            ConsensusLog::set_aside(log)?;
        }
        tracing::info!(number = newest.number, incarnation = %newest.incarnation(), "the chain goes on with a recovery");
        Ok(ExpectedLog::New)
    }

    /// The new log is there.
    pub fn begun(&self) -> Result<(), StorageError> {
        let number = self.number();
        if self.store.begun()? < number { self.store.set_begun(number) } else { Ok(()) }
    }

    /// Signs that this node goes on with this recovery and with no other of its number, durably.
    fn accept(&mut self, recovery: Recovery, key: &KeyPair) -> Result<proto::AcceptRecoveryResponse, LifecycleError> {
        let manifest = recovery.manifest();
        if let Some(other) = self.accepted.as_ref().map(Recovery::manifest)
            && other.number == manifest.number
            && other.hash() != manifest.hash()
        {
            let problem = format!("recovery {} is accepted already as {}", other.number, other.hash());
            return Err(LifecycleError::not_now(problem));
        }
        let hash = manifest.hash();
        self.store.accept(&recovery)?;
        self.accepted = Some(recovery);
        let acceptance = key.sign(&SigningBytes::recovery_acceptance(&hash, &Identity::new(key.public())));
        tracing::warn!(manifest = %hash, "accepted a recovery: this node signs nothing more until it is complete");
        Ok(proto::AcceptRecoveryResponse {
            manifest_hash: hash.as_bytes().to_vec(),
            acceptance: acceptance.as_bytes().to_vec(),
        })
    }

    fn complete(&mut self, recovery: Recovery) -> Result<(), StorageError> {
        self.complete.push(recovery);
        self.store.set_complete(self.complete.clone())
    }
}

/// What the calls of a recovery need beside the running chain.
pub struct RecoveryCall<'a> {
    /// The recoveries so far.
    pub book: &'a mut RecoveryBook,
    /// The executed state.
    pub state: &'a StateAccess,
    /// The genesis.
    pub genesis: &'a Genesis,
    /// Signs acceptances.
    pub identity_key: &'a KeyPair,
}

impl RecoveryCall<'_> {
    /// The last block of this node, and a fresh session key of its volume with proof, for the next manifest.
    pub fn report(&self, running: &mut Running) -> Result<proto::RecoveryReport, LifecycleError> {
        self.check_standing(running)?;
        let Self { book, state, genesis, identity_key } = self;
        let identity = Identity::new(identity_key.public());
        let facts = state.recovery_facts(&book.recoveries(), &identity).map_err(volume)?;
        let RecoveryFacts { snapshot, epoch } = facts;
        let (number, parent) = (book.number().saturating_add(1), snapshot.chain.incarnation);
        let sets = [&snapshot.sets.first, &snapshot.sets.second, &snapshot.sets.third];
        let is_voter = sets.iter().any(|set| set.get(&identity).is_some());
        let mut report = proto::RecoveryReport {
            chain_id: genesis.chain_id.to_string(),
            genesis_hash: genesis.hash().as_bytes().to_vec(),
            number,
            parent: parent.as_bytes().to_vec(),
            height: snapshot.progress.height.get(),
            block_hash: snapshot.progress.block.as_bytes().to_vec(),
            state_root: snapshot.results.roots.state_root.as_bytes().to_vec(),
            identity: identity.as_bytes().to_vec(),
            ..proto::RecoveryReport::default()
        };
        if is_voter {
            let key = fresh_key(&mut running.performer.sessions, epoch)?;
            let statement = SessionStatement::recovery_possession(&parent, number, &identity, epoch, &key);
            let possession = running.performer.sessions.sign(&key, &statement);
            let possession = possession.ok_or_else(|| LifecycleError::not_now("the fresh session key is not held"))?;
            report.epoch = epoch.get();
            report.session_key = key.as_bytes().to_vec();
            report.possession = possession.as_bytes().to_vec();
        }
        Ok(report)
    }

    /// Accepts a manifest that governance has approved.
    pub fn accept(
        &mut self,
        running: &Running,
        recovery: Recovery,
    ) -> Result<proto::AcceptRecoveryResponse, LifecycleError> {
        self.check_standing(running)?;
        self.check(&recovery, Completeness::Approved)?;
        self.check_key(running, recovery.manifest())?;
        self.book.accept(recovery, self.identity_key)
    }

    /// Takes a manifest that a quorum of identities has accepted. The node ends after this and starts again with it.
    pub fn complete(&mut self, recovery: Recovery) -> Result<(), LifecycleError> {
        self.check(&recovery, Completeness::Accepted)?;
        Ok(self.book.complete(recovery)?)
    }

    fn check(&self, recovery: &Recovery, completeness: Completeness) -> Result<(), LifecycleError> {
        let Self { book, state, genesis, .. } = self;
        let checked = state.check_recovery(&book.recoveries(), genesis, recovery, completeness);
        match checked.map_err(volume)? {
            Ok(()) => Ok(()),
            Err(RecoveryRefused::State(error)) => Err(volume(error)),
            Err(refused) => Err(LifecycleError::not_now(refused)),
        }
    }

    /// A voter's fresh key must be on this volume: another process of the identity may have reported another one.
    fn check_key(&self, running: &Running, manifest: &RecoveryManifest) -> Result<(), LifecycleError> {
        let Some(voter) = manifest.voter(&Identity::new(self.identity_key.public())) else { return Ok(()) };
        match running.performer.sessions.entry(&voter.session_key) {
            Some(_) => Ok(()),
            None => Err(LifecycleError::not_now(format!(
                "the recovery names session key {}, which is not on this volume: collect it again",
                voter.session_key
            ))),
        }
    }

    fn check_standing(&self, running: &Running) -> Result<(), LifecycleError> {
        let age = running.view.executed_at.elapsed();
        if age >= STANDING_MIN {
            return Ok(());
        }
        let (age, least) = (age.as_secs(), STANDING_MIN.as_secs());
        let problem = format!("the last block is {age} s old: a chain that made one in {least} s needs no recovery");
        Err(LifecycleError::not_now(problem))
    }
}

/// How far a recovery has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completeness {
    /// Governance has approved it.
    Approved,
    /// Identities of a quorum have accepted it, too.
    Accepted,
}

/// The key of this epoch that no voter set names yet, or a new one.
fn fresh_key(sessions: &mut Sessions, epoch: Epoch) -> Result<SessionKey, LifecycleError> {
    let proposed = sessions.proposed().into_iter().filter(|(_, made)| *made == epoch);
    for (key, _) in proposed.collect::<Vec<_>>() {
        match sessions.hold(&key)? {
            Ok(()) => return Ok(key),
            Err(NotCleared::Waiting(reason)) => return Err(LifecycleError::not_now(reason)),
            Err(NotCleared::Never(_)) => {}
        }
    }
    Ok(sessions.make(epoch).map_err(|error: SessionsError| volume(error))?.session_key())
}

fn volume(error: impl std::error::Error + 'static) -> LifecycleError {
    LifecycleError::Volume { problem: crate::causes::chain(&error) }
}
