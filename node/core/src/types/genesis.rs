//! Genesis: the document whose hash is the first incarnation of a chain.

use std::collections::BTreeSet;

use thiserror::Error;

use super::{
    AccountId, Amount, CeremonyNonce, ChainId, Epoch, Governance, Hash, Identity, Incarnation, Parameters, Signature,
    TimeMs, VOTERS_MAX, VoterEntry, VoterSet, VoterSetError,
};
use crate::codec::{Decode, DecodeError, Encode, Reader, Writer};

const GENESIS_VERSION: u8 = 1;
/// The most accounts that genesis gives an amount.
pub const GENESIS_ACCOUNTS_MAX: usize = 1_000_000;
/// The most governance keys.
pub const GENESIS_KEYS_MAX: usize = 32;

/// Why a draft is not a genesis.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum GenesisError {
    /// The voters are not a set.
    #[error("genesis voters: {0}")]
    Voters(#[from] VoterSetError),
    /// A voter starts with another epoch than the first.
    #[error("genesis voter {identity} does not start with epoch 1")]
    Epoch {
        /// The voter.
        identity: Identity,
    },
    /// A session key is also an identity.
    #[error("session key of genesis voter {identity} is also an identity")]
    SessionKeyIsIdentity {
        /// The voter.
        identity: Identity,
    },
    /// A voter whose proof of possession does not verify.
    #[error("genesis voter {identity} does not prove that it holds its session key")]
    Possession {
        /// The voter.
        identity: Identity,
    },
    /// Too many accounts.
    #[error("{found} genesis accounts exceed the maximum of 1000000")]
    TooManyAccounts {
        /// How many there are.
        found: usize,
    },
    /// An account appears twice.
    #[error("genesis account {account} appears twice")]
    DuplicateAccount {
        /// The account.
        account: AccountId,
    },
    /// The amounts do not fit.
    #[error("the sum of all genesis amounts is too large")]
    AmountOverflow,
    /// Governance needs 1 to 32 different keys and a threshold of at least 1 and at most their number.
    #[error("governance threshold {threshold} does not fit {keys} different keys (1 to 32)")]
    Governance {
        /// The threshold.
        threshold: u32,
        /// The number of different keys.
        keys: usize,
    },
}

/// A voter in genesis, with the proof that it holds its session key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct GenesisVoter {
    /// The entry for the first heights.
    pub entry: VoterEntry,
    /// The session key's signature, bound to chain id, identity and ceremony.
    pub possession: Signature,
}

/// A genesis that nobody checked yet, with lists in any order.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct GenesisDraft {
    /// The name of the chain.
    pub chain_id: ChainId,
    /// The time of the state before block 1.
    pub time: TimeMs,
    /// The version of the rules.
    pub protocol_version: u32,
    /// The version of the state's format.
    pub state_version: u32,
    /// The ceremony in which the voters proved their keys.
    pub ceremony: CeremonyNonce,
    /// The first voters.
    pub voters: Vec<GenesisVoter>,
    /// The first accounts.
    pub accounts: Vec<(AccountId, Amount)>,
    /// Who may change the chain.
    pub governance: Governance,
    /// What all nodes agree on.
    pub parameters: Parameters,
}

/// A genesis with consistent content and lists in ascending order.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Genesis {
    draft: GenesisDraft,
    voters: VoterSet,
}

impl Genesis {
    /// Checks a draft and puts its lists in order. Proofs of possession are verified by
    /// [`crate::crypto::verify_genesis`], which needs curve arithmetic.
    pub fn new(mut draft: GenesisDraft) -> Result<Self, GenesisError> {
        let voters = VoterSet::new(draft.voters.iter().map(|voter| voter.entry).collect())?;
        draft.voters.sort_by_key(|voter| voter.entry.identity);
        for VoterEntry { identity, power: _, session_key, epoch } in voters.entries().iter().copied() {
            if epoch != Epoch::FIRST {
                return Err(GenesisError::Epoch { identity });
            }
            if voters.get(&Identity::new(*session_key.as_bytes())).is_some() {
                return Err(GenesisError::SessionKeyIsIdentity { identity });
            }
        }
        draft.accounts.sort();
        check_accounts(&draft.accounts)?;
        draft.governance.keys.sort();
        if !draft.governance.is_well_formed() {
            let keys = draft.governance.keys.iter().collect::<BTreeSet<_>>().len();
            return Err(GenesisError::Governance { threshold: draft.governance.threshold, keys });
        }
        Ok(Self { draft, voters })
    }

    /// The genesis hash: the first [`Incarnation`] of the chain.
    #[must_use]
    pub fn hash(&self) -> Hash {
        Hash::tagged("althing/genesis/1", &self.encode())
    }

    /// The genesis hash as what everything signed is bound to.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.hash().into()
    }

    /// The voters of heights 1, 2 and 3.
    #[must_use]
    pub fn voter_set(&self) -> &VoterSet {
        &self.voters
    }

    /// The whole document.
    #[must_use]
    pub fn into_draft(self) -> GenesisDraft {
        self.draft
    }
}

/// Reads the checked document.
impl std::ops::Deref for Genesis {
    type Target = GenesisDraft;

    fn deref(&self) -> &GenesisDraft {
        &self.draft
    }
}

fn check_accounts(accounts: &[(AccountId, Amount)]) -> Result<(), GenesisError> {
    if accounts.len() > GENESIS_ACCOUNTS_MAX {
        return Err(GenesisError::TooManyAccounts { found: accounts.len() });
    }
    let mut sum: u64 = 0;
    let mut previous = None;
    for (account, amount) in accounts {
        if previous == Some(account) {
            return Err(GenesisError::DuplicateAccount { account: *account });
        }
        sum = sum.checked_add(amount.get()).ok_or(GenesisError::AmountOverflow)?;
        previous = Some(account);
    }
    Ok(())
}

/// An account with its first amount, as it stands in the document.
struct GenesisAccount(AccountId, Amount);

impl Encode for GenesisAccount {
    fn encode_to(&self, writer: &mut Writer) {
        self.0.encode_to(writer);
        self.1.encode_to(writer);
    }
}

impl Decode for GenesisAccount {
    fn decode_from(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self(AccountId::decode_from(reader)?, Amount::decode_from(reader)?))
    }
}

impl Encode for GenesisVoter {
    fn encode_to(&self, writer: &mut Writer) {
        self.entry.encode_to(writer);
        self.possession.encode_to(writer);
    }
}

impl Decode for GenesisVoter {
    fn decode_from(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { entry: VoterEntry::decode_from(reader)?, possession: Signature::decode_from(reader)? })
    }
}

impl Encode for Genesis {
    fn encode_to(&self, writer: &mut Writer) {
        let GenesisDraft {
            chain_id,
            time,
            protocol_version,
            state_version,
            ceremony,
            voters,
            accounts,
            governance,
            parameters,
        } = &self.draft;
        writer.u8(GENESIS_VERSION);
        chain_id.encode_to(writer);
        time.encode_to(writer);
        writer.u32(*protocol_version);
        writer.u32(*state_version);
        ceremony.encode_to(writer);
        writer.list(voters);
        writer.length(accounts.len());
        for (account, amount) in accounts {
            GenesisAccount(*account, *amount).encode_to(writer);
        }
        governance.encode_to(writer);
        parameters.encode_to(writer);
    }
}

impl Decode for Genesis {
    fn decode_from(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.version("Genesis", GENESIS_VERSION)?;
        let draft = GenesisDraft {
            chain_id: ChainId::decode_from(reader)?,
            time: TimeMs::decode_from(reader)?,
            protocol_version: reader.u32("protocol version")?,
            state_version: reader.u32("state version")?,
            ceremony: CeremonyNonce::decode_from(reader)?,
            voters: reader.list("genesis voters", VOTERS_MAX)?,
            accounts: reader
                .list::<GenesisAccount>("genesis accounts", GENESIS_ACCOUNTS_MAX)?
                .into_iter()
                .map(|GenesisAccount(account, amount)| (account, amount))
                .collect(),
            governance: Governance::decode_from(reader)?,
            parameters: Parameters::decode_from(reader)?,
        };
        let genesis = Self::new(draft.clone()).map_err(|error| DecodeError::invalid("Genesis", error))?;
        if genesis.draft != draft {
            return Err(DecodeError::invalid("Genesis", "lists are not in ascending order"));
        }
        Ok(genesis)
    }
}
