//! Which proofs of a state are believed, on a chain whose voters change all their keys.

use super::{ManifestError, StateManifest, VerifiedManifest, shortest_path};
use crate::{
    crypto::SigningBytes,
    fixtures::{Rotation, block, genesis, identity, session_pair},
    ledger::{MemoryStore, Snapshot, apply_block, apply_genesis, snapshot},
    light::{LightBlock, LightClient, LightError},
    types::{
        Block, CertifiedBlock, ChainId, CommitCertificate, CommitSignature, Genesis, Hash, Height, Incarnation, Round,
        UnsignedVote, VoteKind, VoterSet, voters_hash,
    },
};

/// A chain of four voters that rotate one after the other, as its nodes see it: states and light blocks of each height.
struct Seen {
    genesis: Genesis,
    blocks: Vec<CertifiedBlock>,
    lights: Vec<LightBlock>,
    states: Vec<Snapshot>,
}

fn certificate(incarnation: &Incarnation, block: &Block, voters: &VoterSet) -> CommitCertificate {
    let (height, value) = (block.header().height, block.hash());
    let sign = |n: u64| {
        let entry = voters.get(&identity(n)).unwrap();
        let kind = VoteKind::Precommit;
        let vote = UnsignedVote { kind, height, round: Round::ZERO, value: Some(value), voter: entry.identity };
        let bytes = SigningBytes::vote(incarnation, entry.epoch, &vote);
        let signature = session_pair(n, entry.epoch.get()).sign(&bytes);
        CommitSignature { voter: entry.identity, epoch: entry.epoch, signature }
    };
    CommitCertificate::new(height, Round::ZERO, value, (0..3).map(sign).collect()).unwrap()
}

fn seen(length: u64) -> Seen {
    history(length, true)
}

/// With rotations of all voters, or without any.
fn history(length: u64, rotates: bool) -> Seen {
    let genesis = genesis(&[1, 1, 1, 1]);
    let incarnation = genesis.incarnation();
    let mut store = MemoryStore::new();
    apply_genesis(&mut store, &genesis).unwrap();
    let mut parent = genesis.hash();
    let mut seen = Seen { genesis, blocks: Vec::new(), lights: Vec::new(), states: Vec::new() };
    for height in 1..=length {
        let before = snapshot(&store).unwrap().unwrap();
        // Each voter rotates once: voter 0 in block 2, voter 1 in block 6, and so on.
        let rotates = (rotates && height % 4 == 2 && height < 16).then(|| {
            let n = height / 4;
            let co_signer = Some(session_pair(n, 1));
            Rotation { n, epoch: 2, co_signer, valid_until: height + 20 }.transaction(incarnation)
        });
        let draft = block(height, parent, rotates.into_iter().collect());
        let mut header = draft.header().clone();
        header.results = before.progress.results_before;
        header.voters_hash = voters_hash(&before.sets.first, &before.sets.second);
        let block = Block::of_shared(header, draft.batches().to_vec()).unwrap();
        let certificate = certificate(&incarnation, &block, &before.sets.first);
        parent = block.hash();
        apply_block(&mut store, &block).unwrap();
        seen.lights.push(LightBlock {
            header: block.header().clone(),
            certificate: certificate.clone(),
            voters: before.sets.first,
            next_voters: before.sets.second,
        });
        seen.blocks.push(CertifiedBlock { block, certificate });
        seen.states.push(snapshot(&store).unwrap().unwrap());
    }
    seen
}

impl Seen {
    fn trusted(&self) -> LightClient {
        LightClient::new(&self.genesis).unwrap()
    }

    fn at(&self, height: usize) -> StateManifest {
        StateManifest {
            chain_id: self.genesis.chain_id.clone(),
            genesis: self.genesis.hash(),
            path: shortest_path(&self.trusted(), &self.lights[..height + 2]).unwrap(),
            block: self.blocks[height - 1].clone(),
        }
    }

    fn verify(&self, manifest: StateManifest) -> Result<VerifiedManifest, ManifestError> {
        manifest.verify(&self.genesis.chain_id, self.genesis.hash(), self.trusted())
    }
}

#[test]
fn a_state_is_proved_over_changes_of_all_voters_by_few_headers() {
    let seen = seen(30);
    let manifest = seen.at(25);
    assert!(manifest.path.len() < 10, "{} light blocks", manifest.path.len());
    let verified = seen.verify(manifest).unwrap();
    assert_eq!(verified.check(&seen.states[24]), Ok(()));
}

#[test]
fn a_jump_over_all_changes_is_not_believed() {
    let seen = seen(30);
    let mut manifest = seen.at(25);
    manifest.path.drain(..manifest.path.len() - 3);
    let refused = seen.verify(manifest).unwrap_err();
    assert!(
        matches!(&refused, ManifestError::Path { height, source: LightError::TooFar { .. } } if height.get() == 25),
        "{refused:?}"
    );
}

#[test]
fn a_state_of_another_height_or_with_other_voters_is_not_believed() {
    let seen = seen(10);
    let verified = seen.verify(seen.at(4)).unwrap();
    assert!(matches!(verified.check(&seen.states[4]), Err(ManifestError::OtherHeight { .. })));
    let height = Height::new(4);
    let mut other = seen.states[3].clone();
    other.results.roots.operations_root = Hash::ZERO;
    assert_eq!(verified.check(&other), Err(ManifestError::OtherResults { height }));
    // Block 2 rotates voter 0: after block 4 the three pending sets are those with the new key, after block 1 the last
    // of them is not yet.
    for other_set in 0..3 {
        let mut other = seen.states[3].clone();
        let old = seen.genesis.voter_set().clone();
        match other_set {
            0 => other.sets.first = old,
            1 => other.sets.second = old,
            _ => other.sets.third = old,
        }
        assert_eq!(verified.check(&other), Err(ManifestError::OtherVoters { height }), "set {other_set}");
    }
    let mut other = seen.states[3].clone();
    other.chain.incarnation = Hash::ZERO.into();
    assert_eq!(verified.check(&other), Err(ManifestError::OtherIncarnation { height }));
}

#[test]
fn a_manifest_of_another_chain_or_block_or_without_its_end_is_not_believed() {
    let seen = seen(10);
    let good = seen.at(4);
    let chain_id = ChainId::new("other").unwrap();
    let other = StateManifest { chain_id, ..good.clone() };
    assert!(matches!(seen.verify(other), Err(ManifestError::OtherChain { .. })));
    let other = StateManifest { genesis: Hash::ZERO, ..good.clone() };
    assert!(matches!(seen.verify(other), Err(ManifestError::OtherGenesis { .. })));
    let height = Height::new(4);
    let mut other = good.clone();
    other.block.certificate = seen.blocks[4].certificate.clone();
    assert_eq!(seen.verify(other), Err(ManifestError::OtherBlock { height }));
    let mut other = good.clone();
    other.path.pop();
    assert_eq!(seen.verify(other), Err(ManifestError::Incomplete));
    let mut other = good.clone();
    other.path.clear();
    assert_eq!(seen.verify(other), Err(ManifestError::Incomplete));
    let mut other = good;
    other.block = seen.blocks[4].clone();
    assert_eq!(seen.verify(other), Err(ManifestError::Incomplete));
}

#[test]
fn a_header_that_was_changed_or_signed_by_too_few_is_not_believed() {
    let seen = seen(10);
    for place in 0..3 {
        let mut manifest = seen.at(4);
        let from = manifest.path.len() - 3;
        manifest.path[from + place].header.results.roots.state_root = Hash::ZERO;
        assert!(matches!(seen.verify(manifest), Err(ManifestError::Path { .. })), "header {place}");
        let mut manifest = seen.at(4);
        let light = &mut manifest.path[from + place];
        let two = light.certificate.signatures()[..2].to_vec();
        light.certificate = CommitCertificate::new(light.header.height, Round::ZERO, light.header.hash(), two).unwrap();
        assert!(matches!(seen.verify(manifest), Err(ManifestError::Path { .. })), "certificate {place}");
    }
}

impl Seen {
    fn checkpoint(&self, height: usize) -> LightClient {
        let block = self.lights[height - 1].clone();
        let hash = block.header.hash();
        LightClient::from_checkpoint(&self.genesis, self.genesis.incarnation(), block, hash).unwrap()
    }

    fn verify_from(&self, trusted: LightClient, manifest: StateManifest) -> Result<VerifiedManifest, ManifestError> {
        manifest.verify(&self.genesis.chain_id, self.genesis.hash(), trusted)
    }
}

#[test]
fn a_proof_from_genesis_also_leads_on_from_a_checkpoint_anywhere_on_its_way() {
    let seen = seen(30);
    for checkpoint in 1..25 {
        let verified = seen.verify_from(seen.checkpoint(checkpoint), seen.at(25)).unwrap();
        assert_eq!(verified.check(&seen.states[24]), Ok(()), "from a checkpoint at {checkpoint}");
    }
}

#[test]
fn a_state_at_or_below_a_checkpoint_is_not_believed_whatever_its_skipped_headers_say() {
    let seen = seen(30);
    for checkpoint in 25..=28 {
        let trusted = Height::new(checkpoint as u64);
        let refused = seen.verify_from(seen.checkpoint(checkpoint), seen.at(25)).unwrap_err();
        assert_eq!(refused, ManifestError::NotLater { height: Height::new(25), trusted });
    }
}

#[test]
fn another_history_by_the_leaked_keys_of_genesis_does_not_pass_a_checkpoint() {
    let seen = seen(30);
    // Every key of genesis was rotated away by block 14. Whoever has them all signs a chain without any rotation.
    let forged = history(30, false);
    assert_eq!(forged.genesis.hash(), seen.genesis.hash());
    assert!(seen.verify(forged.at(25)).is_ok(), "signatures alone do not tell the two apart");
    for checkpoint in 20..25 {
        let refused = seen.verify_from(seen.checkpoint(checkpoint), forged.at(25)).unwrap_err();
        assert!(matches!(refused, ManifestError::Path { .. }), "a checkpoint at {checkpoint}: {refused:?}");
    }
}
