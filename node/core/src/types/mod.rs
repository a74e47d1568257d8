//! The nouns of the chain: identifiers and quantities, blocks, transactions, votes, voter sets, genesis, peer messages.

mod batches;
mod block;
mod certificate;
mod genesis;
mod governance;
mod hash;
mod identifiers;
mod message;
mod parameters;
mod peer_record;
mod quantities;
mod receipt;
mod recovery;
mod transaction;
mod vote;
mod voters;

pub use batches::{ACKNOWLEDGEMENTS_PER_MESSAGE_MAX, BATCHES_PER_REQUEST_MAX, BatchAcknowledgement, ProposedHeader};
pub use block::{
    BATCH_TRANSACTIONS_MAX, BLOCK_BATCHES_MAX, BLOCK_BYTES_CEILING, Batch, Block, Header, OperationsRange, Results,
    StateRoots,
};
pub use certificate::{CommitCertificate, CommitCertificateError, CommitSignature};
pub use genesis::{GENESIS_ACCOUNTS_MAX, GENESIS_KEYS_MAX, Genesis, GenesisDraft, GenesisError, GenesisVoter};
pub use governance::{Governance, GovernanceChange, NewVoter};
pub use hash::{Hash, Hasher, merkle_root};
pub use identifiers::{
    AccountId, CeremonyNonce, ChainId, GovernanceKey, Identity, Incarnation, InvalidIdentifier, SessionKey, Signature,
    TransactionId, Uid,
};
pub use message::{
    BLOCKS_PER_RESPONSE_MAX, CertifiedBlock, PeerMessage, ProposedBlock, RoundCertificate, RoundSignature,
    STATE_BYTES_MAX, TRANSACTIONS_PER_MESSAGE_MAX,
};
pub use parameters::{Parameters, ParametersDraft, ParametersError, Timeout};
pub use peer_record::{
    InvalidPeerAddress, PEER_ADDRESSES_MAX, PEER_RECORDS_PER_MESSAGE_MAX, PeerAddress, PeerRecord, SignedPeerRecord,
};
pub use quantities::{Amount, Epoch, Height, Nonce, Power, Round, TimeMs};
pub use receipt::{FailureReason, Receipt, ReceiptStatus};
pub use recovery::{ManifestSignature, RECOVERY_VOTERS_MAX, RecoveredVoter, Recovery, RecoveryError, RecoveryManifest};
pub use transaction::{
    KeepSession, Payload, RotateSession, TRANSACTION_SIGNATURES_MAX, Transaction, TransactionBody, TransactionError,
    TransactionSignature, Transfer,
};
pub use vote::{Proposal, Step, UnsignedProposal, UnsignedVote, Vote, VoteKind};
pub use voters::{PendingSets, VOTERS_MAX, VoterEntry, VoterSet, VoterSetError, voters_hash};

#[cfg(test)]
mod tests;
