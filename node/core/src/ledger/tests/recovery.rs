//! Recoveries: what a manifest must fit, and what it changes.

use super::TestChain;
use crate::{
    crypto::{KeyPair, SigningBytes},
    fixtures::{Rotation, genesis, governance_pair, identity, identity_pair, session_pair},
    ledger::{Applied, Recoveries, RecoveryCheck, RecoveryRefused, apply_block_after, snapshot},
    types::{Epoch, Genesis, Height, ManifestSignature, RecoveredVoter, Recovery, RecoveryManifest, SessionKey},
};

fn genesis_of(chain: &TestChain) -> Genesis {
    let genesis = genesis(&[1; 4]);
    assert_eq!(genesis.incarnation(), chain.incarnation);
    genesis
}

/// The fresh key of voter `n`.
fn fresh(n: u64) -> KeyPair {
    session_pair(n, 100)
}

fn manifest(chain: &TestChain) -> RecoveryManifest {
    let now = chain.snapshot();
    let (number, parent, epoch) = (1, now.chain.incarnation, Epoch::new(9));
    let mut voters: Vec<RecoveredVoter> = (0..4)
        .map(|n| {
            let (identity, key) = (identity(n), fresh(n));
            let session_key = SessionKey::new(key.public());
            let bytes = SigningBytes::recovery_possession(&parent, number, &identity, epoch, &session_key);
            RecoveredVoter { identity, epoch, session_key, possession: key.sign(&bytes) }
        })
        .collect();
    voters.sort_by_key(|voter| voter.identity);
    let genesis = genesis_of(chain);
    RecoveryManifest {
        chain_id: genesis.chain_id.clone(),
        genesis: genesis.hash(),
        number,
        parent,
        height: now.progress.height,
        block: now.progress.block,
        state_root: now.results.roots.state_root,
        voters,
    }
}

fn signed(manifest: &RecoveryManifest, governance: &[KeyPair], identities: u64) -> Recovery {
    let sign = |key: &KeyPair, bytes: &[u8]| ManifestSignature { key: key.public(), signature: key.sign(bytes) };
    let approval = SigningBytes::recovery_approval(&manifest.hash());
    let accept = |n| sign(&identity_pair(n), &SigningBytes::recovery_acceptance(&manifest.hash(), &identity(n)));
    let approvals = governance.iter().map(|key| sign(key, &approval)).collect();
    Recovery::new(manifest.clone(), approvals, (0..identities).map(accept).collect()).unwrap()
}

fn check(chain: &TestChain, recovery: &Recovery) -> Result<(), RecoveryRefused> {
    let (now, genesis) = (chain.snapshot(), genesis_of(chain));
    let check = RecoveryCheck { state: &chain.store, snapshot: &now, genesis: &genesis, number_before: 0 };
    check.complete(recovery)
}

fn at_height_5() -> TestChain {
    let mut chain = TestChain::new(&[1; 4]);
    chain.run_to(5);
    chain
}

#[test]
fn a_manifest_needs_governance_and_more_than_two_thirds_of_the_power() {
    let chain = at_height_5();
    let manifest = manifest(&chain);
    let with = |governance: &[KeyPair], identities| check(&chain, &signed(&manifest, governance, identities));
    with(&[governance_pair(0)], 3).unwrap();
    assert!(matches!(with(&[governance_pair(0)], 2), Err(RecoveryRefused::Acceptances { accepted: 2, needed: 3 })));
    assert!(matches!(with(&[], 4), Err(RecoveryRefused::Approvals { signed: 0, needed: 1 })));
    let stranger = [governance_pair(0), session_pair(0, 1)];
    assert!(matches!(with(&stranger, 4), Err(RecoveryRefused::Approvals { signed: 2, .. })));
}

#[test]
fn an_approval_of_another_manifest_does_not_count() {
    let chain = at_height_5();
    let right = manifest(&chain);
    let other = RecoveryManifest { number: 2, ..right.clone() };
    let approvals = signed(&other, &[governance_pair(0)], 4);
    let mixed = Recovery::new(right, approvals.approvals().to_vec(), approvals.acceptances().to_vec()).unwrap();
    assert!(matches!(check(&chain, &mixed), Err(RecoveryRefused::Approvals { .. })));
}

#[test]
fn a_manifest_that_does_not_fit_the_chain_is_refused() {
    let chain = at_height_5();
    let right = manifest(&chain);
    let refused = |manifest: RecoveryManifest| check(&chain, &signed(&manifest, &[governance_pair(0)], 4)).unwrap_err();
    let hash = crate::types::Hash::new([7; 32]);
    assert!(matches!(refused(RecoveryManifest { genesis: hash, ..right.clone() }), RecoveryRefused::OtherChain));
    assert!(matches!(refused(RecoveryManifest { number: 2, ..right.clone() }), RecoveryRefused::NotTheNext { .. }));
    assert!(matches!(
        refused(RecoveryManifest { parent: hash.into(), ..right.clone() }),
        RecoveryRefused::NotTheNext { .. }
    ));
    let height = Height::new(4);
    assert!(matches!(refused(RecoveryManifest { height, ..right.clone() }), RecoveryRefused::OtherBlock { .. }));
    assert!(matches!(refused(RecoveryManifest { block: hash, ..right.clone() }), RecoveryRefused::OtherBlock { .. }));
    assert!(matches!(
        refused(RecoveryManifest { state_root: hash, ..right.clone() }),
        RecoveryRefused::OtherBlock { .. }
    ));
    let mut voters = right.voters.clone();
    voters.pop();
    assert!(matches!(refused(RecoveryManifest { voters, ..right.clone() }), RecoveryRefused::OtherVoters));
    let mut voters = right.voters.clone();
    voters[0].epoch = Epoch::FIRST;
    assert!(matches!(refused(RecoveryManifest { voters, ..right.clone() }), RecoveryRefused::Used { .. }));
    let mut voters = right.voters.clone();
    voters[0].session_key = chain.voter(6, 0).session_key;
    assert!(matches!(refused(RecoveryManifest { voters, ..right.clone() }), RecoveryRefused::Used { .. }));
    let mut voters = right.voters.clone();
    voters[0].possession = voters[1].possession;
    assert!(matches!(refused(RecoveryManifest { voters, ..right }), RecoveryRefused::Possession { .. }));
}

#[test]
fn the_block_after_a_manifest_has_its_incarnation_keys_and_no_rotations() {
    let mut chain = at_height_5();
    let rotation = Rotation { n: 2, epoch: 2, co_signer: None, valid_until: 50 };
    let transaction = rotation.transaction(chain.incarnation);
    chain.run(vec![transaction]);
    assert_eq!(chain.snapshot().rotations.all().len(), 1);

    let manifest = manifest(&chain);
    let recoveries = Recoveries::new([manifest.clone()]);
    let starts = recoveries.recovered(chain.snapshot()).unwrap();
    assert_eq!((starts.chain.incarnation, starts.rotations.all().len()), (manifest.incarnation(), 0));

    let block = crate::fixtures::block(7, chain.tip, Vec::new());
    let Applied::Now { .. } = apply_block_after(&mut chain.store, &block, &recoveries).unwrap() else {
        panic!("the block is new")
    };
    let now = snapshot(&chain.store).unwrap().unwrap();
    assert_eq!((now.chain.incarnation, now.rotations.all().len()), (manifest.incarnation(), 0));
    assert_eq!((&now.sets.first, &now.sets.second), (&starts.sets.second, &starts.sets.third));
    for n in 0..4 {
        let entry = now.sets.third.get(&identity(n)).unwrap();
        assert_eq!((entry.session_key, entry.epoch), (SessionKey::new(fresh(n).public()), Epoch::new(9)));
        assert_eq!(crate::ledger::highest_epoch(&chain.store, &identity(n)).unwrap(), Some(Epoch::new(9)));
    }
    let genesis = genesis_of(&chain);
    let at = |height| recoveries.incarnation_at(&genesis, Height::new(height));
    assert_eq!((at(6), at(7)), (genesis.incarnation(), manifest.incarnation()));
}
