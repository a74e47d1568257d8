//! Whose records are taken: not forged, replayed, expired or foreign ones, and never more than there is room for.

use std::collections::BTreeSet;

use node_core::{
    crypto::{KeyPair, SigningBytes},
    types::{Hash, Identity, Incarnation, PeerAddress, PeerRecord, SignedPeerRecord, TimeMs},
};

use super::{Book, LIFETIME_MS_MAX, OBSERVERS_DIALED_MAX, OBSERVERS_MAX, OBSERVERS_PER_PEER_MAX, Refusal, Taken};

const NOW: TimeMs = TimeMs::new(1_000_000);
const VOTER: u16 = 1;
const OWN: u16 = 2;
const CONFIGURED: u16 = 3;

fn key(number: u16) -> KeyPair {
    let mut seed = [7; 32];
    seed[..2].copy_from_slice(&number.to_be_bytes());
    KeyPair::from_seed(seed)
}

fn identity(number: u16) -> Identity {
    Identity::new(key(number).public())
}

fn chain() -> Incarnation {
    Incarnation::new([9; 32])
}

fn unsigned(number: u16, sequence: u64) -> PeerRecord {
    PeerRecord {
        incarnation: chain(),
        identity: identity(number),
        tls_key: Hash::new([number as u8; 32]),
        addresses: vec![PeerAddress::new(&format!("node-{number}:7100")).unwrap()],
        sequence,
        expires: NOW.saturating_add(60_000),
    }
}

fn sign(record: PeerRecord, signer: u16) -> SignedPeerRecord {
    let bytes = SigningBytes::peer_record(&record.incarnation, &record.identity, &record.hash());
    SignedPeerRecord { signature: key(signer).sign(&bytes), record }
}

fn record(number: u16, sequence: u64) -> SignedPeerRecord {
    sign(unsigned(number, sequence), number)
}

fn book() -> Book {
    let mut book = Book::new(identity(OWN), chain(), BTreeSet::from([identity(CONFIGURED)]));
    book.set_voters(BTreeSet::from([identity(VOTER), identity(OWN)]));
    book
}

#[test]
fn a_record_counts_by_whomever_it_came_and_once_only() {
    let mut book = book();
    assert_eq!(book.offer(identity(CONFIGURED), record(VOTER, 5), NOW), Ok(Taken::New));
    assert_eq!(book.offer(identity(VOTER), record(VOTER, 5), NOW), Ok(Taken::Known));
    assert_eq!((book.records().count(), book.counts()), (1, (1, 0)));
}

#[test]
fn a_forged_record_is_refused() {
    let mut book = book();
    assert_eq!(book.offer(identity(VOTER), sign(unsigned(VOTER, 5), CONFIGURED), NOW), Err(Refusal::Forged));
    let mut altered = record(VOTER, 5);
    altered.record.addresses = vec![PeerAddress::new("elsewhere:1").unwrap()];
    assert_eq!(book.offer(identity(VOTER), altered, NOW), Err(Refusal::Forged));
    assert_eq!(book.records().count(), 0);
}

#[test]
fn an_older_record_that_is_replayed_changes_nothing() {
    let mut book = book();
    book.offer(identity(VOTER), record(VOTER, 5), NOW).unwrap();
    assert_eq!(book.offer(identity(VOTER), record(VOTER, 4), NOW), Err(Refusal::Older));
    let same_number = sign(PeerRecord { tls_key: Hash::ZERO, ..unsigned(VOTER, 5) }, VOTER);
    assert_eq!(book.offer(identity(VOTER), same_number, NOW), Err(Refusal::Older));
    assert_eq!(book.record(&identity(VOTER)).unwrap().0.record.sequence, 5);
}

#[test]
fn a_newer_record_wins_at_once_from_its_own_node_and_after_a_while_from_others() {
    let mut book = book();
    book.offer(identity(VOTER), record(VOTER, 5), NOW).unwrap();
    assert_eq!(book.offer(identity(CONFIGURED), record(VOTER, 6), NOW), Err(Refusal::TooSoon));
    assert_eq!(book.offer(identity(VOTER), record(VOTER, 6), NOW), Ok(Taken::New));
    let later = NOW.saturating_add(5_000);
    assert_eq!(book.offer(identity(CONFIGURED), record(VOTER, 7), later), Ok(Taken::New));
    assert_eq!(book.records().count(), 1);
}

#[test]
fn an_expired_record_is_refused_and_one_in_the_table_goes() {
    let mut book = book();
    book.offer(identity(VOTER), record(VOTER, 5), NOW).unwrap();
    let end = unsigned(VOTER, 5).expires;
    book.expire(TimeMs::new(end.get() - 1));
    assert_eq!(book.records().count(), 1);
    book.expire(end);
    assert_eq!(book.records().count(), 0);
    assert_eq!(book.offer(identity(VOTER), record(VOTER, 5), end), Err(Refusal::Expired));
}

#[test]
fn a_record_that_would_count_for_longer_than_a_day_is_refused() {
    let expires = NOW.saturating_add(LIFETIME_MS_MAX + 1);
    let long = sign(PeerRecord { expires, ..unsigned(VOTER, 5) }, VOTER);
    assert_eq!(book().offer(identity(VOTER), long, NOW), Err(Refusal::TooLong));
}

#[test]
fn a_record_of_another_chain_or_another_life_of_this_one_is_refused() {
    let foreign = PeerRecord { incarnation: Incarnation::new([8; 32]), ..unsigned(VOTER, 5) };
    assert_eq!(book().offer(identity(VOTER), sign(foreign, VOTER), NOW), Err(Refusal::OtherChain));
    // A signature for the other chain does not count under the name of this one.
    let foreign = PeerRecord { incarnation: Incarnation::new([8; 32]), ..unsigned(VOTER, 5) };
    let signature = sign(foreign, VOTER).signature;
    let moved = SignedPeerRecord { record: unsigned(VOTER, 5), signature };
    assert_eq!(book().offer(identity(VOTER), moved, NOW), Err(Refusal::Forged));
}

#[test]
fn a_record_in_the_name_of_this_node_is_never_kept_and_tells_its_number() {
    let mut book = book();
    assert_eq!(book.offer(identity(VOTER), record(OWN, 77), NOW), Err(Refusal::OwnName { sequence: 77 }));
    assert_eq!(book.offer(identity(VOTER), sign(unsigned(OWN, 88), VOTER), NOW), Err(Refusal::Forged));
    assert_eq!(book.records().count(), 0);
}

#[test]
fn one_peer_fills_only_its_share_of_the_places_for_observers() {
    let mut book = book();
    let talker = identity(VOTER);
    for number in 0..OBSERVERS_PER_PEER_MAX as u16 {
        assert_eq!(book.offer(talker, record(100 + number, 5), NOW), Ok(Taken::New));
    }
    assert_eq!(book.offer(talker, record(99, 5), NOW), Err(Refusal::Full));
    assert_eq!(book.offer(identity(CONFIGURED), record(99, 5), NOW), Ok(Taken::New));
    assert_eq!(book.offer(talker, record(CONFIGURED, 5), NOW), Ok(Taken::New), "members have places of their own");
}

#[test]
fn an_observer_that_is_here_takes_the_place_of_one_that_was_only_told_of() {
    let mut book = book();
    for number in 0..OBSERVERS_MAX as u16 {
        let talker = 1_000 + number / OBSERVERS_PER_PEER_MAX as u16;
        assert_eq!(book.offer(identity(talker), record(100 + number, 5), NOW), Ok(Taken::New));
    }
    assert_eq!(book.offer(identity(VOTER), record(99, 5), NOW), Err(Refusal::Full));
    assert_eq!(book.offer(identity(99), record(99, 5), NOW), Ok(Taken::New));
    assert_eq!(book.counts(), (0, OBSERVERS_MAX));
    assert!(book.record(&identity(99)).is_some());
}

#[test]
fn who_ends_to_vote_becomes_an_observer_and_who_begins_a_member() {
    let mut book = book();
    book.offer(identity(VOTER), record(VOTER, 5), NOW).unwrap();
    book.offer(identity(50), record(50, 5), NOW).unwrap();
    assert_eq!(book.counts(), (1, 1));
    book.set_voters(BTreeSet::from([identity(50)]));
    assert_eq!(book.counts(), (1, 1));
    book.set_voters(BTreeSet::new());
    assert_eq!(book.counts(), (0, 2));
}

#[test]
fn members_without_a_connection_are_dialed_and_a_few_observers() {
    let mut book = book();
    book.offer(identity(VOTER), record(VOTER, 5), NOW).unwrap();
    book.offer(identity(CONFIGURED), record(CONFIGURED, 5), NOW).unwrap();
    for number in 0..20 {
        let from = identity(100 + number);
        book.offer(from, record(100 + number, 5), NOW).unwrap();
    }
    let places = book.dial_places(&BTreeSet::from([identity(CONFIGURED), identity(100), identity(101)]));
    let members = places.iter().filter(|place| place.identity == identity(VOTER)).count();
    assert_eq!((members, places.len()), (1, 1 + OBSERVERS_DIALED_MAX - 2));
    let voter = places.iter().find(|place| place.identity == identity(VOTER)).unwrap();
    assert_eq!((voter.tls_key, voter.addresses[0].as_str()), (Hash::new([1; 32]), "node-1:7100"));
}
