//! Nodes whose execution differs: they stop, say why, and sign nothing more, while the others go on, if they are a quorum.

use std::collections::BTreeSet;

use node_core::{
    codec::Encode,
    consensus::{Faults, HaltReason, Input, TimerId},
    ledger::{Account, Applied, Recoveries, StateKey, commit_outcome, execute_after},
    types::{AccountId, Amount, Block, Height, Nonce, PeerMessage},
};

use super::{
    checks::Violation,
    dice::Dice,
    people,
    plan::{Action, Plan},
    volume::Volume,
    world::{Event, World},
};

/// The header of a height names the results of so many heights before it.
const NAMED_AFTER: u64 = 2;
/// How long a chain that stands is watched, milliseconds.
const WATCHED_MS: u64 = 8_000;

/// Whether several nodes are wrong in one way.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Difference {
    /// All compute the same wrong state.
    Same,
    /// Each computes another one.
    Own,
}

/// The nodes whose execution differs.
#[derive(Default)]
pub struct Differing {
    nodes: BTreeSet<u64>,
    /// The first height whose state they compute wrongly.
    height: Height,
    own: bool,
    /// Those that have said that they stop.
    halted: BTreeSet<u64>,
}

impl Plan {
    /// As many nodes as may fail, or one more, compute a wrong state at some height.
    pub fn execution_differs(dice: &mut Dice) -> Self {
        // The slowest leaves two blocks final and not executed: a node may have the block that shows its state to be wrong
        // before it computes that state.
        let execution_ms = [12, 400, 1_500][dice.below(3) as usize];
        let mut plan = Self { loss: 2_000, execution_ms, ..Self::calm("an execution that differs", dice).equal() };
        let voters = plan.powers.len() as u64;
        plan.stands = dice.below(2) == 0;
        let count = if plan.stands { 2 } else { 1 };
        let first = dice.below(voters);
        let nodes = (0..count).map(|next| (first + next) % voters).collect();
        let difference = if dice.below(2) == 0 { Difference::Same } else { Difference::Own };
        plan.actions.push((dice.between(500, 3_000), Action::Differ { nodes, difference }));
        plan.goal_blocks = 12;
        plan
    }
}

impl World {
    /// From some height on these nodes compute another state than they should.
    pub fn differ(&mut self, nodes: Vec<u64>, difference: Difference) {
        let executed = self.processes.iter().map(|process| process.engine.status().executed).max();
        self.differing.height = executed.unwrap_or_default().saturating_add(2);
        self.differing.own = difference == Difference::Own;
        self.differing.nodes = nodes.into_iter().collect();
    }

    /// The node's state is not that of the chain.
    pub fn differs(&self, node: u64) -> bool {
        self.differing.nodes.contains(&node)
    }

    /// What a node whose execution differs computes at a height; nothing if it is right there.
    pub fn execute_differently(&self, node: u64, volume: &mut Volume, block: &Block) -> Option<Applied> {
        let Differing { nodes, height, own, halted: _ } = &self.differing;
        if !nodes.contains(&node) || block.header().height != *height {
            return None;
        }
        let recoveries = Recoveries::new(volume.recoveries.clone());
        let outcome = execute_after(&volume.store, block, &recoveries).expect("final blocks can be executed");
        let mut outcome = outcome.expect("each is executed once");
        let balance = Amount::new(if *own { 1 + node } else { 1 });
        let from_nowhere = Account { nonce: Nonce::ZERO, balance };
        outcome.writes.insert(StateKey::account(&AccountId::new([9; 32])), Some(from_nowhere.encode()));
        Some(commit_outcome(&mut volume.store, outcome).expect("heights follow each other"))
    }

    /// How long an execution takes at least: one that differs is slow, so that blocks are final before it.
    pub fn execution_ms_min(&self, process: usize) -> u64 {
        if self.differs(self.processes[process].node) { self.plan.execution_ms / 2 } else { 1 }
    }

    /// What a node computed at a height is not that of the chain.
    pub fn is_wrong_at(&self, node: u64, height: Height) -> bool {
        self.differs(node) && height >= self.differing.height
    }

    /// The first height whose header shows that a state is wrong.
    fn shown_at(&self) -> Height {
        self.differing.height.saturating_add(NAMED_AFTER)
    }

    /// A node makes a block its own: not one that shows that its state is wrong, and nobody one that too few computed.
    pub fn check_differing_commit(&self, process: usize, height: Height) -> Result<(), Violation> {
        let any = !self.differing.nodes.is_empty() && height >= self.shown_at();
        if any && self.plan.stands {
            return Err(Violation::MovedWithoutQuorum(height));
        }
        // It may be behind with executing: then nothing is wrong yet.
        let executed = self.processes[process].engine.status().executed >= self.differing.height;
        let wrong = any && executed && self.differs(self.processes[process].node);
        if wrong { Err(Violation::WentOnDiffering(height)) } else { Ok(()) }
    }

    /// A node whose state is wrong votes nowhere above the height whose header shows it.
    pub fn check_differing_sent(&self, process: usize, message: &PeerMessage) -> Result<(), Violation> {
        let node = self.processes[process].node;
        let height = match message {
            PeerMessage::Vote(vote) if vote.vote.voter == people::identity(node) => vote.vote.height,
            PeerMessage::ProposedHeader(proposed) if proposed.header.proposer == people::identity(node) => {
                proposed.header.height
            }
            _ => return Ok(()),
        };
        let wrong = self.differs(node) && height > self.shown_at();
        if wrong { Err(Violation::WentOnDiffering(height)) } else { Ok(()) }
    }

    /// A process says that it stops. Only one whose execution differs has a reason, and it does nothing more, whatever it
    /// hears. It is started again, as by its supervisor, and must stop again.
    pub fn halted(&mut self, process: usize, reason: &HaltReason) -> Result<(), Violation> {
        let node = self.processes[process].node;
        let first_wrong = self.differing.height;
        let right = matches!(reason, HaltReason::ResultsDiffer { height } if *height == first_wrong);
        if !self.differs(node) || !right {
            return Err(Violation::Halted(reason.to_string()));
        }
        let clock = self.clock_of(process);
        if !self.processes[process].engine.step(clock, Input::Timer(TimerId::Tick)).is_empty() {
            return Err(Violation::WentOnDiffering(self.shown_at()));
        }
        let first = self.differing.halted.insert(node);
        self.counts.add(if first { "nodes that halted alone" } else { "nodes that halted again" }, 1);
        let blocks = self.volumes[self.processes[process].volume].blocks.len() as u64;
        let had_it = !first && Height::new(blocks) >= self.shown_at();
        self.counts.add("nodes that halted again over a block that they had", u64::from(had_it));
        self.crash(process);
        Ok(())
    }

    /// Every node whose state is wrong has said so.
    pub fn all_differing_halted(&self) -> bool {
        self.plan.stands || self.differing.halted == self.differing.nodes
    }

    /// Too many differ: the chain is watched for a while, and has to stand.
    pub fn watch_standing(&mut self) {
        if self.plan.stands {
            self.after(WATCHED_MS, Event::Act(Action::EndStanding));
        }
    }
}

#[test]
fn simulation_notices_a_restart_that_forgets_what_is_not_compared() {
    crate::caught(
        Faults { headers_forgotten: true, ..Faults::default() },
        |seed| Plan { execution_ms: 1_500, ..Plan::execution_differs(&mut Dice::new(seed)) },
        |violation| matches!(violation, Violation::WentOnDiffering(_) | Violation::Halted(_)),
    );
}
