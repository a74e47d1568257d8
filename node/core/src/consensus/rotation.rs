//! The session of this node on the chain: asks for another key when it has none, objects when its own is challenged.

use std::collections::{BTreeMap, BTreeSet};

use super::{Alarm, Effect, Engine, engine::SessionState};
use crate::{
    crypto::{RotationTerms, SigningBytes, VerifiedTransaction, verify_transaction},
    ledger::SESSION_VALIDITY_BLOCKS_MAX,
    session::{ClearedKey, SessionStatement, Signer},
    types::{
        Epoch, Height, KeepSession, Nonce, Payload, PeerMessage, RotateSession, SessionKey, Transaction,
        TransactionBody, TransactionSignature, VoterEntry,
    },
};

/// A chain is live while its last block is at most this many intervals old here, or [`LIVE_MS_MIN`].
const LIVE_INTERVALS: u64 = 10;
/// See [`LIVE_INTERVALS`], milliseconds.
const LIVE_MS_MIN: u64 = 10_000;
/// How long a node that has caught up with a living chain waits for proof that it may use a key of its volume, before it
/// asks for another one, milliseconds. Proof may still come later; this only spares rotations that a slow operator, or
/// many blocks to catch up with, would cause.
const PATIENCE_MS: u64 = 5_000;
/// Peers are told of a rotation again after this long: the ones that were connected may all have forgotten it.
const TOLD_AGAIN_MS: u64 = 2_000;
/// After so many blocks an objection is sent again.
const OBJECTION_REPEATED_BLOCKS: u64 = 2;

/// What the engine remembers of its session.
#[derive(Debug, Default)]
pub struct SessionKeeper {
    /// Keys of this volume that a voter set named: cleared or not.
    effective: BTreeSet<SessionKey>,
    /// Keys of this volume that were made for an epoch, and what became of them is not told apart.
    made: BTreeMap<SessionKey, Epoch>,
    /// The epoch for which a key is being made.
    making: Option<Epoch>,
    /// The rotation that is on its way.
    asked: Option<AskedRotation>,
    /// The height at which the last objection was sent.
    objected: Option<Height>,
    /// When this node first needed another key and had caught up.
    waits_since_ms: Option<u64>,
    contested: bool,
    stopped: bool,
}

/// A rotation that this node asked for.
#[derive(Clone, Debug)]
struct AskedRotation {
    transaction: Transaction,
    /// The last height at which it can be executed.
    valid_until: Height,
    /// When peers were told last.
    told_ms: u64,
}

impl SessionKeeper {
    /// With the keys of the volume.
    pub fn new(effective_keys: Vec<SessionKey>, proposed_keys: Vec<(SessionKey, Epoch)>) -> Self {
        Self {
            effective: effective_keys.into_iter().collect(),
            made: proposed_keys.into_iter().collect(),
            ..Self::default()
        }
    }

    /// The key is on this volume.
    pub fn is_on_volume(&self, key: &SessionKey, signer: &Signer) -> bool {
        self.effective.contains(key) || self.made.contains_key(key) || signer.is_cleared(key)
    }

    /// The key is erased.
    pub fn retired(&mut self, key: &SessionKey) {
        self.effective.remove(key);
        self.made.remove(key);
    }

    /// Signs nothing more in this process.
    pub fn stop(&mut self) {
        self.stopped = true;
    }

    /// See [`SessionKeeper::stop`].
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }
}

impl Engine {
    /// A key of the volume is cleared.
    pub(super) fn on_cleared(&mut self, key: ClearedKey) {
        if self.log_broken {
            return;
        }
        if self.faults.record_ignored {
            self.fault_keys.push(key.clone());
        }
        self.signer.add_key(key);
        self.rebuild_core();
        self.look_after_session();
    }

    /// A new key is on the volume.
    pub(super) fn on_made(&mut self, key: ClearedKey, epoch: Epoch) {
        self.session.making = None;
        self.session.made.insert(key.session_key(), epoch);
        if self.faults.record_ignored {
            self.fault_keys.push(key.clone());
        }
        self.signer.add_key(key);
        self.rebuild_core();
        self.look_after_session();
    }

    /// This node has accepted a recovery: for the incarnation that ends it signs nothing more. Nor does it commit a block
    /// there: votes from before the loss may still add up to a quorum, and the recovery goes on without that block.
    pub(super) fn on_superseded(&mut self) {
        if !self.faults.old_incarnation_kept {
            self.superseded = true;
            self.signer.stop();
            self.session.stop();
            self.stop_core();
        }
    }

    /// What a session says about itself.
    pub(super) fn session_state(&self) -> SessionState {
        let Some(entry) = self.newest_entry() else { return SessionState::NotAVoter };
        if self.session.stopped {
            SessionState::Stopped
        } else if self.session.contested {
            SessionState::IdentityContested
        } else if self.signer.is_cleared(&entry.session_key) {
            SessionState::Effective
        } else if self.session.asked.is_some() || self.chain.pending_rotation(&self.identity).is_some() {
            SessionState::Rotating
        } else {
            SessionState::Waiting
        }
    }

    /// The own entry among the newest voters.
    fn newest_entry(&self) -> Option<VoterEntry> {
        self.chain.newest_voters()?.get(&self.identity).copied()
    }

    /// Does for the session what the chain's state asks for. Called often; everything it does it does once.
    pub(super) fn look_after_session(&mut self) {
        let Some(entry) = self.newest_entry().filter(|_| self.started && !self.session.stopped) else { return };
        self.note_effective(&entry);
        if self.session.contested {
            return;
        }
        let holds = self.signer.is_cleared(&entry.session_key);
        match self.chain.pending_rotation(&self.identity).map(|pending| (pending.new_key, pending.epoch)) {
            Some((new_key, _)) if self.signer.is_cleared(&new_key) => {}
            Some((new_key, epoch)) if holds => self.object(&entry, new_key, epoch),
            Some(_) => {}
            None if holds => self.session.asked = None,
            None => self.ask_rotation(&entry),
        }
    }

    /// Follows what the chain names: a new key of this volume is effective; a key of somebody else in the place of one
    /// that was effective here means that the identity is used elsewhere.
    fn note_effective(&mut self, entry: &VoterEntry) {
        let key = entry.session_key;
        if self.session.is_on_volume(&key, &self.signer) {
            self.session.contested = false;
            if self.session.effective.insert(key) {
                self.out.push(Effect::KeyEffective(key));
            }
            self.retire_outdated(entry);
        } else if !self.session.effective.is_empty() && !self.session.contested {
            self.session.contested = true;
            self.out.push(Effect::Alarm(Alarm::IdentityContested { epoch: entry.epoch }));
        }
    }

    /// Keys that were made for an epoch that another key has now can never count.
    fn retire_outdated(&mut self, entry: &VoterEntry) {
        let pending = self.chain.pending_rotation(&self.identity).map(|pending| pending.new_key);
        let SessionKeeper { made, effective, .. } = &self.session;
        let outdated = |(key, epoch): &(&SessionKey, &Epoch)| {
            **epoch <= entry.epoch && !effective.contains(key) && pending != Some(**key)
        };
        let keys: Vec<SessionKey> = made.iter().filter(outdated).map(|(key, _)| *key).collect();
        for key in keys {
            self.session.retired(&key);
            self.signer.remove_key(&key);
            self.out.push(Effect::RetireKey(key));
        }
    }

    /// Objects to a rotation that this node did not make.
    fn object(&mut self, entry: &VoterEntry, voided_key: SessionKey, voided_epoch: Epoch) {
        let executed = self.chain.executed();
        let repeated = |sent: Height| executed < sent.saturating_add(OBJECTION_REPEATED_BLOCKS);
        if self.session.objected.is_some_and(repeated) {
            return;
        }
        let valid_until = self.chain.tip().saturating_add(SESSION_VALIDITY_BLOCKS_MAX / 2);
        let terms = self.terms(voided_epoch, voided_key, valid_until);
        let statement = SessionStatement::keep_session(&terms);
        let Some(signature) = self.signer.key(&entry.session_key).map(|key| key.sign(&statement)) else { return };
        let keep = KeepSession { identity: self.identity, voided_epoch, voided_key, signature };
        let Ok(transaction) = Transaction::new(self.session_body(valid_until, Payload::KeepSession(keep)), Vec::new())
        else {
            return;
        };
        self.session.objected = Some(executed);
        self.submit_own(transaction);
    }

    /// Asks for a key of this volume: with the identity alone, for there is no cleared key to agree.
    fn ask_rotation(&mut self, entry: &VoterEntry) {
        let alone = self.chain.newest_voters().is_none_or(|voters| voters.count() == 1);
        if alone || self.identity_key.is_none() || !self.is_live() {
            return;
        }
        let since = *self.session.waits_since_ms.get_or_insert(self.now_ms);
        if self.now_ms.saturating_sub(since) < PATIENCE_MS {
            return;
        }
        let tip = self.chain.tip();
        if let Some(asked) = self.session.asked.as_mut().filter(|asked| asked.valid_until > tip) {
            if self.now_ms.saturating_sub(asked.told_ms) >= TOLD_AGAIN_MS {
                asked.told_ms = self.now_ms;
                let message = PeerMessage::Transactions(vec![asked.transaction.clone()]);
                self.out.push(Effect::Broadcast(message.into()));
            }
            return;
        }
        let epoch = entry.epoch.saturating_add(1);
        let usable = |(key, made): &(&SessionKey, &Epoch)| **made == epoch && self.signer.is_cleared(key);
        let made = self.session.made.iter().find(usable).map(|(key, _)| *key);
        match made {
            Some(new_key) => self.rotate_to(new_key, epoch),
            None if self.session.making == Some(epoch) => {}
            None => {
                self.session.making = Some(epoch);
                self.out.push(Effect::MakeKey { epoch });
            }
        }
    }

    fn rotate_to(&mut self, new_key: SessionKey, epoch: Epoch) {
        let valid_until = self.chain.tip().saturating_add(SESSION_VALIDITY_BLOCKS_MAX / 2);
        let terms = self.terms(epoch, new_key, valid_until);
        let statement = SessionStatement::rotation_possession(&terms);
        let Some(possession) = self.signer.key(&new_key).map(|key| key.sign(&statement)) else { return };
        let rotation = RotateSession { identity: self.identity, epoch, new_key, possession, co_signature: None };
        let body = self.session_body(valid_until, Payload::RotateSession(rotation));
        let Some(identity_key) = &self.identity_key else { return };
        let signature = identity_key.sign(&SigningBytes::transaction(&body));
        let signatures = vec![TransactionSignature { key: *self.identity.as_bytes(), signature }];
        if let Ok(transaction) = Transaction::new(body, signatures) {
            let told_ms = self.now_ms;
            self.session.asked = Some(AskedRotation { transaction: transaction.clone(), valid_until, told_ms });
            self.submit_own(transaction);
        }
    }

    fn terms(&self, epoch: Epoch, new_key: SessionKey, valid_until: Height) -> RotationTerms {
        RotationTerms { incarnation: *self.chain.incarnation(), identity: self.identity, epoch, new_key, valid_until }
    }

    fn session_body(&self, valid_until: Height, payload: Payload) -> TransactionBody {
        TransactionBody {
            incarnation: *self.chain.incarnation(),
            sender: self.identity.into(),
            nonce: Nonce::ZERO,
            valid_until,
            payload,
        }
    }

    /// Puts an own session transaction into the mempool and tells the peers.
    fn submit_own(&mut self, transaction: Transaction) {
        let verified: Option<VerifiedTransaction> = verify_transaction(transaction.clone()).ok();
        let voters = self.chain.newest_voters().cloned();
        if let (Some(verified), Some(voters)) = (verified, voters) {
            let id = verified.id();
            if let Err(reason) = self.mempool.add_session(verified, &voters) {
                self.out.push(Effect::Refused { id, reason });
            }
            self.out.push(Effect::Broadcast(PeerMessage::Transactions(vec![transaction]).into()));
        }
    }

    /// Not more than `f` power says that it is ahead by more than the height in progress: one voter who lies, or any
    /// number of others, cannot make a node believe that it is behind.
    pub(super) fn is_synced(&self) -> bool {
        let tip = self.chain.tip();
        let Some(voters) = self.chain.voters(tip.next()).or(self.chain.newest_voters()) else { return false };
        let powers =
            self.sync.peers_above(tip.next()).filter_map(|peer| voters.get(peer)).map(|entry| entry.power.get());
        powers.sum::<u64>() <= voters.fault_budget().get()
    }

    /// Blocks become final, and this node is not behind.
    fn is_live(&self) -> bool {
        let age_max = self.chain.parameters().block_interval_ms.saturating_mul(LIVE_INTERVALS).max(LIVE_MS_MIN);
        let fresh = self.committed_ms.is_some_and(|at| self.now_ms.saturating_sub(at) <= age_max);
        fresh && self.is_synced()
    }
}
