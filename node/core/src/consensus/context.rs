//! The protocol's type parameters: which of the chain's types stand for address, key, value, vote and proposal.

use std::convert::Infallible;

use arc_malachitebft_core_types as malachite;
use malachite::{NilOrVal, SignedExtension, SignedMessage, VoteType};

use super::proposer::proposer_at;
use crate::types::{
    Epoch, Hash, Height, Identity, Proposal, Round, SessionKey, Signature, UnsignedProposal, UnsignedVote, Vote,
    VoteKind, VoterEntry, VoterSet,
};

/// The chain as the protocol sees it: an address is an identity, a public key a session key, a value the hash of a
/// header. The blocks themselves stay with the engine.
#[derive(Clone, Copy, Debug)]
pub struct Chain;

/// A vote as the protocol sees it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ChainVote {
    kind: VoteType,
    height: Height,
    round: malachite::Round,
    value: NilOrVal<Hash>,
    voter: Identity,
}

/// A proposal as the protocol sees it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ChainProposal {
    height: Height,
    round: malachite::Round,
    pol_round: malachite::Round,
    value: Hash,
    proposer: Identity,
}

/// A block is one part; parts of proposals do not pass through the protocol.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WholeBlock;

/// Durations are looked up in the chain's parameters, not here.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct NoTimeouts;

/// ed25519 by ZIP-215; signing and verifying happen outside of the protocol.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Ed25519;

impl malachite::Context for Chain {
    type Address = Identity;
    type Height = Height;
    type ProposalPart = WholeBlock;
    type Proposal = ChainProposal;
    type Validator = VoterEntry;
    type ValidatorSet = VoterSet;
    type Timeouts = NoTimeouts;
    type Value = Hash;
    type Vote = ChainVote;
    type Extension = ();
    type SigningScheme = Ed25519;

    fn select_proposer<'a>(&self, voters: &'a VoterSet, height: Height, round: malachite::Round) -> &'a VoterEntry {
        proposer_at(voters, height, round_of(round))
    }

    fn new_proposal(
        &self,
        height: Height,
        round: malachite::Round,
        value: Hash,
        pol_round: malachite::Round,
        proposer: Identity,
    ) -> ChainProposal {
        ChainProposal { height, round, pol_round, value, proposer }
    }

    fn new_prevote(
        &self,
        height: Height,
        round: malachite::Round,
        value: NilOrVal<Hash>,
        voter: Identity,
    ) -> ChainVote {
        ChainVote { kind: VoteType::Prevote, height, round, value, voter }
    }

    fn new_precommit(
        &self,
        height: Height,
        round: malachite::Round,
        value: NilOrVal<Hash>,
        voter: Identity,
    ) -> ChainVote {
        ChainVote { kind: VoteType::Precommit, height, round, value, voter }
    }
}

/// The protocol's round as a number. It has a round "none" before a height starts, which never leaves it.
pub fn round_of(round: malachite::Round) -> Round {
    Round::new(round.as_u32().unwrap_or_default())
}

/// A round as the protocol writes it.
pub fn round_into(round: Round) -> malachite::Round {
    malachite::Round::new(round.get())
}

impl ChainVote {
    /// What the vote says.
    pub fn unsigned(&self) -> UnsignedVote {
        UnsignedVote {
            kind: match self.kind {
                VoteType::Prevote => VoteKind::Prevote,
                VoteType::Precommit => VoteKind::Precommit,
            },
            height: self.height,
            round: round_of(self.round),
            value: match self.value {
                NilOrVal::Nil => None,
                NilOrVal::Val(value) => Some(value),
            },
            voter: self.voter,
        }
    }
}

impl From<&UnsignedVote> for ChainVote {
    fn from(vote: &UnsignedVote) -> Self {
        Self {
            kind: match vote.kind {
                VoteKind::Prevote => VoteType::Prevote,
                VoteKind::Precommit => VoteType::Precommit,
            },
            height: vote.height,
            round: round_into(vote.round),
            value: vote.value.map_or(NilOrVal::Nil, NilOrVal::Val),
            voter: vote.voter,
        }
    }
}

impl ChainProposal {
    /// What the proposal says.
    pub fn unsigned(&self) -> UnsignedProposal {
        UnsignedProposal {
            height: self.height,
            round: round_of(self.round),
            pol_round: self.pol_round.as_u32().map(Round::new),
            value: self.value,
            proposer: self.proposer,
        }
    }
}

impl From<&UnsignedProposal> for ChainProposal {
    fn from(proposal: &UnsignedProposal) -> Self {
        Self {
            height: proposal.height,
            round: round_into(proposal.round),
            pol_round: proposal.pol_round.map_or(malachite::Round::Nil, round_into),
            value: proposal.value,
            proposer: proposal.proposer,
        }
    }
}

/// A vote as it travels, for the protocol.
pub fn signed_vote(vote: &Vote) -> malachite::SignedVote<Chain> {
    SignedMessage::new(ChainVote::from(&vote.vote), vote.signature)
}

/// A proposal as it travels, for the protocol.
pub fn signed_proposal(proposal: &Proposal) -> malachite::SignedProposal<Chain> {
    SignedMessage::new(ChainProposal::from(&proposal.proposal), proposal.signature)
}

/// A vote of the protocol as it travels. The epoch is that of the voter at this height.
pub fn travelling_vote(vote: &malachite::SignedVote<Chain>, voters: &VoterSet) -> Vote {
    let unsigned = vote.message.unsigned();
    Vote { vote: unsigned, epoch: epoch_of(voters, &unsigned.voter), signature: vote.signature }
}

/// A proposal of the protocol as it travels. The epoch is that of the proposer at this height.
pub fn travelling_proposal(proposal: &malachite::SignedProposal<Chain>, voters: &VoterSet) -> Proposal {
    let unsigned = proposal.message.unsigned();
    Proposal { proposal: unsigned, epoch: epoch_of(voters, &unsigned.proposer), signature: proposal.signature }
}

/// The epoch of a voter's session key in a set. The protocol only knows messages of voters of its set.
pub fn epoch_of(voters: &VoterSet, identity: &Identity) -> Epoch {
    voters.get(identity).map_or(Epoch::ZERO, |entry| entry.epoch)
}

impl malachite::Address for Identity {}

impl malachite::Height for Height {
    const ZERO: Self = Height::ZERO;
    const INITIAL: Self = Height::new(1);

    fn increment_by(&self, count: u64) -> Self {
        self.saturating_add(count)
    }

    fn decrement_by(&self, count: u64) -> Option<Self> {
        self.checked_sub(count)
    }

    fn as_u64(&self) -> u64 {
        self.get()
    }
}

impl malachite::Value for Hash {
    type Id = Hash;

    fn id(&self) -> Hash {
        *self
    }
}

impl malachite::Validator<Chain> for VoterEntry {
    fn address(&self) -> &Identity {
        &self.identity
    }

    fn public_key(&self) -> &SessionKey {
        &self.session_key
    }

    fn voting_power(&self) -> malachite::VotingPower {
        self.power.get()
    }
}

impl malachite::ValidatorSet<Chain> for VoterSet {
    fn count(&self) -> usize {
        VoterSet::count(self)
    }

    fn total_voting_power(&self) -> malachite::VotingPower {
        self.total_power().get()
    }

    fn get_by_address(&self, address: &Identity) -> Option<&VoterEntry> {
        self.get(address)
    }

    fn get_by_index(&self, index: usize) -> Option<&VoterEntry> {
        self.entries().get(index)
    }
}

impl malachite::ProposalPart<Chain> for WholeBlock {
    fn is_first(&self) -> bool {
        true
    }

    fn is_last(&self) -> bool {
        true
    }
}

impl malachite::Timeouts<Chain> for NoTimeouts {
    fn duration_for(&self, _timeout: malachite::Timeout) -> std::time::Duration {
        std::time::Duration::ZERO
    }
}

impl malachite::SigningScheme for Ed25519 {
    type DecodingError = String;
    type Signature = Signature;
    type PublicKey = SessionKey;
    type PrivateKey = Infallible;

    fn decode_signature(bytes: &[u8]) -> Result<Signature, String> {
        bytes.try_into().map(Signature::new).map_err(|_| format!("a signature has 64 bytes, not {}", bytes.len()))
    }

    fn encode_signature(signature: &Signature) -> Vec<u8> {
        signature.as_bytes().to_vec()
    }

    fn decode_public_key(bytes: &[u8]) -> Result<SessionKey, String> {
        bytes.try_into().map(SessionKey::new).map_err(|_| format!("a public key has 32 bytes, not {}", bytes.len()))
    }

    fn encode_public_key(key: &SessionKey) -> Vec<u8> {
        key.as_bytes().to_vec()
    }
}

impl malachite::Vote<Chain> for ChainVote {
    fn height(&self) -> Height {
        self.height
    }

    fn round(&self) -> malachite::Round {
        self.round
    }

    fn value(&self) -> &NilOrVal<Hash> {
        &self.value
    }

    fn take_value(self) -> NilOrVal<Hash> {
        self.value
    }

    fn vote_type(&self) -> VoteType {
        self.kind
    }

    fn validator_address(&self) -> &Identity {
        &self.voter
    }

    fn extension(&self) -> Option<&SignedExtension<Chain>> {
        None
    }

    fn take_extension(&mut self) -> Option<SignedExtension<Chain>> {
        None
    }

    fn extend(self, _extension: SignedExtension<Chain>) -> Self {
        self
    }
}

impl malachite::Proposal<Chain> for ChainProposal {
    fn height(&self) -> Height {
        self.height
    }

    fn round(&self) -> malachite::Round {
        self.round
    }

    fn value(&self) -> &Hash {
        &self.value
    }

    fn take_value(self) -> Hash {
        self.value
    }

    fn pol_round(&self) -> malachite::Round {
        self.pol_round
    }

    fn validator_address(&self) -> &Identity {
        &self.proposer
    }
}
