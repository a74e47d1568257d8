//! The entries of the state: what the chain is, how far it has come, accounts and pending rotations.

use crate::{
    codec::{Decode, DecodeError, Encode, Reader, Writer},
    types::{
        Amount, ChainId, Epoch, Governance, Hash, Height, Identity, Incarnation, Nonce, Parameters, Results,
        SessionKey, TimeMs, VOTERS_MAX,
    },
};

/// How long the current session key can object to a rotation that only the identity signed, in blocks: `W`.
pub const OBJECTION_BLOCKS: u64 = 10;
/// A change executed in block `h` counts from this many blocks later.
pub const CHANGE_DELAY_BLOCKS: u64 = 3;
/// A session transaction is valid for at most this many blocks.
pub const SESSION_VALIDITY_BLOCKS_MAX: u64 = 100;

/// What the chain is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Chain {
    /// What everything signed is bound to.
    pub incarnation: Incarnation,
    /// Its name.
    pub chain_id: ChainId,
    /// The version of the rules.
    pub protocol_version: u32,
    /// The version of this state's format.
    pub state_version: u32,
    /// Who may change the chain.
    pub governance: Governance,
    /// What all nodes agree on.
    pub parameters: Parameters,
}

/// Parameters that governance has chosen and that do not count yet.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PendingParameters {
    /// The first height at which they count.
    pub counts_from: Height,
    /// What all nodes will agree on.
    pub parameters: Parameters,
}

/// What governance decides beside the voters, after some height `h`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rules {
    /// The parameters of `h + 1`.
    pub parameters: Parameters,
    /// Those of `h + 2` or `h + 3` on, if they are others.
    pub pending: Option<PendingParameters>,
    /// Who may change the chain.
    pub governance: Governance,
}

impl Rules {
    /// The parameters of one of the three heights after `h`.
    #[must_use]
    pub fn at(&self, height: Height) -> &Parameters {
        match &self.pending {
            Some(pending) if pending.counts_from <= height => &pending.parameters,
            _ => &self.parameters,
        }
    }
}

/// How far the chain has come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Progress {
    /// The last executed height.
    pub height: Height,
    /// The hash of its header; the genesis hash at height 0.
    pub block: Hash,
    /// Its time.
    pub time: TimeMs,
    /// The Merkle root of its receipts.
    pub receipts_root: Hash,
    /// The results of the height before, which its own roots cannot hold.
    pub results_before: Results,
}

/// One account.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Account {
    /// The number of its transactions so far: the nonce of the next one.
    pub nonce: Nonce,
    /// What it has.
    pub balance: Amount,
}

/// Who agreed to a rotation.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Consent {
    /// The current session key signed it too.
    CoSigned = 1,
    /// Only the identity signed it.
    IdentityOnly = 2,
}

/// A rotation that was executed and does not count yet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PendingRotation {
    /// The voter.
    pub identity: Identity,
    /// The epoch of the new key.
    pub epoch: Epoch,
    /// The new key.
    pub new_key: SessionKey,
    /// The height that executed it: `H`.
    pub executed: Height,
    /// Who agreed.
    pub consent: Consent,
}

impl PendingRotation {
    /// The first height at which the new key counts: `H + 3`, or `H + 3 + W`.
    #[must_use]
    pub fn counts_from(&self) -> Height {
        match self.consent {
            Consent::CoSigned => self.executed.saturating_add(CHANGE_DELAY_BLOCKS),
            Consent::IdentityOnly => self.executed.saturating_add(CHANGE_DELAY_BLOCKS + OBJECTION_BLOCKS),
        }
    }

    /// Whether an objection executed at this height makes it void: only without co-signature, in `H+1..=H+W`.
    #[must_use]
    pub fn voidable_at(&self, height: Height) -> bool {
        match self.consent {
            Consent::CoSigned => false,
            Consent::IdentityOnly => height > self.executed && height <= self.executed.saturating_add(OBJECTION_BLOCKS),
        }
    }
}

/// All rotations that do not count yet, in the order of their execution.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct PendingRotations {
    pub(crate) rotations: Vec<PendingRotation>,
}

impl PendingRotations {
    /// All of them.
    #[must_use]
    pub fn all(&self) -> &[PendingRotation] {
        &self.rotations
    }

    /// The one of this identity: there is at most one.
    #[must_use]
    pub fn of(&self, identity: &Identity) -> Option<&PendingRotation> {
        self.rotations.iter().find(|rotation| rotation.identity == *identity)
    }
}

impl Encode for Chain {
    fn encode_to(&self, writer: &mut Writer) {
        let Self { incarnation, chain_id, protocol_version, state_version, governance, parameters } = self;
        incarnation.encode_to(writer);
        chain_id.encode_to(writer);
        writer.u32(*protocol_version);
        writer.u32(*state_version);
        governance.encode_to(writer);
        parameters.encode_to(writer);
    }
}

impl Decode for Chain {
    fn decode_from(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            incarnation: Incarnation::decode_from(reader)?,
            chain_id: ChainId::decode_from(reader)?,
            protocol_version: reader.u32("protocol version")?,
            state_version: reader.u32("state version")?,
            governance: Governance::decode_from(reader)?,
            parameters: Parameters::decode_from(reader)?,
        })
    }
}

impl Encode for PendingParameters {
    fn encode_to(&self, writer: &mut Writer) {
        let Self { counts_from, parameters } = self;
        counts_from.encode_to(writer);
        parameters.encode_to(writer);
    }
}

impl Decode for PendingParameters {
    fn decode_from(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { counts_from: Height::decode_from(reader)?, parameters: Parameters::decode_from(reader)? })
    }
}

impl Encode for Progress {
    fn encode_to(&self, writer: &mut Writer) {
        let Self { height, block, time, receipts_root, results_before } = self;
        height.encode_to(writer);
        block.encode_to(writer);
        time.encode_to(writer);
        receipts_root.encode_to(writer);
        results_before.encode_to(writer);
    }
}

impl Decode for Progress {
    fn decode_from(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            height: Height::decode_from(reader)?,
            block: Hash::decode_from(reader)?,
            time: TimeMs::decode_from(reader)?,
            receipts_root: Hash::decode_from(reader)?,
            results_before: Results::decode_from(reader)?,
        })
    }
}

impl Encode for Account {
    fn encode_to(&self, writer: &mut Writer) {
        self.nonce.encode_to(writer);
        self.balance.encode_to(writer);
    }
}

impl Decode for Account {
    fn decode_from(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { nonce: Nonce::decode_from(reader)?, balance: Amount::decode_from(reader)? })
    }
}

impl Encode for PendingRotation {
    fn encode_to(&self, writer: &mut Writer) {
        let Self { identity, epoch, new_key, executed, consent } = self;
        identity.encode_to(writer);
        epoch.encode_to(writer);
        new_key.encode_to(writer);
        executed.encode_to(writer);
        writer.u8(*consent as u8);
    }
}

impl Decode for PendingRotation {
    fn decode_from(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            identity: Identity::decode_from(reader)?,
            epoch: Epoch::decode_from(reader)?,
            new_key: SessionKey::decode_from(reader)?,
            executed: Height::decode_from(reader)?,
            consent: match reader.u8("consent")? {
                1 => Consent::CoSigned,
                2 => Consent::IdentityOnly,
                found => return Err(DecodeError::UnknownTag { field: "consent", found }),
            },
        })
    }
}

impl Encode for PendingRotations {
    fn encode_to(&self, writer: &mut Writer) {
        writer.list(&self.rotations);
    }
}

impl Decode for PendingRotations {
    fn decode_from(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { rotations: reader.list("pending rotations", VOTERS_MAX)? })
    }
}
