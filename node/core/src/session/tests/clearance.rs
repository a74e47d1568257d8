//! Taking over a key: each proof that the owner has ended, and each reason against.

use super::{grant, here, owner, volume};
use crate::{
    session::{
        KeyList, Never, NewKey, NotCleared, Owner, OwnerEnded, OwnerStatement, SigningLog, StartGrant, Surroundings,
        TakeOver, TripwireResult, VolumeKind, VolumeLock, Waiting, decide,
    },
    types::{Epoch, Height, Power, SessionKey, TimeMs},
};

const PASSED: TripwireResult = TripwireResult::Passed { nothing_up_to: Height::ZERO };

fn old() -> Owner {
    owner("old pod", "boot", "machine")
}

/// Another pod on another machine.
fn new() -> Owner {
    owner("new pod", "other boot", "other machine")
}

fn decide_for(list: &KeyList, key: &SessionKey, here: &Surroundings) -> Result<TakeOver, NotCleared> {
    decide(list.get(key).unwrap(), here, &PASSED)
}

fn reason(here: &Surroundings) -> Result<OwnerEnded, NotCleared> {
    let (list, key) = volume(old(), "claim");
    decide_for(&list, &key, here).map(|decision| decision.reason())
}

#[test]
fn nothing_is_taken_over_from_an_owner_who_may_live() {
    assert_eq!(reason(&here(new(), grant("new pod", "claim"))), Err(Waiting::OwnerEnded.into()));
}

#[test]
fn a_released_key_is_taken_over() {
    let (mut list, key) = volume(old(), "claim");
    list.release(&old());
    let decision = decide_for(&list, &key, &here(new(), grant("new pod", "claim"))).unwrap();
    assert_eq!(decision.reason(), OwnerEnded::Released);
    assert_eq!((decision.succession().former(), decision.succession().owner()), (&old(), &new()));
}

#[test]
fn a_restart_under_the_same_kernel_takes_over() {
    let next = Owner { container_start: TimeMs::new(2), ..old() };
    assert_eq!(reason(&here(next, grant("old pod", "claim"))), Ok(OwnerEnded::SameBoot));
}

#[test]
fn another_pod_under_the_same_kernel_takes_over() {
    let next = owner("new pod", "boot", "machine");
    assert_eq!(reason(&here(next, grant("new pod", "claim"))), Ok(OwnerEnded::SameBoot));
}

#[test]
fn a_new_boot_of_the_same_machine_takes_over() {
    let next = owner("new pod", "other boot", "machine");
    assert_eq!(reason(&here(next, grant("new pod", "claim"))), Ok(OwnerEnded::SameMachineNewBoot));
}

#[test]
fn a_new_boot_of_a_machine_without_uuid_proves_nothing() {
    let maker = Owner { machine: None, ..old() };
    let (list, key) = volume(maker, "claim");
    let next = Owner { machine: None, ..owner("new pod", "other boot", "machine") };
    let refusal = decide_for(&list, &key, &here(next, grant("new pod", "claim"))).unwrap_err();
    assert_eq!(refusal, Waiting::OwnerEnded.into());
}

#[test]
fn a_volume_of_one_machine_or_with_fencing_is_taken_over() {
    for (volume, expected) in [
        (VolumeKind::NodeLocal, Ok(OwnerEnded::NodeLocalVolume)),
        (VolumeKind::Fencing, Ok(OwnerEnded::FencingStorage)),
        (VolumeKind::Network, Err(Waiting::OwnerEnded.into())),
    ] {
        assert_eq!(reason(&here(new(), StartGrant { volume, ..grant("new pod", "claim") })), expected);
    }
}

#[test]
fn the_operators_proof_about_this_owner_takes_over() {
    let grant = StartGrant { owner: OwnerStatement::Terminated(old()), ..grant("new pod", "claim") };
    assert_eq!(reason(&here(new(), grant)), Ok(OwnerEnded::OperatorProof));
}

#[test]
fn a_proof_about_another_owner_says_nothing() {
    for other in [
        owner("older pod", "boot", "machine"),
        Owner { container_start: TimeMs::new(9), ..old() },
        owner("old pod", "later boot", "machine"),
    ] {
        let grant = StartGrant { owner: OwnerStatement::Terminated(other), ..grant("new pod", "claim") };
        assert_eq!(reason(&here(new(), grant)), Err(Waiting::OwnerEnded.into()));
    }
}

#[test]
fn a_grant_for_another_pod_says_nothing() {
    let proof = StartGrant {
        volume: VolumeKind::NodeLocal,
        owner: OwnerStatement::Terminated(old()),
        ..grant("middle pod", "claim")
    };
    assert_eq!(reason(&here(new(), proof)), Err(Waiting::Claim.into()));
}

#[test]
fn no_proof_counts_without_the_lock() {
    let proof = StartGrant {
        volume: VolumeKind::NodeLocal,
        owner: OwnerStatement::Terminated(old()),
        ..grant("new pod", "claim")
    };
    let here = Surroundings { lock: VolumeLock::NotHeld, ..here(owner("new pod", "boot", "machine"), proof) };
    assert_eq!(reason(&here), Err(Waiting::Lock.into()));
}

/// The boot id of a sandbox is that of its own kernel: equal or not, it says nothing about the owner.
#[test]
fn in_a_sandbox_the_boot_id_does_not_count() {
    let sandboxed = |pod: &str| Owner { boot: None, machine: None, ..owner(pod, "boot", "machine") };
    let (list, key) = volume(sandboxed("old pod"), "claim");
    for next in [sandboxed("new pod"), owner("new pod", "boot", "machine"), owner("new pod", "other boot", "machine")] {
        let refusal = decide_for(&list, &key, &here(next, grant("new pod", "claim"))).unwrap_err();
        assert_eq!(refusal, Waiting::OwnerEnded.into());
    }
    assert_eq!(reason(&here(sandboxed("new pod"), grant("new pod", "claim"))), Err(Waiting::OwnerEnded.into()));
}

#[test]
fn a_copied_volume_is_never_taken_over() {
    let (mut list, key) = volume(old(), "claim");
    list.release(&old());
    let refusal = decide_for(&list, &key, &here(new(), grant("new pod", "claim of the copy"))).unwrap_err();
    assert_eq!(refusal, Never::OtherClaim.into());
}

#[test]
fn a_new_pod_waits_for_its_claim_and_a_restarted_one_does_not() {
    let unknown = |owner| Surroundings { grant: None, ..here(owner, grant("", "")) };
    assert_eq!(reason(&unknown(new())), Err(Waiting::Claim.into()));
    let restarted = Owner { container_start: TimeMs::new(2), ..old() };
    assert_eq!(reason(&unknown(restarted)), Ok(OwnerEnded::SameBoot));
}

#[test]
fn a_key_whose_claim_was_never_learnt_stays_with_its_pod() {
    let mut list = KeyList::new();
    let key =
        list.make(NewKey { seed: [1; 32], epoch: Epoch::FIRST, claim: None, owner: old() }).unwrap().session_key();
    list.release(&old());
    let refusal = decide_for(&list, &key, &here(new(), grant("new pod", "claim"))).unwrap_err();
    assert_eq!(refusal, Never::ClaimNeverKnown.into());
    let restarted = Owner { container_start: TimeMs::new(2), ..old() };
    assert!(decide_for(&list, &key, &here(restarted, grant("old pod", "claim"))).is_ok());
}

#[test]
fn the_tripwire_decides_last() {
    let (list, key) = volume(old(), "claim");
    let here = here(owner("new pod", "boot", "machine"), grant("new pod", "claim"));
    let entry = list.get(&key).unwrap();
    let waiting = TripwireResult::Waiting { answered: Power::new(1), needed: Power::new(3) };
    assert_eq!(decide(entry, &here, &waiting), Err(Waiting::Tripwire.into()));
    assert_eq!(decide(entry, &here, &TripwireResult::RolledBack), Err(Never::RolledBack.into()));
    let passed = TripwireResult::Passed { nothing_up_to: Height::new(12) };
    assert_eq!(decide(entry, &here, &passed).unwrap().nothing_up_to(), Height::new(12));
}

#[test]
fn a_rolled_back_volume_is_known_before_the_owner_is() {
    let (list, key) = volume(old(), "claim");
    let here = here(new(), grant("new pod", "claim"));
    let refusal = decide(list.get(&key).unwrap(), &here, &TripwireResult::RolledBack).unwrap_err();
    assert_eq!(refusal, Never::RolledBack.into());
}

#[test]
fn a_broken_log_makes_every_key_of_the_volume_unusable() {
    let here = Surroundings { log: SigningLog::Broken, ..here(old(), grant("old pod", "claim")) };
    assert_eq!(reason(&here), Err(Never::BrokenLog.into()));
}

#[test]
fn a_retired_key_is_never_taken_over() {
    let (mut list, key) = volume(old(), "claim");
    list.release(&old());
    list.retire(&key).unwrap();
    let refusal = decide_for(&list, &key, &here(new(), grant("new pod", "claim"))).unwrap_err();
    assert_eq!(refusal, Never::Retired.into());
}
