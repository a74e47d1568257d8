//! What goes wrong: crashes, partitions, lost and copied volumes, silent and lying leaders; and how it ends.

use std::sync::Arc;

use node_core::{
    consensus::Input,
    crypto::{KeyPair, SigningBytes},
    session::{Owner, OwnerStatement, StartGrant, VolumeKind},
    types::{Hash, Height, PeerMessage, Proposal, ProposedHeader, TimeMs, UnsignedProposal, UnsignedVote, Vote},
};

use super::{
    checks::Violation,
    people,
    plan::{Action, OldProcess, Plan, Weather},
    process::Start,
    volume::Volume,
    world::{Event, World},
};

/// Where a process starts again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Machine {
    Same,
    Another,
}

impl World {
    /// The living process of a node; of several, the oldest.
    pub fn process_of(&self, node: u64) -> Option<usize> {
        let mine = |process: &usize| self.processes[*process].node == node && !self.processes[*process].former;
        self.alive.iter().copied().find(mine)
    }

    pub fn crash(&mut self, process: usize) {
        let (node, volume) = (self.processes[process].node, self.processes[process].volume);
        self.end(process);
        let pause = self.dice.between(50, 2_500);
        self.after(pause, Event::Restart { node, volume });
    }

    /// Ends a process for good; what it did not flush is lost, at least in part.
    pub fn end(&mut self, process: usize) {
        self.processes[process].alive = false;
        self.alive.remove(&process);
        let volume = &mut self.volumes[self.processes[process].volume];
        if !volume.unflushed.is_empty() {
            self.counts.add("unflushed entries lost", 1);
        }
        volume.crash(&mut self.dice);
        let identity = people::identity(self.processes[process].node);
        let others: Vec<usize> = self.alive.iter().copied().collect();
        for other in others {
            self.after(5, Event::Feed { process: other, input: Box::new(Input::Disconnected(identity)) });
        }
    }

    /// A process on the volume of one that has ended: most often in the same pod, sometimes on another machine, with the
    /// operator's word that the former has ended.
    pub fn restart(&mut self, node: u64, volume: usize) -> Result<(), Violation> {
        let same = self.plan.always_same_boot || self.dice.below(4) > 0;
        self.restart_on(node, volume, if same { Machine::Same } else { Machine::Another })
    }

    fn restart_on(&mut self, node: u64, volume: usize, machine: Machine) -> Result<(), Violation> {
        let Some(former) = self.processes.iter().rposition(|process| process.volume == volume) else { return Ok(()) };
        if self.alive.iter().any(|process| self.processes[*process].volume == volume) {
            return Ok(());
        }
        let former = &self.processes[former];
        let (claim, copy, byzantine, silent) = (former.claim, former.copy, former.byzantine, former.silent);
        let (before, granted) = (former.owner, former.grant);
        let same_boot = machine == Machine::Same;
        let (owner, grant) = if same_boot {
            self.counts.add("restarts in the same boot", 1);
            // The same pod still has, or gets again, what the operator said to it.
            (Owner { container_start: TimeMs::new(self.now), ..before }, granted)
        } else {
            (self.new_owner(node), None)
        };
        let faults = self.faults();
        let process = self.start(Start { node, volume, owner, claim, grant, proved: !copy, copy, faults }, Vec::new());
        let right = StartGrant { pod: owner.pod, claim, volume: VolumeKind::Network, owner: OwnerStatement::Unknown };
        if !same_boot {
            self.promise_grant(process, right, &before);
        } else if grant.is_none_or(|grant| grant.pod != owner.pod) {
            let late = self.dice.between(500, 4_000);
            self.after(late, Event::Granted { process, grant: right });
        }
        self.processes[process].byzantine = byzantine;
        self.processes[process].silent = silent;
        Ok(())
    }

    pub fn act(&mut self, action: Action) -> Result<(), Violation> {
        self.note_cut_off();
        self.act_now(action)?;
        self.note_cut_off();
        Ok(())
    }

    fn act_now(&mut self, action: Action) -> Result<(), Violation> {
        match action {
            Action::Crash(node) => {
                if let Some(process) = self.process_of(node) {
                    self.crash(process);
                }
            }
            Action::Kill(node) => {
                if let Some(process) = self.process_of(node) {
                    self.end(process);
                }
            }
            Action::Move(node) => {
                if let Some(process) = self.process_of(node) {
                    let volume = self.processes[process].volume;
                    self.end(process);
                    self.counts.add("voters moved", 1);
                    self.restart_on(node, volume, Machine::Another)?;
                }
            }
            Action::CrashAll => {
                self.counts.add("crashes of everybody", 1);
                let alive: Vec<usize> = self.alive.iter().copied().collect();
                alive.into_iter().for_each(|process| self.crash(process));
            }
            Action::Partition { apart, one_way } => self.partition(&apart, one_way),
            Action::Isolate(node) => {
                if let Some(process) = self.process_of(node) {
                    self.counts.add("partitions", 1);
                    let others: Vec<usize> = self.alive.iter().copied().filter(|other| *other != process).collect();
                    self.blocked.extend(others.into_iter().flat_map(|other| [(process, other), (other, process)]));
                }
            }
            Action::Storm => {
                self.counts.add("storms", 1);
                self.blocked.clear();
                let alive: Vec<usize> = self.alive.iter().copied().collect();
                for (first, second) in alive.iter().flat_map(|first| alive.iter().map(move |second| (*first, *second)))
                {
                    if self.dice.below(100) < 40 {
                        self.blocked.insert((first, second));
                    }
                }
            }
            Action::Rejoin => self.blocked.clear(),
            Action::Weather(weather) => self.set_weather(weather),
            Action::Calm => {
                self.blocked.clear();
                self.processes.iter_mut().for_each(|process| process.silent = false);
            }
            Action::LoseVolume(node) => self.lose_volume(node),
            Action::Leave(node) => self.leave(node),
            Action::ComeBack => return self.come_back(),
            Action::Unprune => self.volumes.iter_mut().for_each(|volume| volume.pruned_below = Height::ZERO),
            Action::RememberVolume(node) => self.remember_volume(node),
            Action::RollBack(node) => self.roll_back(node),
            Action::LoseMany { nodes, exiled } => self.lose_many(&nodes, exiled),
            Action::NoteStanding => self.note_standing(),
            Action::Recover => return self.recover(),
            Action::Return => self.return_exiled(),
            Action::Copy { node: _, old } if self.every_effect.is_some() => self.copy_of_victim(old),
            Action::Copy { node, old } => self.copy(node, old),
            Action::Silence(node) => {
                if let Some(process) = self.process_of(node) {
                    self.processes[process].silent = true;
                }
            }
            Action::Pay(node) => return self.pay(node),
            Action::Reweigh(node) => return self.reweigh(node),
            Action::Differ { nodes, difference } => self.differ(nodes, difference),
            Action::EndStanding => {
                self.counts.add("chains that stand where too many differ", 1);
                self.ends = true;
            }
            Action::Corrupt(node) => {
                self.checks.exempt(people::identity(node));
                if let Some(process) = self.process_of(node) {
                    self.processes[process].byzantine = true;
                }
            }
            Action::Join(node) => {
                self.counts.add("fresh nodes", 1);
                self.start_empty(node);
            }
        }
        Ok(())
    }

    fn set_weather(&mut self, weather: Weather) {
        let Weather { loss, withhold, duplicate, delay_ms, crash } = weather;
        self.plan = Plan { loss, withhold, duplicate, delay_ms, crash, ..self.plan.clone() };
    }

    /// Nodes that cannot be heard by the others; one way only, or both.
    fn partition(&mut self, apart: &[u64], one_way: bool) {
        self.counts.add(if one_way { "one-way partitions" } else { "partitions" }, 1);
        let count = self.processes.len();
        for first in 0..count {
            for second in 0..count {
                let first_apart = apart.contains(&self.processes[first].node);
                if first_apart != apart.contains(&self.processes[second].node) && (first_apart || !one_way) {
                    self.blocked.insert((first, second));
                }
            }
        }
    }

    /// A process on an empty volume of its own.
    pub fn start_empty(&mut self, node: u64) -> usize {
        let claim = self.new_claim();
        self.volumes.push(Volume { claim: Some(claim), ..Volume::default() });
        let owner = self.new_owner(node);
        let grant = StartGrant { pod: owner.pod, claim, volume: VolumeKind::Network, owner: OwnerStatement::Unknown };
        let (volume, faults) = (self.volumes.len() - 1, self.faults());
        let start = Start { node, volume, owner, claim, grant: Some(grant), proved: false, copy: false, faults };
        self.start(start, Vec::new())
    }

    fn lose_volume(&mut self, node: u64) {
        let Some(process) = self.process_of(node) else { return };
        self.counts.add("volumes lost", 1);
        self.end(process);
        self.start_empty(node);
    }

    /// A process on a copy of a node's volume, on another machine and bound to another claim.
    pub fn copy(&mut self, node: u64, old: OldProcess) {
        let Some(process) = self.process_of(node) else { return };
        let claim = self.new_claim();
        let (former, former_claim) = (self.processes[process].owner, self.processes[process].claim);
        let mut copied = self.volumes[self.processes[process].volume].clone();
        copied.unflushed.clear();
        copied.claim = Some(claim);
        match old {
            OldProcess::Alive => self.counts.add("volumes copied, old process alive", 1),
            OldProcess::Dead => {
                self.counts.add("volumes copied, old process dead", 1);
                self.end(process);
            }
        }
        self.volumes.push(copied);
        let owner = self.new_owner(node);
        let right = StartGrant { pod: owner.pod, claim, volume: VolumeKind::Network, owner: OwnerStatement::Unknown };
        let (volume, faults) = (self.volumes.len() - 1, self.faults());
        let copy = old == OldProcess::Alive;
        let start = Start { node, volume, owner, claim, grant: None, proved: false, copy, faults };
        let process = self.start(start, Vec::new());
        // The stale one names the claim that the copied keys were made for.
        self.promise_grant(process, right, &former);
        if let Some(stale) = self.processes[process].grant.as_mut().filter(|grant| grant.pod == former.pod) {
            stale.claim = former_claim;
        }
    }

    /// Keeps what is on the volume of a node now.
    fn remember_volume(&mut self, node: u64) {
        let Some(process) = self.process_of(node) else { return };
        let mut kept = self.volumes[self.processes[process].volume].clone();
        kept.unflushed.clear();
        self.kept_volume = Some(kept);
    }

    /// The volume of a node is what it was when it was kept: its process ends, and another one starts on it.
    fn roll_back(&mut self, node: u64) {
        let (Some(process), Some(mut kept)) = (self.process_of(node), self.kept_volume.take()) else { return };
        self.counts.add("volumes rolled back", 1);
        self.end(process);
        let index = self.processes[process].volume;
        let lost = &self.volumes[index];
        // The checkers go on with what was ever durable here.
        (kept.durable, kept.stored) = (lost.durable.clone(), lost.stored.clone());
        self.volumes[index] = kept;
        let pause = self.dice.between(50, 2_500);
        self.after(pause, Event::Restart { node, volume: index });
    }

    /// Everything is well again: from here every living node must move on.
    pub fn heal(&mut self) -> Result<(), Violation> {
        self.healed = true;
        self.note_cut_off();
        self.blocked.clear();
        for process in &mut self.processes {
            process.silent = false;
        }
        let best = self.volumes.iter().map(|volume| volume.blocks.len() as u64).max().unwrap_or_default();
        self.goal = Some(node_core::types::Height::new(best + self.plan.goal_blocks));
        self.watch_standing();
        Ok(())
    }

    /// A corrupt node tells one half something else than the other.
    pub fn contradict(
        &mut self,
        process: usize,
        others: &[usize],
        message: &Arc<PeerMessage>,
    ) -> Result<(), Violation> {
        let other_word = match message.as_ref() {
            PeerMessage::ProposedHeader(proposed) => {
                self.counts.add("contradicting proposals", 1);
                self.other_proposal(process, proposed)
            }
            PeerMessage::Vote(vote) => {
                self.counts.add("contradicting votes", 1);
                self.other_vote(process, vote)
            }
            _ => None,
        };
        for (index, other) in others.iter().enumerate() {
            match &other_word {
                Some(word) if index % 2 == 1 => self.send(process, *other, word),
                _ => self.send(process, *other, message),
            }
            if let Some(word) = other_word.as_ref().filter(|_| self.dice.below(3) == 0) {
                self.send(process, *other, word);
            }
        }
        Ok(())
    }

    fn other_proposal(&mut self, process: usize, proposed: &ProposedHeader) -> Option<Arc<PeerMessage>> {
        let mut header = proposed.header.clone();
        if header.proposer != people::identity(self.processes[process].node) {
            return None;
        }
        header.time = header.time.saturating_add(1);
        if self.dice.below(2) == 0 {
            header.results.receipts_root = Hash::tagged("a lie", b"");
        }
        let unsigned = UnsignedProposal { value: header.hash(), ..proposed.proposal.proposal };
        let epoch = proposed.proposal.epoch;
        let bytes = SigningBytes::proposal(&self.genesis.incarnation(), epoch, &unsigned);
        let proposal = Proposal { proposal: unsigned, epoch, signature: self.corrupt_key(process).sign(&bytes) };
        let batches = proposed.batches.clone();
        Some(Arc::new(PeerMessage::ProposedHeader(Box::new(ProposedHeader { proposal, header, batches }))))
    }

    fn other_vote(&mut self, process: usize, vote: &Vote) -> Option<Arc<PeerMessage>> {
        let value = match vote.vote.value {
            Some(_) => None,
            None => Some(Hash::tagged("a lie", b"vote")),
        };
        let unsigned = UnsignedVote { value, ..vote.vote };
        let bytes = SigningBytes::vote(&self.genesis.incarnation(), vote.epoch, &unsigned);
        let signature = self.corrupt_key(process).sign(&bytes);
        Some(Arc::new(PeerMessage::Vote(Vote { vote: unsigned, epoch: vote.epoch, signature })))
    }

    fn corrupt_key(&self, process: usize) -> KeyPair {
        KeyPair::from_seed(people::first_session_seed(self.processes[process].node))
    }
}
