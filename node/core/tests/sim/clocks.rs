//! The clocks of the nodes: each has an offset and a drift of its own, and what that may do to the time of blocks.

use node_core::types::{Header, Height, Identity, TimeMs};

use super::{checks::Violation, dice::Dice, people, plan::Plan, world::World};

/// How far the clocks of a history are from the true time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Clocks {
    /// Each is off by so much at most, milliseconds.
    pub spread_ms: u64,
    /// Each gains or loses so many parts of a million at most.
    pub drift: u64,
    /// A node whose clock is off by much more, and by how much.
    pub far: Option<(u64, i64)>,
}

impl Clocks {
    /// Those of machines that are kept in time.
    pub const GOOD: Self = Self { spread_ms: 20, drift: 20, far: None };
    /// No two differ by more than the chain accepts.
    pub const ACCEPTED: Self = Self { spread_ms: 2_450, drift: 200, far: None };
    /// Some differ by more than the chain accepts.
    pub const WIDE: Self = Self { spread_ms: 6_000, drift: 500, far: None };
}

/// The clock of one node.
#[derive(Clone, Copy, Debug)]
struct Clock {
    offset_ms: i64,
    drift: i64,
}

impl Clock {
    fn of(seed: u64, node: u64, clocks: &Clocks) -> Self {
        // Its own dice, so that a history does not change with how often somebody looks at a clock.
        let mut dice = Dice::new(seed.wrapping_mul(1_009) ^ node ^ 0xc10c_0000);
        let mut around = |most: u64| {
            let found = i64::try_from(dice.between(0, 2 * most)).unwrap();
            found - i64::try_from(most).unwrap()
        };
        let (offset_ms, drift) = (around(clocks.spread_ms), around(clocks.drift));
        match clocks.far {
            Some((far, offset_ms)) if far == node => Self { offset_ms, drift },
            _ => Self { offset_ms, drift },
        }
    }

    /// What it shows at a moment.
    fn shows(self, now: u64) -> u64 {
        let gained = i64::try_from(now - people::GENESIS_MS).unwrap() * self.drift / 1_000_000;
        now.saturating_add_signed(self.offset_ms + gained)
    }

    /// How long it takes until so much has passed on it.
    fn lasts(self, ms: u64) -> u64 {
        ms.saturating_add_signed(-(i64::try_from(ms).unwrap() * self.drift / 1_000_000))
    }
}

impl Plan {
    /// Clocks that differ by more than the chain accepts, or one that is far outside, which counts as a failed node.
    pub fn clocks_differ(dice: &mut Dice) -> Self {
        let mut plan = Self { loss: 2_000, delay_ms: (1, 40), ..Self::calm("clocks differ", dice).equal() };
        let nodes = plan.powers.len() as u64;
        if dice.below(2) == 0 {
            let hour = 3_600_000;
            let offset_ms = if dice.below(2) == 0 { hour } else { -hour };
            plan.clocks = Clocks { far: Some((dice.below(nodes), offset_ms)), ..Clocks::ACCEPTED };
        } else {
            plan.clocks = Clocks::WIDE;
            plan.actions.push((dice.between(1_000, 3_000), super::plan::Action::Crash(dice.below(nodes))));
        }
        plan.goal_blocks = 12;
        plan
    }
}

impl World {
    fn clock(&self, node: u64) -> Clock {
        Clock::of(self.seed, node, &self.plan.clocks)
    }

    /// What the clock of a process shows.
    pub fn clock_of(&self, process: usize) -> u64 {
        self.clock(self.processes[process].node).shows(self.now)
    }

    /// How long a timer of a process takes.
    pub fn timer_lasts(&self, process: usize, ms: u64) -> u64 {
        self.clock(self.processes[process].node).lasts(ms)
    }

    /// A block is final for the first time. Its time is after that of the one before; and so many have accepted it that
    /// one whose clock they all have reached, up to the accepted drift, is among them, or it is the least that is after
    /// the one before.
    pub fn check_time(&mut self, header: &Header) -> Result<(), Violation> {
        let before = self.last_time.replace(header.time).unwrap_or(TimeMs::new(people::GENESIS_MS));
        if header.time <= before {
            return Err(Violation::TimeNotAfterParent(header.height));
        }
        let reached = self.quorum_clock(header.height) + self.genesis.parameters.time_drift_ms_max;
        if header.time.get() > reached && header.time > before.saturating_add(1) {
            return Err(Violation::TimeAhead(header.height));
        }
        self.counts.add("blocks one millisecond after another", u64::from(header.time == before.saturating_add(1)));
        Ok(())
    }

    /// What the clocks of a quorum show at least.
    fn quorum_clock(&self, height: Height) -> u64 {
        let Some((voters, _)) = self.checks.voters_around(height) else { return u64::MAX / 2 };
        let clock = |identity: &Identity| {
            let node = (0..self.plan.nodes_max()).find(|node| people::identity(*node) == *identity);
            self.clock(node.expect("every voter is a node")).shows(self.now)
        };
        let mut clocks: Vec<(u64, u64)> =
            voters.entries().iter().map(|entry| (clock(&entry.identity), entry.power.get())).collect();
        clocks.sort_unstable();
        let mut power = 0;
        for (shows, of_voter) in clocks.into_iter().rev() {
            power += of_voter;
            if power >= voters.quorum().get() {
                return shows;
            }
        }
        u64::MAX / 2
    }
}
