//! Governance: what the governance keys together change of a running chain.

use super::{
    AccountId, Epoch, GENESIS_KEYS_MAX, GovernanceKey, Hash, Identity, Parameters, Power, SessionKey, Signature,
    Transaction,
};
use crate::codec::{Decode, DecodeError, Encode, Reader, Writer};

const TAG_ADD_VOTER: u8 = 1;
const TAG_REPLACE_VOTER: u8 = 2;
const TAG_REMOVE_VOTER: u8 = 3;
const TAG_SET_POWER: u8 = 4;
const TAG_SET_PARAMETERS: u8 = 5;
const TAG_SET_KEYS: u8 = 6;

/// `threshold` of `keys` together change the chain.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Governance {
    /// How many keys must sign.
    pub threshold: u32,
    /// The keys.
    pub keys: Vec<GovernanceKey>,
}

impl Governance {
    /// 1 to 32 keys in strictly ascending order, and a threshold of at least 1 and at most their number.
    #[must_use]
    pub fn is_well_formed(&self) -> bool {
        let ascending = self.keys.iter().zip(self.keys.iter().skip(1)).all(|(first, second)| first < second);
        let fits = usize::try_from(self.threshold).is_ok_and(|threshold| threshold <= self.keys.len());
        ascending && fits && self.threshold >= 1 && self.keys.len() <= GENESIS_KEYS_MAX
    }

    /// Enough of these keys, and nobody else, have signed. The signatures themselves are verified elsewhere, and a
    /// transaction holds at most one of each key.
    #[must_use]
    pub fn authorises(&self, transaction: &Transaction) -> bool {
        let signatures = transaction.signatures();
        let enough = u32::try_from(signatures.len()).is_ok_and(|count| count >= self.threshold);
        enough && signatures.iter().all(|signature| self.keys.contains(&GovernanceKey::new(signature.key)))
    }
}

impl AccountId {
    /// The account whose nonce orders the governance transactions of a chain. A hash, so that nobody has its key.
    #[must_use]
    pub fn governance() -> Self {
        Self::new(*Hash::tagged("althing/governance-account/1", &[]).as_bytes())
    }
}

/// A voter that is to be voted in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NewVoter {
    /// The voter.
    pub identity: Identity,
    /// Its weight, at least 1.
    pub power: Power,
    /// The number of its session key: one more than the identity ever had, 1 for a new one.
    pub epoch: Epoch,
    /// The key that will sign its proposals and votes.
    pub session_key: SessionKey,
    /// The session key's signature: its maker holds it and made it for this identity and epoch.
    pub possession: Signature,
}

/// What one governance transaction changes. The account nonce of [`AccountId::governance`] keeps the order.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum GovernanceChange {
    /// One voter more.
    AddVoter(NewVoter),
    /// One voter in the place of another, who may be the same identity with another session key.
    ReplaceVoter {
        /// Who leaves.
        former: Identity,
        /// Who comes.
        voter: NewVoter,
    },
    /// One voter less.
    RemoveVoter {
        /// Who leaves.
        identity: Identity,
    },
    /// Another weight.
    SetPower {
        /// The voter.
        identity: Identity,
        /// Its new weight, at least 1.
        power: Power,
    },
    /// Other parameters.
    SetParameters(Parameters),
    /// Other governance keys, from the next transaction on.
    SetKeys(Governance),
}

impl GovernanceChange {
    /// The voter that comes with the change.
    #[must_use]
    pub fn new_voter(&self) -> Option<&NewVoter> {
        match self {
            Self::AddVoter(voter) | Self::ReplaceVoter { former: _, voter } => Some(voter),
            Self::RemoveVoter { .. } | Self::SetPower { .. } | Self::SetParameters(_) | Self::SetKeys(_) => None,
        }
    }
}

impl Encode for Governance {
    fn encode_to(&self, writer: &mut Writer) {
        writer.u32(self.threshold);
        writer.list(&self.keys);
    }
}

impl Decode for Governance {
    fn decode_from(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            threshold: reader.u32("governance threshold")?,
            keys: reader.list("governance keys", GENESIS_KEYS_MAX)?,
        })
    }
}

impl Encode for NewVoter {
    fn encode_to(&self, writer: &mut Writer) {
        let Self { identity, power, epoch, session_key, possession } = self;
        identity.encode_to(writer);
        power.encode_to(writer);
        epoch.encode_to(writer);
        session_key.encode_to(writer);
        possession.encode_to(writer);
    }
}

impl Decode for NewVoter {
    fn decode_from(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            identity: Identity::decode_from(reader)?,
            power: Power::decode_from(reader)?,
            epoch: Epoch::decode_from(reader)?,
            session_key: SessionKey::decode_from(reader)?,
            possession: Signature::decode_from(reader)?,
        })
    }
}

impl Encode for GovernanceChange {
    fn encode_to(&self, writer: &mut Writer) {
        match self {
            Self::AddVoter(voter) => {
                writer.u8(TAG_ADD_VOTER);
                voter.encode_to(writer);
            }
            Self::ReplaceVoter { former, voter } => {
                writer.u8(TAG_REPLACE_VOTER);
                former.encode_to(writer);
                voter.encode_to(writer);
            }
            Self::RemoveVoter { identity } => {
                writer.u8(TAG_REMOVE_VOTER);
                identity.encode_to(writer);
            }
            Self::SetPower { identity, power } => {
                writer.u8(TAG_SET_POWER);
                identity.encode_to(writer);
                power.encode_to(writer);
            }
            Self::SetParameters(parameters) => {
                writer.u8(TAG_SET_PARAMETERS);
                parameters.encode_to(writer);
            }
            Self::SetKeys(governance) => {
                writer.u8(TAG_SET_KEYS);
                governance.encode_to(writer);
            }
        }
    }
}

impl Decode for GovernanceChange {
    fn decode_from(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match reader.u8("governance change tag")? {
            TAG_ADD_VOTER => Ok(Self::AddVoter(NewVoter::decode_from(reader)?)),
            TAG_REPLACE_VOTER => {
                Ok(Self::ReplaceVoter { former: Identity::decode_from(reader)?, voter: NewVoter::decode_from(reader)? })
            }
            TAG_REMOVE_VOTER => Ok(Self::RemoveVoter { identity: Identity::decode_from(reader)? }),
            TAG_SET_POWER => {
                Ok(Self::SetPower { identity: Identity::decode_from(reader)?, power: Power::decode_from(reader)? })
            }
            TAG_SET_PARAMETERS => Ok(Self::SetParameters(Parameters::decode_from(reader)?)),
            TAG_SET_KEYS => {
                let governance = Governance::decode_from(reader)?;
                if !governance.is_well_formed() {
                    let problem = "the keys are not 1 to 32 in ascending order, or the threshold does not fit them";
                    return Err(DecodeError::invalid("Governance", problem));
                }
                Ok(Self::SetKeys(governance))
            }
            found => Err(DecodeError::UnknownTag { field: "governance change tag", found }),
        }
    }
}
