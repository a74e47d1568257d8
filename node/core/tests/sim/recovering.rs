//! More voters than may fail lose their volumes: the chain stands still, and one recovery manifest lets it go on.

use node_core::{
    consensus::Input,
    crypto::SigningBytes,
    ledger::{Recoveries, RecoveryCheck, RecoveryRefused, account, recovery_epoch, snapshot},
    session::{KeyState, NewKey, SessionStatement},
    types::{AccountId, Height, Identity, ManifestSignature, RecoveredVoter, Recovery, RecoveryManifest},
};

use super::{
    checks::Violation,
    people,
    world::{Event, World},
};

/// How long governance waits before it looks again whether all nodes hold the same last block.
const LOOK_MS: u64 = 300;
/// After so many looks nobody who can be reached has the last block. No recovery can stand on it: whoever has it must be
/// brought back first.
const LOOKS_MAX: u64 = 20;

impl World {
    /// Voters whose volumes are lost, as far as anybody knows. Their old processes have ended, or nobody can reach them.
    pub fn lose_many(&mut self, nodes: &[u64], exiled: bool) {
        for node in nodes {
            let Some(process) = self.process_of(*node) else { continue };
            self.counts.add("volumes lost", 1);
            if exiled {
                self.processes[process].exiled = true;
                self.processes[process].former = true;
            } else {
                self.end(process);
            }
            self.start_empty(*node);
        }
    }

    /// The highest block of those who are heard. From here on it must not move until there is a recovery.
    pub fn note_standing(&mut self) {
        self.standing = Some(self.highest_tip());
    }

    fn highest_tip(&self) -> Height {
        let blocks = self.volumes.iter().map(|volume| volume.blocks.len() as u64).max();
        Height::new(blocks.unwrap_or_default())
    }

    /// The processes that governance can reach, with the node of each.
    fn reachable(&self) -> Vec<usize> {
        self.alive.iter().copied().filter(|process| !self.processes[*process].former).collect()
    }

    /// Collects a manifest once all nodes hold the same last block, has it approved and accepted, and lets it begin.
    pub fn recover(&mut self) -> Result<(), Violation> {
        let tip = self.highest_tip();
        if self.standing != Some(tip) {
            return Err(Violation::MovedWithoutQuorum(tip));
        }
        let reachable = self.reachable();
        let level = |process: &usize| {
            let status = self.processes[*process].engine.status();
            status.tip == tip && status.executed == tip
        };
        if !reachable.iter().all(level) {
            self.recover_looks += 1;
            let heard = reachable.iter().map(|process| self.tip(*process)).max();
            if self.recover_looks >= LOOKS_MAX && heard < Some(tip) {
                self.counts.add("last blocks that only the unreachable have", 1);
                self.ends = true;
            }
            self.after(LOOK_MS, Event::Act(super::plan::Action::Recover));
            return Ok(());
        }
        let manifest = self.collect(&reachable);
        let (approved, one) = (people::approve(&manifest, 2), people::approve(&manifest, 1));
        match self.check_recovery(reachable[0], &one, false) {
            Err(RecoveryRefused::Approvals { .. }) => {}
            other => return Err(Violation::Failed(format!("one governor of three is enough: {other:?}"))),
        }
        self.checks.recover(&manifest);
        let store = &self.volumes[self.processes[reachable[0]].volume].store;
        let owner = |sender| AccountId::new(people::pair(&format!("account {sender}")).public());
        let nonce = |sender: u64| account(store, &owner(sender)).unwrap().nonce.get();
        self.nonces = (0..people::ACCOUNTS).map(|sender| (sender, nonce(sender))).collect();
        let mut acceptances = Vec::new();
        for process in &reachable {
            // A node that knows nothing better accepts as soon as governance has approved.
            self.check_recovery(*process, &approved, false).map_err(|error| Violation::Failed(error.to_string()))?;
            let node = self.processes[*process].node;
            let key = people::identity_pair(node);
            let bytes = SigningBytes::recovery_acceptance(&manifest.hash(), &people::identity(node));
            acceptances.push(ManifestSignature { key: key.public(), signature: key.sign(&bytes) });
            self.processes[*process].accepted = true;
            self.feed(*process, Input::Superseded)?;
        }
        let few = acceptances[..acceptances.len() / 2].to_vec();
        let too_few = Recovery::new(manifest.clone(), approved.approvals().to_vec(), few).unwrap();
        match self.check_recovery(reachable[0], &too_few, true) {
            Err(RecoveryRefused::Acceptances { .. }) => {}
            other => return Err(Violation::Failed(format!("half of the power is enough: {other:?}"))),
        }
        let recovery = Recovery::new(manifest, approved.approvals().to_vec(), acceptances).unwrap();
        for process in reachable {
            let pause = self.dice.between(50, 2_500);
            self.after(pause, Event::Recovered { process, recovery: Box::new(recovery.clone()) });
        }
        // Those who were cut off come back in the midst of it, with the keys that they had.
        let pause = self.dice.between(0, 2_000);
        self.after(pause, Event::Act(super::plan::Action::Return));
        Ok(())
    }

    pub fn return_exiled(&mut self) {
        for process in &mut self.processes {
            process.exiled = false;
        }
    }

    /// Every voter makes a fresh key.
    fn collect(&mut self, reachable: &[usize]) -> RecoveryManifest {
        let first = reachable[0];
        let store = &self.volumes[self.processes[first].volume].store;
        let now = snapshot(store).unwrap().unwrap();
        let now = Recoveries::default().recovered(now).unwrap();
        let sets = now.sets.clone();
        let epochs: Vec<_> = reachable
            .iter()
            .map(|process| recovery_epoch(store, &sets, &people::identity(self.processes[*process].node)).unwrap())
            .collect();
        let (number, parent) = (1, now.chain.incarnation);
        let mut voters = Vec::new();
        for (process, epoch) in reachable.iter().zip(epochs) {
            let identity = people::identity(self.processes[*process].node);
            if ![&sets.first, &sets.second, &sets.third].iter().any(|set| set.get(&identity).is_some()) {
                continue;
            }
            let seed = self.dice.bytes();
            let (claim, owner) = (Some(self.processes[*process].claim), self.processes[*process].owner);
            let volume = self.processes[*process].volume;
            let key = self.volumes[volume].keys.make(NewKey { seed, epoch, claim, owner }).expect("few keys are made");
            let session_key = key.session_key();
            self.checks.key_made(identity, session_key);
            let statement = SessionStatement::recovery_possession(&parent, number, &identity, epoch, &session_key);
            voters.push(RecoveredVoter { identity, epoch, session_key, possession: key.sign(&statement) });
        }
        voters.sort_by_key(|voter| voter.identity);
        RecoveryManifest {
            chain_id: self.genesis.chain_id.clone(),
            genesis: self.genesis.hash(),
            number,
            parent,
            height: now.progress.height,
            block: now.progress.block,
            state_root: now.results.roots.state_root,
            voters,
        }
    }

    fn check_recovery(&self, process: usize, recovery: &Recovery, complete: bool) -> Result<(), RecoveryRefused> {
        let state = &self.volumes[self.processes[process].volume].store;
        let now = snapshot(state)?.expect("genesis was applied");
        let check = RecoveryCheck { state, snapshot: &now, genesis: &self.genesis, number_before: 0 };
        if complete { check.complete(recovery) } else { check.acceptable(recovery) }
    }

    /// A node learns that the recovery is complete: it gives up its other keys and its signing log, and starts again.
    pub fn recovered(&mut self, process: usize, recovery: &Recovery) -> Result<(), Violation> {
        if !self.processes[process].alive {
            return Ok(());
        }
        self.check_recovery(process, recovery, true).map_err(|error| Violation::Failed(error.to_string()))?;
        self.counts.add("nodes recovered", 1);
        let (node, index) = (self.processes[process].node, self.processes[process].volume);
        self.end(process);
        let identity: Identity = people::identity(node);
        let fresh = recovery.manifest().voter(&identity).map(|voter| voter.session_key);
        let volume = &mut self.volumes[index];
        let others: Vec<_> = volume.keys.entries().iter().map(|entry| entry.session_key()).collect();
        for key in others.into_iter().filter(|key| Some(*key) != fresh) {
            volume.keys.retire(&key).expect("it was just there");
        }
        volume.keys.erase_retired();
        assert!(volume.keys.entries().iter().all(|entry| entry.state() == KeyState::Proposed));
        volume.log = None;
        volume.recoveries.push(recovery.manifest().clone());
        self.restart(node, index)
    }
}
