//! The parameters of a chain: what all of its nodes must agree on beside the rules.

use thiserror::Error;

use super::{BLOCK_BYTES_CEILING, Hash};
use crate::codec::{Decode, DecodeError, Encode, Reader, Writer};

const PARAMETERS_VERSION: u8 = 1;
const TIME_MS_MAX: u64 = 3_600_000;
const BLOCK_BYTES_FLOOR: u32 = 4_096;
const TRANSACTIONS_PER_BLOCK_CEILING: u32 = 100_000;

/// A parameter outside of its bounds.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("parameter {name} is {found}, allowed are {min} to {max}")]
pub struct ParametersError {
    /// The name of the parameter.
    pub name: &'static str,
    /// Its value.
    pub found: u64,
    /// The smallest value allowed.
    pub min: u64,
    /// The largest value allowed.
    pub max: u64,
}

/// How long a step waits: `base_ms` in round 0, `delta_ms` more in every further round.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Timeout {
    /// In round 0, milliseconds.
    pub base_ms: u64,
    /// More for every round, milliseconds.
    pub delta_ms: u64,
}

impl Timeout {
    /// The wait in a round, milliseconds, at most an hour.
    #[must_use]
    pub fn in_round_ms(&self, round: super::Round) -> u64 {
        self.base_ms.saturating_add(self.delta_ms.saturating_mul(u64::from(round.get()))).min(TIME_MS_MAX)
    }
}

/// Parameters that nobody checked yet. The default is for a local network.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ParametersDraft {
    /// The pace of an idle chain: the time between empty blocks, milliseconds.
    pub block_interval_ms: u64,
    /// How long voters wait for a proposal.
    pub propose_timeout: Timeout,
    /// How long voters wait for more prevotes after a quorum of different ones.
    pub prevote_timeout: Timeout,
    /// How long voters wait for more precommits after a quorum of different ones.
    pub precommit_timeout: Timeout,
    /// The most transactions in one block.
    pub transactions_per_block_max: u32,
    /// The largest encoding of a block, bytes.
    pub block_bytes_max: u32,
    /// How far a header's time may be from the clock of the voter who checks it, milliseconds.
    pub time_drift_ms_max: u64,
}

impl Default for ParametersDraft {
    fn default() -> Self {
        Self {
            block_interval_ms: 1_000,
            propose_timeout: Timeout { base_ms: 1_000, delta_ms: 500 },
            prevote_timeout: Timeout { base_ms: 500, delta_ms: 250 },
            precommit_timeout: Timeout { base_ms: 500, delta_ms: 250 },
            transactions_per_block_max: 10_000,
            block_bytes_max: 4 * 1024 * 1024,
            time_drift_ms_max: 5_000,
        }
    }
}

/// Parameters within their bounds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Parameters(ParametersDraft);

impl Parameters {
    /// Checks every bound.
    pub fn new(draft: ParametersDraft) -> Result<Self, ParametersError> {
        let within = |name, found, min, max| {
            if (min..=max).contains(&found) { Ok(()) } else { Err(ParametersError { name, found, min, max }) }
        };
        let ParametersDraft {
            block_interval_ms,
            propose_timeout,
            prevote_timeout,
            precommit_timeout,
            transactions_per_block_max,
            block_bytes_max,
            time_drift_ms_max,
        } = &draft;
        within("block_interval_ms", *block_interval_ms, 1, TIME_MS_MAX)?;
        within("propose_timeout.base_ms", propose_timeout.base_ms, 1, TIME_MS_MAX)?;
        within("propose_timeout.delta_ms", propose_timeout.delta_ms, 1, TIME_MS_MAX)?;
        within("prevote_timeout.base_ms", prevote_timeout.base_ms, 1, TIME_MS_MAX)?;
        within("prevote_timeout.delta_ms", prevote_timeout.delta_ms, 1, TIME_MS_MAX)?;
        within("precommit_timeout.base_ms", precommit_timeout.base_ms, 1, TIME_MS_MAX)?;
        within("precommit_timeout.delta_ms", precommit_timeout.delta_ms, 1, TIME_MS_MAX)?;
        let transactions = u64::from(*transactions_per_block_max);
        within("transactions_per_block_max", transactions, 1, u64::from(TRANSACTIONS_PER_BLOCK_CEILING))?;
        let ceiling = u64::try_from(BLOCK_BYTES_CEILING).unwrap_or(u64::MAX);
        within("block_bytes_max", u64::from(*block_bytes_max), u64::from(BLOCK_BYTES_FLOOR), ceiling)?;
        within("time_drift_ms_max", *time_drift_ms_max, 1, TIME_MS_MAX)?;
        Ok(Self(draft))
    }

    /// The hash that headers name.
    #[must_use]
    pub fn hash(&self) -> Hash {
        Hash::tagged("althing/parameters/1", &self.encode())
    }
}

/// Reads the checked values.
impl std::ops::Deref for Parameters {
    type Target = ParametersDraft;

    fn deref(&self) -> &ParametersDraft {
        &self.0
    }
}

impl Encode for Timeout {
    fn encode_to(&self, writer: &mut Writer) {
        writer.u64(self.base_ms);
        writer.u64(self.delta_ms);
    }
}

impl Decode for Timeout {
    fn decode_from(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { base_ms: reader.u64("timeout base")?, delta_ms: reader.u64("timeout delta")? })
    }
}

impl Encode for Parameters {
    fn encode_to(&self, writer: &mut Writer) {
        writer.u8(PARAMETERS_VERSION);
        writer.u64(self.0.block_interval_ms);
        self.0.propose_timeout.encode_to(writer);
        self.0.prevote_timeout.encode_to(writer);
        self.0.precommit_timeout.encode_to(writer);
        writer.u32(self.0.transactions_per_block_max);
        writer.u32(self.0.block_bytes_max);
        writer.u64(self.0.time_drift_ms_max);
    }
}

impl Decode for Parameters {
    fn decode_from(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.version("Parameters", PARAMETERS_VERSION)?;
        let draft = ParametersDraft {
            block_interval_ms: reader.u64("block interval")?,
            propose_timeout: Timeout::decode_from(reader)?,
            prevote_timeout: Timeout::decode_from(reader)?,
            precommit_timeout: Timeout::decode_from(reader)?,
            transactions_per_block_max: reader.u32("transactions per block")?,
            block_bytes_max: reader.u32("block bytes")?,
            time_drift_ms_max: reader.u64("time drift")?,
        };
        Self::new(draft).map_err(|error| DecodeError::invalid("Parameters", error))
    }
}
