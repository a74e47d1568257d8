//! What a seed means: the kind of trouble, how much of it, and when.

use super::{clocks::Clocks, dice::Dice, differing::Difference};

/// Something that happens at a planned moment.
#[derive(Clone, Debug)]
pub enum Action {
    Crash(u64),
    CrashAll,
    /// Ends a process for good.
    Kill(u64),
    /// Ends a process, and starts one on its volume on another machine at once.
    Move(u64),
    Partition {
        apart: Vec<u64>,
        one_way: bool,
    },
    /// The oldest process of a node, cut off from all others; a copy of the node is not.
    Isolate(u64),
    /// Every direction between two processes is cut by chance.
    Storm,
    Rejoin,
    LoseVolume(u64),
    /// A node goes away, and is back when the others have pruned the blocks that it misses.
    Leave(u64),
    ComeBack,
    /// Old blocks can be had again, for nodes that are new.
    Unprune,
    /// Keeps what a volume holds, to roll it back to that.
    RememberVolume(u64),
    RollBack(u64),
    /// More voters than may fail lose their volumes; their old processes may live where nobody hears them.
    LoseMany {
        nodes: Vec<u64>,
        exiled: bool,
    },
    /// From here on the chain stands.
    NoteStanding,
    /// Governance makes and completes a recovery.
    Recover,
    /// Old processes are heard again.
    Return,
    Copy {
        node: u64,
        old: OldProcess,
    },
    Silence(u64),
    /// A client pays through a node.
    Pay(u64),
    /// Governance gives a voter more power.
    Reweigh(u64),
    /// From some height on these nodes compute another state than the others.
    Differ {
        nodes: Vec<u64>,
        difference: Difference,
    },
    /// The chain has stood long enough.
    EndStanding,
    /// From here on messages are lost and processes crash like this.
    Weather(Weather),
    /// Everybody hears everybody, and nobody is silent any more.
    Calm,
    Corrupt(u64),
    Join(u64),
}

/// What became of the process whose volume is copied.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum OldProcess {
    Alive,
    Dead,
}

/// How often what goes wrong. Probabilities are parts of a million, as in a plan.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    pub loss: u64,
    pub withhold: u64,
    pub duplicate: u64,
    pub delay_ms: (u64, u64),
    pub crash: u64,
}

/// The plan of one history. Probabilities are parts of a million.
#[derive(Clone, Debug)]
pub struct Plan {
    pub name: &'static str,
    pub powers: Vec<u64>,
    pub loss: u64,
    /// Of a batch that reaches only some.
    pub withhold: u64,
    pub duplicate: u64,
    pub delay_ms: (u64, u64),
    /// Of a crash before an effect.
    pub crash: u64,
    pub execution_ms: u64,
    pub clocks: Clocks,
    /// The pace of an idle chain.
    pub block_interval_ms: u64,
    pub always_same_boot: bool,
    pub load: bool,
    /// Governance changes voters and parameters.
    pub governed: bool,
    /// It gives one voter after the other another key, as fast as it can, and changes nothing else.
    pub rekeyed: bool,
    /// It never changes power, so that each voter alone stays within the fault budget.
    pub powers_stay: bool,
    /// A voter that abstains never asks again: for a test that shows why it must.
    pub abstains_for_good: bool,
    /// Keys are taken over whatever the tripwire says: for a test that shows why it must be heard.
    pub tripwire_ignored: bool,
    /// A state of peers is taken whatever the manifest says: for a test that shows why it must be checked.
    pub manifest_ignored: bool,
    /// How many voters forge together what a light client is shown; more than may fail only in a test that proves that it is
    /// noticed.
    pub forgers: u64,
    pub actions: Vec<(u64, Action)>,
    /// When everything is well again.
    pub chaos_ms: u64,
    /// How many blocks every living node must add after that.
    pub goal_blocks: u64,
    /// For how long after that, at most.
    pub patience_ms: u64,
    /// More nodes differ than may fail: the chain has to stand.
    pub stands: bool,
    /// The signing log is emptied before its first entry is written: for a test that shows what a crash in between does.
    pub reset_in_two_steps: bool,
    /// Not every voter need sign in the end.
    pub sessions_excused: bool,
}

/// How long trouble lasts in a long history, milliseconds.
const LONG_MS: u64 = 75_000;
/// A rotation takes five seconds of patience, ten blocks for objections and three more.
const LONG_PAUSE_MS: u64 = 12_000;

pub const SCENARIOS: u64 = 21;

impl Plan {
    /// Voters of equal power: each alone is within the fault budget, so each alone may rotate without its key.
    pub fn equal(mut self) -> Self {
        let first = self.powers[0];
        self.powers.fill(first);
        self
    }

    /// Above every number that a node which may vote has.
    pub fn nodes_max(&self) -> u64 {
        (self.powers.len() as u64).max(8)
    }

    pub fn calm(name: &'static str, dice: &mut Dice) -> Self {
        let powers = match dice.below(5) {
            0 => vec![3, 2, 2, 1, 1],
            1 => vec![10; 5],
            _ => vec![1; 4],
        };
        Self {
            name,
            powers,
            loss: 0,
            withhold: 0,
            duplicate: 5_000,
            delay_ms: (1, 12),
            crash: 0,
            execution_ms: 12,
            clocks: Clocks::GOOD,
            block_interval_ms: 250,
            always_same_boot: false,
            load: true,
            governed: false,
            rekeyed: false,
            powers_stay: false,
            abstains_for_good: false,
            tripwire_ignored: false,
            manifest_ignored: false,
            forgers: 1,
            actions: Vec::new(),
            chaos_ms: 5_000,
            goal_blocks: 6,
            patience_ms: 90_000,
            stands: false,
            reset_in_two_steps: false,
            sessions_excused: false,
        }
    }

    /// The plan of a seed. Every scenario comes in turn.
    pub fn of(seed: u64) -> Self {
        let plan = Self::of_scenario(seed);
        let good = plan.clocks == Clocks::GOOD;
        // In every third round of the scenarios clocks differ as much as the chain accepts.
        if good && (seed / SCENARIOS).is_multiple_of(3) { Self { clocks: Clocks::ACCEPTED, ..plan } } else { plan }
    }

    fn of_scenario(seed: u64) -> Self {
        let mut dice = Dice::new(seed ^ 0xc0ff_ee00);
        match seed % SCENARIOS {
            0 => Self::lossy(&mut dice),
            1 => Self::crashes(&mut dice),
            2 => Self::partitions(&mut dice),
            3 => Self::lost_volume(&mut dice),
            4 => Self::copy_beside_the_living(&mut dice),
            5 => Self::copy_of_the_dead(&mut dice),
            6 => Self::silent_leaders(&mut dice),
            7 => Self::lying_leader(&mut dice),
            8 => Self::everybody_restarts(&mut dice),
            9 => Self::fresh_node(&mut dice),
            10 => Self::single_voter(&mut dice),
            11 => Self::storms(&mut dice),
            12 => Self::withheld_batches(&mut dice),
            13 => Self::members_change(&mut dice),
            14 => Self::members_change_in_trouble(&mut dice),
            15 => Self::one_abstains_and_another_dies(&mut dice),
            16 => Self::recovery(&mut dice),
            17 => Self::rolled_back(&mut dice),
            18 => Self::clocks_differ(&mut dice),
            19 => Self::execution_differs(&mut dice),
            _ => Self::everything(&mut dice),
        }
    }

    pub fn lossy(dice: &mut Dice) -> Self {
        let loss = dice.between(20_000, 150_000);
        Self { loss, duplicate: 50_000, delay_ms: (1, 60), ..Self::calm("loss, delay, reorder", dice) }
    }

    pub fn crashes(dice: &mut Dice) -> Self {
        let mut plan =
            Self { crash: dice.between(500, 3_000), loss: 5_000, ..Self::calm("crashes at any effect", dice) };
        plan.chaos_ms = 7_000;
        plan
    }

    pub fn partitions(dice: &mut Dice) -> Self {
        let mut plan = Self { loss: 10_000, delay_ms: (1, 40), ..Self::calm("partitions", dice) };
        let nodes = plan.powers.len() as u64;
        let mut at = dice.between(300, 1_500);
        while at < 6_000 {
            let apart = (0..nodes).filter(|_| dice.below(2) == 0).collect();
            plan.actions.push((at, Action::Partition { apart, one_way: dice.below(2) == 0 }));
            at += dice.between(300, 2_000);
            plan.actions.push((at, Action::Rejoin));
            at += dice.between(100, 1_000);
        }
        plan.chaos_ms = 7_000;
        plan
    }

    /// Which node hears which changes faster than a round: some decide while others go on to the next round.
    pub fn storms(dice: &mut Dice) -> Self {
        let mut plan = Self { delay_ms: (1, 60), ..Self::calm("storms", dice).equal() };
        plan.powers.truncate(4);
        plan.load = false;
        plan.chaos_ms = 12_000;
        let mut at = 200;
        while at < plan.chaos_ms {
            plan.actions.push((at, Action::Storm));
            at += dice.between(40, 250);
        }
        plan
    }

    pub fn lost_volume(dice: &mut Dice) -> Self {
        let mut plan = Self { loss: 2_000, ..Self::calm("a volume is lost", dice).equal() };
        let node = dice.below(plan.powers.len() as u64);
        plan.actions.push((dice.between(1_000, 3_000), Action::LoseVolume(node)));
        plan.goal_blocks = 20;
        plan
    }

    pub fn copy_beside_the_living(dice: &mut Dice) -> Self {
        let mut plan = Self { loss: 2_000, ..Self::calm("a volume is copied beside the living", dice).equal() };
        let node = dice.below(plan.powers.len() as u64);
        plan.actions.push((dice.between(1_000, 3_000), Action::Copy { node, old: OldProcess::Alive }));
        if dice.below(2) == 0 {
            // The living one cannot object for a while: the copy takes its place, and the two must never sign at a height.
            plan.actions.push((dice.between(3_500, 9_000), Action::Isolate(node)));
            plan.sessions_excused = true;
        }
        plan.load = dice.below(4) == 0;
        plan.chaos_ms = 15_000;
        plan.goal_blocks = 20;
        plan
    }

    pub fn copy_of_the_dead(dice: &mut Dice) -> Self {
        let mut plan = Self::calm("a copy of a dead node's volume", dice).equal();
        let node = dice.below(plan.powers.len() as u64);
        plan.actions.push((dice.between(1_000, 3_000), Action::Copy { node, old: OldProcess::Dead }));
        plan.goal_blocks = 20;
        plan
    }

    pub fn silent_leaders(dice: &mut Dice) -> Self {
        let mut plan = Self::calm("silent leaders", dice);
        let nodes = plan.powers.len() as u64;
        plan.actions.push((500, Action::Silence(dice.below(nodes))));
        plan.actions.push((2_000, Action::Silence(dice.below(nodes))));
        plan
    }

    pub fn lying_leader(dice: &mut Dice) -> Self {
        let mut plan = Self { loss: 10_000, delay_ms: (1, 40), ..Self::calm("a lying leader", dice) };
        let node = 1 + dice.below(plan.powers.len() as u64 - 1);
        plan.actions.push((300, Action::Corrupt(node)));
        plan.goal_blocks = 12;
        plan
    }

    pub fn everybody_restarts(dice: &mut Dice) -> Self {
        let mut plan = Self { crash: 300, ..Self::calm("everybody restarts", dice) };
        plan.always_same_boot = dice.below(2) == 0;
        plan.actions.push((dice.between(500, 3_000), Action::CrashAll));
        plan.actions.push((dice.between(3_500, 4_500), Action::CrashAll));
        plan
    }

    pub fn fresh_node(dice: &mut Dice) -> Self {
        let mut plan = Self { loss: 10_000, execution_ms: 60, ..Self::calm("fresh nodes join", dice) };
        plan.actions.push((dice.between(2_000, 4_000), Action::Join(100)));
        plan.actions.push((dice.between(1_000, 4_000), Action::Crash(dice.below(4))));
        plan
    }

    pub fn single_voter(dice: &mut Dice) -> Self {
        let mut plan = Self { crash: 1_000, ..Self::calm("a single voter", dice) };
        plan.powers = vec![1];
        plan.actions.push((2_000, Action::Join(100)));
        plan
    }

    /// Batches reach some, and their makers crash: the holders must complete the certificates.
    pub fn withheld_batches(dice: &mut Dice) -> Self {
        let mut plan = Self { withhold: 600_000, loss: 20_000, ..Self::calm("withheld batches", dice) };
        let nodes = plan.powers.len() as u64;
        for at in [1_500, 3_000] {
            plan.actions.push((at + dice.below(500), Action::Crash(dice.below(nodes))));
        }
        plan
    }

    /// Voters come, go and are replaced under load, with crashes and loss.
    pub fn members_change(dice: &mut Dice) -> Self {
        let mut plan = Self { loss: 5_000, crash: dice.below(600), ..Self::calm("voters change", dice) };
        plan.governed = true;
        plan.rekeyed = dice.below(2) == 0;
        plan.chaos_ms = if plan.rekeyed { 24_000 } else { 12_000 };
        plan
    }

    /// The same with partitions, restarts of everybody and a voter that rotates by itself.
    pub fn members_change_in_trouble(dice: &mut Dice) -> Self {
        let mut plan = Self { ..Self::partitions(dice) };
        plan.name = "voters change in trouble";
        plan.governed = true;
        plan.crash = dice.below(400);
        match dice.below(3) {
            0 => plan.actions.push((dice.between(2_000, 6_000), Action::CrashAll)),
            1 => plan.actions.push((dice.between(2_000, 6_000), Action::LoseVolume(dice.below(4)))),
            _ => {}
        }
        plan.powers = if dice.below(2) == 0 { vec![2; 6] } else { plan.powers };
        if plan.actions.iter().any(|(_, action)| matches!(action, Action::LoseVolume(_))) {
            plan = plan.equal();
            plan.powers_stay = true;
            plan.goal_blocks = 20;
        }
        plan.chaos_ms = 12_000;
        plan
    }

    /// A voter that moved signs nothing for two heights above the chain; then one that the quorum needs dies.
    pub fn one_abstains_and_another_dies(dice: &mut Dice) -> Self {
        let mut plan = Self::calm("one abstains and another dies", dice).equal();
        plan.powers.truncate(4);
        let moved = dice.below(4);
        let dies = (moved + dice.between(1, 3)) % 4;
        let at = dice.between(1_000, 2_500);
        plan.actions.push((at, Action::Move(moved)));
        plan.actions.push((at + dice.between(0, 3_000), Action::Kill(dies)));
        plan.chaos_ms = 7_000;
        plan
    }

    /// More than may fail lose their keys: nobody signs, and a manifest lets the chain go on.
    pub fn recovery(dice: &mut Dice) -> Self {
        let mut plan = Self::calm("recovery", dice).equal();
        let voters = plan.powers.len() as u64;
        let exiled = dice.below(2) == 0;
        // Old processes that live are no quorum; those who have ended may be all but one.
        let lost = if exiled { voters / 2 } else { dice.between(voters / 2, voters - 1) };
        let first = dice.below(voters);
        let nodes = (0..lost).map(|next| (first + next) % voters).collect();
        let at = dice.between(1_000, 3_000);
        plan.actions.push((at, Action::LoseMany { nodes, exiled }));
        plan.actions.push((at + 2_000, Action::NoteStanding));
        plan.actions.push((at + 2_000 + dice.between(6_000, 12_000), Action::Recover));
        plan.always_same_boot = dice.below(2) == 0;
        plan.chaos_ms = 19_000;
        plan
    }

    /// A volume holds again what it held some time ago: its key must never sign there what it signed otherwise before.
    pub fn rolled_back(dice: &mut Dice) -> Self {
        let mut plan = Self::calm("a volume is rolled back", dice).equal();
        let node = dice.below(plan.powers.len() as u64);
        let at = dice.between(500, 3_000);
        plan.actions.push((at, Action::RememberVolume(node)));
        plan.actions.push((at + dice.between(0, 2_500), Action::RollBack(node)));
        plan.chaos_ms = 9_000;
        plan.goal_blocks = 20;
        plan
    }

    /// A voter misses so many blocks, under governance, that it has to take a state.
    pub fn absence(dice: &mut Dice) -> Self {
        let mut plan = Self::calm("a node is away for long", dice).equal();
        plan.governed = dice.below(2) == 0;
        plan.powers_stay = true;
        let at = dice.between(500, 2_500);
        plan.actions.push((at, Action::Leave(dice.below(plan.powers.len() as u64))));
        plan.actions.push((at + dice.between(4_000, 6_000), Action::ComeBack));
        plan.chaos_ms = 12_000;
        plan.actions.push((plan.chaos_ms - 1, Action::Unprune));
        plan.goal_blocks = 20;
        plan
    }

    fn weather(&self) -> Weather {
        let Self { loss, withhold, duplicate, delay_ms, crash, .. } = *self;
        Weather { loss, withhold, duplicate, delay_ms, crash }
    }

    /// Several kinds of trouble one after the other, for a time fifteen times as long as one takes. After each there is a
    /// pause in which a voter gets a key again: no more may be without one than the chain stands.
    pub fn long(dice: &mut Dice) -> Self {
        let mut plan = Self::calm("a long history", dice).equal();
        let calm = plan.weather();
        plan.governed = dice.below(2) == 0;
        plan.powers_stay = true;
        plan.always_same_boot = dice.below(3) == 0;
        let mut at = 0;
        while at < LONG_MS {
            // Where governance replaces voters all the time, a lost volume may be one too many.
            let part = match dice.below(if plan.governed { 6 } else { 9 }) {
                0 => Self::lossy(dice),
                1 => Self::crashes(dice),
                2 => Self::partitions(dice),
                3 => Self::silent_leaders(dice),
                4 => Self::withheld_batches(dice),
                5 => Self::everybody_restarts(dice),
                6 => Self::lost_volume(dice),
                7 => Self::copy_of_the_dead(dice),
                _ => Self::rolled_back(dice),
            };
            plan.actions.push((at, Action::Weather(part.weather())));
            plan.actions.extend(part.actions.into_iter().map(|(after, action)| (at + after, action)));
            at += part.chaos_ms;
            plan.actions.push((at, Action::Calm));
            plan.actions.push((at, Action::Weather(calm)));
            at += LONG_PAUSE_MS;
        }
        plan.chaos_ms = at;
        plan.goal_blocks = 20;
        plan
    }

    pub fn everything(dice: &mut Dice) -> Self {
        let mut plan = Self::calm("everything at once", dice).equal();
        plan.loss = 30_000;
        plan.withhold = 200_000;
        plan.duplicate = 30_000;
        plan.delay_ms = (1, 50);
        plan.crash = dice.between(100, 1_000);
        let nodes = plan.powers.len() as u64;
        let node = dice.below(nodes);
        plan.actions.push((dice.between(1_000, 3_000), Action::LoseVolume(node)));
        plan.actions.push((dice.between(500, 4_000), Action::Silence(dice.below(nodes))));
        let apart = vec![dice.below(nodes), dice.below(nodes)];
        plan.actions.push((dice.between(1_000, 4_000), Action::Partition { apart, one_way: dice.below(2) == 0 }));
        plan.actions.push((5_000, Action::Rejoin));
        plan.actions.push((dice.between(3_000, 6_000), Action::Join(100)));
        plan.chaos_ms = 8_000;
        plan.goal_blocks = 20;
        plan
    }
}
