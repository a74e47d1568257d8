//! The rules that constructors keep.

use super::{
    Batch, Block, Epoch, Genesis, GenesisDraft, GenesisError, Hash, Header, Height, Parameters, ParametersDraft,
    PendingSets, Power, Round, SessionKey, Timeout, TransactionError, Uid, VoterEntry, VoterSet, VoterSetError,
    merkle_root, voters_hash,
};
use crate::fixtures::{block, genesis, identity, session_key, transfer};

fn entry(n: u64, power: u64) -> VoterEntry {
    VoterEntry { identity: identity(n), power: Power::new(power), session_key: session_key(n, 1), epoch: Epoch::FIRST }
}

fn set(powers: &[u64]) -> VoterSet {
    VoterSet::new((0..).zip(powers).map(|(n, power)| entry(n, *power)).collect()).unwrap()
}

#[test]
fn quorum_and_fault_budget_follow_the_power() {
    for (powers, quorum, fault_budget) in [
        (&[1][..], 1, 0),
        (&[1, 1], 2, 0),
        (&[1, 1, 1], 3, 0),
        (&[1, 1, 1, 1], 3, 1),
        (&[1; 7], 5, 2),
        (&[10, 1, 1, 1], 9, 4),
        (&[u64::MAX / 8], u64::MAX / 8 * 2 / 3 + 1, (u64::MAX / 8 - 1) / 3),
    ] {
        let set = set(powers);
        assert_eq!((set.quorum().get(), set.fault_budget().get()), (quorum, fault_budget), "{powers:?}");
    }
}

/// Two quorums always share more power than may fail.
#[test]
fn two_quorums_meet_in_an_honest_voter() {
    for total in 1..500 {
        let set = set(&[total]);
        let shared = 2 * set.quorum().get() - total;
        assert!(shared > set.fault_budget().get(), "{total}");
    }
}

#[test]
fn a_voter_set_is_in_order_of_identity_whatever_the_input() {
    let entries = [3, 1, 0, 2].map(|n| entry(n, n + 1));
    let set = VoterSet::new(entries.to_vec()).unwrap();
    assert!(set.entries().is_sorted_by_key(|entry| entry.identity));
    for n in 0..4 {
        assert_eq!(set.get(&identity(n)), Some(&entry(n, n + 1)));
    }
    assert_eq!(set.get(&identity(9)), None);
}

#[test]
fn a_voter_set_refuses_what_is_no_set() {
    let refused = |entries: Vec<VoterEntry>| VoterSet::new(entries).unwrap_err();
    assert_eq!(refused(Vec::new()), VoterSetError::Count { found: 0 });
    assert_eq!(refused((0..257).map(|n| entry(n, 1)).collect()), VoterSetError::Count { found: 257 });
    let twice = VoterEntry { session_key: session_key(1, 2), ..entry(1, 1) };
    assert_eq!(refused(vec![entry(1, 1), twice]), VoterSetError::DuplicateIdentity { identity: identity(1) });
    let same_key = VoterEntry { session_key: session_key(1, 1), ..entry(2, 1) };
    let refusal = VoterSetError::DuplicateSessionKey { session_key: session_key(1, 1) };
    assert_eq!(refused(vec![entry(1, 1), same_key]), refusal);
    assert_eq!(refused(vec![entry(1, 1), entry(2, 0)]), VoterSetError::NoPower { identity: identity(2) });
    assert_eq!(refused(vec![entry(1, u64::MAX), entry(2, 1)]), VoterSetError::PowerOverflow);
    assert_eq!(refused(vec![entry(1, u64::MAX / 8), entry(2, 1)]), VoterSetError::PowerOverflow);
}

#[test]
fn the_hash_of_a_set_names_every_field() {
    let base = set(&[1, 1, 1, 1]);
    for changed in [
        VoterEntry { power: Power::new(2), ..entry(1, 1) },
        VoterEntry { session_key: session_key(1, 2), ..entry(1, 1) },
        VoterEntry { epoch: Epoch::new(2), ..entry(1, 1) },
    ] {
        let changed = base.with_entry(changed).unwrap().unwrap();
        assert_ne!(changed.hash(), base.hash());
        assert_ne!(voters_hash(&base, &changed), voters_hash(&changed, &base));
    }
    assert_eq!(base.with_entry(entry(9, 1)), Ok(None));
}

#[test]
fn pending_sets_are_those_of_the_next_three_heights() {
    let sets = PendingSets { first: set(&[1]), second: set(&[2]), third: set(&[3]) };
    let at = |height| sets.at(Height::new(7), Height::new(height)).map(|set| set.total_power().get());
    assert_eq!([6, 7, 8, 9, 10, 11].map(at), [None, None, Some(1), Some(2), Some(3), None]);
}

#[test]
fn a_block_has_exactly_the_batches_that_its_header_names() {
    let incarnation = genesis(&[1]).incarnation();
    let whole = block(1, Hash::ZERO, vec![transfer(incarnation, "alice", "bob", 0, 1)]);
    let other = Batch::new(vec![transfer(incarnation, "alice", "bob", 1, 1)]).unwrap();
    let refused = Err(TransactionError::BatchesNotNamed { height: Height::new(1) });
    for batches in [Vec::new(), vec![other.clone()], vec![whole.batches()[0].as_ref().clone(), other]] {
        assert_eq!(Block::new(whole.header().clone(), batches), refused);
    }
    let header = Header { batches: vec![Batch::default().digest(); 257], ..whole.header().clone() };
    assert_eq!(Block::new(header, vec![Batch::default(); 257]), refused);
}

#[test]
fn a_merkle_root_names_every_leaf_and_its_place() {
    assert_eq!(merkle_root(&[]), Hash::ZERO);
    let leaves: Vec<Hash> = (0..9).map(|n| Hash::new([n; 32])).collect();
    let mut roots = vec![merkle_root(&[])];
    for count in 1..leaves.len() {
        roots.push(merkle_root(&leaves[..count]));
        let mut swapped = leaves[..count].to_vec();
        swapped.reverse();
        assert_eq!(merkle_root(&swapped) == roots[count], count == 1);
        // Neither a leaf nor an inner node passes for a list.
        roots.push(merkle_root(&[roots[count]]));
    }
    let distinct: std::collections::BTreeSet<Hash> = roots.iter().copied().collect();
    assert_eq!(distinct.len(), roots.len());
}

#[test]
fn genesis_refuses_what_contradicts_itself() {
    let refused = |change: fn(&mut GenesisDraft)| {
        let mut draft = genesis(&[1, 1, 1, 1]).into_draft();
        change(&mut draft);
        Genesis::new(draft).unwrap_err()
    };
    let epoch = refused(|draft| draft.voters[0].entry.epoch = Epoch::new(2));
    assert!(matches!(epoch, GenesisError::Epoch { .. }));
    let key = refused(|draft| draft.voters[0].entry.session_key = SessionKey::new(*identity(1).as_bytes()));
    assert!(matches!(key, GenesisError::SessionKeyIsIdentity { .. }));
    let account = refused(|draft| draft.accounts.push(draft.accounts[0]));
    assert!(matches!(account, GenesisError::DuplicateAccount { .. }));
    let amount = refused(|draft| draft.accounts[0].1 = super::Amount::new(u64::MAX));
    assert_eq!(amount, GenesisError::AmountOverflow);
    let threshold = refused(|draft| draft.governance.threshold = 2);
    assert_eq!(threshold, GenesisError::Governance { threshold: 2, keys: 1 });
    let nobody = refused(|draft| draft.governance.threshold = 0);
    assert_eq!(nobody, GenesisError::Governance { threshold: 0, keys: 1 });
    let twice = refused(|draft| draft.governance.keys.push(draft.governance.keys[0]));
    assert_eq!(twice, GenesisError::Governance { threshold: 1, keys: 1 });
}

#[test]
fn the_order_of_a_genesis_draft_does_not_change_its_hash() {
    let expected = genesis(&[1, 2, 3, 4]);
    let mut draft = expected.clone().into_draft();
    draft.voters.reverse();
    draft.accounts.reverse();
    assert_eq!(Genesis::new(draft).unwrap().hash(), expected.hash());
}

#[test]
fn parameters_have_bounds() {
    let refused = |change: fn(&mut ParametersDraft)| {
        let mut draft = ParametersDraft::default();
        change(&mut draft);
        Parameters::new(draft).unwrap_err().to_string()
    };
    assert_eq!(
        refused(|draft| draft.block_interval_ms = 0),
        "parameter block_interval_ms is 0, allowed are 1 to 3600000"
    );
    assert_eq!(
        refused(|draft| draft.block_bytes_max = 17 * 1024 * 1024),
        "parameter block_bytes_max is 17825792, allowed are 4096 to 16777216"
    );
    assert_eq!(
        refused(|draft| draft.transactions_per_block_max = 0),
        "parameter transactions_per_block_max is 0, allowed are 1 to 100000"
    );
}

#[test]
fn timeouts_grow_with_the_round_up_to_an_hour() {
    let timeout = Timeout { base_ms: 1_000, delta_ms: 500 };
    assert_eq!([0, 1, 4].map(|round| timeout.in_round_ms(Round::new(round))), [1_000, 1_500, 3_000]);
    assert_eq!(timeout.in_round_ms(Round::new(u32::MAX)), 3_600_000);
}

#[test]
fn identifiers_are_read_from_what_they_print() {
    let id = identity(1);
    assert_eq!(id.to_string().parse(), Ok(id));
    assert_eq!(id.to_string().to_uppercase().parse(), Ok(id));
    for text in ["", "ab", &"g".repeat(64), &"é".repeat(32), &id.to_string()[1..]] {
        assert!(text.parse::<super::Identity>().is_err(), "{text}");
    }
}

#[test]
fn a_uid_is_read_with_and_without_hyphens() {
    let hyphenated = "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0";
    let uid = Uid::parse(&format!("{hyphenated}\n")).unwrap();
    assert_eq!(uid.hyphenated(), hyphenated);
    assert_eq!(Uid::parse("0F1E2D3C4B5A69788796A5B4C3D2E1F0"), Ok(uid));
    assert!(Uid::parse("not a uid").is_err());
}
