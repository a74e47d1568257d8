//! The session keys of this volume: which this process made or took over, and what it still waits for.

use std::collections::BTreeMap;

use node_api::{config::Instance, proto};
use node_core::{
    codec::{Decode, DecodeError, Encode},
    session::{
        ClearedKey, KeyEntry, KeyList, KeyListError, KeyState, NewKey, NotCleared, Owner, OwnerStatement, SigningLog,
        StartGrant, Surroundings, TripwireResult, VolumeKind, VolumeLock, decide,
    },
    types::{Epoch, Height, InvalidIdentifier, SessionKey, TimeMs, Uid},
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
        Ok(Self { store, list, owner, grant, log: SigningLog::Whole, cleared: BTreeMap::new(), standalone })
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
        let keys: Vec<SessionKey> = self.list.entries().iter().map(KeyEntry::session_key).collect();
        for key in keys {
            self.list.retire(&key)?;
        }
        self.cleared.clear();
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
        let Some(entry) = self.list.get(key) else { return Err(KeyListError::Unknown { key: *key }.into()) };
        let decision = match decide(entry, &self.surroundings(), tripwire) {
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

    /// The chain names the key.
    pub fn mark_effective(&mut self, key: &SessionKey) -> Result<(), SessionsError> {
        self.change(key, KeyList::mark_effective)
    }

    /// Retires a key, then erases it; a crash in between leaves it unusable.
    pub fn retire(&mut self, key: &SessionKey) -> Result<(), SessionsError> {
        self.cleared.remove(key);
        self.change(key, KeyList::retire)?;
        self.list.erase_retired();
        self.write()
    }

    /// The last durable act of a clean stop.
    pub fn release(&mut self) -> Result<(), SessionsError> {
        self.cleared.clear();
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
        let entry =
            key.and_then(|key| self.list.get(key)).filter(|entry| !self.cleared.contains_key(&entry.session_key()));
        let waits_for_owner = entry.is_some_and(|entry| {
            let answered = TripwireResult::Passed { nothing_up_to: Height::ZERO };
            matches!(decide(entry, &self.surroundings(), &answered), Err(NotCleared::Waiting(_)))
        });
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
