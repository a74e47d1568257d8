//! The budget against the protocol's own quorum rule: every small chain, every set of silent voters, every choice.

use std::collections::BTreeSet;
use std::time::Duration;

use node_api::node_core::types::{Epoch, Identity, Power, SessionKey, VoterEntry, VoterSet};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::chain::agreement::Pending;

/// A chain with these powers in which some voters are silent and of some the pod is gone.
#[derive(Clone, Debug)]
struct Chain {
    powers: Vec<u64>,
    stands: bool,
    silent: u32,
    absent: u32,
}

/// What is checked: the budget, or a budget with a fault.
type Rule = fn(&Chain, &BTreeSet<String>) -> (usize, Vec<bool>);

fn has(set: u32, number: usize) -> bool {
    set & (1 << number) != 0
}

fn name(number: usize) -> String {
    format!("v{number}")
}

impl Chain {
    fn budget(&self) -> Budget {
        Budget::of(&self.facts(), &self.absent())
    }

    fn absent(&self) -> BTreeSet<String> {
        (0..self.powers.len()).filter(|number| has(self.absent, *number)).map(name).collect()
    }

    fn facts(&self) -> Facts {
        let voters: BTreeMap<String, VoterFact> = self
            .powers
            .iter()
            .enumerate()
            .map(|(number, power)| {
                (name(number), VoterFact { power: *power, is_signing: !has(self.silent, number), session: None })
            })
            .collect();
        let signing = self.powers.iter().enumerate().filter(|(number, _)| !has(self.silent, *number));
        Facts {
            height: 1,
            block_age: Duration::ZERO,
            is_standing: self.stands,
            total_power: self.powers.iter().sum(),
            signing_power: signing.map(|(_, power)| *power).sum(),
            voters,
            margin: 0,
            last_precommits: BTreeMap::new(),
            pending: None,
            is_late: false,
            is_nameless: false,
        }
    }

    /// Less than a quorum is seen to sign.
    fn is_blind(&self) -> bool {
        let set = self.protocol();
        set.total_power().get() - self.power_of(self.silent) < set.quorum().get()
    }

    /// The same chain as the protocol sees it.
    fn protocol(&self) -> VoterSet {
        let entry = |(number, power): (usize, &u64)| {
            let byte = u8::try_from(number + 1).expect("few");
            VoterEntry {
                identity: Identity::new([byte; 32]),
                power: Power::new(*power),
                session_key: SessionKey::new([byte + 100; 32]),
                epoch: Epoch::FIRST,
            }
        };
        VoterSet::new(self.powers.iter().enumerate().map(entry).collect()).expect("a set")
    }

    fn down(&self) -> u32 {
        self.silent | self.absent
    }

    fn power_of(&self, set: u32) -> u64 {
        self.powers.iter().enumerate().filter(|(number, _)| has(set, *number)).map(|(_, power)| power).sum()
    }

    /// After these stop, too, at most as much power is down as the protocol tolerates, and what is left is a quorum.
    fn bears(&self, stopped: u32) -> bool {
        let set = self.protocol();
        let down = self.power_of(self.down() | stopped);
        down <= set.fault_budget().get() && set.total_power().get() - down >= set.quorum().get()
    }
}

fn real(chain: &Chain, here: &BTreeSet<String>) -> (usize, Vec<bool>) {
    let budget = chain.budget();
    let permits = (0..chain.powers.len()).map(|number| budget.permits(&name(number))).collect();
    (budget.allowed(here), permits)
}

/// Everything that is wrong with what a rule says of one chain of which the voters of `here` run in this cluster.
fn complaint(rule: Rule, chain: &Chain, here: u32) -> Option<String> {
    let names: BTreeSet<String> = (0..chain.powers.len()).filter(|number| has(here, *number)).map(name).collect();
    let (allowed, permits) = rule(chain, &names);
    if chain.is_blind() {
        let takes = allowed > 0 || permits.contains(&true);
        return takes.then(|| format!("{chain:?}: {allowed} allowed, {permits:?}, and no quorum is seen"));
    }
    let set = chain.protocol();
    let signing_here: Vec<usize> =
        (0..chain.powers.len()).filter(|number| has(here, *number) && !has(chain.down(), *number)).collect();
    let one_at_a_time = set.fault_budget().get() == 0 && chain.down() == 0;
    for (number, permitted) in permits.iter().enumerate() {
        let others = chain.down() & !(1 << number);
        let alone = set.fault_budget().get() == 0 && others == 0;
        let expected = has(chain.silent, number) || alone || chain.bears(1 << number);
        if *permitted != expected {
            return Some(format!("{chain:?}: stopping {number} is {permitted}, the protocol says {expected}"));
        }
    }
    if set.fault_budget().get() == 0 {
        let expected = usize::from(one_at_a_time && !signing_here.is_empty());
        return (allowed != expected).then(|| format!("{chain:?} here {here:b}: {allowed} allowed, not {expected}"));
    }
    let choices = |size: usize| {
        (0u32..1 << signing_here.len()).filter(move |choice| choice.count_ones() as usize == size).map(|choice| {
            signing_here
                .iter()
                .enumerate()
                .filter(|(bit, _)| has(choice, *bit))
                .fold(0, |set, (_, number)| set | 1 << number)
        })
    };
    // Nothing is asked of a chain that is beyond its budget already, but that nothing more is allowed.
    if let Some(choice) = choices(allowed).find(|choice| allowed > 0 && !chain.bears(*choice)) {
        return Some(format!("{chain:?} here {here:b}: {allowed} allowed, but not {choice:b}"));
    }
    let one_more = allowed + 1;
    if one_more <= signing_here.len() && choices(one_more).all(|choice| chain.bears(choice)) {
        return Some(format!("{chain:?} here {here:b}: {allowed} allowed, {one_more} would do"));
    }
    None
}

/// Every chain of up to five voters with powers up to four, and every set of silent, absent and local voters of some.
fn first_complaint(rule: Rule) -> Option<String> {
    for voters in 1..=5u32 {
        for code in 0..4u64.pow(voters) {
            let powers: Vec<u64> = (0..voters).map(|digit| code / 4u64.pow(digit) % 4 + 1).collect();
            let mut random = StdRng::seed_from_u64(code);
            for silent in 0..1u32 << voters {
                let absent = random.random_range(0..1u32 << voters) & random.random_range(0..1u32 << voters);
                let here = random.random_range(0..1u32 << voters);
                let chain = Chain { powers: powers.clone(), stands: false, silent, absent };
                if let Some(complaint) = complaint(rule, &chain, here) {
                    return Some(complaint);
                }
            }
        }
    }
    None
}

#[test]
fn the_budget_is_what_the_protocol_bears_and_no_less() {
    assert_eq!(first_complaint(real), None);
}

#[test]
fn a_budget_that_goes_by_less_than_a_quorum_is_caught() {
    fn trusting(chain: &Chain, here: &BTreeSet<String>) -> (usize, Vec<bool>) {
        let open = Budget { is_closed: false, ..chain.budget() };
        let permits = (0..chain.powers.len()).map(|number| open.permits(&name(number))).collect();
        (open.allowed(here), permits)
    }
    assert!(first_complaint(trusting).is_some());
}

#[test]
fn a_budget_that_is_off_by_one_is_caught() {
    fn one_too_many(chain: &Chain, here: &BTreeSet<String>) -> (usize, Vec<bool>) {
        let budget = chain.budget();
        let now = Account { faults: budget.now.faults + 1, ..budget.now };
        let wrong = Budget { now, ..budget };
        let permits = (0..chain.powers.len()).map(|number| wrong.permits(&name(number))).collect();
        (wrong.allowed(here), permits)
    }
    fn one_too_few(chain: &Chain, here: &BTreeSet<String>) -> (usize, Vec<bool>) {
        let (allowed, permits) = real(chain, here);
        (allowed.saturating_sub(1), permits)
    }
    assert!(first_complaint(one_too_many).is_some());
    assert!(first_complaint(one_too_few).is_some());
}

#[test]
fn a_budget_that_forgets_voters_outside_the_cluster_is_caught() {
    fn only_here(chain: &Chain, here: &BTreeSet<String>) -> (usize, Vec<bool>) {
        let budget = chain.budget();
        let down_here = (0..chain.powers.len())
            .filter(|number| has(chain.down(), *number) && here.contains(&name(*number)))
            .filter_map(|number| chain.powers.get(number))
            .sum();
        let wrong = Budget { now: Account { down: down_here, ..budget.now }, ..budget };
        let permits = (0..chain.powers.len()).map(|number| wrong.permits(&name(number))).collect();
        (wrong.allowed(here), permits)
    }
    assert!(first_complaint(only_here).is_some());
}

#[test]
fn a_budget_that_counts_the_lightest_first_is_caught() {
    fn lightest_first(chain: &Chain, here: &BTreeSet<String>) -> (usize, Vec<bool>) {
        let budget = chain.budget();
        let (_, permits) = real(chain, here);
        let mut powers: Vec<u64> = budget
            .now
            .signing
            .iter()
            .filter(|(name, share)| !share.is_absent && here.contains(*name))
            .map(|(_, share)| share.power)
            .collect();
        powers.sort_unstable();
        let mut spent = 0;
        let fits = powers.into_iter().take_while(|power| {
            spent += power;
            spent <= budget.left()
        });
        (if budget.now.tolerates_nothing() { real(chain, here).0 } else { fits.count() }, permits)
    }
    assert!(first_complaint(lightest_first).is_some());
}

/// What a change makes of a chain: somebody goes, or a silent one comes, or both.
fn after(chain: &Chain, leaves: Option<usize>, joins: Option<u64>) -> Chain {
    let mut after = chain.clone();
    let join = |set: u32, at: usize| set | 1 << at;
    if let Some(power) = joins {
        after.silent = join(after.silent, after.powers.len());
        after.powers.push(power);
    }
    if let Some(number) = leaves {
        // Numbers behind it move up.
        let without = |set: u32| (set & ((1 << number) - 1)) | (set >> (number + 1) << number);
        after.powers.remove(number);
        (after.silent, after.absent) = (without(after.silent), without(after.absent));
    }
    after
}

/// The first chain of five to seven voters and change of its voters for which this many may stop that the chain does not bear,
/// before the change or after it, or one more would do.
fn first_unborne(allowed: fn(&Facts, &BTreeSet<String>) -> usize) -> Option<String> {
    (0..20_000).find_map(|seed| {
        let mut random = StdRng::seed_from_u64(seed);
        let powers: Vec<u64> = (0..random.random_range(5..8)).map(|_| random.random_range(1..3)).collect();
        let voters = powers.len();
        let silent = random.random_range(0..1u32 << voters) & random.random_range(0..1u32 << voters);
        let chain = Chain { powers, stands: false, silent, absent: 0 };
        let leaves = random.random_bool(0.5).then(|| random.random_range(0..voters));
        let joins = (leaves.is_none() || random.random_bool(0.5)).then(|| random.random_range(1..3));
        let pending = Pending { joins: joins.map(|power| ("new".to_string(), power)), leaves: leaves.map(name) };
        let facts = chain.facts().expecting(pending);
        let names: BTreeSet<String> = (0..voters).map(name).collect();
        let (allowed, later) = (allowed(&facts, &names), after(&chain, leaves, joins));
        let bears = |stopped: u32| {
            let moved = after(&Chain { silent: stopped, ..chain.clone() }, leaves, None).silent;
            chain.bears(stopped) && later.bears(moved)
        };
        let choices = |size: usize| {
            (0u32..1 << voters).filter(move |choice| choice.count_ones() as usize == size && choice & silent == 0)
        };
        let too_many = choices(allowed).any(|choice| allowed > 0 && !bears(choice));
        // Whichever they are: the one that goes anyway costs less after the change.
        let one_more = choices(allowed + 1).next().is_some() && choices(allowed + 1).all(bears);
        (too_many || one_more).then(|| format!("{chain:?}, {leaves:?} leaves, {joins:?} joins: {allowed} allowed"))
    })
}

#[test]
fn a_change_of_voters_is_borne_before_and_after_it() {
    assert_eq!(first_unborne(|facts, names| Budget::of(facts, &BTreeSet::new()).allowed(names)), None);
    for blind in [
        |facts: &Facts, names: &BTreeSet<String>| {
            Budget { after: None, ..Budget::of(facts, &BTreeSet::new()) }.allowed(names)
        },
        |facts: &Facts, names: &BTreeSet<String>| {
            let budget = Budget::of(facts, &BTreeSet::new());
            budget.after.as_ref().unwrap_or(&budget.now).allowed(names)
        },
    ] {
        assert!(first_unborne(blind).is_some());
    }
}

#[test]
fn without_facts_every_pod_must_stay() {
    let names: BTreeSet<String> = (0..4).map(name).collect();
    assert_eq!(pods_needed(None, &names, 4), 4);
    let all_sign = Chain { powers: vec![1; 4], stands: false, silent: 0, absent: 0 }.budget();
    assert_eq!(pods_needed(Some(&all_sign), &names, 4), 3);
    let one_absent = Chain { powers: vec![1; 4], stands: false, silent: 0, absent: 0b0001 }.budget();
    assert_eq!(pods_needed(Some(&one_absent), &names, 4), 4);
    let alone = Chain { powers: vec![1], stands: false, silent: 0, absent: 0 }.budget();
    assert_eq!(pods_needed(Some(&alone), &names, 1), 0);
}

#[test]
fn a_chain_that_stands_has_no_budget_whoever_signed_its_last_blocks() {
    for powers in [vec![1], vec![1; 4], vec![1; 7], vec![3, 1, 1, 1, 1]] {
        for silent in 0..1u32 << powers.len() {
            let budget = Chain { powers: powers.clone(), stands: true, silent, absent: 0 }.budget();
            let names: BTreeSet<String> = (0..powers.len()).map(name).collect();
            assert_eq!((budget.left(), budget.allowed(&names)), (0, 0), "{powers:?} {silent:b}");
            assert!(!names.iter().any(|name| budget.permits(name)), "{powers:?} {silent:b}");
            assert_eq!(usize::from(pods_needed(Some(&budget), &names, powers.len())), powers.len());
        }
    }
}

#[test]
fn margin_is_the_most_failures_that_any_choice_of_voters_survives() {
    for seed in 0..500 {
        let mut random = StdRng::seed_from_u64(seed);
        let powers: Vec<u64> = (0..random.random_range(1..9)).map(|_| random.random_range(1..9)).collect();
        let total: u64 = powers.iter().sum();
        let signing: Vec<u64> = powers.iter().copied().filter(|_| random.random_bool(0.8)).collect();
        let survives = |failed: u32| {
            (0u32..1 << signing.len()).filter(|choice| choice.count_ones() == failed).all(|choice| {
                let left: u64 = signing
                    .iter()
                    .enumerate()
                    .filter(|(bit, _)| choice & (1 << bit) == 0)
                    .map(|(_, power)| power)
                    .sum();
                left >= quorum(total)
            })
        };
        let brute = (1..=u32::try_from(signing.len()).expect("few")).take_while(|failed| survives(*failed)).count();
        assert_eq!(margin(total, signing.clone()) as usize, brute, "seed {seed}: {signing:?} of {total}");
    }
}

#[test]
fn quorum_and_faults_are_those_of_the_protocol() {
    for total in 1..1_000 {
        let set = Chain { powers: vec![total], stands: false, silent: 0, absent: 0 }.protocol();
        assert_eq!((quorum(total), faults(total)), (set.quorum().get(), set.fault_budget().get()), "{total}");
        assert!(quorum(total) + faults(total) <= total, "{total}");
        assert!(2 * quorum(total) - total > faults(total), "{total}");
    }
}
