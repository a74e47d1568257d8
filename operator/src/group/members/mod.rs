//! Which voter joins or leaves the chain next: decided from the spec, what is written down, and what the chain says. Pure.
//!
//! One change at a time. It is written down before it begins, so that a killed operator goes on with it; it is put before
//! the chain as one governance transaction; it is over when f+1 voters say so, and for a newcomer when they see it sign.
//! A change is put before the chain only if the quorum holds after it with a newcomer counted as down, and after the
//! fault budget counts on it: from then on no more voters may be stopped than the chain bears before it and after it. A
//! voter that the spec retires by name goes first when there are too many, else another one takes its place in one transaction.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use crate::budget::{STANDING, quorum};
use crate::chain::agreement::{Facts, Pending, VoterFact};

pub mod governance;
#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

/// Power of a voter that this operator votes in: that of every voter in genesis.
pub const POWER: u64 = 1;

/// Whether a voter comes or goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// It is to be voted in.
    Join,
    /// It is to be voted out.
    Leave,
}

/// A change as it is written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Number of the voter's node.
    pub number: u32,
    /// Whether it comes or goes.
    pub direction: Direction,
    /// Number of the voter whose place a newcomer takes.
    pub replaces: Option<u32>,
    /// The fault budget counts on it.
    pub is_borne: bool,
    /// The last height at which the transaction that was put before the chain can be executed; none before the first.
    pub proposed_until: Option<u64>,
}

impl Change {
    /// A change that begins.
    const fn new(number: u32, direction: Direction, replaces: Option<u32>) -> Self {
        Self { number, direction, replaces, is_borne: false, proposed_until: None }
    }

    /// What the fault budget has to count on, with the identity of each number. A newcomer has the power of the voter whose
    /// place it takes.
    pub fn pending(&self, facts: &Facts, identity: impl Fn(u32) -> String) -> Pending {
        let changed = identity(self.number);
        match self.direction {
            Direction::Join => {
                let leaves = self.replaces.map(identity);
                let former = leaves.as_ref().and_then(|former| facts.voters.get(former));
                Pending { joins: Some((changed, former.map_or(POWER, |former| former.power))), leaves }
            }
            Direction::Leave => Pending { joins: None, leaves: Some(changed) },
        }
    }
}

/// Everything that the decision needs.
#[derive(Clone, Debug)]
pub struct View<'a> {
    /// How many voters the spec wants.
    pub replicas: u32,
    /// Numbers that the spec retires: no voter shall have them any more.
    pub retired: &'a BTreeSet<u32>,
    /// The chain lives elsewhere: it may have any number of voters from here, and others may vote them out.
    pub is_external: bool,
    /// Numbers of the voters that the chain has, ascending.
    pub numbers: &'a [u32],
    /// Identities of their nodes and of the newcomer's, as far as they are known.
    pub identities: &'a BTreeMap<u32, String>,
    /// The change that is written down.
    pub change: Option<&'a Change>,
    /// Why the newcomer cannot be voted in yet; none once its node follows the chain and has its last blocks.
    pub newcomer_lacks: Option<&'a str>,
    /// What f+1 voters report.
    pub facts: Option<&'a Facts>,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Move {
    /// The chain has the voters that the spec wants.
    Nothing,
    /// Wait; why.
    Wait(String),
    /// The spec asks for what the chain cannot do.
    Refuse(String),
    /// Write this change down.
    Begin(Change),
    /// Forget the change: nothing that was put before the chain can still bring it, and the spec does not want it any
    /// more, or retires the newcomer too.
    Forget,
    /// Write down that the fault budget counts on the change.
    Bear,
    /// It cannot be put before the chain for now: write down that the fault budget does not count on it any more; why.
    Release(String),
    /// Put the change before the chain.
    Propose,
    /// The chain has the change: write down the numbers of its voters.
    Finish(Vec<u32>),
}

/// How long after the last height of a transaction its change may still begin to count: a change counts three heights
/// after its execution, and reports may be that much behind.
const EFFECT_BLOCKS: u64 = 6;

/// The next move. Voters that answer now may be behind those that answered before: what is late does not count, or a voter
/// that has just gone would be taken for one that has come.
pub fn decide(view: &View<'_>) -> Move {
    let facts = view.facts.filter(|facts| !facts.is_late);
    let view = View { facts, ..view.clone() };
    let Some(change) = view.change else { return begin(&view) };
    match go_on(&view, change) {
        Move::Propose if !change.is_borne => Move::Bear,
        Move::Wait(why) if change.is_borne && facts.is_some_and(|facts| in_flight(change, facts).is_none()) => {
            Move::Release(why)
        }
        next => next,
    }
}

fn begin(view: &View<'_>) -> Move {
    let wanted = usize::try_from(view.replicas).unwrap_or(usize::MAX);
    if let Some(number) = voted_out(view) {
        let has_to_come_back = wanted >= view.numbers.len() && !view.retired.contains(&number);
        return if has_to_come_back {
            Move::Begin(Change::new(number, Direction::Join, None))
        } else {
            Move::Finish(without(view.numbers, number))
        };
    }
    let (direction, replaces) = match (wanted.cmp(&view.numbers.len()), retired(view)) {
        (Ordering::Equal, None) => return Move::Nothing,
        (Ordering::Equal, Some(former)) => (Direction::Join, Some(former)),
        (Ordering::Greater, _) => (Direction::Join, None),
        (Ordering::Less, _) => (Direction::Leave, None),
    };
    if !view.is_external && (view.numbers.len() == 1 || wanted == 1) {
        let has = view.numbers.len();
        return Move::Refuse(format!(
            "replicas is {wanted}, the chain has {has}: a change of voters must move less than a third of the power, so a chain of one voter stays one; set replicas back to {has} and retire nobody"
        ));
    }
    let is_free = |number: &u32| !view.numbers.contains(number) && !view.retired.contains(number);
    let number = match (direction, view.facts) {
        // Its node is how this group comes to know a chain that lives elsewhere.
        (Direction::Join, None) if view.is_external => (0..).find(is_free),
        (Direction::Join | Direction::Leave, None) => return Move::Wait(unknown()),
        (Direction::Join, Some(_)) => (0..).find(is_free),
        (Direction::Leave, Some(facts)) => retired(view).or_else(|| leaves(view, facts)),
    };
    match number {
        Some(number) => Move::Begin(Change::new(number, direction, replaces)),
        None => Move::Nothing,
    }
}

/// A voter that the governance of a chain which lives elsewhere has voted out.
fn voted_out(view: &View<'_>) -> Option<u32> {
    let facts = view.facts.filter(|_| view.is_external)?;
    let votes = |number: &u32| view.identities.get(number).is_none_or(|identity| facts.voters.contains_key(identity));
    view.numbers.iter().find(|number| !votes(number)).copied()
}

/// The voter that is to go by name: the first that does not sign, else the first.
fn retired(view: &View<'_>) -> Option<u32> {
    let mut named = view.numbers.iter().filter(|number| view.retired.contains(number));
    let first = named.clone().next();
    named.find(|number| view.facts.is_some_and(|facts| !signs(view, facts, **number))).or(first).copied()
}

fn signs(view: &View<'_>, facts: &Facts, number: u32) -> bool {
    view.identities.get(&number).and_then(|identity| facts.voters.get(identity)).is_some_and(|voter| voter.is_signing)
}

/// Who is voted out: the first that does not sign, else the one with the highest number.
fn leaves(view: &View<'_>, facts: &Facts) -> Option<u32> {
    view.numbers.iter().find(|number| !signs(view, facts, **number)).or_else(|| view.numbers.last()).copied()
}

fn go_on(view: &View<'_>, change: &Change) -> Move {
    let Some(facts) = view.facts else { return Move::Wait(unknown()) };
    let voter = |number: &u32| view.identities.get(number).and_then(|identity| facts.voters.get(identity));
    let number = change.number;
    let staying = || change.replaces.map_or_else(|| view.numbers.to_vec(), |former| without(view.numbers, former));
    match (change.direction, voter(&number)) {
        // One that was voted in and retired since is nobody to wait for: it is the next to be replaced.
        (Direction::Join, Some(voter)) if voter.is_signing || view.retired.contains(&number) => {
            Move::Finish(with(&staying(), number))
        }
        (Direction::Join, Some(_)) => Move::Wait(format!("voter {number} is voted in, waiting for it to sign")),
        (Direction::Join, None) => match change.replaces {
            None => join(view, change, facts, None),
            Some(former) if !view.identities.contains_key(&former) => Move::Wait(nameless(former)),
            Some(former) => match voter(&former) {
                Some(former) => join(view, change, facts, Some(former)),
                // Somebody else voted it out.
                None => Move::Finish(staying()),
            },
        },
        (Direction::Leave, _) if !view.identities.contains_key(&number) => Move::Wait(nameless(number)),
        (Direction::Leave, None) => Move::Finish(without(view.numbers, number)),
        (Direction::Leave, Some(voter)) => leave(view, change, facts, after(facts, Some(voter))),
    }
}

/// Power that signs and power in all when this voter is gone.
fn after(facts: &Facts, leaver: Option<&VoterFact>) -> (u64, u64) {
    let signing = leaver.filter(|voter| voter.is_signing).map_or(0, |voter| voter.power);
    let power = leaver.map_or(0, |voter| voter.power);
    (facts.signing_power.saturating_sub(signing), facts.total_power.saturating_sub(power))
}

fn join(view: &View<'_>, change: &Change, facts: &Facts, former: Option<&VoterFact>) -> Move {
    let number = change.number;
    let is_wanted = match change.replaces {
        None => usize::try_from(view.replicas).unwrap_or(usize::MAX) > view.numbers.len(),
        Some(former) => view.retired.contains(&former),
    };
    if let Some(until) = in_flight(change, facts) {
        return Move::Wait(format!("waiting for the chain to take voter {number} in, at the latest at height {until}"));
    }
    if !is_wanted || view.retired.contains(&number) {
        return Move::Forget;
    }
    if let Some(lacks) = view.newcomer_lacks {
        return Move::Wait(format!("waiting for voter {number} to catch up with the chain: {lacks}"));
    }
    if facts.is_standing {
        return Move::Wait(format!("voter {number} is not voted in now: {STANDING}"));
    }
    // With the newcomer counted as down.
    let (signing, staying) = after(facts, former);
    if signing < quorum(staying.saturating_add(former.map_or(POWER, |former| former.power))) {
        return Move::Wait(format!(
            "voter {number} is not voted in now: too few other voters sign to bear one more that may fail"
        ));
    }
    Move::Propose
}

fn leave(view: &View<'_>, change: &Change, facts: &Facts, (signing, total): (u64, u64)) -> Move {
    let number = change.number;
    let is_wanted = usize::try_from(view.replicas).unwrap_or(usize::MAX) >= view.numbers.len();
    if let Some(until) = in_flight(change, facts) {
        return Move::Wait(format!("waiting for the chain to let voter {number} go, at the latest at height {until}"));
    }
    if is_wanted {
        return Move::Forget;
    }
    if facts.is_standing {
        return Move::Wait(format!("voter {number} is not voted out now: {STANDING}"));
    }
    if signing < quorum(total) {
        return Move::Wait(format!("voter {number} is not voted out now: the others that sign would be no quorum"));
    }
    Move::Propose
}

/// The last height of a transaction that may still change something.
fn in_flight(change: &Change, facts: &Facts) -> Option<u64> {
    change.proposed_until.filter(|until| facts.height < until.saturating_add(EFFECT_BLOCKS))
}

fn nameless(number: u32) -> String {
    format!("the identity of voter {number} is not known")
}

fn unknown() -> String {
    "too few voters answer to know who votes".to_string()
}

fn with(numbers: &[u32], number: u32) -> Vec<u32> {
    let mut all = without(numbers, number);
    all.push(number);
    all.sort_unstable();
    all
}

fn without(numbers: &[u32], number: u32) -> Vec<u32> {
    numbers.iter().copied().filter(|other| *other != number).collect()
}
