//! A small world in which voters come and go while the spec changes, operators end in the middle and nodes fail, with a
//! checker that is itself proved by operators with a fault.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

/// For how many blocks a transaction of this world can be executed.
const VALIDITY: u64 = 12;
/// Heights from the execution of a change to the first that it counts for.
const EFFECT: u64 = 3;
/// How many heights reports may be behind.
const BEHIND_MAX: u64 = EFFECT_BLOCKS - EFFECT;

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

    /// What f+1 voters report: a late height, and who runs now.
    fn facts(&mut self) -> Facts {
        let height = self.height() - self.random.random_range(0..=BEHIND_MAX.min(self.height()));
        let voters = &self.history[usize::try_from(height).expect("few")];
        let voter = |number: &u32| VoterFact { power: POWER, is_signing: self.up.contains(number), session: None };
        let voters: BTreeMap<String, VoterFact> =
            voters.iter().map(|number| (identity(*number), voter(number))).collect();
        Facts {
            height,
            block_age: std::time::Duration::ZERO,
            is_standing: self.signing() < quorum(self.voters().len() as u64),
            total_power: voters.len() as u64,
            signing_power: voters.values().filter(|voter| voter.is_signing).count() as u64,
            voters,
            margin: 0,
            last_precommits: BTreeMap::new(),
        }
    }

    /// Makes a block, if a quorum signs.
    fn block(&mut self) {
        if self.signing() < quorum(self.voters().len() as u64) {
            return;
        }
        let (height, mut voters) = (self.height() + 1, self.voters().clone());
        if let Some((_, change)) = self.executed.take_if(|(from, _)| *from == height) {
            match change.direction {
                Direction::Join => drop(voters.insert(change.number)),
                Direction::Leave => drop(voters.remove(&change.number)),
            }
            change.replaces.map(|former| voters.remove(&former));
        }
        self.history.push(voters);
        let nonce = self.nonce;
        self.sent.retain(|sent| sent.until >= height && sent.nonce == nonce);
        if self.executed.is_none() && self.random.random_bool(0.3) {
            if let Some(sent) = self.sent.pop() {
                self.executed = Some((height + EFFECT, sent.change));
                self.nonce += 1;
            }
        }
    }

    /// One look of the operator and its move, which may end after each of its writes.
    fn operate(&mut self) -> Result<(), String> {
        let mut facts = self.facts();
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
        let identities = (0..100).map(|number| (number, identity(number))).collect();
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
            written_at: if self.fault == Fault::HeightForgotten { 0 } else { self.written_at },
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
            Move::Propose => self.propose(change.expect("written down"), facts.height)?,
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
        let gone = match change.direction {
            Direction::Join => change.replaces,
            Direction::Leave => Some(change.number),
        };
        let staying = self.voters().iter().filter(|number| Some(**number) != gone);
        let (signing, mut total) = staying
            .fold((0, 0), |(signing, total), number| (signing + u64::from(self.up.contains(number)), total + POWER));
        total += if change.direction == Direction::Join { POWER } else { 0 };
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
    }

    fn is_settled(&self) -> bool {
        let voters = self.voters();
        self.change.is_none() && voters.len() == self.replicas as usize && voters.is_disjoint(&self.retired)
    }
}

fn identity(number: u32) -> String {
    format!("i{number}")
}

/// Runs one world; the first broken rule, or how often it had the voters that the spec wanted.
fn run(seed: u64, fault: Fault) -> Result<u64, String> {
    let mut world = World::new(seed, fault);
    let mut changes = 0;
    for _ in 0..600 {
        match world.random.random_range(0..40) {
            0..15 => world.operate()?,
            15..34 => world.block(),
            34..37 => world.follow(),
            37 => world.fail(),
            38 => world.ask(),
            _ => {
                let number = world.random.random_range(0..9);
                world.caught_up.remove(&number);
            }
        }
        changes = world.nonce;
    }
    // From here on nothing goes wrong.
    for _ in 0..400 {
        world.up = (0..100).collect();
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
    (0..2_000).find_map(|seed| run(seed, fault).err().map(|why| format!("seed {seed}: {why}")))
}

#[test]
fn one_change_at_a_time_within_the_quorum_and_at_last_what_the_spec_wants() {
    assert_eq!(first_violation(Fault::None), None);
    let changes: u64 = (0..200).filter_map(|seed| run(seed, Fault::None).ok()).sum();
    assert!(changes > 400, "only {changes} changes of voters in 200 worlds");
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
    ];
    for fault in faults {
        assert!(first_violation(fault).is_some(), "{fault:?} is not caught");
    }
}
