//! The signing record: what the keys of this volume have signed, and the refusal to sign anything else for the same step.

use std::collections::BTreeMap;

use thiserror::Error;

use crate::{
    codec::{Decode, DecodeError, Encode, Reader, Writer},
    types::{Hash, Height, Round, Step},
};

const RECORD_VERSION: u8 = 1;
/// How many slots of the current height are remembered. Older ones are refused whatever their bytes.
const SLOTS_MAX: usize = 1_024;

/// The place of one signature in the order of all signatures.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Slot {
    /// The height.
    pub height: Height,
    /// The round.
    pub round: Round,
    /// The step.
    pub step: Step,
}

/// One signature about to leave: durable before it does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RecordEntry {
    /// Its place.
    pub slot: Slot,
    /// The hash of the signing bytes.
    pub bytes_hash: Hash,
}

impl RecordEntry {
    /// The entry for signing these bytes at this place.
    #[must_use]
    pub fn new(slot: Slot, signing_bytes: &[u8]) -> Self {
        Self { slot, bytes_hash: Hash::tagged("althing/signing-record/1", signing_bytes) }
    }
}

/// Why the record refuses.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum RecordError {
    /// Something else was signed for this step.
    #[error("other bytes were signed at height {} round {} step {:?}", .slot.height, .slot.round, .slot.step)]
    OtherBytes {
        /// The step.
        slot: Slot,
    },
    /// A later step was signed, and this one is not remembered with these bytes.
    #[error("height {} round {} step {:?} is at or below the last signature", .slot.height, .slot.round, .slot.step)]
    Passed {
        /// The step.
        slot: Slot,
    },
}

/// What the record says about a signature of the own key that came from outside.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Sighting {
    /// It is recorded here.
    Recorded,
    /// It is older than what the record remembers.
    TooOld,
    /// Somebody else signs with this key: stop signing and raise the alarm.
    NotRecorded,
}

/// What the keys of this volume have signed. One record for all of them: the order of steps is one order.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct SigningRecord {
    /// The last step that is not remembered with its bytes any more.
    forgotten: Option<Slot>,
    /// The later steps: those of the last height, at most [`SLOTS_MAX`].
    slots: BTreeMap<Slot, Hash>,
}

impl SigningRecord {
    /// Nothing was signed yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The last step that was signed.
    #[must_use]
    pub fn last(&self) -> Option<Slot> {
        self.slots.last_key_value().map(|(slot, _)| *slot).or(self.forgotten)
    }

    /// Whether this may be signed: above the last signature, or the very bytes that were signed before.
    pub fn check(&self, entry: &RecordEntry) -> Result<(), RecordError> {
        let RecordEntry { slot, bytes_hash } = *entry;
        match self.slots.get(&slot) {
            Some(recorded) if *recorded == bytes_hash => Ok(()),
            Some(_) => Err(RecordError::OtherBytes { slot }),
            None if self.last().is_some_and(|last| slot <= last) => Err(RecordError::Passed { slot }),
            None => Ok(()),
        }
    }

    /// Checks and remembers. The entry must be durable before the signature leaves.
    pub fn add(&mut self, entry: RecordEntry) -> Result<(), RecordError> {
        self.check(&entry)?;
        // Lower heights are refused by `last` alone; of this height the newest steps are kept.
        if self.last().is_some_and(|last| last.height < entry.slot.height) {
            self.forgotten = self.last();
            self.slots.clear();
        }
        self.slots.insert(entry.slot, entry.bytes_hash);
        while self.slots.len() > SLOTS_MAX {
            self.forgotten = self.slots.pop_first().map(|(slot, _)| slot);
        }
        Ok(())
    }

    /// Adds an entry that was read back from the log, in the order in which it was written.
    pub fn restore(&mut self, entry: RecordEntry) -> Result<(), RecordError> {
        self.add(entry)
    }

    /// What a verified signature of a key of this volume, seen outside, means.
    #[must_use]
    pub fn sighting(&self, entry: &RecordEntry) -> Sighting {
        match self.slots.get(&entry.slot) {
            Some(recorded) if *recorded == entry.bytes_hash => Sighting::Recorded,
            Some(_) => Sighting::NotRecorded,
            None if self.forgotten.is_some_and(|forgotten| entry.slot <= forgotten) => Sighting::TooOld,
            None => Sighting::NotRecorded,
        }
    }
}

impl Encode for Slot {
    fn encode_to(&self, writer: &mut Writer) {
        self.height.encode_to(writer);
        self.round.encode_to(writer);
        self.step.encode_to(writer);
    }
}

impl Decode for Slot {
    fn decode_from(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            height: Height::decode_from(reader)?,
            round: Round::decode_from(reader)?,
            step: Step::decode_from(reader)?,
        })
    }
}

impl Encode for RecordEntry {
    fn encode_to(&self, writer: &mut Writer) {
        self.slot.encode_to(writer);
        self.bytes_hash.encode_to(writer);
    }
}

impl Decode for RecordEntry {
    fn decode_from(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { slot: Slot::decode_from(reader)?, bytes_hash: Hash::decode_from(reader)? })
    }
}

impl Encode for SigningRecord {
    fn encode_to(&self, writer: &mut Writer) {
        writer.u8(RECORD_VERSION);
        writer.option(self.forgotten.as_ref());
        writer.length(self.slots.len());
        for (slot, bytes_hash) in &self.slots {
            RecordEntry { slot: *slot, bytes_hash: *bytes_hash }.encode_to(writer);
        }
    }
}

impl Decode for SigningRecord {
    fn decode_from(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.version("SigningRecord", RECORD_VERSION)?;
        let forgotten: Option<Slot> = reader.option("forgotten step")?;
        let entries: Vec<RecordEntry> = reader.list("signing record", SLOTS_MAX)?;
        let height = entries.first().map(|entry| entry.slot.height);
        let mut slots = BTreeMap::new();
        let mut previous = forgotten;
        for RecordEntry { slot, bytes_hash } in entries {
            if previous.is_some_and(|previous| slot <= previous) || Some(slot.height) != height {
                return Err(DecodeError::invalid("SigningRecord", "entries are not ascending steps of one height"));
            }
            previous = Some(slot);
            slots.insert(slot, bytes_hash);
        }
        Ok(Self { forgotten, slots })
    }
}
