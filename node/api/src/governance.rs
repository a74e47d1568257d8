//! Governance transactions between people: who is to be voted in, what is to be signed, and who has signed it.

use node_core::{
    codec::{Decode, DecodeError, Encode},
    crypto::{KeyPair, SigningBytes, verify},
    types::{
        AccountId, Epoch, Governance, GovernanceChange, GovernanceKey, Height, Identity, Incarnation, NewVoter, Nonce,
        Payload, Power, SessionKey, Signature, Transaction, TransactionBody, TransactionError, TransactionSignature,
    },
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    fields::{self, FieldError},
    proto,
};

/// Largest document that is read.
pub const DOCUMENT_BYTES_MAX: usize = 64 << 10;

/// Why a document cannot be used.
#[derive(Debug, Error)]
pub enum GovernanceError {
    /// It is not JSON of the right form.
    #[error("not a document of this kind: {0}")]
    Json(#[from] serde_json::Error),
    /// A field is not hexadecimal.
    #[error("{field} is not hexadecimal")]
    Hex {
        /// The field.
        field: &'static str,
    },
    /// A field has another length.
    #[error(transparent)]
    Field(#[from] FieldError),
    /// The transaction cannot be read.
    #[error("the transaction cannot be read: {0}")]
    Decode(#[from] DecodeError),
    /// More than 32 signatures.
    #[error(transparent)]
    Signatures(#[from] TransactionError),
    /// A signature does not verify.
    #[error("the signature by {key} is not one over this transaction")]
    BadSignature {
        /// The key.
        key: GovernanceKey,
    },
    /// The report is not by the session key that it names.
    #[error("the report does not prove that the node holds its session key")]
    Possession,
    /// The transaction does something else.
    #[error("the transaction is not one of governance")]
    OtherPayload,
}

/// What every governance transaction needs beside the change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GovernanceTerms {
    /// Incarnation of the chain, from `GetStatus`.
    pub incarnation: Incarnation,
    /// Number of governance transactions before this one, from `GetGovernance`.
    pub nonce: Nonce,
    /// Last height at which it may be executed.
    pub valid_until: Height,
}

/// A governance transaction that nobody has signed.
pub fn unsigned(terms: &GovernanceTerms, change: GovernanceChange) -> Transaction {
    let GovernanceTerms { incarnation, nonce, valid_until } = *terms;
    let payload = Payload::Governance(change);
    let body = TransactionBody { incarnation, sender: AccountId::governance(), nonce, valid_until, payload };
    Transaction::new(body, Vec::new()).expect("no signatures are always in order")
}

/// The same transaction with the signature of one key more.
pub fn with_signature(transaction: &Transaction, key: &KeyPair) -> Result<Transaction, TransactionError> {
    let body = transaction.body().clone();
    let mut signatures: Vec<TransactionSignature> =
        transaction.signatures().iter().filter(|signature| signature.key != key.public()).cloned().collect();
    let signature = key.sign(&SigningBytes::transaction(&body));
    signatures.push(TransactionSignature { key: key.public(), signature });
    signatures.sort_by_key(|signature| signature.key);
    Transaction::new(body, signatures)
}

/// A node's own word that it holds a session key with which it can be voted in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VoterReport {
    incarnation: String,
    identity: String,
    epoch: u64,
    session_key: String,
    possession: String,
}

impl VoterReport {
    /// From a node's answer.
    pub fn from_proto(report: &proto::VoterReport) -> Self {
        Self {
            incarnation: hex::encode(&report.incarnation),
            identity: hex::encode(&report.identity),
            epoch: report.epoch,
            session_key: hex::encode(&report.session_key),
            possession: hex::encode(&report.possession),
        }
    }

    /// From a document.
    pub fn from_json(text: &str) -> Result<Self, GovernanceError> {
        Ok(serde_json::from_str(text)?)
    }

    /// As a document.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("strings and numbers are always JSON")
    }

    /// The voter with this power, once the proof is checked.
    pub fn voter(&self, power: Power) -> Result<(Incarnation, NewVoter), GovernanceError> {
        let incarnation = Incarnation::new(fields::array("incarnation", &from_hex("incarnation", &self.incarnation)?)?);
        let identity = Identity::new(fields::array("identity", &from_hex("identity", &self.identity)?)?);
        let session_key = SessionKey::new(fields::array("sessionKey", &from_hex("sessionKey", &self.session_key)?)?);
        let possession = Signature::new(fields::array("possession", &from_hex("possession", &self.possession)?)?);
        let epoch = Epoch::new(self.epoch);
        let bytes = SigningBytes::voter_possession(&incarnation, &identity, epoch, &session_key);
        verify(session_key.as_bytes(), &bytes, &possession).map_err(|_| GovernanceError::Possession)?;
        Ok((incarnation, NewVoter { identity, power, epoch, session_key, possession }))
    }
}

/// A governance transaction on its way from one signer to the next. Only `transaction` counts; the rest is for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TransactionDocument {
    id: String,
    change: String,
    nonce: u64,
    valid_until: u64,
    signed_by: Vec<String>,
    transaction: String,
}

impl TransactionDocument {
    /// The document of a transaction.
    pub fn new(transaction: &Transaction) -> Result<Self, GovernanceError> {
        let body = transaction.body();
        let Payload::Governance(change) = &body.payload else { return Err(GovernanceError::OtherPayload) };
        Ok(Self {
            id: transaction.id().to_string(),
            change: describe(change),
            nonce: body.nonce.get(),
            valid_until: body.valid_until.get(),
            signed_by: transaction.signatures().iter().map(|signature| hex::encode(signature.key)).collect(),
            transaction: hex::encode(transaction.encode()),
        })
    }

    /// As JSON.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("strings and numbers are always JSON")
    }

    /// Reads a document and checks each signature in it.
    pub fn read(text: &str) -> Result<Transaction, GovernanceError> {
        let document: Self = serde_json::from_str(text)?;
        let transaction = Transaction::decode(&from_hex("transaction", &document.transaction)?)?;
        // What the signer reads is what the signer signs.
        let shown = Self::new(&transaction)?;
        if shown != document {
            let difference = "what it says about the transaction is not what the transaction does";
            return Err(GovernanceError::Json(serde::de::Error::custom(difference)));
        }
        let bytes = SigningBytes::transaction(transaction.body());
        for signature in transaction.signatures() {
            let key = GovernanceKey::new(signature.key);
            verify(&signature.key, &bytes, &signature.signature).map_err(|_| GovernanceError::BadSignature { key })?;
        }
        Ok(transaction)
    }
}

/// What a change does, in one line for the person who signs it.
pub fn describe(change: &GovernanceChange) -> String {
    match change {
        GovernanceChange::AddVoter(voter) => format!("add {}", describe_voter(voter)),
        GovernanceChange::ReplaceVoter { former, voter } => {
            format!("replace voter {former} by {}", describe_voter(voter))
        }
        GovernanceChange::RemoveVoter { identity } => format!("remove voter {identity}"),
        GovernanceChange::SetPower { identity, power } => format!("set the power of voter {identity} to {power}"),
        GovernanceChange::SetParameters(parameters) => {
            let json = serde_json::to_string(&crate::genesis::parameters_json(parameters));
            format!("set the parameters to {}", json.expect("numbers are always JSON"))
        }
        GovernanceChange::SetKeys(Governance { threshold, keys }) => {
            let keys: Vec<String> = keys.iter().map(ToString::to_string).collect();
            format!("set the governance to {threshold} of {}", keys.join(", "))
        }
    }
}

fn describe_voter(voter: &NewVoter) -> String {
    let NewVoter { identity, power, epoch, session_key, possession: _ } = voter;
    format!("voter {identity} with power {power} and session key {session_key} of epoch {epoch}")
}

fn from_hex(field: &'static str, text: &str) -> Result<Vec<u8>, GovernanceError> {
    hex::decode(text).map_err(|_| GovernanceError::Hex { field })
}

#[cfg(test)]
mod tests {
    use node_core::{
        crypto::KeyPair,
        types::{GovernanceChange, Height, Identity, Incarnation, Nonce},
    };

    use super::{GovernanceError, GovernanceTerms, TransactionDocument, unsigned, with_signature};

    #[test]
    fn a_document_gathers_signatures_and_shows_what_is_signed() {
        let identity = Identity::new([7; 32]);
        let terms = GovernanceTerms {
            incarnation: Incarnation::new([1; 32]),
            nonce: Nonce::new(3),
            valid_until: Height::new(90),
        };
        let mut transaction = unsigned(&terms, GovernanceChange::RemoveVoter { identity });
        for seed in [1, 2, 1] {
            let text = TransactionDocument::new(&transaction).expect("it is governance").to_json();
            assert!(text.contains(&format!("remove voter {identity}")));
            let read = TransactionDocument::read(&text).expect("the document is whole");
            transaction = with_signature(&read, &KeyPair::from_seed([seed; 32])).expect("there is room");
        }
        assert_eq!(transaction.signatures().len(), 2);
    }

    #[test]
    fn a_document_that_says_something_else_than_its_transaction_is_refused() {
        let terms =
            GovernanceTerms { incarnation: Incarnation::new([1; 32]), nonce: Nonce::ZERO, valid_until: Height::new(9) };
        let remove = |byte| unsigned(&terms, GovernanceChange::RemoveVoter { identity: Identity::new([byte; 32]) });
        let text = TransactionDocument::new(&remove(1)).expect("it is governance").to_json();
        let said = |byte| format!("remove voter {}", Identity::new([byte; 32]));
        let lie = text.replace(&said(1), &said(2));
        assert!(matches!(TransactionDocument::read(&lie), Err(GovernanceError::Json(_))));
        let broken = with_signature(&remove(1), &KeyPair::from_seed([1; 32])).expect("there is room");
        let mut bytes = node_core::codec::Encode::encode(&broken);
        *bytes.last_mut().expect("it has bytes") ^= 1;
        let forged = node_core::codec::Decode::decode(&bytes).expect("only the signature has changed");
        let text = TransactionDocument::new(&forged).expect("it is governance").to_json();
        assert!(matches!(TransactionDocument::read(&text), Err(GovernanceError::BadSignature { .. })));
    }
}
