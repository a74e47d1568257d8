//! Verification of whole documents: which keys must have signed which bytes.

use std::sync::Arc;

use thiserror::Error;

use super::{
    KeyError, KeyPoints, NoMemory, RotationTerms, SignatureCheck, SigningBytes, verify, verify_all, verify_each,
};
use crate::types::{
    AccountId, BATCH_TRANSACTIONS_MAX, Batch, BatchAcknowledgement, CommitCertificate, CommitCertificateError, Genesis,
    GenesisError, GenesisVoter, Hash, Identity, Incarnation, KeepSession, NewVoter, Payload, Proposal, RotateSession,
    SignedPeerRecord, Transaction, TransactionId, Vote, VoterEntry, VoterSet,
};

/// Verifies that the identity in a record has signed it.
pub fn verify_peer_record(signed: &SignedPeerRecord) -> Result<(), KeyError> {
    let record = &signed.record;
    let bytes = SigningBytes::peer_record(&record.incarnation, &record.identity, &record.hash());
    verify(record.identity.as_bytes(), &bytes, &signed.signature)
}

/// A signature that is not what it should be.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum InvalidSignature {
    /// The signer is not a voter of the height.
    #[error("{identity} is not a voter")]
    NotAVoter {
        /// Who claims to have signed.
        identity: Identity,
    },
    /// Signed with a key of another epoch than that of the height.
    #[error("{identity} did not sign with its session key of this height")]
    WrongEpoch {
        /// Who signed.
        identity: Identity,
    },
    /// The signature does not verify.
    #[error("the signature of {identity} does not verify")]
    Vote {
        /// Who claims to have signed.
        identity: Identity,
    },
    /// A transaction has a wrong signature, or not those that its payload asks for.
    #[error("transaction {id} is not signed by the right keys")]
    Transaction {
        /// The transaction.
        id: TransactionId,
    },
    /// At least one transaction of a batch is not signed by the right keys.
    #[error("batch {batch} has a transaction that is not signed by the right keys")]
    Batch {
        /// The digest of the batch.
        batch: Hash,
    },
}

/// A transaction whose signatures verify and are those that its payload asks for, as far as can be told without state:
/// that a session key is the current one is for execution to say.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct VerifiedTransaction {
    transaction: Transaction,
}

impl VerifiedTransaction {
    /// The transaction.
    #[must_use]
    pub fn transaction(&self) -> &Transaction {
        &self.transaction
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> TransactionId {
        self.transaction.id()
    }

    /// The transaction without the mark.
    #[must_use]
    pub fn into_transaction(self) -> Transaction {
        self.transaction
    }
}

/// A batch of account transactions, each of which is verified.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct VerifiedBatch {
    batch: Arc<Batch>,
}

impl VerifiedBatch {
    /// From verified transactions, of which at most [`crate::types::BATCH_TRANSACTIONS_MAX`] are taken.
    #[must_use]
    pub fn new(transactions: Vec<VerifiedTransaction>) -> Self {
        let transactions = transactions.into_iter().map(VerifiedTransaction::into_transaction);
        let batch = Batch::new(transactions.take(BATCH_TRANSACTIONS_MAX).collect());
        Self { batch: Arc::new(batch.unwrap_or_default()) }
    }

    /// From the own disk, where only verified batches are stored.
    #[must_use]
    pub fn from_disk(batch: Batch) -> Self {
        Self { batch: Arc::new(batch) }
    }

    /// Every transaction is for this incarnation.
    #[must_use]
    pub fn is_of(&self, incarnation: &Incarnation) -> bool {
        self.batch.transactions().iter().all(|transaction| transaction.body().incarnation == *incarnation)
    }

    /// The batch.
    #[must_use]
    pub fn batch(&self) -> &Arc<Batch> {
        &self.batch
    }
}

/// Verifies a batch of a peer: every transaction, and that none belongs into another lane.
pub fn verify_batch(batch: Arc<Batch>) -> Result<VerifiedBatch, InvalidSignature> {
    let digest = batch.digest();
    let (_, mut batches) = verify_together(&mut NoMemory, Vec::new(), vec![batch]);
    batches.pop().unwrap_or(Err(InvalidSignature::Batch { batch: digest }))
}

/// What was found about transactions, and about batches, each in their order.
pub type Findings = (Vec<Result<VerifiedTransaction, InvalidSignature>>, Vec<Result<VerifiedBatch, InvalidSignature>>);

/// Verifies transactions and batches together, which costs less than one by one. A bad one does not spoil the others.
#[must_use]
pub fn verify_together(keys: &mut dyn KeyPoints, transactions: Vec<Transaction>, batches: Vec<Arc<Batch>>) -> Findings {
    let in_batches: usize = batches.iter().map(|batch| batch.transactions().len()).sum();
    let mut checks = Vec::with_capacity(transactions.len() + in_batches);
    let counts: Vec<_> = transactions.iter().map(|transaction| add_checks(transaction, &mut checks)).collect();
    let batch_counts: Vec<_> = batches.iter().map(|batch| add_batch_checks(batch, &mut checks)).collect();
    let mut valid = verify_each(keys, &checks).into_iter();
    // Every answer of this entry is taken, also after a bad one: those of the next come after them.
    let mut all_valid = |count: usize| valid.by_ref().take(count).filter(|valid| *valid).count() == count;
    let transactions = transactions.into_iter().zip(counts).map(|(transaction, count)| {
        if count.is_some_and(&mut all_valid) {
            Ok(VerifiedTransaction { transaction })
        } else {
            Err(InvalidSignature::Transaction { id: transaction.id() })
        }
    });
    let transactions = transactions.collect();
    let batches = batches.into_iter().zip(batch_counts).map(|(batch, count)| {
        if all_valid(count?) {
            Ok(VerifiedBatch { batch })
        } else {
            Err(InvalidSignature::Batch { batch: batch.digest() })
        }
    });
    (transactions, batches.collect())
}

/// Adds what must verify for the transactions of a batch, and says how much that is; nothing if one of them is wrong as it
/// stands.
fn add_batch_checks(batch: &Batch, checks: &mut Vec<SignatureCheck>) -> Result<usize, InvalidSignature> {
    let before = checks.len();
    for transaction in batch.transactions() {
        let session = transaction.body().payload.is_session();
        if session || add_checks(transaction, checks).is_none() {
            checks.truncate(before);
            return Err(InvalidSignature::Transaction { id: transaction.id() });
        }
    }
    Ok(checks.len() - before)
}

/// An acknowledgement by a voter of these.
pub fn verify_acknowledgement(
    incarnation: &Incarnation,
    voters: &VoterSet,
    acknowledgement: &BatchAcknowledgement,
) -> Result<(), InvalidSignature> {
    let BatchAcknowledgement { batch, voter, epoch, signature } = acknowledgement;
    let entry = entry_of(voters, voter, *epoch)?;
    let bytes = SigningBytes::batch_acknowledgement(incarnation, voter, *epoch, batch);
    verify(entry.session_key.as_bytes(), &bytes, signature).map_err(|_| InvalidSignature::Vote { identity: *voter })
}

fn entry_of<'a>(
    voters: &'a VoterSet,
    identity: &Identity,
    epoch: crate::types::Epoch,
) -> Result<&'a VoterEntry, InvalidSignature> {
    let entry = voters.get(identity).ok_or(InvalidSignature::NotAVoter { identity: *identity })?;
    if entry.epoch == epoch { Ok(entry) } else { Err(InvalidSignature::WrongEpoch { identity: *identity }) }
}

/// A vote by a voter of its height.
pub fn verify_vote(incarnation: &Incarnation, voters: &VoterSet, vote: &Vote) -> Result<(), InvalidSignature> {
    let Vote { vote: unsigned, epoch, signature } = vote;
    let entry = entry_of(voters, &unsigned.voter, *epoch)?;
    verify(entry.session_key.as_bytes(), &SigningBytes::vote(incarnation, *epoch, unsigned), signature)
        .map_err(|_| InvalidSignature::Vote { identity: unsigned.voter })
}

/// A proposal by a voter of its height. Whether it is that voter's turn is for consensus to say.
pub fn verify_proposal(
    incarnation: &Incarnation,
    voters: &VoterSet,
    proposal: &Proposal,
) -> Result<(), InvalidSignature> {
    let Proposal { proposal: unsigned, epoch, signature } = proposal;
    let entry = entry_of(voters, &unsigned.proposer, *epoch)?;
    verify(entry.session_key.as_bytes(), &SigningBytes::proposal(incarnation, *epoch, unsigned), signature)
        .map_err(|_| InvalidSignature::Vote { identity: unsigned.proposer })
}

/// A certificate: signed by a quorum of the voters of its height, every signature included verifies.
pub fn verify_certificate(
    incarnation: &Incarnation,
    voters: &VoterSet,
    certificate: &CommitCertificate,
) -> Result<(), CommitCertificateError> {
    certificate.check_power(voters)?;
    let checks: Vec<SignatureCheck> = certificate
        .votes()
        .filter_map(|Vote { vote, epoch, signature }| {
            let entry = voters.get(&vote.voter)?;
            let bytes = SigningBytes::vote(incarnation, epoch, &vote);
            Some(SignatureCheck { key: *entry.session_key.as_bytes(), bytes, signature })
        })
        .collect();
    let height = certificate.height();
    if verify_all(&checks) { Ok(()) } else { Err(CommitCertificateError::BadSignature { height }) }
}

/// Every voter of a genesis proves that it holds its session key.
pub fn verify_genesis(genesis: &Genesis) -> Result<(), GenesisError> {
    for GenesisVoter { entry: VoterEntry { identity, power: _, session_key, epoch: _ }, possession } in &genesis.voters
    {
        let bytes = SigningBytes::genesis_possession(&genesis.chain_id, &genesis.ceremony, identity, session_key);
        verify(session_key.as_bytes(), &bytes, possession)
            .map_err(|_| GenesisError::Possession { identity: *identity })?;
    }
    Ok(())
}

/// Verifies many transactions in batches. The answers are in the order of the transactions.
#[must_use]
pub fn verify_transactions(transactions: Vec<Transaction>) -> Vec<Result<VerifiedTransaction, InvalidSignature>> {
    verify_together(&mut NoMemory, transactions, Vec::new()).0
}

/// Verifies one transaction.
pub fn verify_transaction(transaction: Transaction) -> Result<VerifiedTransaction, InvalidSignature> {
    let id = transaction.id();
    verify_transactions(vec![transaction]).pop().unwrap_or(Err(InvalidSignature::Transaction { id }))
}

/// Adds what must verify for this transaction; nothing if its signatures are by other keys than its payload asks for.
/// Signatures by a *current* session key (co-signature, objection) are checked at execution, where the key is known.
fn add_checks(transaction: &Transaction, checks: &mut Vec<SignatureCheck>) -> Option<usize> {
    let body = transaction.body();
    let signers: Vec<[u8; 32]> = transaction.signatures().iter().map(|signature| signature.key).collect();
    let before = checks.len();
    match &body.payload {
        Payload::Transfer(_) => {
            if signers != [*body.sender.as_bytes()] {
                return None;
            }
        }
        Payload::RotateSession(RotateSession { identity, epoch, new_key, possession, co_signature: _ }) => {
            if signers != [*identity.as_bytes()] || body.sender != AccountId::from(*identity) || body.nonce.get() != 0 {
                return None;
            }
            let terms = RotationTerms {
                incarnation: body.incarnation,
                identity: *identity,
                epoch: *epoch,
                new_key: *new_key,
                valid_until: body.valid_until,
            };
            let bytes = SigningBytes::rotation_possession(&terms);
            checks.push(SignatureCheck { key: *new_key.as_bytes(), bytes, signature: *possession });
        }
        Payload::KeepSession(KeepSession { identity, .. }) => {
            if !signers.is_empty() || body.sender != AccountId::from(*identity) || body.nonce.get() != 0 {
                return None;
            }
        }
        // Whether the signers are the governance keys is for execution to say.
        Payload::Governance(change) => {
            if signers.is_empty() || body.sender != AccountId::governance() {
                return None;
            }
            if let Some(NewVoter { identity, power: _, epoch, session_key, possession }) = change.new_voter() {
                let bytes = SigningBytes::voter_possession(&body.incarnation, identity, *epoch, session_key);
                checks.push(SignatureCheck { key: *session_key.as_bytes(), bytes, signature: *possession });
            }
        }
    }
    let bytes = SigningBytes::transaction(body);
    for signature in transaction.signatures() {
        checks.push(SignatureCheck { key: signature.key, bytes: bytes.clone(), signature: signature.signature });
    }
    Some(checks.len() - before)
}
