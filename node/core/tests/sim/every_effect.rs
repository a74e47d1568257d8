//! One short history with all that a node makes durable, and a crash after each of these effects in turn.

use node_core::{
    consensus::{Effect, Input, Origin},
    crypto::verify_transaction,
    ledger::{account, snapshot},
    types::{AccountId, GovernanceChange, Height, Power},
};

use super::{
    checks::Violation,
    dice::Dice,
    people,
    plan::{Action, OldProcess, Plan},
    world::{Event, World},
};

/// The node that crashes.
pub const VICTIM: u64 = 1;
/// The voter that is cut off at first, so that the others need the victim.
const AWAY: u64 = 3;
/// The voter that gets more power.
const CHANGED: u64 = 2;
/// How many blocks must follow a crash at least.
const BLOCKS_AFTER: u64 = 3;
/// How long after its end the victim starts again, milliseconds.
const RESTART_MS: u64 = 60;
/// How long after its end everybody hears everybody, milliseconds. Where the others need it, that is after it has found
/// that they do, and signs by its record alone.
const HEAL_MS: u64 = 1_000;
const HEAL_NEEDED_MS: u64 = 5_500;
/// A voter that signs flushes its log before it has so many entries; what the others say alone is appended without end.
const ENTRIES_OF_A_SIGNER: usize = 6;
/// When something is done that could not be done because the victim had just ended, milliseconds.
const AGAIN_MS: u64 = 100;

/// Every kind of effect that the history must have.
pub const KINDS: [&str; 10] = [
    "AppendLog",
    "FlushLog",
    "ResetLog",
    "StoreBatch",
    "DropBatches",
    "Commit",
    "Execute",
    "MakeKey",
    "KeyEffective",
    "RetireKey",
];

/// Where the victim crashes.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct CrashPoint {
    /// After this durable effect, counted from 1.
    pub after: usize,
    /// How many of the entries that are not flushed reach the disk whole. One that is torn is no entry.
    pub kept: usize,
}

/// What is counted of the victim, and where it crashes.
#[derive(Clone, Debug, Default)]
pub struct EveryEffect {
    pub crash: Option<CrashPoint>,
    /// Of each durable effect so far: its kind, and how many entries were not flushed then.
    pub seen: Vec<(&'static str, usize)>,
}

impl EveryEffect {
    /// Every point at which a history like this one can be cut: after each effect, with all but the torn last one of what
    /// was not flushed, and with nothing of it. That all of it is there is the same as a torn entry after it.
    pub fn points(&self) -> Vec<CrashPoint> {
        let tails = |unflushed: usize| {
            let torn = unflushed.saturating_sub(1);
            if torn == 0 || torn >= ENTRIES_OF_A_SIGNER { vec![torn] } else { vec![torn, 0] }
        };
        let of_effect = |(before, (_, unflushed)): (usize, &(&str, usize))| {
            let after = before + 1;
            tails(*unflushed).into_iter().map(move |kept| CrashPoint { after, kept }).collect::<Vec<_>>()
        };
        self.seen.iter().enumerate().flat_map(of_effect).collect()
    }
}

/// What kind of durable effect this is, as far as it is durable once it is performed. The shell answers
/// [`Effect::StoreBatch`] and [`Effect::Execute`] later: they count when they are done.
pub fn durable_kind(effect: &Effect) -> Option<&'static str> {
    match effect {
        Effect::AppendLog(_) => Some("AppendLog"),
        Effect::FlushLog => Some("FlushLog"),
        Effect::ResetLog { .. } => Some("ResetLog"),
        Effect::DropBatches(_) => Some("DropBatches"),
        Effect::Commit { .. } => Some("Commit"),
        Effect::MakeKey { .. } => Some("MakeKey"),
        Effect::KeyEffective(_) => Some("KeyEffective"),
        Effect::RetireKey(_) => Some("RetireKey"),
        Effect::StoreBatch(_)
        | Effect::Execute { .. }
        | Effect::Broadcast(_)
        | Effect::Send { .. }
        | Effect::SendBlocks { .. }
        | Effect::SetTimer { .. }
        | Effect::CancelTimer(_)
        | Effect::Durable(_)
        | Effect::VoteSeen(_)
        | Effect::Evidence(_)
        | Effect::Dropped { .. }
        | Effect::Accepted(_)
        | Effect::Refused { .. }
        | Effect::Expired(_)
        | Effect::Alarm(_)
        | Effect::Halt(_) => None,
    }
}

impl Plan {
    /// Payments in a batch of the victim, while the chain cannot go on without it; a change of the voters; and a rotation
    /// of the victim's key: its volume is copied, it has to ask for another key, signs with that, and erases the former
    /// one.
    pub fn every_effect(dice: &mut Dice) -> Self {
        let mut plan = Self::calm("a crash after every durable effect", dice);
        plan.powers = vec![10; 4];
        plan.duplicate = 0;
        plan.load = false;
        plan.always_same_boot = true;
        // So that few heights pass while the node is patient.
        plan.block_interval_ms = 2_000;
        plan.actions = vec![
            (1, Action::Isolate(AWAY)),
            (300, Action::Pay(VICTIM)),
            (1_000, Action::Reweigh(CHANGED)),
            (6_000, Action::Rejoin),
            (6_300, Action::Copy { node: VICTIM, old: OldProcess::Dead }),
        ];
        plan.chaos_ms = 7_000;
        plan.goal_blocks = 19;
        plan
    }
}

impl World {
    /// With a victim that crashes at this point, if at any.
    pub fn with_crash_at(mut self, crash: Option<CrashPoint>) -> Self {
        self.every_effect = Some(EveryEffect { crash, seen: Vec::new() });
        self
    }

    /// Something is durable. True if the process crashes now.
    pub fn persisted(&mut self, process: usize, kind: &'static str) -> bool {
        let (node, volume) = (self.processes[process].node, self.processes[process].volume);
        let Some(every) = self.every_effect.as_mut().filter(|_| node == VICTIM) else { return false };
        every.seen.push((kind, self.volumes[volume].unflushed.len()));
        let Some(CrashPoint { kept, .. }) = every.crash.filter(|crash| crash.after == every.seen.len()) else {
            return false;
        };
        if kind == "ResetLog" && self.plan.reset_in_two_steps {
            self.volumes[volume].log = Some(Vec::new());
        }
        self.volumes[volume].unflushed.truncate(kept);
        self.volumes[volume].flush();
        self.end(process);
        self.after(RESTART_MS, Event::Restart { node, volume });
        // What comes after a few blocks with everybody signing again is part of other histories.
        self.plan.goal_blocks = BLOCKS_AFTER;
        let heal_ms = if self.blocked.is_empty() { HEAL_MS } else { HEAL_NEEDED_MS };
        self.after(heal_ms, Event::Heal);
        true
    }

    /// The victim's volume is copied once its process runs, unless it has crashed before: then its key stays.
    pub fn copy_of_victim(&mut self, old: OldProcess) {
        let crash = self.every_effect.as_ref().and_then(|every| Some((every.crash?, every.seen.len())));
        let crashed = crash.is_some_and(|(crash, seen)| seen >= crash.after);
        if !crashed && self.once_alive(VICTIM, Action::Copy { node: VICTIM, old }).is_some() {
            self.copy(VICTIM, old);
        }
    }

    /// Does something to a node once its process runs.
    pub fn once_alive(&mut self, node: u64, action: Action) -> Option<usize> {
        let process = self.process_of(node);
        if process.is_none() {
            self.after(AGAIN_MS, Event::Act(action));
        }
        process
    }

    /// A client pays through a node.
    pub fn pay(&mut self, node: u64) -> Result<(), Violation> {
        let Some(process) = self.once_alive(node, Action::Pay(node)) else { return Ok(()) };
        let incarnation = self.checks.incarnation_at(Height::new(u64::MAX));
        let transfer = |nonce| verify_transaction(people::transfer(incarnation, 0, 1, nonce)).expect("it is signed");
        let transactions = (0..3).map(transfer).collect();
        self.feed(process, Input::Submitted { origin: Origin::Client, transactions })
    }

    /// Governance gives a voter more power, through a node that does not crash.
    pub fn reweigh(&mut self, node: u64) -> Result<(), Violation> {
        let Some(process) = self.process_of(0) else { return Ok(()) };
        let store = &self.volumes[self.processes[process].volume].store;
        let height = snapshot(store).unwrap().unwrap().progress.height;
        let nonce = account(store, &AccountId::governance()).unwrap().nonce;
        let identity = people::identity(node);
        let power = Power::new(self.plan.powers[0] + 1);
        let transaction = self.signed_change(nonce, height, GovernanceChange::SetPower { identity, power });
        let transactions = vec![verify_transaction(transaction).expect("signed by governance")];
        self.feed(process, Input::Submitted { origin: Origin::Client, transactions })
    }
}
