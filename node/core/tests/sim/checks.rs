//! The checkers: rules that hold after every step of every node, whatever happens.

use std::collections::{BTreeMap, BTreeSet};

use node_core::{
    crypto::{SigningBytes, verify, verify_certificate},
    ledger::{Outcome, Snapshot},
    session::Slot,
    types::{
        BatchAcknowledgement, CommitCertificate, Genesis, Hash, Header, Height, Identity, Incarnation, PeerMessage,
        PendingSets, RecoveryManifest, Results, SessionKey, Signature, Step, TransactionId, Vote, VoterSet,
    },
};

use super::sets::SetChecks;

/// The rule that was broken.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Violation {
    /// Two final blocks at one height.
    Fork(Height),
    /// A node left out a height, or went back.
    Gap(Height),
    /// Two session keys of one identity signed at one height.
    TwoKeys(Height),
    /// Signed with another session key than the voters of the height name.
    OtherKey(Height),
    /// Two live processes signed for one identity at one height.
    TwoSigners(Height),
    /// One key signed two different things for one step.
    Equivocation(Height),
    /// A signature left before its record was durable.
    NotDurable(Height),
    /// A batch was acknowledged before it was durable.
    AcknowledgedEarly(Hash),
    /// A transaction that was answered as durable is in no block.
    Lost(TransactionId),
    /// A final block whose certificate proves nothing.
    BadCertificate(Height),
    /// Two nodes computed different results.
    ResultsDiffer(Height),
    /// Two nodes computed different voters.
    VotersDiffer(Height),
    /// A block became final while more voters were silent than may fail.
    MovedWithoutQuorum(Height),
    /// A state from peers names other voters than the blocks lead to.
    SyncedOtherVoters(Height),
    /// A light client was led to voters that the chain never named.
    ForgedSetBelieved(Height),
    /// A light client did not believe the real chain.
    LightClientRefused(Height, String),
    /// A rotation that only the identity signed took the key of a voter that could have objected all the time.
    Displaced(Height),
    /// A node that accepted a recovery signed for the incarnation that ends.
    OldIncarnation(Height),
    /// A block changed voters that were decided before it.
    DecidedVotersChanged(Height),
    /// Governance moved a third of the power or more in one block.
    TooMuchPowerMoved(Height),
    /// Governance left fewer than four voters.
    TooFewVoters(Height),
    /// A session key has another owner or number than before, or is back after it left.
    KeyCameBack(Height),
    /// An identity has a lower epoch than before.
    EpochWentBack(Height),
    /// The claims of a final header are not what was computed.
    HeaderLies(Height),
    /// The time of a block is later than a quorum could have accepted.
    TimeAhead(Height),
    /// The time of a block is not after that of the block before.
    TimeNotAfterParent(Height),
    /// A node whose state is not that of the chain goes on.
    WentOnDiffering(Height),
    /// A change of the chain that fewer governors signed than must.
    Unauthorised(Height),
    /// A node stopped for good.
    Halted(String),
    /// The protocol failed in a node, or its signer refused.
    Failed(String),
    /// The network healed, and a node still does not move on.
    Stuck(String),
}

/// What all nodes together have done.
pub struct Checks {
    /// The incarnations, by the last height before each.
    incarnations: Vec<(Height, Incarnation)>,
    final_blocks: BTreeMap<Height, Hash>,
    results: BTreeMap<Height, Results>,
    sets: BTreeMap<Height, VoterSet>,
    /// The same as it was before a recovery gave them fresh keys.
    former_sets: Option<BTreeMap<Height, VoterSet>>,
    set_checks: SetChecks,
    keys: BTreeMap<Identity, Vec<SessionKey>>,
    signed: BTreeMap<(SessionKey, Slot), Vec<u8>>,
    signer_at: BTreeMap<(Incarnation, Identity, Height), (SessionKey, usize)>,
    known_signatures: BTreeSet<Signature>,
    byzantine: BTreeSet<Identity>,
    /// Transactions that were answered as durable and are in no block yet.
    pub promised: BTreeSet<TransactionId>,
    /// Transactions that are in a block.
    pub included: BTreeSet<TransactionId>,
}

impl Checks {
    pub fn new(genesis: &Genesis) -> Self {
        let set = genesis.voter_set();
        let mut set_checks = SetChecks::default();
        set_checks.on_set(Height::new(1), set).expect("genesis is the first");
        Self {
            set_checks,
            incarnations: vec![(Height::ZERO, genesis.incarnation())],
            final_blocks: BTreeMap::new(),
            results: BTreeMap::new(),
            sets: (1..=3).map(|height| (Height::new(height), set.clone())).collect(),
            former_sets: None,
            keys: set.entries().iter().map(|entry| (entry.identity, vec![entry.session_key])).collect(),
            signed: BTreeMap::new(),
            signer_at: BTreeMap::new(),
            known_signatures: BTreeSet::new(),
            byzantine: BTreeSet::new(),
            promised: BTreeSet::new(),
            included: BTreeSet::new(),
        }
    }

    pub fn exempt(&mut self, identity: Identity) {
        self.byzantine.insert(identity);
    }

    pub fn key_made(&mut self, identity: Identity, key: SessionKey) {
        self.keys.entry(identity).or_default().push(key);
    }

    /// Somebody has this block already.
    pub fn is_final(&self, height: Height) -> bool {
        self.final_blocks.contains_key(&height)
    }

    /// The voters of a height and of the next, if they are decided.
    pub fn voters_around(&self, height: Height) -> Option<(&VoterSet, &VoterSet)> {
        Some((self.sets.get(&height)?, self.sets.get(&height.next())?))
    }

    /// A recovery was approved.
    pub fn is_recovered(&self) -> bool {
        self.former_sets.is_some()
    }

    /// The chain goes on with a manifest. Nobody can execute any more what was signed for the incarnation that ends.
    pub fn recover(&mut self, manifest: &RecoveryManifest) {
        self.promised.clear();
        self.former_sets = Some(self.sets.clone());
        self.incarnations.push((manifest.height, manifest.incarnation()));
        for (height, set) in self.sets.range_mut(manifest.height.next()..) {
            let renewed = manifest.renewed(set).expect("fresh keys make a set");
            *set = renewed.unwrap_or_else(|| panic!("the manifest misses a voter of {height}"));
            self.set_checks.on_set(*height, set).expect("fresh keys are fresh");
        }
    }

    /// What signatures at a height are bound to.
    pub fn incarnation_at(&self, height: Height) -> Incarnation {
        let before = self.incarnations.iter().rev().find(|(last, _)| *last < height);
        before.expect("genesis is before all heights").1
    }

    /// The voters of the last height for which they are decided.
    pub fn newest_voters(&self) -> &VoterSet {
        self.sets.values().next_back().expect("genesis decides three")
    }

    /// A node commits a block: the last one it had was `tip`.
    pub fn on_commit(
        &mut self,
        tip: Height,
        header: &Header,
        certificate: &CommitCertificate,
    ) -> Result<(), Violation> {
        let height = header.height;
        if height != tip.next() {
            return Err(Violation::Gap(height));
        }
        let hash = header.hash();
        if *self.final_blocks.entry(height).or_insert(hash) != hash {
            return Err(Violation::Fork(height));
        }
        let Some(voters) = self.sets.get(&height) else { return Err(Violation::BadCertificate(height)) };
        let proves = certificate.height() == height && certificate.value() == hash;
        if !proves || verify_certificate(&self.incarnation_at(height), voters, certificate).is_err() {
            return Err(Violation::BadCertificate(height));
        }
        let named = height.checked_sub(2).and_then(|executed| self.results.get(&executed));
        if named.is_some_and(|results| *results != header.results) {
            return Err(Violation::HeaderLies(height));
        }
        Ok(())
    }

    /// A node executed a block. One that was cut off has not heard of a recovery, and may only now execute the last blocks
    /// that it stands on: to it the voters after them have the keys that they had.
    pub fn on_executed(&mut self, results: Results, outcome: &Outcome, recoveries: usize) -> Result<(), Violation> {
        let Outcome { height, sets: PendingSets { first, second, third }, .. } = outcome;
        let height = *height;
        if *self.results.entry(height).or_insert(results) != results {
            return Err(Violation::ResultsDiffer(height));
        }
        let (next, after_next) = (height.next(), height.saturating_add(2));
        let former = self.former_sets.as_ref().filter(|_| recoveries == 0);
        let sets = former.unwrap_or(&self.sets);
        if sets.get(&next) != Some(first) || sets.get(&after_next) != Some(second) {
            return Err(Violation::DecidedVotersChanged(height));
        }
        match sets.get(&height.saturating_add(3)) {
            Some(known) if known == third => Ok(()),
            Some(_) => Err(Violation::VotersDiffer(height)),
            None => {
                self.sets.insert(height.saturating_add(3), third.clone());
                self.set_checks.on_decided(second, outcome)
            }
        }
    }

    /// A node begins with a state that it took from peers: all three sets must be those that the blocks lead to.
    pub fn on_state(&self, state: &Snapshot) -> Result<(), Violation> {
        let height = state.progress.height;
        let PendingSets { first, second, third } = &state.sets;
        let same = |distance, found| self.sets.get(&height.saturating_add(distance)) == Some(found);
        let all = same(1, first) && same(2, second) && same(3, third);
        if all { Ok(()) } else { Err(Violation::SyncedOtherVoters(height)) }
    }

    /// A node sends something: whatever it signs must be durable and never said otherwise.
    pub fn on_sent(&mut self, sender: &Sender<'_>, message: &PeerMessage) -> Result<(), Violation> {
        match message {
            PeerMessage::Vote(vote) if vote.vote.voter == sender.identity => {
                let Vote { vote: unsigned, epoch, signature } = vote;
                let slot = Slot { height: unsigned.height, round: unsigned.round, step: unsigned.kind.step() };
                let bytes = |incarnation: &Incarnation| SigningBytes::vote(incarnation, *epoch, unsigned);
                let said = self.said(sender, slot, &bytes, *signature);
                self.on_signed(sender, &said)
            }
            PeerMessage::BatchAcknowledgements(list) => self.on_acknowledged(sender, list),
            PeerMessage::ProposedHeader(proposed) if proposed.proposal.proposal.proposer == sender.identity => {
                let proposal = &proposed.proposal;
                let slot =
                    Slot { height: proposal.proposal.height, round: proposal.proposal.round, step: Step::Propose };
                let bytes =
                    |incarnation: &Incarnation| SigningBytes::proposal(incarnation, proposal.epoch, &proposal.proposal);
                let said = self.said(sender, slot, &bytes, proposal.signature);
                self.on_signed(sender, &said)
            }
            _ => Ok(()),
        }
    }

    fn on_acknowledged(&self, sender: &Sender<'_>, list: &[BatchAcknowledgement]) -> Result<(), Violation> {
        if self.byzantine.contains(&sender.identity) {
            return Ok(());
        }
        // It accepted a recovery: what it stores is of the incarnation that ends.
        if sender.accepted && !list.is_empty() {
            return Err(Violation::OldIncarnation(self.incarnations.last().map_or(Height::ZERO, |(last, _)| *last)));
        }
        match list.iter().find(|said| said.voter != sender.identity || !sender.stored.contains(&said.batch)) {
            Some(said) => Err(Violation::AcknowledgedEarly(said.batch)),
            None => Ok(()),
        }
    }

    /// A transaction that was promised to get into a block and is in none.
    pub fn lost(&self) -> Option<TransactionId> {
        self.promised.difference(&self.included).next().copied()
    }

    /// For which incarnation something was signed: that of its height, or a former one.
    fn said(
        &self,
        sender: &Sender<'_>,
        slot: Slot,
        bytes: &dyn Fn(&Incarnation) -> Vec<u8>,
        signature: Signature,
    ) -> Said {
        let incarnation = self.incarnation_at(slot.height);
        let keys = self.keys.get(&sender.identity).map_or(&[][..], Vec::as_slice);
        let signed = |incarnation: &Incarnation| {
            let bytes = bytes(incarnation);
            keys.iter().any(|key| verify(key.as_bytes(), &bytes, &signature).is_ok())
        };
        let former = self.incarnations.iter().map(|(_, former)| *former).filter(|former| *former != incarnation);
        let former =
            if self.incarnations.len() == 1 || signed(&incarnation) { None } else { former.filter(signed).last() };
        match former {
            Some(former) => Said { current: false, slot, bytes: bytes(&former), signature },
            None => Said { current: true, slot, bytes: bytes(&incarnation), signature },
        }
    }

    fn on_signed(&mut self, sender: &Sender<'_>, said: &Said) -> Result<(), Violation> {
        let Said { current, slot, bytes, signature } = said;
        if self.byzantine.contains(&sender.identity) {
            return Ok(());
        }
        // What was said before may be repeated by anyone, a copy of the node included.
        if self.known_signatures.contains(signature) {
            return Ok(());
        }
        if !sender.durable.contains(signature) {
            return Err(Violation::NotDurable(slot.height));
        }
        self.known_signatures.insert(*signature);
        let keys = self.keys.get(&sender.identity).map_or(&[][..], Vec::as_slice);
        let signer = keys.iter().find(|key| verify(key.as_bytes(), bytes, signature).is_ok());
        let Some(key) = signer.copied() else {
            return Err(Violation::Failed(format!("nobody's signature at {slot:?}")));
        };
        if !current {
            // It may speak until it has accepted, and nobody may listen.
            let repeats = self.signed.entry((key, *slot)).or_insert_with(|| bytes.clone()) == bytes;
            return match (sender.accepted, repeats) {
                (true, _) => Err(Violation::OldIncarnation(slot.height)),
                (false, false) => Err(Violation::Equivocation(slot.height)),
                (false, true) => Ok(()),
            };
        }
        let named = self.sets.get(&slot.height).and_then(|voters| voters.get(&sender.identity));
        if named.is_none_or(|entry| entry.session_key != key) {
            return Err(Violation::OtherKey(slot.height));
        }
        if self.signed.entry((key, *slot)).or_insert_with(|| bytes.clone()) != bytes {
            return Err(Violation::Equivocation(slot.height));
        }
        let place = (self.incarnation_at(slot.height), sender.identity, slot.height);
        let (other, process) = *self.signer_at.entry(place).or_insert((key, sender.process));
        if other != key {
            return Err(Violation::TwoKeys(slot.height));
        }
        if process != sender.process {
            if sender.alive.contains(&process) {
                return Err(Violation::TwoSigners(slot.height));
            }
            self.signer_at.insert(place, (key, sender.process));
        }
        Ok(())
    }
}

/// Who sends.
pub struct Sender<'a> {
    pub process: usize,
    pub identity: Identity,
    /// The signatures whose record is durable on its volume.
    pub durable: &'a BTreeSet<Signature>,
    /// The batches that were ever durable on its volume.
    pub stored: &'a BTreeSet<Hash>,
    /// The processes that live.
    pub alive: &'a BTreeSet<usize>,
    /// Its node has accepted a recovery that is not complete here.
    pub accepted: bool,
}

/// Something signed.
struct Said {
    /// For the incarnation of its height, not for one that has ended.
    current: bool,
    slot: Slot,
    bytes: Vec<u8>,
    signature: Signature,
}
