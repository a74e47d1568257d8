//! A light client beside every history: it follows the real chain at random strides and is shown a forged set each time.

use node_core::{
    crypto::{KeyPair, SigningBytes},
    light::{LightBlock, LightClient, LightError},
    types::{
        CertifiedBlock, CommitCertificate, CommitSignature, Epoch, Genesis, Height, Identity, Incarnation, Power,
        Round, SessionKey, UnsignedVote, VoteKind, VoterEntry, VoterSet, voters_hash,
    },
};

use super::{checks::Violation, counts::Counts, dice::Dice, people};

/// How many heights are left out at most.
const STRIDE_MAX: u64 = 8;
/// The same for a client that comes back late: until then voters may have changed too much for a jump.
const LATE_STRIDE_MAX: u64 = 40;
/// Every so many looks the client comes late.
const LATE_INTERVAL: u64 = 4;

/// The client, and what it is shown next.
pub struct Skipping {
    client: LightClient,
    /// Its own, so that histories do not change with it.
    dice: Dice,
    next: Height,
    /// All final blocks with their voters and those after them, by height from 1.
    shown: Vec<LightBlock>,
    /// How many real voters forge together; more than may fail only where a test proves that it is noticed.
    forgers: u64,
    incarnation: Incarnation,
}

impl Skipping {
    pub fn new(seed: u64, genesis: &Genesis, forgers: u64) -> Self {
        let client = LightClient::new(genesis).expect("the genesis is whole");
        let dice = Dice::new(seed ^ 0x1197_beef);
        let incarnation = genesis.incarnation();
        Self { client, dice, next: Height::new(1), shown: Vec::new(), forgers, incarnation }
    }

    /// All final blocks with their voters, by height from 1.
    pub fn shown(&self) -> &[LightBlock] {
        &self.shown
    }

    /// A block became final for the first time, with the voters of its height and the next.
    pub fn on_final(
        &mut self,
        block: &CertifiedBlock,
        sets: (&VoterSet, &VoterSet),
        counts: &mut Counts,
    ) -> Result<(), Violation> {
        let (header, certificate) = (block.block.header().clone(), block.certificate.clone());
        let height = header.height;
        let (voters, next_voters) = (sets.0.clone(), sets.1.clone());
        self.shown.push(LightBlock { header, certificate, voters, next_voters });
        if height < self.next {
            return Ok(());
        }
        let stride_max = if self.dice.below(LATE_INTERVAL) == 0 { LATE_STRIDE_MAX } else { STRIDE_MAX };
        self.next = height.saturating_add(1 + self.dice.below(stride_max));
        self.show_forged(height, counts)?;
        self.show_real(height, counts)
    }

    /// The real chain is believed, one height after the other where voters have changed too much for a jump.
    fn show_real(&mut self, height: Height, counts: &mut Counts) -> Result<(), Violation> {
        let refused = |error: LightError| Violation::LightClientRefused(height, error.to_string());
        let block_at = |height: Height| self.shown[usize::try_from(height.get() - 1).unwrap()].clone();
        match self.client.advance(block_at(height)) {
            Ok(()) => {
                counts.add("heights that a light client jumped to", 1);
                Ok(())
            }
            Err(LightError::TooFar { .. }) => {
                counts.add("jumps that a light client refused", 1);
                while self.client.height() < height {
                    self.client.advance(block_at(self.client.height().next())).map_err(refused)?;
                }
                Ok(())
            }
            Err(error) => Err(refused(error)),
        }
    }

    /// One of the trusted voters, if it still has its key of genesis, and as many strangers as it likes name themselves, alone or
    /// beside the others, who have signed nothing.
    fn show_forged(&mut self, height: Height, counts: &mut Counts) -> Result<(), Violation> {
        let trusted = self.client.next_voters().clone();
        let first = self.dice.below(trusted.count() as u64);
        let mut signers = Vec::new();
        for node in (0..self.forgers).map(|next| (first + next) % trusted.count() as u64) {
            let key = KeyPair::from_seed(people::first_session_seed(node));
            let entry = trusted.get(&people::identity(node));
            let of_genesis = |entry: &&VoterEntry| entry.session_key == SessionKey::new(key.public());
            let alone_too_much = |entry: &&VoterEntry| self.forgers == 1 && entry.power > trusted.fault_budget();
            let entry = entry.filter(of_genesis).filter(|entry| !alone_too_much(entry)).copied();
            signers.extend(entry.map(|entry| (entry, key)));
        }
        for stranger in 0..1 + self.dice.below(5) {
            let key = people::pair(&format!("stranger {stranger}"));
            let identity = Identity::new(people::pair(&format!("strange identity {stranger}")).public());
            let (power, session_key) = (Power::new(1_000), SessionKey::new(key.public()));
            signers.push((VoterEntry { identity, power, session_key, epoch: Epoch::FIRST }, key));
        }
        let mut named: Vec<VoterEntry> = signers.iter().map(|(entry, _)| *entry).collect();
        if self.dice.below(2) == 0 {
            let names = |entry: &VoterEntry| named.iter().any(|known| known.identity == entry.identity);
            let others: Vec<VoterEntry> = trusted.entries().iter().copied().filter(|entry| !names(entry)).collect();
            named.extend(others);
        }
        let voters = VoterSet::new(named).expect("everybody is named once");
        let mut header = self.shown[usize::try_from(height.get() - 1).unwrap()].header.clone();
        header.height = self.client.height().saturating_add(1 + self.dice.below(STRIDE_MAX));
        header.voters_hash = voters_hash(&voters, &voters);
        let incarnation = self.incarnation;
        let sign = |(entry, key): &(VoterEntry, KeyPair)| {
            let (identity, epoch) = (entry.identity, entry.epoch);
            let vote = UnsignedVote {
                kind: VoteKind::Precommit,
                height: header.height,
                round: Round::ZERO,
                value: Some(header.hash()),
                voter: identity,
            };
            let signature = key.sign(&SigningBytes::vote(&incarnation, epoch, &vote));
            CommitSignature { voter: identity, epoch, signature }
        };
        let signatures = signers.iter().map(sign).collect();
        let certificate = CommitCertificate::new(header.height, Round::ZERO, header.hash(), signatures);
        let certificate = certificate.expect("everybody signs once");
        let at = header.height;
        let forged = LightBlock { header, certificate, voters: voters.clone(), next_voters: voters };
        counts.add("forged sets shown to a light client", 1);
        if self.client.clone().advance(forged).is_ok() {
            return Err(Violation::ForgedSetBelieved(at));
        }
        Ok(())
    }
}
