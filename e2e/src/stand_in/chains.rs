//! Chains that only move: a block with every tick while a quorum of the voters runs.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use node_core::types::{Genesis, Hash, Identity, VoterSet};

use super::witness::Witness;

/// Newest heights over which precommits are counted, as real nodes do.
const WINDOW: usize = 10;

/// Namespace and genesis: a chain id may be used again.
type Key = (String, Hash);

struct Chain {
    voters: VoterSet,
    running: BTreeSet<Identity>,
    height: u64,
    last_block: Instant,
    signed: VecDeque<BTreeSet<Identity>>,
    last_precommits: BTreeMap<Identity, u64>,
}

/// What a node knows of its chain.
#[derive(Clone, Debug)]
pub struct View {
    /// Newest height.
    pub height: u64,
    /// Age of that block.
    pub block_age: Duration,
    /// Heights that are counted.
    pub window: u32,
    /// The voters: entry, heights of the window with a precommit, newest height with one.
    pub voters: Vec<(node_core::types::VoterEntry, u32, u64)>,
}

/// All chains.
pub struct Chains {
    witness: Witness,
    chains: Mutex<BTreeMap<Key, Chain>>,
}

impl Chains {
    /// None yet; the witness is told who stops and who signs.
    pub fn new(witness: Witness) -> Self {
        Self { witness, chains: Mutex::default() }
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, BTreeMap<Key, Chain>> {
        self.chains.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A voter runs from now on.
    pub fn run(&self, namespace: &str, genesis: &Genesis, identity: Identity) {
        let key = (namespace.to_string(), genesis.hash());
        let mut chains = self.locked();
        let chain = chains.entry(key).or_insert_with(|| Chain {
            voters: genesis.voter_set().clone(),
            running: BTreeSet::new(),
            height: 0,
            last_block: Instant::now(),
            signed: VecDeque::new(),
            last_precommits: BTreeMap::new(),
        });
        chain.running.insert(identity);
    }

    /// A voter does not run any more.
    pub fn stop(&self, namespace: &str, identity: Identity) {
        for (_, chain) in self.locked().iter_mut().filter(|((place, _), _)| place == namespace) {
            if chain.running.remove(&identity) {
                self.witness.stopped(namespace, identity);
            }
        }
    }

    /// What is known of a chain that has started.
    pub fn view(&self, namespace: &str, genesis: &Genesis) -> Option<View> {
        let chains = self.locked();
        let chain = chains.get(&(namespace.to_string(), genesis.hash()))?;
        let voters = chain.voters.entries().iter().map(|entry| {
            let heights = chain.signed.iter().filter(|signers| signers.contains(&entry.identity)).count();
            let last = chain.last_precommits.get(&entry.identity).copied().unwrap_or(0);
            (*entry, u32::try_from(heights).unwrap_or(0), last)
        });
        Some(View {
            height: chain.height,
            block_age: chain.last_block.elapsed(),
            window: u32::try_from(chain.signed.len()).unwrap_or(0),
            voters: voters.collect(),
        })
    }

    /// One more block wherever a quorum runs.
    pub fn tick(&self) {
        for ((namespace, _), chain) in self.locked().iter_mut() {
            let signers: BTreeSet<Identity> = chain.running.clone();
            let power: u64 = signers.iter().filter_map(|id| chain.voters.get(id)).map(|entry| entry.power.get()).sum();
            if power < chain.voters.quorum().get() {
                continue;
            }
            chain.height += 1;
            chain.last_block = Instant::now();
            for signer in &signers {
                chain.last_precommits.insert(*signer, chain.height);
            }
            self.witness.signed(namespace, &signers);
            chain.signed.push_back(signers);
            if chain.signed.len() > WINDOW {
                chain.signed.pop_front();
            }
        }
    }
}
