//! A small world in which voters come and go while the spec changes, machines are drained, operators end in the middle and
//! nodes fail, with a checker that is itself proved by operators with a fault.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::budget::{Budget, faults};

/// For how many blocks a transaction of this world can be executed.
const VALIDITY: u64 = 12;
/// Heights from the execution of a change to the first that it counts for.
const EFFECT: u64 = 3;
/// How many heights reports may be behind.
const BEHIND_MAX: u64 = EFFECT_BLOCKS - EFFECT;

/// More numbers than voters ever have here.
const NUMBERS: u32 = 12;

/// What is wrong with the operator of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// It forgets what it has put before the chain.
    FlightForgotten,
    /// It holds a change that was executed at the last moment for one that never comes.
    EffectForgotten,
    /// It sends first and writes down then.
    SentBeforeWritten,
    /// It counts a newcomer as one that signs.
    NewcomerTrusted,
    /// It votes a newcomer in that has not caught up.
    CatchUpSkipped,
    /// It believes voters that are further behind than those that it heard before.
    HeightForgotten,
    /// Its disruption budget counts the voters as they are, whatever it puts before the chain.
    BudgetBlind,
    /// Its disruption budget protects a newcomer only once it is written down as a voter.
    NewcomerUnprotected,
    /// It does not look again before it puts a change before the chain.
    LookSkipped,
}

/// A transaction on its way.
#[derive(Clone, Debug)]
struct Sent {
    change: Change,
    nonce: u64,
    until: u64,
}

/// A chain, its nodes, what the spec wants and what is written down.
struct World {
    random: StdRng,
    fault: Fault,
    /// The voters of each height from 0 on.
    history: Vec<BTreeSet<u32>>,
    nonce: u64,
    sent: Vec<Sent>,
    /// A change that was executed, and the first height that it counts for.
    executed: Option<(u64, Change)>,
    /// Nodes that run. All others are silent.
    up: BTreeSet<u32>,
    /// Nodes whose pods were taken by a drain, and those of them whose last votes are still counted.
    drained: BTreeSet<u32>,
    remembered: BTreeSet<u32>,
    /// How many pods may go, and who seemed to sign when that was written.
    allowed: usize,
    known_up: BTreeSet<u32>,
    caught_up: BTreeSet<u32>,
    replicas: u32,
    retired: BTreeSet<u32>,
    numbers: Vec<u32>,
    change: Option<Change>,
    written_at: u64,
}

impl World {
    fn new(seed: u64, fault: Fault) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let voters = random.random_range(4..8u32);
        Self {
            random,
            fault,
            history: vec![(0..voters).collect()],
            nonce: 0,
            sent: Vec::new(),
            executed: None,
            up: (0..voters).collect(),
            drained: BTreeSet::new(),
            remembered: BTreeSet::new(),
            allowed: 0,
            known_up: BTreeSet::new(),
            caught_up: (0..voters).collect(),
            replicas: voters,
            retired: BTreeSet::new(),
            numbers: (0..voters).collect(),
            change: None,
            written_at: 0,
        }
    }

    fn height(&self) -> u64 {
        self.history.len() as u64 - 1
    }

    fn voters(&self) -> &BTreeSet<u32> {
        self.history.last().expect("genesis")
    }

    fn signing(&self) -> u64 {
        self.voters().intersection(&self.up).count() as u64
    }

    /// What f+1 voters report: a late height, and whose votes they have seen.
    fn facts(&mut self) -> Facts {
        let height = self.height() - self.random.random_range(0..=BEHIND_MAX.min(self.height()));
        let voters = &self.history[usize::try_from(height).expect("few")];
        let is_signing = |number: &u32| self.up.contains(number) || self.remembered.contains(number);
        let voter = |number: &u32| VoterFact { power: POWER, is_signing: is_signing(number), session: None };
        let voters: BTreeMap<String, VoterFact> =
            voters.iter().map(|number| (identity(*number), voter(number))).collect();
        let facts = Facts {
            height,
            block_age: std::time::Duration::ZERO,
            is_standing: self.signing() < quorum(self.voters().len() as u64),
            total_power: voters.len() as u64,
            signing_power: voters.values().filter(|voter| voter.is_signing).count() as u64,
            voters,
            margin: 0,
            last_precommits: BTreeMap::new(),
            pending: None,
            is_late: height < self.written_at && self.fault != Fault::HeightForgotten,
            is_nameless: false,
        };
        match self.change.as_ref().filter(|change| change.is_borne && self.fault != Fault::BudgetBlind) {
            Some(change) => {
                let pending = change.pending(&facts, identity);
                facts.expecting(pending)
            }
            None => facts,
        }
    }

    fn absent(&self) -> BTreeSet<String> {
        self.drained.iter().copied().map(identity).collect()
    }

    /// The disruption budget of these facts is written.
    fn follow_budget(&mut self, facts: &Facts) {
        let all = (0..NUMBERS).map(identity).collect();
        self.allowed = Budget::of(facts, &self.absent()).allowed(&all);
        self.known_up =
            self.up.union(&self.remembered).filter(|number| !self.drained.contains(number)).copied().collect();
    }

    /// A drain takes a voter if the disruption budget lets one go. It is judged by what the operator knew of who runs.
    fn drain(&mut self) -> Result<(), String> {
        let number = self.random.random_range(0..9);
        let is_protected = self.fault != Fault::NewcomerUnprotected || self.numbers.contains(&number);
        if is_protected && self.allowed == 0 || !self.up.contains(&number) || !self.voters().contains(&number) {
            return Ok(());
        }
        self.allowed -= usize::from(is_protected);
        self.up.remove(&number);
        self.drained.insert(number);
        self.remembered.insert(number);
        let on_the_way = self.sent.iter().filter(|sent| sent.until > self.height() && sent.nonce == self.nonce);
        let changes = on_the_way.map(|sent| &sent.change).chain(self.executed.iter().map(|(_, change)| change));
        let sets = changes.map(|change| after_change(self.voters(), change)).chain([self.voters().clone()]);
        for voters in sets {
            let is_newcomer = |number: &u32| !self.voters().contains(number);
            let is_down = |number: &&u32| {
                is_newcomer(number) || !self.known_up.contains(*number) || self.drained.contains(*number)
            };
            let down = voters.iter().filter(is_down).count() as u64;
            if down > faults(voters.len() as u64) && voters.contains(&number) {
                return Err(format!("a drain took {number}: {down} of {voters:?} are away"));
            }
        }
        Ok(())
    }

    fn maybe_drain(&mut self) -> Result<(), String> {
        if self.random.random_bool(0.2) { self.drain() } else { Ok(()) }
    }

    /// Makes a block, if a quorum signs.
    fn block(&mut self) {
        if self.signing() < quorum(self.voters().len() as u64) {
            return;
        }
        let height = self.height() + 1;
        let counts = self.executed.take_if(|(from, _)| *from == height);
        let voters = counts.map_or_else(|| self.voters().clone(), |(_, change)| after_change(self.voters(), &change));
        self.history.push(voters);
        if self.random.random_bool(0.3) {
            self.remembered.clear();
        }
        let nonce = self.nonce;
        self.sent.retain(|sent| sent.until >= height && sent.nonce == nonce);
        if self.executed.is_none()
            && self.random.random_bool(0.3)
            && let Some(sent) = self.sent.pop()
        {
            self.executed = Some((height + EFFECT, sent.change));
            self.nonce += 1;
        }
    }

    /// One look of the operator and its move, which may end after each of its writes.
    fn operate(&mut self) -> Result<(), String> {
        let mut facts = self.facts();
        self.follow_budget(&facts);
        self.maybe_drain()?;
        let mut change = self.change.clone();
        let newcomer = change.as_ref().map(|change| change.number);
        let follows = newcomer.is_none_or(|number| self.caught_up.contains(&number));
        let lacks = (!follows && self.fault != Fault::CatchUpSkipped).then_some("blocks");
        if let Some(change) = change.as_mut() {
            match self.fault {
                Fault::FlightForgotten => change.proposed_until = None,
                Fault::EffectForgotten => {
                    change.proposed_until = change.proposed_until.map(|until| until - EFFECT_BLOCKS);
                }
                Fault::NewcomerTrusted if change.direction == Direction::Join => facts.signing_power += POWER,
                _ => {}
            }
        }
        let identities = (0..NUMBERS).map(|number| (number, identity(number))).collect();
        let answered = self.random.random_bool(0.9);
        let view = View {
            replicas: self.replicas,
            retired: &self.retired,
            is_external: false,
            numbers: &self.numbers,
            identities: &identities,
            change: change.as_ref(),
            newcomer_lacks: lacks,
            facts: answered.then_some(&facts),
        };
        let next = decide(&view);
        if answered && !matches!(next, Move::Nothing | Move::Wait(_)) {
            self.written_at = self.written_at.max(facts.height);
        }
        match next {
            Move::Nothing | Move::Wait(_) => {}
            Move::Refuse(why) => return Err(why),
            Move::Begin(change) => self.change = Some(change),
            Move::Forget => self.change = None,
            Move::Finish(numbers) => (self.numbers, self.change) = (numbers, None),
            Move::Bear | Move::Release(_) => {
                let borne = next == Move::Bear;
                self.change = self.change.take().map(|change| Change { is_borne: borne, ..change });
            }
            Move::Propose => {
                let mut live = facts.clone().without(&self.absent());
                if self.fault == Fault::NewcomerTrusted {
                    live.signing_power += POWER;
                }
                let again = decide(&View { facts: Some(&live), ..view });
                if again == Move::Propose || self.fault == Fault::LookSkipped {
                    self.propose(change.expect("written down"), facts.height)?;
                }
            }
        }
        if self.change.is_some() {
            return Ok(());
        }
        let voters: Vec<u32> = self.voters().iter().copied().collect();
        if self.numbers != voters || self.executed.is_some() || self.is_in_flight() {
            return Err(format!("{:?} are written down for good, {voters:?} vote", self.numbers));
        }
        Ok(())
    }

    fn propose(&mut self, change: Change, height: u64) -> Result<(), String> {
        if self.is_in_flight() || self.executed.is_some() {
            return Err(format!("{change:?} was put before the chain while another one may still count"));
        }
        if change.direction == Direction::Join && !self.caught_up.contains(&change.number) {
            return Err(format!("{change:?} was put before the chain while the newcomer was behind"));
        }
        let after = after_change(self.voters(), &change);
        let total = after.len() as u64;
        // A newcomer is silent at first.
        let seems_up = |number: &&u32| self.known_up.contains(*number) && !self.drained.contains(*number);
        let signing = after.intersection(self.voters()).filter(seems_up).count() as u64;
        if signing < quorum(total) {
            return Err(format!("{change:?} leaves {signing} of {total} that sign"));
        }
        let until = height + VALIDITY;
        let sent = Sent { change: change.clone(), nonce: self.nonce, until };
        let written = Some(Change { proposed_until: Some(until), ..change });
        let ends_between = self.random.random_bool(0.3);
        if self.fault == Fault::SentBeforeWritten {
            self.sent.push(sent);
            self.change = if ends_between { self.change.take() } else { written };
            return Ok(());
        }
        self.change = written;
        self.maybe_drain()?;
        if !ends_between {
            self.sent.push(sent);
        }
        Ok(())
    }

    /// A transaction can still be executed.
    fn is_in_flight(&self) -> bool {
        self.sent.iter().any(|sent| sent.until > self.height() && sent.nonce == self.nonce)
    }

    fn fail(&mut self) {
        let number = self.random.random_range(0..9);
        if self.drained.contains(&number) {
            return;
        }
        if !self.up.remove(&number) {
            self.up.insert(number);
        }
    }

    fn ask(&mut self) {
        if self.random.random_bool(0.5) {
            self.replicas = self.random.random_range(4..8);
            return;
        }
        let number = self.random.random_range(0..9);
        if !self.retired.remove(&number) && self.retired.len() < 3 {
            self.retired.insert(number);
        }
    }

    /// A newcomer fetches what it lacks, and signs once it votes.
    fn follow(&mut self) {
        if let Some(Change { number, direction: Direction::Join, .. }) = &self.change {
            self.caught_up.insert(*number);
            self.up.insert(*number);
        }
        self.up.append(&mut self.drained);
    }

    fn is_settled(&self) -> bool {
        let voters = self.voters();
        self.change.is_none() && voters.len() == self.replicas as usize && voters.is_disjoint(&self.retired)
    }
}

fn after_change(voters: &BTreeSet<u32>, change: &Change) -> BTreeSet<u32> {
    let gone = match change.direction {
        Direction::Join => change.replaces,
        Direction::Leave => Some(change.number),
    };
    let comes = Some(change.number).filter(|_| change.direction == Direction::Join);
    voters.iter().copied().filter(|number| Some(*number) != gone).chain(comes).collect()
}

fn identity(number: u32) -> String {
    format!("i{number}")
}

/// Runs one world; the first broken rule, or how often it had the voters that the spec wanted.
fn run(seed: u64, fault: Fault) -> Result<u64, String> {
    let mut world = World::new(seed, fault);
    let mut changes = 0;
    for _ in 0..600 {
        match world.random.random_range(0..41) {
            0..15 => world.operate()?,
            15..34 => world.block(),
            34..37 => world.follow(),
            37 => world.fail(),
            38 => world.ask(),
            39 => world.drain()?,
            _ => {
                let number = world.random.random_range(0..9);
                world.caught_up.remove(&number);
            }
        }
        changes = world.nonce;
    }
    // From here on nothing goes wrong.
    for _ in 0..400 {
        (world.up, world.drained) = ((0..NUMBERS).collect(), BTreeSet::new());
        world.follow();
        world.block();
        world.operate()?;
    }
    if !world.is_settled() {
        return Err(format!(
            "{} with {:?} retired is never reached: {:?}",
            world.replicas, world.retired, world.change
        ));
    }
    Ok(changes)
}

fn first_violation(fault: Fault) -> Option<String> {
    (0..1_000).find_map(|seed| run(seed, fault).err().map(|why| format!("seed {seed}: {why}")))
}

#[test]
fn one_change_at_a_time_within_the_quorum_and_at_last_what_the_spec_wants() {
    assert_eq!(first_violation(Fault::None), None);
    let changes: u64 = (0..200).filter_map(|seed| run(seed, Fault::None).ok()).sum();
    assert!(changes > 250, "only {changes} changes of voters in 200 worlds");
}

#[test]
fn an_operator_with_a_fault_is_caught() {
    let faults = [
        Fault::FlightForgotten,
        Fault::EffectForgotten,
        Fault::SentBeforeWritten,
        Fault::NewcomerTrusted,
        Fault::CatchUpSkipped,
        Fault::HeightForgotten,
        Fault::BudgetBlind,
        Fault::NewcomerUnprotected,
        Fault::LookSkipped,
    ];
    for fault in faults {
        assert!(first_violation(fault).is_some(), "{fault:?} is not caught");
    }
}
