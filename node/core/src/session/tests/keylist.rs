//! The list of keys: what each change changes, and nothing else.

use super::{grant, here, owner, volume};
use crate::{
    codec::{Decode, Encode},
    fixtures::uid,
    session::{
        KeyList, KeyListError, KeyState, Never, NewKey, NotCleared, Owner, TripwireResult, Waiting, decide,
        decide_owner,
    },
    types::{Epoch, Height, Power, SessionKey, TimeMs},
};

const PASSED: TripwireResult = TripwireResult::Passed { nothing_up_to: Height::new(5) };

fn new_key(seed: u8, owner: Owner) -> NewKey {
    NewKey { seed: [seed; 32], epoch: Epoch::new(2), claim: Some(uid("claim")), owner }
}

fn owners(list: &KeyList) -> Vec<Owner> {
    list.entries().iter().map(|entry| *entry.owner()).collect()
}

#[test]
fn a_made_key_is_cleared_and_changes_no_other_owner() {
    let (mut list, first) = volume(owner("old pod", "boot", "machine"), "claim");
    let me = owner("new pod", "other boot", "machine");
    let cleared = list.make(new_key(2, me)).unwrap();
    assert_ne!(cleared.session_key(), first);
    assert_eq!(cleared.nothing_up_to(), Height::ZERO);
    assert_eq!(owners(&list), [owner("old pod", "boot", "machine"), me]);
    assert_eq!(list.get(&cleared.session_key()).unwrap().state(), KeyState::Proposed);
}

#[test]
fn taking_over_one_key_changes_no_other_owner() {
    let old = owner("old pod", "boot", "machine");
    let (mut list, first) = volume(old, "claim");
    let second = list.make(new_key(2, old)).unwrap().session_key();
    list.release(&old);
    let me = owner("new pod", "other boot", "other machine");
    let decision = decide(list.get(&second).unwrap(), &here(me, grant("new pod", "claim")), &PASSED).unwrap();
    let cleared = list.take_over(&decision).unwrap();
    assert_eq!((cleared.session_key(), cleared.nothing_up_to()), (second, Height::new(5)));
    assert_eq!(owners(&list), [old, me]);
    assert!(list.get(&first).unwrap().released());
    assert!(!list.get(&second).unwrap().released());
}

#[test]
fn a_decision_about_a_former_owner_is_refused_once_the_owner_has_changed() {
    let old = owner("old pod", "boot", "machine");
    let (mut list, key) = volume(old, "claim");
    list.release(&old);
    let decide_as = |pod: &str, list: &KeyList| {
        decide(list.get(&key).unwrap(), &here(owner(pod, pod, pod), grant(pod, "claim")), &PASSED).unwrap()
    };
    let (one, two) = (decide_as("pod one", &list), decide_as("pod two", &list));
    list.take_over(&one).unwrap();
    assert_eq!(list.take_over(&two).unwrap_err(), KeyListError::Changed { key });
}

#[test]
fn a_held_key_has_a_new_owner_and_is_cleared_by_the_tripwire_alone() {
    let (mut list, key) = volume(owner("old pod", "boot", "machine"), "claim");
    let me = owner("new pod", "boot", "machine");
    let succession = decide_owner(list.get(&key).unwrap(), &here(me, grant("new pod", "claim"))).unwrap();
    let held = list.hold(&succession).unwrap();
    assert_eq!((owners(&list), held.session_key()), (vec![me], key));

    let waiting = TripwireResult::Waiting { answered: Power::new(1), needed: Power::new(3) };
    let answer = |tripwire| list.clear(&held, &tripwire).unwrap().map(|cleared| cleared.nothing_up_to());
    assert_eq!(answer(waiting), Err(Waiting::Tripwire.into()));
    assert_eq!(answer(TripwireResult::RolledBack), Err(NotCleared::Never(Never::RolledBack)));
    assert_eq!(answer(PASSED), Ok(Height::new(5)));
}

#[test]
fn a_key_that_abstains_is_freed_by_another_question_and_never_bound_more() {
    let (mut list, key) = volume(owner("old pod", "boot", "machine"), "claim");
    let me = owner("new pod", "boot", "machine");
    let decision = decide(list.get(&key).unwrap(), &here(me, grant("new pod", "claim")), &PASSED).unwrap();
    let cleared = list.take_over(&decision).unwrap();
    let again = |nothing_up_to| {
        let tripwire = TripwireResult::Passed { nothing_up_to: Height::new(nothing_up_to) };
        cleared.asked_again(&tripwire).unwrap().nothing_up_to()
    };
    assert_eq!((again(0), again(9)), (Height::ZERO, Height::new(5)));
    let rolled_back = cleared.asked_again(&TripwireResult::RolledBack).map(|_| ());
    assert_eq!(rolled_back, Err(NotCleared::Never(Never::RolledBack)));
}

#[test]
fn a_held_key_that_was_retired_or_has_another_owner_is_not_cleared() {
    let (mut list, key) = volume(owner("old pod", "boot", "machine"), "claim");
    let hold_as = |list: &mut KeyList, pod: &str| {
        let here = here(owner(pod, "boot", "machine"), grant(pod, "claim"));
        list.hold(&decide_owner(list.get(&key).unwrap(), &here).unwrap()).unwrap()
    };
    let first = hold_as(&mut list, "pod one");
    let second = hold_as(&mut list, "pod two");
    assert_eq!(list.clear(&first, &PASSED).unwrap_err(), KeyListError::Changed { key });
    list.retire(&key).unwrap();
    assert_eq!(list.clear(&second, &PASSED).unwrap_err(), KeyListError::Changed { key });
}

#[test]
fn a_process_releases_its_own_keys_only() {
    let old = owner("old pod", "boot", "machine");
    let (mut list, first) = volume(old, "claim");
    let restarted = Owner { container_start: TimeMs::new(2), ..old };
    let second = list.make(new_key(2, restarted)).unwrap().session_key();
    list.release(&restarted);
    assert!(!list.get(&first).unwrap().released());
    assert!(list.get(&second).unwrap().released());
}

#[test]
fn a_retired_key_is_erased_and_cannot_come_back() {
    let me = owner("pod", "boot", "machine");
    let (mut list, key) = volume(me, "claim");
    list.release(&me);
    let decision = decide(list.get(&key).unwrap(), &here(me, grant("pod", "claim")), &PASSED).unwrap();
    list.mark_effective(&key).unwrap();
    list.retire(&key).unwrap();
    list.mark_effective(&key).unwrap();
    assert_eq!(list.get(&key).unwrap().state(), KeyState::Retired);
    assert_eq!(list.take_over(&decision).unwrap_err(), KeyListError::Changed { key });
    list.erase_retired();
    assert_eq!(list, KeyList::new());
    assert_eq!(list.retire(&key), Err(KeyListError::Unknown { key }));
}

#[test]
fn a_pod_learns_its_claim_for_its_own_keys_only() {
    let me = owner("pod", "boot", "machine");
    let mut list = KeyList::new();
    let unclaimed = |seed, owner| NewKey { claim: None, ..new_key(seed, owner) };
    list.make(unclaimed(1, me)).unwrap();
    list.make(unclaimed(2, owner("other pod", "boot", "machine"))).unwrap();
    list.make(NewKey { claim: Some(uid("earlier claim")), ..new_key(3, me) }).unwrap();
    list.learn_claim(uid("pod"), uid("claim"));
    let claims: Vec<_> = list.entries().iter().map(|entry| entry.claim()).collect();
    assert_eq!(claims, [Some(uid("claim")), None, Some(uid("earlier claim"))]);
}

#[test]
fn the_list_is_bounded_and_has_no_key_twice() {
    let me = owner("pod", "boot", "machine");
    let mut list = KeyList::new();
    let key = list.make(new_key(0, me)).unwrap().session_key();
    assert_eq!(list.make(new_key(0, me)).unwrap_err(), KeyListError::Duplicate { key });
    for seed in 1..64 {
        list.make(new_key(seed, me)).unwrap();
    }
    assert_eq!(list.make(new_key(64, me)).unwrap_err(), KeyListError::Full);
}

#[test]
fn the_list_survives_the_disk() {
    let me = owner("pod", "boot", "machine");
    let (mut list, key) = volume(me, "claim");
    list.make(NewKey { claim: None, ..new_key(2, Owner { boot: None, machine: None, ..me }) }).unwrap();
    list.propose_again(&key, Epoch::new(7)).unwrap();
    list.release(&me);
    let again = KeyList::decode(&list.encode()).unwrap();
    assert_eq!(again, list);
    assert_eq!(again.get(&key).unwrap().epoch(), Epoch::new(7));
}

#[test]
fn secret_keys_are_never_printed() {
    let (list, key) = volume(owner("pod", "boot", "machine"), "claim");
    let printed = format!("{list:?}");
    assert!(printed.contains(&key.to_string()));
    assert!(!printed.contains(&SessionKey::new([1; 32]).to_string()) && !printed.contains("1, 1, 1, 1"));
}
