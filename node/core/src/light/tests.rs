//! What a light client believes and what it does not, with voters that rotate and change.

use super::{LightBlock, LightClient, LightError};
use crate::{
    codec::{Decode, Encode},
    crypto::SigningBytes,
    fixtures::{Dice, block, genesis, identity, session_key, session_pair},
    types::{
        CommitCertificate, CommitSignature, Epoch, Hash, Height, Incarnation, Power, Round, UnsignedVote, VoteKind,
        VoterEntry, VoterSet, voters_hash,
    },
};

/// Voters by number, with the epoch of their session key; all with power 1.
fn voters(members: &[(u64, u64)]) -> VoterSet {
    let entry = |(n, epoch): &(u64, u64)| VoterEntry {
        identity: identity(*n),
        power: Power::new(1),
        session_key: session_key(*n, *epoch),
        epoch: Epoch::new(*epoch),
    };
    VoterSet::new(members.iter().map(entry).collect()).unwrap()
}

/// A height with these voters and the next ones, signed by some of them.
struct Shown<'a> {
    height: u64,
    parent: Hash,
    members: &'a [(u64, u64)],
    next: &'a [(u64, u64)],
    signers: &'a [(u64, u64)],
}

impl Shown<'_> {
    fn block(&self, incarnation: &Incarnation) -> LightBlock {
        let (voters, next_voters) = (voters(self.members), voters(self.next));
        let mut header = block(self.height, self.parent, Vec::new()).header().clone();
        header.voters_hash = voters_hash(&voters, &next_voters);
        let height = Height::new(self.height);
        let sign = |(n, epoch): &(u64, u64)| {
            let vote = UnsignedVote {
                kind: VoteKind::Precommit,
                height,
                round: Round::ZERO,
                value: Some(header.hash()),
                voter: identity(*n),
            };
            let epoch_of_key = Epoch::new(*epoch);
            let signature = session_pair(*n, *epoch).sign(&SigningBytes::vote(incarnation, epoch_of_key, &vote));
            CommitSignature { voter: identity(*n), epoch: epoch_of_key, signature }
        };
        let signatures = self.signers.iter().map(sign).collect();
        let certificate = CommitCertificate::new(height, Round::ZERO, header.hash(), signatures).unwrap();
        LightBlock { header, certificate, voters, next_voters }
    }
}

const FIRST: &[(u64, u64)] = &[(0, 1), (1, 1), (2, 1), (3, 1)];

fn client() -> (LightClient, Incarnation, Hash) {
    let genesis = genesis(&[1, 1, 1, 1]);
    (LightClient::new(&genesis).unwrap(), genesis.incarnation(), genesis.hash())
}

#[test]
fn the_next_height_is_believed_with_a_quorum_of_the_voters_named_before() {
    let (mut client, incarnation, parent) = client();
    let next: &[(u64, u64)] = &[(0, 1), (1, 2), (2, 1), (3, 1)];
    let shown = Shown { height: 1, parent, members: FIRST, next, signers: &FIRST[..3] };
    let block = shown.block(&incarnation);
    let hash = block.header.hash();
    client.advance(block).unwrap();
    assert_eq!((client.height(), client.hash(), client.next_voters()), (Height::new(1), hash, &voters(next)));
}

#[test]
fn a_next_height_of_other_voters_or_another_parent_is_not_believed() {
    let (client, incarnation, parent) = client();
    let others: &[(u64, u64)] = &[(0, 1), (1, 1), (2, 1), (4, 1)];
    let height = Height::new(1);
    let strangers = Shown { height: 1, parent, members: others, next: others, signers: others };
    assert_eq!(client.clone().advance(strangers.block(&incarnation)), Err(LightError::Voters { height }));
    let elsewhere = Shown { height: 1, parent: Hash::ZERO, members: FIRST, next: FIRST, signers: FIRST };
    assert_eq!(client.clone().advance(elsewhere.block(&incarnation)), Err(LightError::Parent { height }));
}

#[test]
fn a_jump_needs_more_than_f_of_the_trusted_keys() {
    let (client, incarnation, _) = client();
    // Two of the four are the same voters with the same keys.
    let members: &[(u64, u64)] = &[(0, 1), (1, 1), (5, 1), (6, 1)];
    let shown = Shown { height: 50, parent: Hash::ZERO, members, next: members, signers: &members[..3] };
    client.clone().advance(shown.block(&incarnation)).unwrap();
    let one_left: &[(u64, u64)] = &[(0, 1), (4, 1), (5, 1), (6, 1)];
    let shown = Shown { height: 50, members: one_left, next: one_left, signers: one_left, ..shown };
    let (found, needed) = (Power::new(1), Power::new(1));
    let too_far = LightError::TooFar { height: Height::new(50), found, needed };
    assert_eq!(client.clone().advance(shown.block(&incarnation)), Err(too_far));
}

#[test]
fn a_rotated_key_counts_for_nothing_in_a_jump() {
    let (client, incarnation, _) = client();
    let members: &[(u64, u64)] = &[(0, 1), (1, 2), (2, 2), (3, 2)];
    let shown = Shown { height: 50, parent: Hash::ZERO, members, next: members, signers: members };
    assert!(matches!(client.clone().advance(shown.block(&incarnation)), Err(LightError::TooFar { .. })));
}

#[test]
fn a_header_is_not_believed_with_voters_that_it_does_not_name() {
    let (client, incarnation, parent) = client();
    let shown = Shown { height: 1, parent, members: FIRST, next: FIRST, signers: FIRST };
    let mut block = shown.block(&incarnation);
    block.next_voters = voters(&[(7, 1)]);
    assert_eq!(client.clone().advance(block), Err(LightError::Voters { height: Height::new(1) }));
    let mut block = shown.block(&incarnation);
    block.certificate = Shown { height: 2, ..shown }.block(&incarnation).certificate;
    assert_eq!(client.clone().advance(block), Err(LightError::OtherHeader { height: Height::new(1) }));
}

#[test]
fn a_height_that_is_not_later_changes_nothing() {
    let (mut client, incarnation, parent) = client();
    let shown = Shown { height: 1, parent, members: FIRST, next: FIRST, signers: FIRST };
    client.advance(shown.block(&incarnation)).unwrap();
    let trusted = Height::new(1);
    let again = client.advance(shown.block(&incarnation));
    assert_eq!(again, Err(LightError::NotLater { found: trusted, trusted }));
}

/// A forger has the keys of one of the four voters, all keys that it invents, and may name any voters with them; the
/// honest voters sign what the chain really decided.
#[test]
fn no_forged_set_is_believed_after_any_path_of_honest_heights() {
    let mut dice = Dice::new(11);
    let (mut believed, mut refused) = (0, 0);
    for _ in 0..40 {
        let (mut client, incarnation, mut parent) = client();
        let mut members: Vec<(u64, u64)> = FIRST.to_vec();
        let forger = dice.below(4);
        for height in 1..12 {
            let mut next = members.clone();
            if dice.below(3) == 0 {
                let rotated = dice.below(4);
                next.iter_mut().filter(|(n, _)| *n == rotated).for_each(|(_, epoch)| *epoch += 1);
            }
            let signers: Vec<(u64, u64)> = members.iter().copied().filter(|(n, _)| *n != (forger + 1) % 4).collect();
            let honest = Shown { height, parent, members: &members, next: &next, signers: &signers };
            let honest = honest.block(&incarnation);
            parent = honest.header.hash();
            // The forger keeps its identity and key, drops at random who it likes, and adds strangers.
            let own = members.iter().copied().find(|(n, _)| *n == forger);
            let strangers = (0..=dice.below(4)).map(|n| (10 + n, 1));
            let forged: Vec<(u64, u64)> = own.into_iter().chain(strangers).collect();
            let later = height + dice.below(9);
            let attempt = Shown { height: later, parent, members: &forged, next: &forged, signers: &forged };
            assert!(client.clone().advance(attempt.block(&incarnation)).is_err());
            // The same, naming the real voters beside its own without their signatures.
            let mut mixed = forged.clone();
            mixed.extend(members.iter().filter(|(n, _)| *n != forger));
            let attempt = Shown { height: later, parent, members: &mixed, next: &mixed, signers: &forged };
            assert!(client.clone().advance(attempt.block(&incarnation)).is_err());
            refused += 2;
            if dice.below(2) == 0 && client.advance(honest).is_ok() {
                believed += 1;
            }
            members = next;
        }
    }
    assert!(believed > 100 && refused > 800, "{believed} honest heights believed, {refused} forged ones refused");
}

#[test]
fn a_light_block_survives_its_encoding() {
    let (_, incarnation, parent) = client();
    let block = Shown { height: 1, parent, members: FIRST, next: FIRST, signers: FIRST }.block(&incarnation);
    assert_eq!(LightBlock::decode(&block.encode()), Ok(block));
}

#[test]
fn a_checkpoint_is_believed_by_its_hash_and_leads_on() {
    let genesis = genesis(&[1, 1, 1, 1]);
    let incarnation = genesis.incarnation();
    // Nobody of genesis votes any more.
    let late: &[(u64, u64)] = &[(4, 1), (5, 1), (6, 1), (7, 1)];
    let shown = Shown { height: 500, parent: Hash::ZERO, members: late, next: late, signers: &late[..3] };
    let block = shown.block(&incarnation);
    let (height, hash) = (Height::new(500), block.header.hash());
    let believe = |block: &LightBlock, hash| LightClient::from_checkpoint(&genesis, incarnation, block.clone(), hash);
    let mut client = believe(&block, hash).unwrap();
    assert_eq!((client.height(), client.hash(), client.next_voters()), (height, hash, &voters(late)));
    let next = Shown { height: 700, signers: late, ..shown };
    client.advance(next.block(&incarnation)).unwrap();

    let other = believe(&block, Hash::ZERO).unwrap_err();
    assert_eq!(other, LightError::OtherCheckpoint { height, found: hash, expected: Hash::ZERO });
    let strangers = LightBlock { next_voters: voters(FIRST), ..block.clone() };
    assert_eq!(believe(&strangers, hash).unwrap_err(), LightError::Voters { height });
    let two = block.certificate.signatures()[..2].to_vec();
    let certificate = CommitCertificate::new(height, Round::ZERO, hash, two).unwrap();
    let few = LightBlock { certificate, ..block.clone() };
    assert!(matches!(believe(&few, hash), Err(LightError::Certificate(_))));
    let certificate = next.block(&incarnation).certificate;
    let of_another = LightBlock { certificate, ..block.clone() };
    assert_eq!(believe(&of_another, hash).unwrap_err(), LightError::OtherHeader { height });
    let elsewhere = LightClient::from_checkpoint(&genesis, Hash::ZERO.into(), block, hash);
    assert!(matches!(elsewhere, Err(LightError::Certificate(_))), "signed for another incarnation");
}
