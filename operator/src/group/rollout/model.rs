//! A small world in which a rollout, drains and failures meet in random order, with a checker of the fault budget that
//! is itself proved by operators with a fault.

use std::collections::BTreeSet;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::budget::{faults, pods_needed};
use crate::chain::agreement::VoterFact;

/// What is wrong with the operator of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// It evicts from what it saw before it wrote the intent down.
    LiveReReadSkipped,
    /// It takes one voter more than the budget permits.
    BudgetOffByOne,
    /// Its disruption budget stays what it was at the start.
    DisruptionBudgetNotFollowed,
    /// It takes the votes of the former pod for those of the new one.
    FormerVotesCounted,
    /// It takes the voters that signed the last blocks for voters that sign, however old those blocks are.
    AgeOfBlocksIgnored,
}

#[derive(Clone, Debug)]
struct Voter {
    power: u64,
    pod: Option<MemberPod>,
    /// It signs, as far as it can.
    is_healthy: bool,
    /// Looks at the chain during which its last votes are still counted.
    remembered: u32,
    /// Votes of the pod that it has now were seen.
    has_voted: bool,
}

impl Voter {
    fn is_up(&self) -> bool {
        self.pod.as_ref().is_some_and(|pod| pod.is_ready && !pod.is_deleting)
    }

    fn is_counted(&self) -> bool {
        self.pod.as_ref().is_some_and(|pod| pod.is_counted && !pod.is_deleting)
    }
}

/// Four to seven voters, some of them outside this cluster.
struct World {
    random: StdRng,
    fault: Fault,
    voters: Vec<Voter>,
    outside: Vec<(u64, bool)>,
    pods_made: u32,
    begun: Option<Begun>,
    /// What the operator saw when it wrote the intent down.
    remembered: Option<(Vec<Member>, Facts)>,
    min_available: u16,
    /// Who did not sign when the operator looked last.
    known_silent: BTreeSet<String>,
    /// The voters do not reach each other, and all answer the operator: their last blocks show everybody sign.
    is_cut: bool,
    /// The last block was too old when the operator looked last.
    known_standing: bool,
}

impl World {
    fn new(seed: u64, fault: Fault) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let heavy = random.random_bool(0.5);
        let power = |random: &mut StdRng| if heavy { random.random_range(1..4) } else { 1 };
        let here: u32 = random.random_range(3..6);
        let voters = (0..here).map(|number| Voter {
            power: power(&mut random),
            pod: Some(new_pod(number, false)),
            is_healthy: true,
            remembered: 0,
            has_voted: true,
        });
        let voters: Vec<Voter> = voters.collect();
        let outside = (0..random.random_range(1..3)).map(|_| (power(&mut random), true)).collect();
        let mut world = Self {
            random,
            fault,
            voters,
            outside,
            pods_made: here,
            begun: None,
            remembered: None,
            min_available: 0,
            known_silent: BTreeSet::new(),
            is_cut: false,
            known_standing: false,
        };
        world.follow_budget(true);
        world
    }

    fn total(&self) -> u64 {
        self.voters.iter().map(|voter| voter.power).chain(self.outside.iter().map(|(power, _)| *power)).sum()
    }

    /// Power that truly does not sign.
    fn down(&self) -> u64 {
        let here = self.voters.iter().filter(|voter| !(voter.is_up() && voter.is_healthy)).map(|voter| voter.power);
        here.chain(self.outside.iter().filter(|(_, signs)| !signs).map(|(power, _)| *power)).sum()
    }

    fn members(&self) -> Vec<Member> {
        let member = |(number, voter): (usize, &Voter)| Member {
            name: format!("n{number}"),
            identity: Some(format!("i{number}")),
            is_observed: true,
            pod: voter.pod.clone(),
        };
        self.voters.iter().enumerate().map(member).collect()
    }

    fn facts(&self) -> Facts {
        let here = self.voters.iter().enumerate().map(|(number, voter)| {
            // Whatever becomes of the new pod, the last votes of the former one are in the window.
            let is_former = voter.remembered > 0 && (voter.is_healthy || !voter.has_voted);
            let is_signing = self.is_cut || voter.is_healthy && voter.is_up() || is_former;
            (format!("i{number}"), VoterFact { power: voter.power, is_signing, session: None })
        });
        let outside = self.outside.iter().enumerate().map(|(number, (power, is_signing))| {
            let is_signing = self.is_cut || *is_signing;
            (format!("o{number}"), VoterFact { power: *power, is_signing, session: None })
        });
        let voters: std::collections::BTreeMap<String, VoterFact> = here.chain(outside).collect();
        let signing_power = voters.values().filter(|voter| voter.is_signing).map(|voter| voter.power).sum();
        let last_precommits = voters.keys().map(|identity| (identity.clone(), 100)).collect();
        Facts {
            height: 90,
            block_age: Duration::ZERO,
            is_standing: self.is_cut && self.fault != Fault::AgeOfBlocksIgnored,
            voters,
            total_power: self.total(),
            signing_power,
            margin: 0,
            last_precommits,
            pending: None,
            is_late: false,
            is_nameless: false,
        }
    }

    /// Blocks are made: who can, has voted.
    fn vote(&mut self) {
        for voter in &mut self.voters {
            voter.has_voted |= voter.is_up() && voter.is_healthy && !self.is_cut;
        }
    }

    /// Whether the disruption budget shall count this voter.
    fn is_seen(&self, facts: &Facts, number: usize) -> bool {
        facts.voters.get(&format!("i{number}")).is_some_and(|voter| voter.is_signing)
    }

    /// Marks are taken away, then the budget is written, then marks are set.
    fn follow_budget(&mut self, is_first: bool) {
        self.vote();
        let facts = self.facts();
        self.known_standing = self.is_cut;
        let silent = facts.voters.iter().filter(|(_, voter)| !voter.is_signing);
        self.known_silent = silent.map(|(identity, _)| identity.clone()).collect();
        let seen: Vec<bool> = (0..self.voters.len()).map(|number| self.is_seen(&facts, number)).collect();
        self.mark(&seen, false);
        if is_first || self.fault != Fault::DisruptionBudgetNotFollowed {
            let here: BTreeSet<String> = (0..self.voters.len()).map(|number| format!("i{number}")).collect();
            let budget = budget(&self.members(), &facts);
            let is_there = |(voter, seen): &(&Voter, &bool)| {
                voter.pod.as_ref().is_some_and(|pod| !pod.is_deleting && (**seen || pod.is_counted))
            };
            let pods = self.voters.iter().zip(&seen).filter(is_there).count();
            self.min_available = pods_needed(Some(&budget), &here, pods);
        }
        // A process that ends here leaves the marks to the next one.
        if is_first || self.random.random_bool(0.9) {
            self.mark(&seen, true);
        }
    }

    fn mark(&mut self, seen: &[bool], shall: bool) {
        let believes_all = self.fault == Fault::FormerVotesCounted;
        for (voter, seen) in self.voters.iter_mut().zip(seen) {
            let may = !shall || voter.has_voted || believes_all;
            if let Some(pod) = voter.pod.as_mut().filter(|_| *seen == shall && may) {
                pod.is_counted = shall;
            }
        }
    }

    /// The Eviction API: what the disruption budget does not let go stays; pods that are not ready, or not counted, may
    /// always go.
    fn evict(&mut self, number: usize) -> bool {
        let healthy = self.voters.iter().filter(|voter| voter.is_up() && voter.is_counted()).count();
        let Some(voter) = self.voters.get_mut(number) else { return false };
        let is_up = voter.is_up() && voter.is_counted();
        let Some(pod) = voter.pod.as_mut().filter(|pod| !pod.is_deleting) else { return false };
        if is_up && healthy <= usize::from(self.min_available) {
            return false;
        }
        pod.is_deleting = true;
        voter.remembered = 3;
        true
    }

    /// One half of a reconcile: either look and write the intent down, or carry it out.
    fn operate(&mut self) -> Result<(), String> {
        self.follow_budget(false);
        let (members, facts) = (self.members(), self.facts());
        match decide(&members, self.begun.as_ref(), Some(&facts)) {
            Move::Nothing | Move::Wait(_) | Move::Stuck(_) => {}
            Move::Finish | Move::Release(_) => self.begun = None,
            Move::Seen(height) => {
                if let Some(begun) = self.begun.as_mut() {
                    begun.after_height = Some(height);
                }
            }
            Move::Begin(index) => {
                let pod_uid = members[index].pod.as_ref().expect("it has one").uid.clone();
                let node = members[index].name.clone();
                self.begun = Some(Begun { node, pod_uid, age: Duration::ZERO, after_height: None });
                self.remembered = Some((members, facts));
            }
            Move::Evict(index) => return self.carry_out(index, &members, &facts),
        }
        Ok(())
    }

    fn carry_out(&mut self, index: usize, members: &[Member], facts: &Facts) -> Result<(), String> {
        let begun = self.begun.clone().expect("it was written down");
        let confirmed = match (self.fault, &self.remembered) {
            (Fault::LiveReReadSkipped, Some((members, facts))) => confirm(members, &begun, Some(facts)),
            (Fault::BudgetOffByOne, _) => {
                // As if f were one greater: three more units of power that sign.
                let mut facts = facts.clone();
                (facts.total_power, facts.signing_power) = (facts.total_power + 3, facts.signing_power + 3);
                let ghost = VoterFact { power: 3, is_signing: true, session: None };
                facts.voters.insert("ghost".to_string(), ghost);
                confirm(members, &begun, Some(&facts))
            }
            _ => confirm(members, &begun, Some(facts)),
        };
        let (down, was_up) = (self.down(), self.voters[index].is_up() && self.voters[index].is_healthy);
        let power = self.voters[index].power;
        if confirmed.is_ok() && self.is_cut {
            return Err(format!("{index} was stopped while blocks stood still"));
        }
        if confirmed.is_ok() && self.evict(index) && was_up && down + power > faults(self.total()) {
            return Err(format!("{power} power was stopped while {down} of {} was down", self.total()));
        }
        Ok(())
    }

    /// A drain takes whatever the disruption budget lets go. It is judged by what the operator can know: who did not sign
    /// when it looked last, and whose pod is gone. A voter that came back is protected once it was seen to sign, so that
    /// one that is not counted yet may go.
    fn drain(&mut self) -> Result<(), String> {
        let number = self.random.random_range(0..self.voters.len());
        let victim = &self.voters[number];
        let (was_up, power) = (victim.is_up() && victim.is_counted(), victim.power);
        if self.known_standing && was_up && self.evict(number) {
            return Err(format!("a drain took {number} although blocks were known to stand still"));
        }
        let is_down = |(at, voter): &(usize, &Voter)| {
            !voter.is_up() || !voter.has_voted || self.known_silent.contains(&format!("i{at}"))
        };
        let here: u64 = self.voters.iter().enumerate().filter(is_down).map(|(_, voter)| voter.power).sum();
        let outside = self.outside.iter().enumerate().filter(|(at, _)| self.known_silent.contains(&format!("o{at}")));
        let down = here + outside.map(|(_, (power, _))| *power).sum::<u64>();
        if self.evict(number) && was_up && down + power > faults(self.total()) {
            return Err(format!("a drain took {power} power while {down} of {} was down", self.total()));
        }
        Ok(())
    }

    /// Pods go and come back, voters fail and recover.
    fn live(&mut self) {
        let number = self.random.random_range(0..self.voters.len());
        self.pods_made += 1;
        let made = self.pods_made;
        let voter = &mut self.voters[number];
        voter.remembered = voter.remembered.saturating_sub(1);
        match &mut voter.pod {
            None => voter.pod = Some(MemberPod { is_ready: false, is_counted: false, ..new_pod(made, true) }),
            Some(pod) if pod.is_deleting => (voter.pod, voter.has_voted) = (None, false),
            Some(pod) => pod.is_ready = true,
        }
    }

    fn fail(&mut self) {
        if self.random.random_bool(0.2) {
            self.is_cut = !self.is_cut;
            return;
        }
        let number = self.random.random_range(0..self.voters.len() + self.outside.len());
        match self.voters.get_mut(number) {
            Some(voter) => voter.is_healthy = !voter.is_healthy,
            None => {
                let at = number - self.voters.len();
                self.outside[at].1 = !self.outside[at].1;
            }
        }
    }
}

fn new_pod(number: u32, is_current: bool) -> MemberPod {
    MemberPod {
        uid: format!("u{number}"),
        is_current,
        is_deleting: false,
        is_failing: false,
        is_running: true,
        is_old: false,
        is_ready: true,
        is_counted: true,
    }
}

/// Runs one world; the first broken rule, or whether the rollout came to its end.
fn run(seed: u64, fault: Fault) -> Result<bool, String> {
    let mut world = World::new(seed, fault);
    let fails = world.random.random_bool(0.7);
    for _ in 0..400 {
        match world.random.random_range(0..10) {
            0..4 => world.operate()?,
            4..8 => world.live(),
            8 => world.drain()?,
            _ if fails => world.fail(),
            _ => {}
        }
    }
    Ok(world.voters.iter().all(|voter| voter.pod.as_ref().is_some_and(|pod| pod.is_current)))
}

fn first_violation(fault: Fault) -> Option<String> {
    (0..3_000).find_map(|seed| run(seed, fault).err().map(|why| format!("seed {seed}: {why}")))
}

#[test]
fn a_rollout_and_drains_together_never_take_more_than_the_budget() {
    assert_eq!(first_violation(Fault::None), None);
    let finished = (0..500).filter(|seed| run(*seed, Fault::None) == Ok(true)).count();
    assert!(finished > 200, "only {finished} of 500 rollouts came to their end");
}

#[test]
fn an_operator_with_a_fault_is_caught() {
    let faults = [
        Fault::LiveReReadSkipped,
        Fault::BudgetOffByOne,
        Fault::DisruptionBudgetNotFollowed,
        Fault::FormerVotesCounted,
        Fault::AgeOfBlocksIgnored,
    ];
    for fault in faults {
        assert!(first_violation(fault).is_some(), "{fault:?} is not caught");
    }
}
