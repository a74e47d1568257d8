//! The session keys of this volume: which this process made or took over, and what it still waits for.

use std::collections::BTreeMap;

use node_api::{config::Instance, proto};
use node_core::{
    codec::{Decode, DecodeError, Encode},
    session::{
        ClearedKey, HeldKey, KeyEntry, KeyList, KeyListError, KeyState, NewKey, NotCleared, Owner, OwnerStatement,
        SessionStatement, SigningLog, StartGrant, Surroundings, TripwireResult, VolumeKind, VolumeLock, decide,
        decide_owner,
    },
    types::{Epoch, InvalidIdentifier, SessionKey, Signature, TimeMs, Uid},
};
use thiserror::Error;

use crate::adapters::{
    storage::{SessionStore, StorageError},
    volume::OwnerFacts,
};

/// Why the keys of the volume cannot be used or changed.
#[derive(Debug, Error)]
pub enum SessionsError {
    /// The list could not be read or written.
    #[error("failed to keep the session keys")]
    Storage(#[from] StorageError),
    /// The list is not one.
    #[error("failed to read the session keys")]
    Decode(#[from] DecodeError),
    /// The list does not allow the change.
    #[error("failed to change the session keys")]
    List(#[from] KeyListError),
    /// In Kubernetes the pod tells its UID.
    #[error("instance: {{kind: kubernetes}} needs the variable POD_UID: fill it from metadata.uid")]
    PodUid,
}

/// The keys, the only ways in which they change, and the durable write after each change.
#[derive(Debug)]
pub struct Sessions {
    store: SessionStore,
    list: KeyList,
    owner: Owner,
    grant: Option<StartGrant>,
    log: SigningLog,
    cleared: BTreeMap<SessionKey, ClearedKey>,
    /// Keys of an earlier process that this one owns since the ceremony. No vote is signed with them before the tripwire.
    held: BTreeMap<SessionKey, HeldKey>,
    standalone: bool,
}

impl Sessions {
    /// The keys on the volume. The caller holds the volume's lock.
    pub fn open(store: SessionStore, instance: &Instance, facts: &OwnerFacts) -> Result<Self, SessionsError> {
        let list = match store.read()? {
            Some(bytes) => KeyList::decode(&bytes)?,
            None => KeyList::new(),
        };
        let (pod, standalone) = match instance {
            Instance::Kubernetes => (facts.pod.ok_or(SessionsError::PodUid)?, false),
            Instance::Standalone { id } => (*id, true),
        };
        let owner = facts.owner(pod);
        // Outside Kubernetes the configured instance is its own claim; lock and boot id decide about the owner.
        let grant = standalone.then_some(StartGrant {
            pod,
            claim: pod,
            volume: VolumeKind::Network,
            owner: OwnerStatement::Unknown,
        });
        Ok(Self {
            store,
            list,
            owner,
            grant,
            log: SigningLog::Whole,
            cleared: BTreeMap::new(),
            held: BTreeMap::new(),
            standalone,
        })
    }

    /// The signing log of this volume cannot be read: no key that is on it now is ever cleared.
    pub fn log_is_broken(&mut self) {
        self.log = SigningLog::Broken;
    }

    /// Whether this volume ever had a key that could have signed.
    pub fn has_keys(&self) -> bool {
        !self.list.entries().is_empty()
    }

    /// Gives up every key of the volume, durably: nobody knows what they signed.
    pub fn retire_all(&mut self) -> Result<(), SessionsError> {
        self.keep_only(None)
    }

    /// Gives up every key of the volume but one, durably.
    pub fn keep_only(&mut self, kept: Option<&SessionKey>) -> Result<(), SessionsError> {
        let keys: Vec<SessionKey> = self.list.entries().iter().map(KeyEntry::session_key).collect();
        for key in keys.into_iter().filter(|key| Some(key) != kept) {
            self.list.retire(&key)?;
        }
        self.cleared.clear();
        self.held.clear();
        self.write()?;
        self.list.erase_retired();
        self.write()
    }

    /// The keys in one state.
    pub fn in_state(&self, state: KeyState) -> Vec<SessionKey> {
        self.list.entries().iter().filter(|entry| entry.state() == state).map(KeyEntry::session_key).collect()
    }

    /// The keys that no voter set has named yet, with the epochs for which they were made.
    pub fn proposed(&self) -> Vec<(SessionKey, Epoch)> {
        let proposed = self.list.entries().iter().filter(|entry| entry.state() == KeyState::Proposed);
        proposed.map(|entry| (entry.session_key(), entry.epoch())).collect()
    }

    /// The keys that this process may use.
    pub fn cleared(&self) -> impl Iterator<Item = &ClearedKey> {
        self.cleared.values()
    }

    /// One key, if this process may use it.
    pub fn cleared_key(&self, key: &SessionKey) -> Option<&ClearedKey> {
        self.cleared.get(key)
    }

    /// The newest key of the volume that may still be used.
    pub fn newest(&self) -> Option<&KeyEntry> {
        self.list.entries().iter().rev().find(|entry| entry.state() != KeyState::Retired)
    }

    /// One key of the volume.
    pub fn entry(&self, key: &SessionKey) -> Option<&KeyEntry> {
        self.list.get(key)
    }

    /// Makes a key that this process may use, durably.
    pub fn make(&mut self, epoch: Epoch) -> Result<ClearedKey, SessionsError> {
        let claim = self.claim();
        let new = NewKey { seed: rand::random(), epoch, claim, owner: self.owner };
        let key = self.list.make(new)?;
        self.write()?;
        tracing::info!(session_key = %key.session_key(), %epoch, "made a session key");
        self.cleared.insert(key.session_key(), key.clone());
        Ok(key)
    }

    /// Takes over one key of the volume, durably, if that is proved to be safe.
    pub fn take_over(
        &mut self,
        key: &SessionKey,
        tripwire: &TripwireResult,
    ) -> Result<Result<ClearedKey, NotCleared>, SessionsError> {
        if let Some(cleared) = self.cleared.get(key) {
            return Ok(Ok(cleared.clone()));
        }
        if let Some(held) = self.held.get(key) {
            return self.clear_held(&held.clone(), tripwire);
        }
        let decision = match decide(self.on_volume(key)?, &self.surroundings(), tripwire) {
            Ok(decision) => decision,
            Err(reason) => return Ok(Err(reason)),
        };
        let cleared = self.list.take_over(&decision)?;
        self.write()?;
        tracing::info!(
            session_key = %key,
            reason = ?decision.reason(),
            nothing_up_to = decision.nothing_up_to().get(),
            "took over a session key"
        );
        self.cleared.insert(*key, cleared.clone());
        Ok(Ok(cleared))
    }

    fn clear_held(
        &mut self,
        held: &HeldKey,
        tripwire: &TripwireResult,
    ) -> Result<Result<ClearedKey, NotCleared>, SessionsError> {
        let cleared = match self.list.clear(held, tripwire)? {
            Ok(cleared) => cleared,
            Err(reason) => return Ok(Err(reason)),
        };
        let key = cleared.session_key();
        tracing::info!(session_key = %key, nothing_up_to = cleared.nothing_up_to().get(), "cleared a session key");
        self.held.remove(&key);
        self.cleared.insert(key, cleared.clone());
        Ok(Ok(cleared))
    }

    /// Asks again about a key that abstains: where the chain stands still it may go on.
    pub fn ask_again(&mut self, key: &SessionKey, tripwire: &TripwireResult) -> Option<Result<ClearedKey, NotCleared>> {
        let again = self.cleared.get(key)?.asked_again(tripwire);
        if let Ok(again) = &again {
            tracing::info!(session_key = %key, nothing_up_to = again.nothing_up_to().get(), "a session key abstains no more");
            self.cleared.insert(*key, again.clone());
        }
        Some(again)
    }

    /// Becomes the owner of one key of the volume, durably, if its former owner has ended. The key then signs what a
    /// ceremony asks for. It signs no vote: that the volume was not rolled back is for the tripwire to say, once there
    /// is a chain.
    pub fn hold(&mut self, key: &SessionKey) -> Result<Result<(), NotCleared>, SessionsError> {
        if self.cleared.contains_key(key) || self.held.contains_key(key) {
            return Ok(Ok(()));
        }
        let succession = match decide_owner(self.on_volume(key)?, &self.surroundings()) {
            Ok(succession) => succession,
            Err(reason) => return Ok(Err(reason)),
        };
        let held = self.list.hold(&succession)?;
        self.write()?;
        tracing::info!(session_key = %key, reason = ?succession.reason(), "holds a session key");
        self.held.insert(*key, held);
        Ok(Ok(()))
    }

    /// Signs a statement that is not about a height with a key that this process made, took over or holds.
    pub fn sign(&self, key: &SessionKey, statement: &SessionStatement) -> Option<Signature> {
        let cleared = self.cleared.get(key).map(|key| key.sign(statement));
        cleared.or_else(|| self.held.get(key).map(|key| key.sign(statement)))
    }

    fn on_volume(&self, key: &SessionKey) -> Result<&KeyEntry, SessionsError> {
        Ok(self.list.get(key).ok_or(KeyListError::Unknown { key: *key })?)
    }

    /// The chain names the key.
    pub fn mark_effective(&mut self, key: &SessionKey) -> Result<(), SessionsError> {
        self.change(key, KeyList::mark_effective)
    }

    /// Retires a key, then erases it; a crash in between leaves it unusable.
    pub fn retire(&mut self, key: &SessionKey) -> Result<(), SessionsError> {
        self.cleared.remove(key);
        self.held.remove(key);
        self.change(key, KeyList::retire)?;
        self.list.erase_retired();
        self.write()
    }

    /// The last durable act of a clean stop.
    pub fn release(&mut self) -> Result<(), SessionsError> {
        self.cleared.clear();
        self.held.clear();
        self.list.release(&self.owner);
        self.write()
    }

    /// Takes what the operator says. The grant must be for this pod.
    pub fn grant(&mut self, grant: StartGrant) -> Result<(), SessionsError> {
        if self.standalone || grant.pod != self.owner.pod {
            return Ok(());
        }
        self.grant = Some(grant);
        self.list.learn_claim(grant.pod, grant.claim);
        self.write()
    }

    /// Who this process is.
    pub fn owner(&self) -> &Owner {
        &self.owner
    }

    /// The claim that this process knows.
    pub fn claim(&self) -> Option<Uid> {
        self.grant.as_ref().map(|grant| grant.claim)
    }

    /// What the node asks the operator about `key`, or in general while it has no key.
    pub fn start_request(&self, key: Option<&SessionKey>) -> proto::StartRequest {
        let owned = |key: &SessionKey| self.cleared.contains_key(key) || self.held.contains_key(key);
        let entry = key.and_then(|key| self.list.get(key)).filter(|entry| !owned(&entry.session_key()));
        let waits_for_owner =
            entry.is_some_and(|entry| matches!(decide_owner(entry, &self.surroundings()), Err(NotCleared::Waiting(_))));
        let shown = entry.or_else(|| key.and_then(|key| self.list.get(key)));
        proto::StartRequest {
            asking: self.claim().is_none() || waits_for_owner,
            own: Some(owner_to_proto(&self.owner)),
            owner: entry.filter(|_| waits_for_owner).map(|entry| owner_to_proto(entry.owner())),
            session_key: shown.map(|entry| entry.session_key().as_bytes().to_vec()).unwrap_or_default(),
            epoch: shown.map_or(0, |entry| entry.epoch().get()),
            key_claim_uid: shown.and_then(KeyEntry::claim).map(|claim| claim.hyphenated()).unwrap_or_default(),
            claim_uid: self.claim().map(|claim| claim.hyphenated()).unwrap_or_default(),
        }
    }

    fn surroundings(&self) -> Surroundings {
        Surroundings { owner: self.owner, lock: VolumeLock::Held, log: self.log, grant: self.grant }
    }

    fn change(
        &mut self,
        key: &SessionKey,
        change: impl FnOnce(&mut KeyList, &SessionKey) -> Result<(), KeyListError>,
    ) -> Result<(), SessionsError> {
        if self.list.get(key).is_none() {
            // Another volume's key, or one that was erased before a crash.
            return Ok(());
        }
        change(&mut self.list, key)?;
        self.write()
    }

    fn write(&self) -> Result<(), SessionsError> {
        Ok(self.store.write(&self.list.encode())?)
    }
}

/// An owner as the operator reads it.
fn owner_to_proto(owner: &Owner) -> proto::Owner {
    let Owner { pod, container_start, boot, machine } = owner;
    let text = |uid: &Option<Uid>| uid.map(|uid| uid.hyphenated()).unwrap_or_default();
    proto::Owner {
        pod_uid: pod.hyphenated(),
        started_ms: container_start.get(),
        boot_id: text(boot),
        machine_uuid: text(machine),
    }
}

/// An owner as the operator repeats it.
fn owner_from_proto(owner: &proto::Owner) -> Result<Owner, InvalidIdentifier> {
    let optional = |text: &str| if text.is_empty() { Ok(None) } else { Uid::parse(text).map(Some) };
    Ok(Owner {
        pod: Uid::parse(&owner.pod_uid)?,
        container_start: TimeMs::new(owner.started_ms),
        boot: optional(&owner.boot_id)?,
        machine: optional(&owner.machine_uuid)?,
    })
}

/// A grant as the core judges it.
pub fn grant_from_proto(grant: &proto::StartGrant) -> Result<StartGrant, InvalidIdentifier> {
    let volume = match grant.volume_kind() {
        proto::VolumeKind::NodeLocal => VolumeKind::NodeLocal,
        proto::VolumeKind::Fencing => VolumeKind::Fencing,
        proto::VolumeKind::Other | proto::VolumeKind::Unspecified => VolumeKind::Network,
    };
    let owner = match (grant.owner_ended(), &grant.owner) {
        (proto::OwnerEnded::TerminatedByKubelet, Some(owner)) => OwnerStatement::Terminated(owner_from_proto(owner)?),
        // The other two follow from the kind of volume.
        _ => OwnerStatement::Unknown,
    };
    Ok(StartGrant { pod: Uid::parse(&grant.pod_uid)?, claim: Uid::parse(&grant.claim_uid)?, volume, owner })
}
