//! The bounded table of peer records: whose record is taken, which one stays, and who is dialed from it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use node_core::{
    crypto::verify_peer_record,
    types::{Hash, Identity, Incarnation, PeerAddress, SignedPeerRecord, TimeMs},
};
use thiserror::Error;

/// Records of voters, of those who will vote, and of configured peers: 256 voters before and after a change, 256 peers.
const MEMBERS_MAX: usize = 768;
/// Records of everybody else with a certificate of the chain.
const OBSERVERS_MAX: usize = 64;
/// So many of those may come by way of one peer.
const OBSERVERS_PER_PEER_MAX: usize = 16;
/// A node with so many connections to observers looks for no more.
const OBSERVERS_DIALED_MAX: usize = 8;
/// No record counts for longer than this from now on: what a stolen key has signed ends to count some day.
const LIFETIME_MS_MAX: u64 = 24 * 3_600 * 1_000;
/// A record that comes by way of others is renewed no sooner, so that nobody makes the whole network talk.
const RENEWAL_MS_MIN: u64 = 5_000;

/// Why a record is not taken.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum Refusal {
    /// For another chain, or another life of this one.
    #[error("it is for another chain")]
    OtherChain,
    /// Its time is over.
    #[error("it has expired")]
    Expired,
    /// It would count for too long.
    #[error("it counts for more than a day")]
    TooLong,
    /// A newer one is here.
    #[error("a newer one is here")]
    Older,
    /// The former one is only seconds old.
    #[error("the former one is only seconds old")]
    TooSoon,
    /// Its identity has not signed it.
    #[error("it is not signed by its identity")]
    Forged,
    /// It is in the name of this node.
    #[error("it is in the name of this node")]
    OwnName {
        /// Its number: the next own record needs a larger one.
        sequence: u64,
    },
    /// There is no room for it.
    #[error("there is no room for it")]
    Full,
}

/// What became of a record that is in the table.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Taken {
    /// It is new here, and worth telling others.
    New,
    /// It was here before.
    Known,
}

/// Somebody to dial.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DialPlace {
    /// Who must be at the other end.
    pub identity: Identity,
    /// With this key in its certificate.
    pub tls_key: Hash,
    /// Where, in the order in which it was said.
    pub addresses: Vec<PeerAddress>,
}

#[derive(Debug)]
struct Entry {
    signed: Arc<SignedPeerRecord>,
    /// Which peer it came from.
    source: Identity,
    taken_at: TimeMs,
}

/// The table. One record for each identity.
#[derive(Debug)]
pub struct Book {
    own: Identity,
    incarnation: Incarnation,
    configured: BTreeSet<Identity>,
    voters: BTreeSet<Identity>,
    entries: BTreeMap<Identity, Entry>,
}

impl Book {
    /// An empty table of the node `own`, whose configuration names these peers.
    pub fn new(own: Identity, incarnation: Incarnation, configured: BTreeSet<Identity>) -> Self {
        Self { own, incarnation, configured, voters: BTreeSet::new(), entries: BTreeMap::new() }
    }

    /// The chain has these voters now.
    pub fn set_voters(&mut self, voters: BTreeSet<Identity>) {
        self.voters = voters;
        // Who votes no longer is an observer, and there are places for few of those.
        while self.observers().count() > OBSERVERS_MAX {
            let Some(victim) = self.least_wanted_observer() else { return };
            self.entries.remove(&victim);
        }
    }

    /// Takes a record that the peer `from` has sent, if it counts.
    pub fn offer(&mut self, from: Identity, signed: SignedPeerRecord, now: TimeMs) -> Result<Taken, Refusal> {
        let record = &signed.record;
        let identity = record.identity;
        if record.incarnation != self.incarnation {
            return Err(Refusal::OtherChain);
        }
        if record.expires <= now {
            return Err(Refusal::Expired);
        }
        if record.expires > now.saturating_add(LIFETIME_MS_MAX) {
            return Err(Refusal::TooLong);
        }
        if let Some(entry) = self.entries.get(&identity) {
            if *entry.signed == signed {
                return Ok(Taken::Known);
            }
            if record.sequence <= entry.signed.record.sequence {
                return Err(Refusal::Older);
            }
            if from != identity && now < entry.taken_at.saturating_add(RENEWAL_MS_MIN) {
                return Err(Refusal::TooSoon);
            }
        }
        // After what costs nothing.
        verify_peer_record(&signed).map_err(|_| Refusal::Forged)?;
        if identity == self.own {
            return Err(Refusal::OwnName { sequence: record.sequence });
        }
        self.make_room(from, identity)?;
        let entry = Entry { signed: Arc::new(signed), source: from, taken_at: now };
        self.entries.insert(identity, entry);
        Ok(Taken::New)
    }

    /// Drops what does not count any more.
    pub fn expire(&mut self, now: TimeMs) {
        self.entries.retain(|_, entry| entry.signed.record.expires > now);
    }

    /// Every record.
    pub fn records(&self) -> impl Iterator<Item = &Arc<SignedPeerRecord>> {
        self.entries.values().map(|entry| &entry.signed)
    }

    /// The record of one identity, and the peer that it came from.
    pub fn record(&self, identity: &Identity) -> Option<(&Arc<SignedPeerRecord>, Identity)> {
        self.entries.get(identity).map(|entry| (&entry.signed, entry.source))
    }

    /// How many records there are of members, and of observers.
    pub fn counts(&self) -> (usize, usize) {
        let observers = self.observers().count();
        (self.entries.len() - observers, observers)
    }

    /// Whether the configuration names this peer.
    pub fn is_configured(&self, identity: &Identity) -> bool {
        self.configured.contains(identity)
    }

    /// Who is to be dialed: every member that has no connection, and a few observers.
    pub fn dial_places(&self, connected: &BTreeSet<Identity>) -> Vec<DialPlace> {
        let observers = connected.iter().filter(|peer| !self.is_member(peer)).count();
        let mut room = OBSERVERS_DIALED_MAX.saturating_sub(observers);
        let mut places = Vec::new();
        for (identity, entry) in self.entries.iter().filter(|(identity, _)| !connected.contains(*identity)) {
            if !self.is_member(identity) {
                if room == 0 {
                    continue;
                }
                room -= 1;
            }
            let record = &entry.signed.record;
            let addresses = record.addresses.clone();
            places.push(DialPlace { identity: *identity, tls_key: record.tls_key, addresses });
        }
        places
    }

    fn is_member(&self, identity: &Identity) -> bool {
        self.voters.contains(identity) || self.configured.contains(identity)
    }

    fn observers(&self) -> impl Iterator<Item = (&Identity, &Entry)> {
        self.entries.iter().filter(|(identity, _)| !self.is_member(identity))
    }

    /// The one that came by way of others before one that came itself; of those the one that ends first.
    fn least_wanted_observer(&self) -> Option<Identity> {
        let order = |identity: &Identity, entry: &Entry| (entry.source == *identity, entry.signed.record.expires);
        self.observers().min_by_key(|(identity, entry)| order(identity, entry)).map(|(identity, _)| *identity)
    }

    fn make_room(&mut self, from: Identity, identity: Identity) -> Result<(), Refusal> {
        if self.entries.contains_key(&identity) {
            return Ok(());
        }
        if self.is_member(&identity) {
            let (members, _) = self.counts();
            return if members < MEMBERS_MAX { Ok(()) } else { Err(Refusal::Full) };
        }
        let direct = from == identity;
        let by_same = self.observers().filter(|(name, entry)| entry.source == from && **name != from).count();
        if !direct && by_same >= OBSERVERS_PER_PEER_MAX {
            return Err(Refusal::Full);
        }
        if self.observers().count() < OBSERVERS_MAX {
            return Ok(());
        }
        // Who stands here with a certificate is there for sure; of the others somebody only said so.
        let victim = self.least_wanted_observer().filter(|_| direct);
        let victim = victim.filter(|victim| self.entries.get(victim).is_some_and(|entry| entry.source != *victim));
        match victim {
            Some(victim) => {
                self.entries.remove(&victim);
                Ok(())
            }
            None => Err(Refusal::Full),
        }
    }
}

#[cfg(test)]
#[path = "book_tests.rs"]
mod tests;
