//! One process of a node: the engine with the shell around it, as far as a simulation needs one.

use std::{collections::BTreeMap, sync::Arc};

use node_core::{
    consensus::{Boot, Engine, Faults, TimerId},
    crypto::VerifiedBatch,
    ledger::{Recoveries, apply_genesis_before, snapshot},
    session::{ClearedKey, KeyState, Owner, Question, StartGrant},
    types::{Genesis, Height, SessionKey, Uid},
};

use super::{people, volume::Volume};

pub struct Process {
    /// The number of the node whose identity it has.
    pub node: u64,
    /// The index of its volume.
    pub volume: usize,
    pub alive: bool,
    pub engine: Engine,
    pub owner: Owner,
    /// The claim that its volume is bound to.
    pub claim: Uid,
    /// What the operator said.
    pub grant: Option<StartGrant>,
    /// The operator can tell that the former owners of this claim have ended.
    pub proved: bool,
    /// When the shell last saw the chain move.
    pub moved: (Height, u64),
    /// The number of the last setting of each timer.
    pub timers: BTreeMap<TimerId, u64>,
    /// The end of the last execution that was asked for.
    pub executing_until: u64,
    /// What it asks the others about a key.
    pub question: Option<Question>,
    /// The keys that it may use.
    pub cleared: BTreeMap<SessionKey, ClearedKey>,
    /// A copy of another process's volume, made while that one lives.
    pub copy: bool,
    /// Nobody hears it but others like it.
    pub exiled: bool,
    /// Another process has taken its place in a recovery.
    pub former: bool,
    /// Its node has accepted a recovery that is not complete here.
    pub accepted: bool,
    /// When it could last not speak with a quorum; zero if it always could.
    pub cut_off_until: u64,
    /// Since when it has a key that it may use.
    pub able_since: Option<u64>,
    /// Said what it may not say.
    pub byzantine: bool,
    /// It sends no proposals.
    pub silent: bool,
}

/// What a process starts with.
pub struct Start {
    pub node: u64,
    pub volume: usize,
    pub owner: Owner,
    pub claim: Uid,
    pub grant: Option<StartGrant>,
    pub proved: bool,
    pub copy: bool,
    pub faults: Faults,
}

impl Process {
    pub fn boot(start: Start, genesis: &Arc<Genesis>, volume: &mut Volume) -> Self {
        let Start { node, volume: index, owner, claim, grant, proved, copy, faults } = start;
        let recoveries = Recoveries::new(volume.recoveries.clone());
        apply_genesis_before(&mut volume.store, genesis, &recoveries).expect("a store in memory does not fail");
        let executed = snapshot(&volume.store).expect("the state is whole").expect("genesis was applied");
        let executed = recoveries.recovered(executed).expect("the recovery was checked");
        let effective = volume.keys.entries().iter().filter(|entry| entry.state() == KeyState::Effective);
        let proposed = volume.keys.entries().iter().filter(|entry| entry.state() == KeyState::Proposed);
        let boot = Boot {
            genesis: genesis.clone(),
            recoveries,
            identity: people::identity(node),
            identity_key: Some(people::identity_pair(node)),
            tip: volume.blocks.last().map(|last| (last.block.header().clone(), last.certificate.clone())),
            executed,
            effective_keys: effective.map(|entry| entry.session_key()).collect(),
            proposed_keys: proposed.map(|entry| (entry.session_key(), entry.epoch())).collect(),
            log: volume.signing_log(),
            batches: volume.batches.iter().map(|batch| VerifiedBatch::from_disk(batch.as_ref().clone())).collect(),
            recent: volume.blocks.iter().rev().take(64).map(|last| last.block.header().clone()).collect(),
        };
        Self {
            node,
            volume: index,
            alive: true,
            engine: Engine::with_faults(boot, faults),
            owner,
            claim,
            grant,
            proved,
            moved: (Height::ZERO, 0),
            timers: BTreeMap::new(),
            executing_until: 0,
            question: None,
            cleared: BTreeMap::new(),
            copy,
            exiled: false,
            former: false,
            accepted: false,
            cut_off_until: 0,
            able_since: None,
            byzantine: false,
            silent: false,
        }
    }
}
