//! A light client over the network: from a genesis or a checkpoint that it trusts it follows the chain by certificates alone, and then
//! checks what any node says of an account. No node needs to be trusted.
//!
//! The rules are those of [`node_core::light`]. Age is the caller's business: see there for how old a trusted height may be.

use node_core::{
    codec::{Decode, DecodeError},
    ledger::{Account, StateKey},
    light::{LightBlock, LightClient, LightError},
    types::{AccountId, Genesis, Hash, Header, Height},
};
use thiserror::Error;

use crate::{
    checkpoint::TrustedHeader,
    client::{Client, ClientError},
    proto,
};

/// The state root after block `h` stands in the header of `h` and so many more.
pub const PROOF_DELAY: u64 = 2;

/// Why a height or an account is not believed.
#[derive(Debug, Error)]
pub enum FollowError {
    /// The node gave no answer.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A light block cannot be read.
    #[error("the node sent what is no light block")]
    Unreadable(#[from] DecodeError),
    /// A light block is not believed.
    #[error("the node's way to height {wanted} is not believed")]
    NotBelieved {
        /// The height that is wanted.
        wanted: Height,
        /// Why.
        #[source]
        source: LightError,
    },
    /// The way does not lead there.
    #[error("the node's way ends at height {reached}, not at {wanted}")]
    TooShort {
        /// The last height that is trusted.
        reached: Height,
        /// The height that is wanted.
        wanted: Height,
    },
    /// The account came without a proof, or with the proof of something else.
    #[error("the answer does not prove this account: {0}")]
    NotThisAccount(&'static str),
    /// The header names another state root.
    #[error("the certified header {header} names another state root than the proof is for")]
    OtherRoot {
        /// Height of the header.
        header: Height,
    },
}

/// A light client that asks nodes.
#[derive(Clone, Debug)]
pub struct Follower {
    trusted: LightClient,
}

/// An account with a proof whose root is certified. Whether the proof leads from the entry to the root is for the checker of
/// the state's store to say, which knows the layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertifiedProof {
    /// The account as the entry says; empty if there is none.
    pub account: Account,
    /// The entry.
    pub key: StateKey,
    /// Its value, or none.
    pub value: Option<Vec<u8>>,
    /// The proof in the layout of the state's store.
    pub proof: Vec<u8>,
    /// The root, which a certified header names.
    pub root: Hash,
    /// The height after which the state is this.
    pub height: Height,
}

impl Follower {
    /// Trusts this genesis.
    ///
    /// # Errors
    /// When it does not hold together.
    pub fn new(genesis: &Genesis) -> Result<Self, LightError> {
        Ok(Self { trusted: LightClient::new(genesis)? })
    }

    /// Trusts this late header of the chain of this genesis.
    ///
    /// # Errors
    /// When no quorum of the voters that it names has signed it for this chain.
    pub fn from_checkpoint(genesis: &Genesis, checkpoint: &TrustedHeader) -> Result<Self, LightError> {
        Ok(Self { trusted: checkpoint.client(genesis)? })
    }

    /// The height that is trusted; 0 is genesis.
    #[must_use]
    pub fn height(&self) -> Height {
        self.trusted.height()
    }

    /// The trusted header; none at genesis.
    #[must_use]
    pub fn header(&self) -> Option<&Header> {
        self.trusted.header()
    }

    /// Follows the chain to exactly this height, which must be later than the trusted one. What was believed before an error
    /// stays believed.
    ///
    /// # Errors
    /// When the node does not answer or is not believed.
    pub async fn follow(&mut self, client: &Client, wanted: Height) -> Result<(), FollowError> {
        while self.height() < wanted {
            let answer = client.light_blocks(self.height(), Some(wanted)).await?;
            self.believe(&answer, wanted)?;
        }
        Ok(())
    }

    /// Takes one answer of `GetLightBlocks`: it must bring the client nearer to `wanted`.
    ///
    /// # Errors
    /// When it is not believed or does not lead on.
    pub fn believe(&mut self, answer: &proto::GetLightBlocksResponse, wanted: Height) -> Result<(), FollowError> {
        let before = self.height();
        for bytes in &answer.light_blocks {
            let block = LightBlock::decode(bytes)?;
            if block.header.height > wanted {
                return Err(FollowError::TooShort { reached: self.height(), wanted });
            }
            self.trusted.advance(block).map_err(|source| FollowError::NotBelieved { wanted, source })?;
        }
        let reached = self.height();
        if reached > before || reached == wanted { Ok(()) } else { Err(FollowError::TooShort { reached, wanted }) }
    }

    /// The proof in a node's answer about an account, once the trusted header is that of its height and two more.
    ///
    /// # Errors
    /// When it is of something else than this account at the trusted header.
    pub fn certified(
        &self,
        account: &AccountId,
        answer: &proto::GetAccountResponse,
    ) -> Result<CertifiedProof, FollowError> {
        let proof = answer.proof.as_ref().ok_or(FollowError::NotThisAccount("there is no proof"))?;
        let key = StateKey::account(account);
        if proof.key != key.as_bytes() {
            return Err(FollowError::NotThisAccount("the proof is of another entry"));
        }
        let header = self.header().ok_or(FollowError::NotThisAccount("nothing after genesis is trusted yet"))?;
        if proof.height.checked_add(PROOF_DELAY) != Some(header.height.get()) {
            return Err(FollowError::NotThisAccount("the trusted header is not the one that names its root"));
        }
        let root = header.results.roots.state_root;
        if proof.state_root != root.as_bytes() {
            return Err(FollowError::OtherRoot { header: header.height });
        }
        let value = answer.exists.then(|| proof.value.clone());
        let account = value.as_deref().map(Account::decode).transpose()?.unwrap_or_default();
        if (account.nonce.get(), account.balance.get()) != (answer.nonce, answer.balance) {
            return Err(FollowError::NotThisAccount("the entry says something else than the answer"));
        }
        Ok(CertifiedProof { account, key, value, proof: proof.proof.clone(), root, height: Height::new(proof.height) })
    }
}
