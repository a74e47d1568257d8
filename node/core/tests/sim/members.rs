//! Governance of a simulated chain: voters come, go, are replaced and weighed anew while everything else goes wrong.

use node_core::{
    consensus::{Input, Origin},
    crypto::{KeyPair, SigningBytes, verify_transaction},
    ledger::{account, highest_epoch, snapshot},
    session::{NewKey, SessionStatement},
    types::{
        AccountId, Epoch, GovernanceChange, Height, Identity, NewVoter, Nonce, Parameters, ParametersDraft, Payload,
        Power, SessionKey, Transaction, TransactionBody, TransactionSignature,
    },
};

use super::{
    checks::Violation,
    people,
    world::{Event, World},
};

/// Nodes that may be voters: those of genesis and a few more.
const NODES: u64 = 8;
/// For how many blocks a governance transaction is valid.
const VALID_BLOCKS: u64 = 20;

/// What governance has signed last.
#[derive(Default)]
pub struct Governor {
    outstanding: Option<Transaction>,
    /// How many keys it has replaced in turn.
    rekeyed: usize,
}

impl World {
    /// Governance submits a change, or the last one again while it may still count.
    pub fn govern(&mut self) -> Result<(), Violation> {
        if self.healed {
            return Ok(());
        }
        let pause = if self.plan.rekeyed { self.dice.between(100, 200) } else { self.dice.between(200, 900) };
        self.after(pause, Event::Govern);
        let executed = |volume: &usize| snapshot(&self.volumes[*volume].store).unwrap().map(|now| now.progress.height);
        let Some(best) = (0..self.volumes.len()).max_by_key(executed) else { return Ok(()) };
        let height = executed(&best).unwrap_or_default();
        let nonce = account(&self.volumes[best].store, &AccountId::governance()).unwrap().nonce;
        let waits =
            |transaction: &&Transaction| transaction.body().nonce == nonce && transaction.body().valid_until > height;
        let transaction = match self.governor.outstanding.as_ref().filter(waits) {
            Some(transaction) => transaction.clone(),
            None => {
                let Some(change) = self.some_change(best) else { return Ok(()) };
                self.signed_change(nonce, height, change)
            }
        };
        self.usurp(nonce, height)?;
        self.governor.outstanding = Some(transaction.clone());
        let verified = verify_transaction(transaction).expect("signed by governance");
        let alive: Vec<usize> = self.alive.iter().copied().collect();
        for _ in 0..2 {
            if let Some(process) = alive.get(self.dice.below(alive.len() as u64) as usize) {
                let input = Input::Submitted { origin: Origin::Client, transactions: vec![verified.clone()] };
                self.feed(*process, input)?;
            }
        }
        Ok(())
    }

    /// Two of the three governors sign a change, sometimes all.
    pub fn signed_change(&mut self, nonce: Nonce, height: Height, change: GovernanceChange) -> Transaction {
        let missing = self.dice.below(4) as usize;
        let mut signers = people::governors().to_vec();
        if missing < signers.len() {
            signers.remove(missing);
        }
        self.change_by(&signers, nonce, height, change)
    }

    /// A change that these keys sign, in their order.
    pub fn change_by(
        &self,
        signers: &[KeyPair],
        nonce: Nonce,
        height: Height,
        change: GovernanceChange,
    ) -> Transaction {
        let body = TransactionBody {
            incarnation: self.genesis.incarnation(),
            sender: AccountId::governance(),
            nonce,
            valid_until: height.saturating_add(VALID_BLOCKS),
            payload: Payload::Governance(change),
        };
        let bytes = SigningBytes::transaction(&body);
        let sign = |key: &KeyPair| TransactionSignature { key: key.public(), signature: key.sign(&bytes) };
        Transaction::new(body, signers.iter().map(sign).collect()).unwrap()
    }

    /// A change that may or may not be within the bounds.
    fn some_change(&mut self, best: usize) -> Option<GovernanceChange> {
        let voters = self.checks.newest_voters().clone();
        let voter = |node: &u64| voters.get(&people::identity(*node)).copied();
        let inside: Vec<u64> = (0..NODES).filter(|node| voter(node).is_some()).collect();
        let outside: Vec<u64> = (0..NODES).filter(|node| voter(node).is_none()).collect();
        let one_in = inside[self.dice.below(inside.len() as u64) as usize];
        let one_out = outside.get(self.dice.below(outside.len().max(1) as u64) as usize).copied();
        if self.plan.rekeyed {
            let next = inside[self.governor.rekeyed % inside.len()];
            self.governor.rekeyed += 1;
            let voter = self.candidate(best, next, voter(&next)?.power.get());
            return Some(GovernanceChange::ReplaceVoter { former: voter.identity, voter });
        }
        let identity = people::identity(one_in);
        let stays = self.plan.powers_stay;
        let power = if stays { self.plan.powers[0] } else { self.dice.between(1, 4) };
        Some(match self.dice.below(9) {
            4 | 7 if stays => return None,
            0 | 1 => GovernanceChange::AddVoter(self.candidate(best, one_out?, power)),
            2 => GovernanceChange::RemoveVoter { identity },
            3 => {
                let voter = self.candidate(best, one_out?, voter(&one_in)?.power.get());
                GovernanceChange::ReplaceVoter { former: identity, voter }
            }
            4 => GovernanceChange::SetPower { identity, power: Power::new(power) },
            5 => {
                let voter = self.candidate(best, one_in, voter(&one_in)?.power.get());
                GovernanceChange::ReplaceVoter { former: identity, voter }
            }
            6 => {
                let block_interval_ms = self.dice.between(150, 300);
                let draft = ParametersDraft { block_interval_ms, ..ParametersDraft::clone(&self.genesis.parameters) };
                GovernanceChange::SetParameters(Parameters::new(draft).unwrap())
            }
            7 => {
                // Much more power at once than the bound allows, most of the time.
                GovernanceChange::SetPower { identity, power: Power::new(self.dice.between(3, 30)) }
            }
            _ => {
                let node = outside.iter().copied().find(|node| *node < self.plan.powers.len() as u64)?;
                GovernanceChange::AddVoter(self.with_old_key(best, node))
            }
        })
    }

    /// A node that is to be a voter: its process makes the key and proves that it holds it.
    fn candidate(&mut self, best: usize, node: u64, power: u64) -> NewVoter {
        let process = match self.process_of(node) {
            Some(process) => process,
            None => match self.processes.iter().rposition(|process| process.node == node) {
                // It crashed and comes back: its volume is the same.
                Some(former) => former,
                None => self.start_empty(node),
            },
        };
        let (identity, epoch) = (people::identity(node), self.next_epoch(best, node));
        let seed = self.dice.bytes();
        let (claim, owner) = (self.processes[process].claim, self.processes[process].owner);
        let volume = self.processes[process].volume;
        let key = self.volumes[volume].keys.make(NewKey { seed, epoch, claim: Some(claim), owner });
        let key = key.expect("few keys are made");
        self.checks.key_made(identity, key.session_key());
        let session_key = key.session_key();
        let incarnation = self.genesis.incarnation();
        let statement = SessionStatement::voter_possession(&incarnation, &identity, epoch, &session_key);
        let possession = key.sign(&statement);
        self.after(2, Event::Feed { process, input: Box::new(Input::Made { key, epoch }) });
        NewVoter { identity, power: Power::new(power), epoch, session_key, possession }
    }

    /// A former voter of genesis with the key that it had then.
    fn with_old_key(&mut self, best: usize, node: u64) -> NewVoter {
        let (identity, epoch) = (people::identity(node), self.next_epoch(best, node));
        let key = KeyPair::from_seed(people::first_session_seed(node));
        let session_key = SessionKey::new(key.public());
        let bytes = SigningBytes::voter_possession(&self.genesis.incarnation(), &identity, epoch, &session_key);
        NewVoter { identity, power: Power::new(1), epoch, session_key, possession: key.sign(&bytes) }
    }

    fn next_epoch(&self, best: usize, node: u64) -> Epoch {
        let identity: Identity = people::identity(node);
        let highest = highest_epoch(&self.volumes[best].store, &identity).unwrap();
        highest.map_or(Epoch::FIRST, |highest| highest.saturating_add(1))
    }

    pub fn count_change(&mut self, change: &GovernanceChange) {
        self.counts.add(
            match change {
                GovernanceChange::AddVoter(_) => "voters added",
                GovernanceChange::ReplaceVoter { former, voter } if *former == voter.identity => {
                    "voters with another key"
                }
                GovernanceChange::ReplaceVoter { .. } => "voters replaced",
                GovernanceChange::RemoveVoter { .. } => "voters removed",
                GovernanceChange::SetPower { .. } => "powers changed",
                GovernanceChange::SetParameters(_) => "parameters changed",
                GovernanceChange::SetKeys(_) => "governance keys changed",
            },
            1,
        );
    }
}
