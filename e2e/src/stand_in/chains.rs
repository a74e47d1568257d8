//! All chains: a block with every tick wherever a quorum of the voters signs; the witness is told what comes of it.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use node_core::crypto::VerifiedTransaction;
use node_core::mempool::Refusal;
use node_core::types::{Epoch, Genesis, Hash, Identity, SessionKey};

use super::chain::{Chain, GovernanceView, Meets, View};
use super::witness::Witness;

/// Namespace and genesis: a chain id may be used again.
type Key = (String, Hash);

/// A node of a chain.
#[derive(Clone, Debug)]
pub struct Member {
    /// Namespace of its pod.
    pub namespace: String,
    /// Number of the node in its group.
    pub number: Option<u32>,
    /// Who it is.
    pub identity: Identity,
    /// Its pod.
    pub pod_uid: String,
}

/// All chains.
pub struct Chains {
    witness: Witness,
    chains: Mutex<BTreeMap<Key, Chain>>,
}

impl Chains {
    /// None yet; the witness is told who votes, who stops and who signs.
    pub fn new(witness: Witness) -> Self {
        Self { witness, chains: Mutex::default() }
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, BTreeMap<Key, Chain>> {
        self.chains.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A node runs from now on, with this session key.
    pub fn run(&self, member: &Member, genesis: &Genesis, session_key: SessionKey) -> Result<()> {
        let Member { namespace, number, identity, pod_uid } = member;
        let mut chains = self.locked();
        let chain = match chains.entry((namespace.clone(), genesis.hash())) {
            std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::btree_map::Entry::Vacant(entry) => entry.insert(Chain::new(genesis)?),
        };
        if let Some(number) = number {
            self.witness.is_called(namespace, *number, *identity);
        }
        chain.run(*identity, pod_uid, session_key);
        Ok(())
    }

    /// A node does not run any more.
    pub fn stop(&self, member: &Member) {
        for (_, chain) in self.locked().iter_mut().filter(|((place, _), _)| *place == member.namespace) {
            if chain.stop(&member.identity, &member.pod_uid) {
                self.witness.stopped(&member.namespace, member.identity);
            }
        }
    }

    /// What a node knows of a chain that has started.
    pub fn view(&self, member: &Member, genesis: &Genesis) -> Option<View> {
        self.locked().get(&(member.namespace.clone(), genesis.hash()))?.view(&member.identity)
    }

    /// Who may change a chain, as its newest state says.
    pub fn governance(&self, namespace: &str, genesis: &Genesis) -> Result<GovernanceView> {
        self.with(namespace, genesis, |chain| chain.governance())
    }

    /// The epoch with which a node can be voted in; none of one that is a voter, or will be.
    pub fn next_epoch(&self, member: &Member, genesis: &Genesis) -> Result<Option<Epoch>> {
        self.with(&member.namespace, genesis, |chain| chain.next_epoch(&member.identity))
    }

    /// Hands a transaction to a chain.
    pub fn submit(
        &self,
        namespace: &str,
        genesis: &Genesis,
        transaction: VerifiedTransaction,
    ) -> Result<Result<(), Refusal>> {
        self.with(namespace, genesis, |chain| {
            let (taken, meets) = chain.submit(transaction);
            match meets {
                Meets::Nothing => {}
                Meets::AnotherChange => self.witness.changes_meet(namespace),
            }
            Ok(taken)
        })
    }

    fn with<T>(&self, namespace: &str, genesis: &Genesis, ask: impl FnOnce(&mut Chain) -> Result<T>) -> Result<T> {
        let mut chains = self.locked();
        let chain = chains.get_mut(&(namespace.to_string(), genesis.hash()));
        ask(chain.context("the chain has not started")?)
    }

    /// One more block wherever a quorum signs.
    pub fn tick(&self) {
        for ((namespace, _), chain) in self.locked().iter_mut() {
            match chain.tick() {
                Ok(Some(moved)) => self.witness.moved(namespace, moved),
                Ok(None) => {}
                Err(error) => eprintln!("stand-in: chain of {namespace}: {error:#}"),
            }
        }
    }
}
