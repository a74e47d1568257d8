//! Every step of a voter that comes or goes, and what must never be put before the chain.

use super::*;
use crate::validator::fixtures;

struct Chain {
    facts: Facts,
    numbers: Vec<u32>,
    retired: BTreeSet<u32>,
    identities: BTreeMap<u32, String>,
}

/// Voters `i0`, `i1`, ... of which these are silent.
fn chain(voters: u32, silent: &[u32]) -> Chain {
    let names: Vec<String> = (0..voters).map(|number| format!("i{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut facts = fixtures::facts(&names);
    for number in silent {
        facts.voters.get_mut(&format!("i{number}")).expect("there").is_signing = false;
        facts.signing_power -= 1;
    }
    let identities = (0..=voters).map(|number| (number, format!("i{number}"))).collect();
    Chain { facts, numbers: (0..voters).collect(), retired: BTreeSet::new(), identities }
}

impl Chain {
    fn next(&self, replicas: u32, change: Option<&Change>) -> Move {
        self.next_as(false, replicas, change)
    }

    /// The same where the chain lives elsewhere.
    fn next_outside(&self, replicas: u32, change: Option<&Change>) -> Move {
        self.next_as(true, replicas, change)
    }

    /// The steps of the fault budget are left out.
    fn next_as(&self, is_external: bool, replicas: u32, change: Option<&Change>) -> Move {
        let change = change.map(|change| Change { is_borne: true, ..change.clone() });
        match self.every_next(is_external, replicas, change.as_ref()) {
            Move::Release(why) => Move::Wait(why),
            next => next,
        }
    }

    fn every_next(&self, is_external: bool, replicas: u32, change: Option<&Change>) -> Move {
        decide(&View {
            replicas,
            retired: &self.retired,
            is_external,
            numbers: &self.numbers,
            identities: &self.identities,
            change,
            newcomer_lacks: None,
            facts: Some(&self.facts),
        })
    }
}

fn change(number: u32, direction: Direction, proposed_until: Option<u64>) -> Change {
    Change { proposed_until, ..Change::new(number, direction, None) }
}

fn replacement(number: u32, former: u32, proposed_until: Option<u64>) -> Change {
    Change { proposed_until, ..Change::new(number, Direction::Join, Some(former)) }
}

#[test]
fn a_voter_more_is_written_down_then_proposed_then_waited_for() {
    let mut seen = chain(4, &[]);
    assert_eq!(seen.next(4, None), Move::Nothing);
    assert_eq!(seen.next(5, None), Move::Begin(change(4, Direction::Join, None)));
    assert_eq!(seen.next(5, Some(&change(4, Direction::Join, None))), Move::Propose);
    let until = seen.facts.height + 20;
    let proposed = change(4, Direction::Join, Some(until));
    assert!(matches!(seen.next(5, Some(&proposed)), Move::Wait(_)));
    seen.facts.height = until + EFFECT_BLOCKS;
    assert_eq!(seen.next(5, Some(&proposed)), Move::Propose, "the transaction has expired");
    let mut with_it = chain(5, &[4]);
    with_it.numbers.pop();
    assert!(matches!(with_it.next(5, Some(&proposed)), Move::Wait(_)), "voted in and not signing yet");
    with_it.facts = chain(5, &[]).facts;
    assert_eq!(with_it.next(5, Some(&proposed)), Move::Finish(vec![0, 1, 2, 3, 4]));
}

#[test]
fn a_voter_less_is_the_first_silent_one_or_the_last() {
    assert_eq!(chain(5, &[]).next(4, None), Move::Begin(change(4, Direction::Leave, None)));
    assert_eq!(chain(5, &[1]).next(4, None), Move::Begin(change(1, Direction::Leave, None)));
    let leaves = change(1, Direction::Leave, None);
    assert_eq!(chain(5, &[1]).next(4, Some(&leaves)), Move::Propose);
    let mut gone = chain(5, &[]);
    gone.facts.voters.remove("i1");
    assert_eq!(gone.next(4, Some(&leaves)), Move::Finish(vec![0, 2, 3, 4]));
}

#[test]
fn the_fault_budget_counts_on_a_change_before_it_is_proposed_and_as_long_as_it_may_count() {
    let mut seen = chain(4, &[]);
    let begun = change(4, Direction::Join, None);
    assert_eq!(seen.every_next(false, 5, Some(&begun)), Move::Bear);
    let borne = Change { is_borne: true, ..begun.clone() };
    assert_eq!(seen.every_next(false, 5, Some(&borne)), Move::Propose);
    seen.facts = chain(4, &[0]).facts;
    assert!(matches!(seen.every_next(false, 5, Some(&borne)), Move::Release(_)), "it is not proposed now");
    assert!(matches!(seen.every_next(false, 5, Some(&begun)), Move::Wait(_)), "there is nothing to release");
    let until = seen.facts.height + 20;
    let proposed = Change { proposed_until: Some(until), ..borne };
    assert!(matches!(seen.every_next(false, 5, Some(&proposed)), Move::Wait(_)));
    seen.facts.height = until + EFFECT_BLOCKS;
    assert!(matches!(seen.every_next(false, 5, Some(&proposed)), Move::Release(_)), "it has expired");
}

#[test]
fn a_freed_number_is_taken_first() {
    let mut seen = chain(5, &[]);
    seen.numbers = vec![0, 2, 3, 4];
    assert_eq!(seen.next(5, None), Move::Begin(change(1, Direction::Join, None)));
}

#[test]
fn a_retired_voter_is_replaced_in_one_transaction_whether_it_signs_or_not() {
    for silent in [&[][..], &[1]] {
        let mut seen = chain(4, silent);
        seen.retired = [1, 4].into();
        seen.identities.insert(5, "i5".to_string());
        let change = replacement(5, 1, None);
        assert_eq!(seen.next(4, None), Move::Begin(change.clone()), "4 is retired as well");
        assert_eq!(seen.next(4, Some(&change)), Move::Propose);
        let proposed = replacement(5, 1, Some(seen.facts.height + 20));
        assert!(matches!(seen.next(4, Some(&proposed)), Move::Wait(_)));
        let former = seen.facts.voters.remove("i1").expect("there");
        seen.facts.voters.insert("i5".to_string(), VoterFact { is_signing: false, ..former.clone() });
        assert!(matches!(seen.next(4, Some(&proposed)), Move::Wait(_)), "voted in and not signing yet");
        seen.facts.voters.insert("i5".to_string(), VoterFact { is_signing: true, ..former });
        assert_eq!(seen.next(4, Some(&proposed)), Move::Finish(vec![0, 2, 3, 5]));
        seen.numbers = vec![0, 2, 3, 5];
        assert_eq!(seen.next(4, None), Move::Nothing);
    }
}

#[test]
fn a_replacement_waits_for_a_quorum_of_the_others() {
    let mut seen = chain(4, &[0]);
    seen.retired = [1].into();
    assert!(matches!(seen.next(4, Some(&replacement(4, 1, None))), Move::Wait(_)), "two of four would sign");
    seen.retired.clear();
    assert_eq!(seen.next(4, Some(&replacement(4, 1, None))), Move::Forget);
    seen.facts.voters.remove("i1");
    assert_eq!(seen.next(4, Some(&replacement(4, 1, None))), Move::Finish(vec![0, 2, 3]), "it was voted out");
}

/// Its machine may be lost before it has started, or after it was voted in.
#[test]
fn a_newcomer_that_is_retired_too_makes_room_for_another() {
    let mut seen = chain(4, &[0]);
    seen.retired = [0, 4].into();
    seen.identities.insert(5, "i5".to_string());
    assert_eq!(seen.next(4, Some(&replacement(4, 0, None))), Move::Forget);
    assert_eq!(seen.next(4, None), Move::Begin(replacement(5, 0, None)));
    let proposed = replacement(4, 0, Some(seen.facts.height + 20));
    assert!(matches!(seen.next(4, Some(&proposed)), Move::Wait(_)), "it may still be voted in");
    let former = seen.facts.voters.remove("i0").expect("there");
    seen.facts.voters.insert("i4".to_string(), VoterFact { is_signing: false, ..former });
    assert_eq!(seen.next(4, Some(&proposed)), Move::Finish(vec![1, 2, 3, 4]));
    seen.numbers = vec![1, 2, 3, 4];
    assert_eq!(seen.next(4, None), Move::Begin(replacement(5, 4, None)));
}

#[test]
fn who_is_retired_goes_first_when_there_are_too_many() {
    let mut seen = chain(6, &[3]);
    seen.retired = [1, 2].into();
    assert_eq!(seen.next(5, None), Move::Begin(change(1, Direction::Leave, None)));
    seen = chain(6, &[2]);
    seen.retired = [1, 2].into();
    assert_eq!(seen.next(5, None), Move::Begin(change(2, Direction::Leave, None)), "it does not sign anyway");
}

#[test]
fn nothing_is_proposed_that_the_quorum_does_not_bear() {
    // After it, 5 of power 5 need 4 that sign; with one of the four silent there are 3.
    assert!(matches!(chain(4, &[0]).next(5, Some(&change(4, Direction::Join, None))), Move::Wait(_)));
    // Of 7, two are silent and another goes: 4 of 6 sign, 5 are needed.
    assert!(matches!(chain(7, &[0, 1]).next(6, Some(&change(6, Direction::Leave, None))), Move::Wait(_)));
    assert_eq!(chain(7, &[0, 1]).next(6, Some(&change(0, Direction::Leave, None))), Move::Propose);
}

#[test]
fn nothing_is_proposed_while_blocks_stand_still() {
    let mut seen = chain(7, &[]);
    seen.facts.is_standing = true;
    assert!(matches!(seen.next(8, Some(&change(7, Direction::Join, None))), Move::Wait(_)));
    assert!(matches!(seen.next(6, Some(&change(6, Direction::Leave, None))), Move::Wait(_)));
}

#[test]
fn what_the_spec_does_not_want_any_more_is_forgotten_unless_it_may_still_be_executed() {
    let seen = chain(4, &[]);
    assert_eq!(seen.next(4, Some(&change(4, Direction::Join, None))), Move::Forget);
    let until = Some(seen.facts.height + 20);
    assert!(matches!(seen.next(4, Some(&change(4, Direction::Join, until))), Move::Wait(_)));
    let expired = Some(seen.facts.height - EFFECT_BLOCKS);
    assert_eq!(
        seen.next(4, Some(&change(4, Direction::Join, expired))),
        Move::Forget,
        "it cannot be executed any more"
    );
    assert_eq!(chain(5, &[]).next(5, Some(&change(4, Direction::Leave, None))), Move::Forget);
}

#[test]
fn without_facts_or_a_synced_newcomer_nothing_happens() {
    let seen = chain(4, &[]);
    let joins = change(4, Direction::Join, None);
    let view = |change, newcomer_lacks, facts| View {
        replicas: 5,
        retired: &seen.retired,
        is_external: false,
        numbers: &seen.numbers,
        identities: &seen.identities,
        change,
        newcomer_lacks,
        facts,
    };
    assert!(matches!(decide(&view(None, None, None)), Move::Wait(_)));
    assert!(matches!(decide(&view(Some(&joins), None, None)), Move::Wait(_)));
    let lacks = "the pod finds no machine";
    let Move::Wait(why) = decide(&view(Some(&joins), Some(lacks), Some(&seen.facts))) else { panic!("it waits") };
    assert!(why.contains(lacks), "{why}");
}

#[test]
fn a_chain_of_one_voter_stays_one() {
    assert!(matches!(chain(1, &[]).next(4, None), Move::Refuse(_)));
    assert!(matches!(chain(4, &[]).next(1, None), Move::Refuse(_)));
    let mut named = chain(1, &[]);
    named.retired = [0].into();
    assert!(matches!(named.next(1, None), Move::Refuse(_)));
}

/// Four voters elsewhere, and one node `n0` of this group.
fn elsewhere(own: &[u32]) -> Chain {
    let mut seen = chain(4, &[]);
    for number in own {
        let voter = VoterFact { power: 1, is_signing: true, session: None };
        seen.facts.voters.insert(format!("n{number}"), voter);
        seen.facts.total_power += 1;
        seen.facts.signing_power += 1;
    }
    seen.numbers = own.to_vec();
    seen.identities = (0..4).map(|number| (number, format!("n{number}"))).collect();
    seen
}

#[test]
fn a_group_of_a_chain_that_lives_elsewhere_has_any_number_of_voters() {
    let joins = |number| change(number, Direction::Join, None);
    assert_eq!(elsewhere(&[]).next_outside(1, None), Move::Begin(joins(0)));
    assert_eq!(elsewhere(&[]).next_outside(1, Some(&joins(0))), Move::Propose);
    assert_eq!(elsewhere(&[0]).next_outside(1, None), Move::Nothing);
    assert_eq!(elsewhere(&[0]).next_outside(2, None), Move::Begin(joins(1)));
    assert_eq!(elsewhere(&[0]).next_outside(0, None), Move::Begin(change(0, Direction::Leave, None)));
    assert_eq!(elsewhere(&[0]).next_outside(0, Some(&change(0, Direction::Leave, None))), Move::Propose);
    assert_eq!(elsewhere(&[]).next_outside(0, None), Move::Nothing);
}

#[test]
fn the_first_node_of_a_group_starts_before_the_chain_is_known_and_nothing_is_proposed_until_it_is() {
    let seen = elsewhere(&[]);
    let begun = change(0, Direction::Join, None);
    let blind = |change| View {
        replicas: 1,
        retired: &seen.retired,
        is_external: true,
        numbers: &[],
        identities: &seen.identities,
        change,
        newcomer_lacks: None,
        facts: None,
    };
    assert_eq!(decide(&blind(None)), Move::Begin(begun.clone()));
    assert!(matches!(decide(&blind(Some(&begun))), Move::Wait(_)));
    let leaving = View { replicas: 0, numbers: &[0], ..blind(None) };
    assert!(matches!(decide(&leaving), Move::Wait(_)), "who leaves is asked of the chain");
}

#[test]
fn a_voter_that_others_have_voted_out_is_a_newcomer_again_unless_it_shall_go() {
    let mut voted_out = elsewhere(&[]);
    voted_out.numbers = vec![0];
    assert_eq!(voted_out.next_outside(1, None), Move::Begin(change(0, Direction::Join, None)));
    assert_eq!(voted_out.next_outside(0, None), Move::Finish(vec![]));
    let retired = seen_with(&voted_out, 0);
    assert_eq!(retired.next_outside(1, None), Move::Finish(vec![]), "the next number takes its place");
    voted_out.identities.clear();
    assert_eq!(voted_out.next_outside(1, None), Move::Nothing, "nobody knows who it is");
}

/// The same chain with this voter retired.
fn seen_with(chain: &Chain, retired: u32) -> Chain {
    let Chain { facts, numbers, retired: _, identities } = chain;
    let (facts, numbers, identities) = (facts.clone(), numbers.clone(), identities.clone());
    Chain { facts, numbers, retired: [retired].into(), identities }
}

/// From any number of voters with any of them silent: what is proposed leaves a quorum, a newcomer counted as down.
#[test]
fn every_proposal_leaves_a_quorum() {
    let mut proposed = 0;
    for voters in 4..9u32 {
        for silent in 0..1u32 << voters {
            let silent: Vec<u32> = (0..voters).filter(|number| silent & (1 << number) != 0).collect();
            let seen = chain(voters, &silent);
            let signing = u64::from(voters) - silent.len() as u64;
            if seen.next(voters + 1, Some(&change(voters, Direction::Join, None))) == Move::Propose {
                assert!(3 * signing > 2 * (u64::from(voters) + 1), "{silent:?} of {voters}");
                proposed += 1;
            }
            for number in 0..voters {
                let mut seen = seen_with(&seen, number);
                if seen.next(voters, Some(&replacement(voters, number, None))) == Move::Propose {
                    let left = signing - u64::from(!silent.contains(&number));
                    assert!(3 * left > 2 * u64::from(voters), "{number} of {voters} replaced, {silent:?}");
                    proposed += 1;
                }
                seen.retired.clear();
                let leaves = change(number, Direction::Leave, None);
                if seen.next(voters - 1, Some(&leaves)) == Move::Propose {
                    let left = signing - u64::from(!silent.contains(&number));
                    assert!(3 * left > 2 * (u64::from(voters) - 1), "{number} of {voters}, {silent:?}");
                    proposed += 1;
                }
            }
        }
    }
    assert!(proposed > 100, "only {proposed} proposals");
}
