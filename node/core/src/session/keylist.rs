//! The session keys on a volume: their epochs, claims, owners and states, and the only ways in which these change.

use thiserror::Error;

use super::{ClearedKey, HeldKey, NotCleared, Succession, TakeOver, TripwireResult, clearance::passed};
use crate::{
    codec::{Decode, DecodeError, Encode, Reader, Writer},
    crypto::KeyPair,
    types::{Epoch, Height, SessionKey, TimeMs, Uid},
};

const KEY_LIST_VERSION: u8 = 1;
/// The most keys on one volume, retired ones that are not erased yet included.
const KEYS_MAX: usize = 64;

/// A process that may use a key: which pod, which start of its container, which boot of which machine.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Owner {
    /// The UID of the pod; outside Kubernetes the configured instance id.
    pub pod: Uid,
    /// When the container was started, which tells two starts in one pod apart.
    pub container_start: TimeMs,
    /// The boot id of the kernel. Nothing in a sandbox, whose kernel is not the machine's: there it does not count.
    pub boot: Option<Uid>,
    /// The UUID of the machine. Nothing if it is unknown or plainly not unique, and in a sandbox.
    pub machine: Option<Uid>,
}

/// What became of a key on the chain.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum KeyState {
    /// Made here; no voter set names it yet.
    Proposed = 1,
    /// A voter set names it.
    Effective = 2,
    /// The first height of its successor is decided: never used again, to be erased.
    Retired = 3,
}

/// One key of the volume.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KeyEntry {
    pub(super) pair: KeyPair,
    pub(super) epoch: Epoch,
    pub(super) claim: Option<Uid>,
    pub(super) owner: Owner,
    pub(super) state: KeyState,
    pub(super) released: bool,
}

/// Why the list refuses a change.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum KeyListError {
    /// The volume has as many keys as it may have.
    #[error("the volume already holds 64 session keys")]
    Full,
    /// The key is on the volume already.
    #[error("session key {key} is on the volume already")]
    Duplicate {
        /// The key.
        key: SessionKey,
    },
    /// The key is not on the volume.
    #[error("session key {key} is not on the volume")]
    Unknown {
        /// The key.
        key: SessionKey,
    },
    /// The key has changed its owner or state since it was decided to take it over.
    #[error("session key {key} has changed since the decision to take it over")]
    Changed {
        /// The key.
        key: SessionKey,
    },
}

/// A new key: what the caller must know and draw.
#[derive(Clone, Debug)]
pub struct NewKey {
    /// 32 random bytes.
    pub seed: [u8; 32],
    /// The epoch that it will be proposed for.
    pub epoch: Epoch,
    /// The claim of the volume, if this process knows it yet.
    pub claim: Option<Uid>,
    /// This process.
    pub owner: Owner,
}

/// The list as it stands on the volume. Every method that changes it must be followed by a durable write of the whole
/// list (file and directory) before anything that the change allows leaves the process.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct KeyList {
    entries: Vec<KeyEntry>,
}

impl KeyEntry {
    /// The public key.
    #[must_use]
    pub fn session_key(&self) -> SessionKey {
        SessionKey::new(self.pair.public())
    }

    /// The epoch it was proposed for, or has.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The claim of the volume on which it was made; nothing while its maker has not learnt it.
    #[must_use]
    pub fn claim(&self) -> Option<Uid> {
        self.claim
    }

    /// Who may use it.
    #[must_use]
    pub fn owner(&self) -> &Owner {
        &self.owner
    }

    /// What became of it on the chain.
    #[must_use]
    pub fn state(&self) -> KeyState {
        self.state
    }

    /// Whether its owner released it as the last durable act before its end.
    #[must_use]
    pub fn released(&self) -> bool {
        self.released
    }
}

impl KeyList {
    /// An empty volume.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// All keys in the order in which they were made.
    #[must_use]
    pub fn entries(&self) -> &[KeyEntry] {
        &self.entries
    }

    /// One key.
    #[must_use]
    pub fn get(&self, key: &SessionKey) -> Option<&KeyEntry> {
        self.entries.iter().find(|entry| entry.session_key() == *key)
    }

    /// *Make*: a key that this process makes is cleared for it. Changes no other key's owner.
    pub fn make(&mut self, new: NewKey) -> Result<ClearedKey, KeyListError> {
        let NewKey { seed, epoch, claim, owner } = new;
        let pair = KeyPair::from_seed(seed);
        let key = SessionKey::new(pair.public());
        if self.entries.len() >= KEYS_MAX {
            return Err(KeyListError::Full);
        }
        if self.get(&key).is_some() {
            return Err(KeyListError::Duplicate { key });
        }
        let cleared = ClearedKey { pair: pair.clone(), nothing_up_to: Height::ZERO };
        self.entries.push(KeyEntry { pair, epoch, claim, owner, state: KeyState::Proposed, released: false });
        Ok(cleared)
    }

    /// *Take over*: writes this process as the owner of one key. Changes no other key's owner.
    pub fn take_over(&mut self, decision: &TakeOver) -> Result<ClearedKey, KeyListError> {
        let HeldKey { pair, .. } = self.hold(decision.succession())?;
        Ok(ClearedKey { pair, nothing_up_to: decision.nothing_up_to() })
    }

    /// Writes this process as the owner of one key without clearing it: the key signs no vote until [`KeyList::clear`].
    pub fn hold(&mut self, succession: &Succession) -> Result<HeldKey, KeyListError> {
        let key = succession.key();
        let entry = self.find(&key)?;
        if entry.owner != *succession.former() || entry.state == KeyState::Retired {
            return Err(KeyListError::Changed { key });
        }
        entry.owner = *succession.owner();
        entry.released = false;
        Ok(HeldKey { pair: entry.pair.clone(), owner: entry.owner })
    }

    /// Clears a key that this process holds, once the tripwire has passed. Changes nothing on the volume.
    pub fn clear(
        &self,
        held: &HeldKey,
        tripwire: &TripwireResult,
    ) -> Result<Result<ClearedKey, NotCleared>, KeyListError> {
        let key = held.session_key();
        let entry = self.get(&key).ok_or(KeyListError::Unknown { key })?;
        if entry.owner != held.owner || entry.state == KeyState::Retired {
            return Err(KeyListError::Changed { key });
        }
        Ok(passed(tripwire).map(|nothing_up_to| ClearedKey { pair: held.pair.clone(), nothing_up_to }))
    }

    /// Releases every key of this process: the last durable act of a clean stop.
    pub fn release(&mut self, owner: &Owner) {
        for entry in self.entries.iter_mut().filter(|entry| entry.owner == *owner) {
            entry.released = true;
        }
    }

    /// Writes the claim of the volume into keys that this pod made before it knew its claim.
    pub fn learn_claim(&mut self, pod: Uid, claim: Uid) {
        for entry in self.entries.iter_mut().filter(|entry| entry.owner.pod == pod && entry.claim.is_none()) {
            entry.claim = Some(claim);
        }
    }

    /// Proposes a key again, for another epoch: another rotation was executed first.
    pub fn propose_again(&mut self, key: &SessionKey, epoch: Epoch) -> Result<(), KeyListError> {
        self.find(key)?.epoch = epoch;
        Ok(())
    }

    /// A voter set names the key.
    pub fn mark_effective(&mut self, key: &SessionKey) -> Result<(), KeyListError> {
        let entry = self.find(key)?;
        if entry.state == KeyState::Proposed {
            entry.state = KeyState::Effective;
        }
        Ok(())
    }

    /// The first height of the key's successor is decided.
    pub fn retire(&mut self, key: &SessionKey) -> Result<(), KeyListError> {
        self.find(key)?.state = KeyState::Retired;
        Ok(())
    }

    /// Erases retired keys. They must have been written as retired before, so that a crash never finds them usable.
    pub fn erase_retired(&mut self) {
        self.entries.retain(|entry| entry.state != KeyState::Retired);
    }

    fn find(&mut self, key: &SessionKey) -> Result<&mut KeyEntry, KeyListError> {
        let found = self.entries.iter_mut().find(|entry| entry.session_key() == *key);
        found.ok_or(KeyListError::Unknown { key: *key })
    }
}

impl Encode for Owner {
    fn encode_to(&self, writer: &mut Writer) {
        self.pod.encode_to(writer);
        self.container_start.encode_to(writer);
        writer.option(self.boot.as_ref());
        writer.option(self.machine.as_ref());
    }
}

impl Decode for Owner {
    fn decode_from(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            pod: Uid::decode_from(reader)?,
            container_start: TimeMs::decode_from(reader)?,
            boot: reader.option("boot id")?,
            machine: reader.option("machine uuid")?,
        })
    }
}

impl Encode for KeyEntry {
    fn encode_to(&self, writer: &mut Writer) {
        writer.raw(&self.pair.seed());
        self.epoch.encode_to(writer);
        writer.option(self.claim.as_ref());
        self.owner.encode_to(writer);
        writer.u8(self.state as u8);
        writer.u8(u8::from(self.released));
    }
}

impl Decode for KeyEntry {
    fn decode_from(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            pair: KeyPair::from_seed(reader.array("session key seed")?),
            epoch: Epoch::decode_from(reader)?,
            claim: reader.option("claim")?,
            owner: Owner::decode_from(reader)?,
            state: match reader.u8("key state")? {
                1 => KeyState::Proposed,
                2 => KeyState::Effective,
                3 => KeyState::Retired,
                found => return Err(DecodeError::UnknownTag { field: "key state", found }),
            },
            released: match reader.u8("released")? {
                0 => false,
                1 => true,
                found => return Err(DecodeError::UnknownTag { field: "released", found }),
            },
        })
    }
}

impl Encode for KeyList {
    fn encode_to(&self, writer: &mut Writer) {
        writer.u8(KEY_LIST_VERSION);
        writer.list(&self.entries);
    }
}

impl Decode for KeyList {
    fn decode_from(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.version("KeyList", KEY_LIST_VERSION)?;
        let list = Self { entries: reader.list("session keys", KEYS_MAX)? };
        let mut keys: Vec<SessionKey> = list.entries.iter().map(KeyEntry::session_key).collect();
        keys.sort();
        keys.dedup();
        if keys.len() != list.entries.len() {
            return Err(DecodeError::invalid("KeyList", "a key appears twice"));
        }
        Ok(list)
    }
}
