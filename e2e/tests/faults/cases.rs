//! Every fault of the campaign: one place each.

use std::time::SystemTime;

use althing_e2e::leaves::{LeafCase, Shall};
use althing_e2e::trial::Change;
use althing_operator::faults::{EventFault, EventFaultKind, FirstLists, FirstListsKind, Plan, WriteFault};
use anyhow::Result;

/// Old lists of one scenario.
const LISTS: u64 = 24;
/// Writes of one storm.
const STORM: u64 = 5;

/// What the operator watches.
const WATCHED: [&str; 15] = [
    "blockchainnetworks",
    "configmaps",
    "consensusgroups",
    "deployments",
    "horizontalpodautoscalers",
    "ingresses",
    "networkpolicies",
    "persistentvolumeclaims",
    "poddisruptionbudgets",
    "pods",
    "serviceaccounts",
    "services",
    "statefulsets",
    "tlsroutes",
    "validatornodes",
];

/// One case.
#[derive(Clone, Debug)]
pub struct Case {
    /// Its name; the part before `@`, or the kind whose spec it is about, is its sort.
    pub name: String,
    /// What is done.
    pub work: Work,
    /// It belongs to a sample and waits for the next one when the time is over.
    pub may_be_left_out: bool,
}

/// What is done in a case.
#[derive(Clone, Debug)]
pub enum Work {
    /// A scenario comes to pass while this goes wrong.
    Scenario(Scenario, Plan),
    /// A leaf of a spec is set, changed and unset.
    Leaf(Box<LeafCase>),
    /// A group is paused while one of its voters falls silent.
    Pause,
    /// A change of voters and another image are asked for at the same time; then a spec is refused.
    Mixture,
    /// An operator with another default image takes over.
    Upgrade,
    /// A group gets another name and keeps its chain id.
    Rename,
    /// Objects of somebody else have the names of children.
    Taken,
    /// Two installations carry out one change.
    Installations,
}

/// What the operator does while something goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// A network is made.
    Create,
    /// A network that runs is changed.
    Change(Change),
}

impl Scenario {
    /// In one word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Change(change) => change.word(),
        }
    }
}

/// How much of it there is where a fault can be.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    /// What is done.
    pub scenario: Scenario,
    /// Writes of a run without a fault.
    pub writes: u64,
    /// Events of watches that it receives.
    pub events: u64,
}

/// What is no single fault and no single leaf.
pub fn scenes() -> [Case; 6] {
    [
        ("pause/budget-follows-who-signs", Work::Pause),
        ("mixture/a-change-of-voters-and-a-rollout-share-one-budget", Work::Mixture),
        ("upgrade/a-newer-operator-restarts-no-node", Work::Upgrade),
        ("rename/the-new-group-waits-for-the-former-one", Work::Rename),
        ("taken/what-is-somebody-elses-is-left-alone", Work::Taken),
        ("installations/two-share-one-disruption", Work::Installations),
    ]
    .map(|(name, work)| Case { name: name.to_string(), work, may_be_left_out: false })
}

/// The process ends after each of the writes.
pub fn stops(extent: &Extent) -> Vec<Case> {
    let Extent { scenario, writes, events: _ } = *extent;
    let stop = |write: u64| Case {
        name: format!("{}/stop@{write}", scenario.word()),
        work: Work::Scenario(scenario, Plan { stop_after_write: Some(write), ..Plan::default() }),
        may_be_left_out: false,
    };
    (1..=writes).map(stop).collect()
}

/// Everything else.
pub fn others(extent: &Extent) -> Vec<Case> {
    let Extent { scenario, writes, events } = *extent;
    let mut cases = Vec::new();
    let mut add = |name: String, plan: Plan| {
        let name = format!("{}/{name}", scenario.word());
        cases.push(Case { name, work: Work::Scenario(scenario, plan), may_be_left_out: false });
    };
    for from in 1..=writes {
        for (status, count, is_executed) in
            [(409, 1, false), (429, STORM, false), (500, STORM, false), (503, STORM, false), (504, 1, true)]
        {
            let fault = WriteFault { from, count, status, is_executed };
            let word = if is_executed { "-answer-lost" } else { "" };
            add(format!("{status}x{count}{word}@{from}"), Plan { writes: Some(fault), ..Plan::default() });
        }
    }
    for at in 1..=events {
        for (word, kind) in
            [("drop", EventFaultKind::Drop), ("duplicate", EventFaultKind::Duplicate), ("delay", EventFaultKind::Delay)]
        {
            let fault = EventFault { at, kind };
            add(format!("{word}@{at}"), Plan { events: Some(fault), ..Plan::default() });
        }
    }
    for number in 1..=LISTS {
        // Nothing is listed a second time unless a watch is lost.
        let at = (number * events / (LISTS + 1)).max(1);
        let lost = EventFault { at, kind: EventFaultKind::Drop };
        add(format!("old-list@{number}"), Plan { old_list: Some(1), events: Some(lost), ..Plan::default() });
    }
    // The process that knows nothing yet is once the first one, and once the one that finds half of everything there.
    for resource in WATCHED {
        for (word, kind) in [("late", FirstListsKind::Late), ("refused", FirstListsKind::Refused)] {
            let first_lists = Some(FirstLists { resource: resource.to_string(), kind });
            let stop_after_write = Some(writes / 2);
            add(format!("{word}-list@{resource}"), Plan { first_lists, stop_after_write, ..Plan::default() });
        }
    }
    cases
}

/// Every leaf of the specs: those that children follow, and those that the API server lets nobody change.
pub fn leaves() -> Result<(Vec<Case>, Vec<Case>)> {
    let all = althing_e2e::leaves::cases()?.into_iter().map(|case| Case {
        name: format!("spec/{}", case.leaf),
        work: Work::Leaf(Box::new(case)),
        may_be_left_out: false,
    });
    Ok(all.partition(|case| match &case.work {
        Work::Leaf(case) => matches!(case.shall, Shall::BeFollowed { .. }),
        Work::Scenario(..)
        | Work::Pause
        | Work::Mixture
        | Work::Upgrade
        | Work::Rename
        | Work::Taken
        | Work::Installations => false,
    }))
}

/// Another seed every day.
pub fn seed_of_today() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs() / 86_400)
}

/// Every n-th case; with each seed it is the turn of the next ones.
pub fn in_turn(cases: Vec<Case>, every: u64, seed: u64) -> impl Iterator<Item = Case> {
    let turns = (0..every).cycle().skip(usize::try_from(seed % every).expect("an index"));
    cases.into_iter().zip(turns).filter(|(_, turn)| *turn == 0).map(|(case, _)| Case { may_be_left_out: true, ..case })
}

/// So many cases, drawn by the seed.
pub fn sample(mut cases: Vec<Case>, count: usize, seed: u64) -> Vec<Case> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1);
    let mut drawn = Vec::new();
    while drawn.len() < count && !cases.is_empty() {
        // xorshift: any fixed sequence will do.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let index = usize::try_from(state % cases.len() as u64).expect("an index");
        drawn.push(Case { may_be_left_out: true, ..cases.swap_remove(index) });
    }
    drawn
}
