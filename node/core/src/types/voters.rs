//! Voter sets: who votes at a height, with which power and which session key.

use std::collections::BTreeSet;

use thiserror::Error;

use super::{Epoch, Hash, Height, Identity, Power, SessionKey};
use crate::codec::{Decode, DecodeError, Encode, Reader, Writer};

/// The most voters of one chain.
pub const VOTERS_MAX: usize = 256;
/// The most power of one set, so that thrice a sum of powers fits 64 bits.
const TOTAL_POWER_MAX: u64 = u64::MAX / 8;

/// Why entries are not a voter set.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum VoterSetError {
    /// No voters, or more than [`VOTERS_MAX`].
    #[error("a voter set has 1 to 256 entries, not {found}")]
    Count {
        /// How many there are.
        found: usize,
    },
    /// An identity has two entries.
    #[error("identity {identity} appears twice")]
    DuplicateIdentity {
        /// The identity.
        identity: Identity,
    },
    /// Two voters have one session key.
    #[error("session key {session_key} appears twice")]
    DuplicateSessionKey {
        /// The key.
        session_key: SessionKey,
    },
    /// A voter without power.
    #[error("voter {identity} has no power")]
    NoPower {
        /// The identity.
        identity: Identity,
    },
    /// The powers do not fit.
    #[error("the sum of all power is too large")]
    PowerOverflow,
}

/// One voter of one height.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct VoterEntry {
    /// The voter.
    pub identity: Identity,
    /// Its weight, at least 1.
    pub power: Power,
    /// The key that signs its proposals and votes.
    pub session_key: SessionKey,
    /// The number of that key.
    pub epoch: Epoch,
}

/// The voters of one height in ascending order of identity.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct VoterSet {
    entries: Vec<VoterEntry>,
    total_power: Power,
}

impl VoterSet {
    /// A set from entries in any order.
    pub fn new(mut entries: Vec<VoterEntry>) -> Result<Self, VoterSetError> {
        if entries.is_empty() || entries.len() > VOTERS_MAX {
            return Err(VoterSetError::Count { found: entries.len() });
        }
        entries.sort_by_key(|entry| entry.identity);
        let mut total: u64 = 0;
        let mut keys = BTreeSet::new();
        let mut previous = None;
        for VoterEntry { identity, power, session_key, epoch: _ } in entries.iter().copied() {
            if previous == Some(identity) {
                return Err(VoterSetError::DuplicateIdentity { identity });
            }
            if !keys.insert(session_key) {
                return Err(VoterSetError::DuplicateSessionKey { session_key });
            }
            if power == Power::ZERO {
                return Err(VoterSetError::NoPower { identity });
            }
            total = total.checked_add(power.get()).ok_or(VoterSetError::PowerOverflow)?;
            previous = Some(identity);
        }
        if total > TOTAL_POWER_MAX {
            return Err(VoterSetError::PowerOverflow);
        }
        Ok(Self { entries, total_power: Power::new(total) })
    }

    /// The entries in ascending order of identity.
    #[must_use]
    pub fn entries(&self) -> &[VoterEntry] {
        &self.entries
    }

    /// The number of voters.
    #[must_use]
    pub fn count(&self) -> usize {
        self.entries.len()
    }

    /// The entry of an identity.
    #[must_use]
    pub fn get(&self, identity: &Identity) -> Option<&VoterEntry> {
        self.entries
            .binary_search_by_key(identity, |entry| entry.identity)
            .ok()
            .and_then(|index| self.entries.get(index))
    }

    /// `P`: the power of all.
    #[must_use]
    pub fn total_power(&self) -> Power {
        self.total_power
    }

    /// `f`: how much power may fail: `floor((P - 1) / 3)`.
    #[must_use]
    pub fn fault_budget(&self) -> Power {
        Power::new(self.total_power.get().saturating_sub(1) / 3)
    }

    /// The least power that decides: more than two thirds of `P`.
    #[must_use]
    pub fn quorum(&self) -> Power {
        Power::new(self.total_power.get() * 2 / 3 + 1)
    }

    /// The hash of the set.
    #[must_use]
    pub fn hash(&self) -> Hash {
        Hash::tagged("althing/voter-set/1", &self.encode())
    }

    /// The same set with one entry in place of that of the same identity. Nothing if that identity is no voter.
    pub fn with_entry(&self, replacement: VoterEntry) -> Result<Option<Self>, VoterSetError> {
        if self.get(&replacement.identity).is_none() {
            return Ok(None);
        }
        let same = |entry: &VoterEntry| entry.identity == replacement.identity;
        Self::new(self.entries.iter().map(|entry| if same(entry) { replacement } else { *entry }).collect()).map(Some)
    }
}

/// What a header says about voters: the set of its height and the set of the next.
#[must_use]
pub fn voters_hash(this: &VoterSet, next: &VoterSet) -> Hash {
    let mut bytes = Vec::with_capacity(64);
    bytes.extend_from_slice(this.hash().as_bytes());
    bytes.extend_from_slice(next.hash().as_bytes());
    Hash::tagged("althing/voters/1", &bytes)
}

/// The voters of the three heights after the last executed one: all that execution has decided so far.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PendingSets {
    /// The set of `h + 1`.
    pub first: VoterSet,
    /// The set of `h + 2`.
    pub second: VoterSet,
    /// The set of `h + 3`.
    pub third: VoterSet,
}

impl PendingSets {
    /// Genesis gives the first three heights the same voters.
    #[must_use]
    pub fn from_genesis(voters: &VoterSet) -> Self {
        Self { first: voters.clone(), second: voters.clone(), third: voters.clone() }
    }

    /// The set of a height, when the last executed height is `executed`.
    #[must_use]
    pub fn at(&self, executed: Height, height: Height) -> Option<&VoterSet> {
        match height.get().checked_sub(executed.get()) {
            Some(1) => Some(&self.first),
            Some(2) => Some(&self.second),
            Some(3) => Some(&self.third),
            _ => None,
        }
    }
}

impl Encode for VoterEntry {
    fn encode_to(&self, writer: &mut Writer) {
        self.identity.encode_to(writer);
        self.power.encode_to(writer);
        self.session_key.encode_to(writer);
        self.epoch.encode_to(writer);
    }
}

impl Decode for VoterEntry {
    fn decode_from(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            identity: Identity::decode_from(reader)?,
            power: Power::decode_from(reader)?,
            session_key: SessionKey::decode_from(reader)?,
            epoch: Epoch::decode_from(reader)?,
        })
    }
}

impl Encode for VoterSet {
    fn encode_to(&self, writer: &mut Writer) {
        writer.list(&self.entries);
    }
}

impl Decode for VoterSet {
    fn decode_from(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let entries: Vec<VoterEntry> = reader.list("voter entries", VOTERS_MAX)?;
        let set = Self::new(entries.clone()).map_err(|error| DecodeError::invalid("VoterSet", error))?;
        if set.entries != entries {
            return Err(DecodeError::invalid("VoterSet", "entries are not in ascending order of identity"));
        }
        Ok(set)
    }
}

impl Encode for PendingSets {
    fn encode_to(&self, writer: &mut Writer) {
        self.first.encode_to(writer);
        self.second.encode_to(writer);
        self.third.encode_to(writer);
    }
}

impl Decode for PendingSets {
    fn decode_from(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            first: VoterSet::decode_from(reader)?,
            second: VoterSet::decode_from(reader)?,
            third: VoterSet::decode_from(reader)?,
        })
    }
}
