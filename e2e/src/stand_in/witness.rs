//! Sees at every moment what must never be: more voters away at once than the chain can bear, two changes of its voters at
//! once, a voter that comes without the chain's last blocks, and somebody whose certificate another one does not trust.
//!
//! It looks only at namespaces where it is asked to, with one network of one group in each. A voter is away from the deletion
//! of its pod until the next one is ready, and silent from the end of its process, or from when it votes and would not sign,
//! until it has signed a block. Who votes is what the chain says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use node_api::pki;
use node_core::types::{Identity, VoterSet};
use tokio::time::{MissedTickBehavior, interval};

use super::chain::Moved;
use crate::attendance::{Attendance, Presence};

/// Most voters that may be away at once before the chain says who votes.
const AWAY_MAX: u64 = 1;
/// How often somebody who waits for a violation looks.
const LOOK: Duration = Duration::from_millis(100);
/// What follows the first violation within this time is told with it.
const TOGETHER: Duration = Duration::from_secs(2);

/// What somebody presents and whom it trusts, as PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Papers {
    /// Certificate; that of an authority stands for everything that it has issued.
    pub certificate: String,
    /// Every authority that is trusted.
    pub authorities: String,
}

/// Somebody with papers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Party {
    /// The process of a pod.
    Process {
        /// UID of the pod.
        uid: String,
        /// Its name.
        pod: String,
    },
    /// Whoever uses the client certificate.
    Client,
    /// The operator: what it presents is of the authority that signs.
    Operator,
}

#[derive(Default)]
struct Place {
    is_watched: bool,
    pods: Attendance,
    /// The voters of the next height.
    voters: Option<VoterSet>,
    numbers: BTreeMap<Identity, u32>,
    silent: BTreeSet<Identity>,
    parties: Vec<(Party, Papers)>,
    violations: BTreeSet<String>,
}

/// The witness of all namespaces.
#[derive(Clone, Default)]
pub struct Witness {
    places: Arc<Mutex<BTreeMap<String, Place>>>,
}

impl Witness {
    /// Looks at a namespace from now on.
    pub fn watch(&self, namespace: &str) {
        let mut places = self.locked();
        let place = places.entry(namespace.to_string()).or_default();
        place.is_watched = true;
        place.look_at_voters();
        place.look_at_papers();
    }

    /// What was seen so far and must not be.
    pub fn violations(&self, namespace: &str) -> Vec<String> {
        self.locked().get(namespace).map(|place| place.violations.iter().cloned().collect()).unwrap_or_default()
    }

    /// Waits until there is a violation, and a little longer.
    pub async fn violated(&self, namespace: &str) -> String {
        let mut pace = interval(LOOK);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while self.violations(namespace).is_empty() {
            pace.tick().await;
        }
        tokio::time::sleep(TOGETHER).await;
        self.violations(namespace).join("; ")
    }

    /// What the processes of a namespace present and trust.
    pub fn processes(&self, namespace: &str) -> Vec<Papers> {
        let places = self.locked();
        let parties = places.get(namespace).map(|place| place.parties.as_slice()).unwrap_or_default();
        let processes = parties.iter().filter(|(party, _)| matches!(party, Party::Process { .. }));
        processes.map(|(_, papers)| papers.clone()).collect()
    }

    /// The numbers of the chain's voters.
    pub fn voters(&self, namespace: &str) -> BTreeSet<u32> {
        self.locked().get(namespace).and_then(Place::voting).unwrap_or_default()
    }

    /// The node of this number has this identity.
    pub(super) fn is_called(&self, namespace: &str, number: u32, identity: Identity) {
        self.change(namespace, |place| {
            place.numbers.insert(identity, number);
        });
    }

    /// The pod of the voter of this number shows this; nothing when it is gone.
    pub(super) fn pod(&self, namespace: &str, number: u32, presence: Option<Presence>) {
        self.change(namespace, |place| {
            match presence {
                Some(presence) => place.pods.shows(number, presence),
                None => place.pods.gone(number),
            }
            place.look_at_voters();
        });
    }

    /// The process of a voter has ended.
    pub(super) fn stopped(&self, namespace: &str, identity: Identity) {
        self.change(namespace, |place| {
            place.silent.insert(identity);
            place.look_at_voters();
        });
    }

    /// A chain has one more block.
    pub(super) fn moved(&self, namespace: &str, moved: Moved) {
        let Moved { voters, signers, absent, hasty } = moved;
        self.change(namespace, |place| {
            place.silent.retain(|identity| !signers.contains(identity));
            place.silent.extend(absent);
            place.voters = Some(voters);
            place.look_at_voters();
            for identity in hasty {
                let name = place.name(&identity);
                place.see(format!("{name} was voted in before it had the last blocks"));
            }
        });
    }

    /// A change of a chain's voters was handed in while another one had not begun to count.
    pub(super) fn changes_meet(&self, namespace: &str) {
        self.change(namespace, |place| place.see("two changes of voters are under way at once".to_string()));
    }

    /// Somebody has these papers from now on.
    pub(super) fn presents(&self, namespace: &str, party: Party, papers: Papers) {
        self.change(namespace, |place| {
            place.parties.retain(|(other, _)| *other != party);
            place.parties.push((party, papers));
            place.look_at_papers();
        });
    }

    /// The process of a pod is no more.
    pub(super) fn leaves(&self, namespace: &str, pod_uid: &str) {
        self.change(namespace, |place| {
            place.parties.retain(|(party, _)| !matches!(party, Party::Process { uid, .. } if uid == pod_uid));
        });
    }

    fn change(&self, namespace: &str, change: impl FnOnce(&mut Place)) {
        change(self.locked().entry(namespace.to_string()).or_default());
    }

    fn locked(&self) -> MutexGuard<'_, BTreeMap<String, Place>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    fn look_at_voters(&mut self) {
        let away = self.pods.away(self.voting().as_ref());
        let (budget, silent) = match &self.voters {
            Some(voters) => {
                let power = |identity: &Identity| voters.get(identity).map(|entry| entry.power.get());
                (voters.fault_budget().get(), self.silent.iter().filter_map(power).collect())
            }
            None => (AWAY_MAX, vec![1; self.silent.len()]),
        };
        if away.len() as u64 > budget {
            self.see(format!("the pods of voters {away:?} are away at once"));
        }
        if silent.iter().sum::<u64>() > budget {
            self.see(format!("{} voters do not sign at once", silent.len()));
        }
    }

    fn see(&mut self, what: String) {
        if self.is_watched {
            self.violations.insert(what);
        }
    }

    /// The numbers of the voters, when the chain says who votes and all of them are known.
    fn voting(&self) -> Option<BTreeSet<u32>> {
        let entries = self.voters.as_ref()?.entries().iter();
        entries.map(|entry| self.numbers.get(&entry.identity).copied()).collect()
    }

    fn name(&self, identity: &Identity) -> String {
        match self.numbers.get(identity) {
            Some(number) => format!("voter {number}"),
            None => format!("voter {identity}"),
        }
    }

    fn look_at_papers(&mut self) {
        if !self.is_watched {
            return;
        }
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs());
        for (one, shown) in &self.parties {
            for (other, trusts) in self.parties.iter().filter(|(other, _)| other != one) {
                if !is_trusted(one, &shown.certificate, &trusts.authorities, now_s) {
                    self.violations.insert(format!("{} does not trust {}", other.name(), one.name()));
                }
            }
        }
    }
}

fn is_trusted(party: &Party, certificate: &str, authorities: &str, now_s: u64) -> bool {
    match party {
        Party::Process { .. } | Party::Client => pki::is_issued_by(certificate, authorities, now_s).unwrap_or(false),
        Party::Operator => pki::blocks(authorities).iter().any(|one| pki::blocks(certificate).contains(one)),
    }
}

impl Party {
    fn name(&self) -> &str {
        match self {
            Self::Process { pod, .. } => pod,
            Self::Client => "the client",
            Self::Operator => "the operator",
        }
    }
}

#[cfg(test)]
mod tests {
    use node_api::pki::{CertificateAuthority, Validity};
    use node_api::roles::{NodeRole, SpiffeId};
    use node_core::types::{ChainId, Epoch, Power, SessionKey, VoterEntry};

    use super::*;

    fn identity(number: u8) -> Identity {
        Identity::new([number; 32])
    }

    /// Voters of these numbers, each of power 1.
    fn voters(numbers: impl IntoIterator<Item = u8>) -> VoterSet {
        let entry = |number: u8| VoterEntry {
            identity: identity(number),
            power: Power::new(1),
            session_key: SessionKey::new([number; 32]),
            epoch: Epoch::FIRST,
        };
        VoterSet::new(numbers.into_iter().map(entry).collect()).expect("a set")
    }

    /// A block that these voters have signed, before these vote.
    fn block(signers: &[u8], next: VoterSet) -> Moved {
        let signers = signers.iter().copied().map(identity).collect();
        Moved { voters: next, signers, absent: BTreeSet::new(), hasty: BTreeSet::new() }
    }

    fn watched() -> Witness {
        let witness = Witness::default();
        (0..4).for_each(|number| witness.pod("a", number, Some(Presence::Ready)));
        witness.watch("a");
        witness
    }

    #[test]
    fn a_second_voter_whose_pod_goes_before_the_first_one_is_back_is_seen() {
        let witness = watched();
        witness.pod("a", 3, Some(Presence::Stopping));
        witness.pod("a", 3, None);
        witness.pod("a", 3, Some(Presence::Ready));
        witness.pod("a", 2, Some(Presence::Stopping));
        assert_eq!(witness.violations("a"), Vec::<String>::new());
        witness.pod("a", 1, None);
        assert_eq!(witness.violations("a"), ["the pods of voters {1, 2} are away at once"]);
        assert_eq!(witness.violations("b"), Vec::<String>::new());
    }

    #[test]
    fn a_voter_is_away_until_it_has_signed_again() {
        let witness = watched();
        witness.stopped("a", identity(3));
        witness.moved("a", block(&[0, 1, 2, 3], voters(0..4)));
        witness.stopped("a", identity(2));
        assert_eq!(witness.violations("a"), Vec::<String>::new());
        witness.moved("a", block(&[0, 1, 3], voters(0..4)));
        witness.stopped("a", identity(1));
        assert_eq!(witness.violations("a"), ["2 voters do not sign at once"]);
    }

    #[test]
    fn where_nobody_asked_it_to_look_nothing_is_seen() {
        let witness = Witness::default();
        (0..4).for_each(|number| witness.stopped("a", identity(number)));
        assert_eq!(witness.violations("a"), Vec::<String>::new());
        witness.watch("a");
        assert_eq!(witness.violations("a"), ["4 voters do not sign at once"]);
    }

    #[test]
    fn the_budget_is_that_of_who_votes_now() {
        let witness = watched();
        (0..8).for_each(|number| witness.is_called("a", u32::from(number), identity(number)));
        (4..8).for_each(|number| witness.pod("a", number, Some(Presence::Ready)));
        witness.moved("a", block(&[0, 1, 2, 3, 4, 5, 6], voters(0..7)));
        assert_eq!(witness.voters("a"), (0..7).collect());
        // Of seven two may be away; one that has no vote never counts.
        for number in [5, 6, 7] {
            witness.pod("a", u32::from(number), None);
            witness.stopped("a", identity(number));
        }
        assert_eq!(witness.violations("a"), Vec::<String>::new());
        witness.moved("a", block(&[0, 1, 2, 3, 4], voters(0..6)));
        assert_eq!(witness.violations("a"), Vec::<String>::new(), "who has left may be gone");
        witness.pod("a", 4, Some(Presence::Stopping));
        witness.stopped("a", identity(4));
        let seen = ["2 voters do not sign at once", "the pods of voters {4, 5} are away at once"];
        assert_eq!(witness.violations("a"), seen, "of six only one may be away");
    }

    #[test]
    fn a_newcomer_that_would_not_sign_is_silent_like_one_that_stopped() {
        let witness = watched();
        witness.moved("a", block(&[0, 1, 2, 3], voters(0..4)));
        witness.moved("a", Moved { absent: [identity(4)].into(), ..block(&[0, 1, 2, 3], voters(0..5)) });
        assert_eq!(witness.violations("a"), Vec::<String>::new());
        witness.stopped("a", identity(0));
        assert_eq!(witness.violations("a"), ["2 voters do not sign at once"]);
    }

    #[test]
    fn changes_that_meet_and_a_newcomer_without_blocks_are_seen() {
        let witness = watched();
        witness.is_called("a", 4, identity(4));
        witness.moved("a", Moved { hasty: [identity(4)].into(), ..block(&[0, 1, 2, 3], voters(0..4)) });
        witness.changes_meet("a");
        let seen =
            ["two changes of voters are under way at once", "voter 4 was voted in before it had the last blocks"];
        assert_eq!(witness.violations("a"), seen);
    }

    const NOW: u64 = 1_800_000_000;

    fn authority(name: &str) -> CertificateAuthority {
        CertificateAuthority::generate(name, Validity::new(0, NOW * 2).expect("a time")).expect("an authority")
    }

    fn papers(authority: &CertificateAuthority, trusted: &[&CertificateAuthority]) -> Papers {
        let chain = ChainId::new("demo-main").expect("a chain id");
        let id = SpiffeId::node(&chain, NodeRole::Validator, &identity(1));
        let issued = authority.issue(&id, Validity::new(0, NOW * 2).expect("a time")).expect("a certificate");
        let authorities = trusted.iter().map(|one| one.certificate_pem()).collect();
        Papers { certificate: issued.certificate_pem, authorities }
    }

    fn process(name: &str) -> Party {
        Party::Process { uid: name.to_string(), pod: name.to_string() }
    }

    #[test]
    fn who_shows_a_certificate_of_an_authority_that_another_one_does_not_know_is_seen() {
        let (old, new) = (authority("old"), authority("new"));
        let witness = watched();
        let operator = |authority: &CertificateAuthority| Papers {
            certificate: authority.certificate_pem().to_string(),
            ..papers(authority, &[&new, &old])
        };
        witness.presents("a", Party::Operator, operator(&old));
        witness.presents("a", process("one"), papers(&old, &[&old]));
        witness.presents("a", process("two"), papers(&old, &[&old, &new]));
        assert_eq!(witness.violations("a"), Vec::<String>::new());
        assert_eq!(witness.processes("a").len(), 2);
        witness.presents("a", process("two"), papers(&new, &[&old, &new]));
        assert_eq!(witness.violations("a"), ["one does not trust two"]);
        witness.presents("a", Party::Operator, operator(&new));
        assert_eq!(witness.violations("a"), ["one does not trust the operator", "one does not trust two"]);
        witness.leaves("a", "one");
        assert_eq!(witness.processes("a").len(), 1);
    }
}
