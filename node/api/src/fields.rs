//! Raw bytes of protobuf fields as the types of `node-core`.

use node_core::types::{AccountId, Hash, Identity, SessionKey, Signature, TransactionId};
use thiserror::Error;

/// A field has another length than its type.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{field} has {found} bytes, {expected} are needed")]
pub struct FieldError {
    /// Name of the field.
    pub field: &'static str,
    /// Its length in bytes.
    pub found: usize,
    /// The length of the type.
    pub expected: usize,
}

/// Bytes of a fixed length.
pub fn array<const N: usize>(field: &'static str, bytes: &[u8]) -> Result<[u8; N], FieldError> {
    bytes.try_into().map_err(|_| FieldError { field, found: bytes.len(), expected: N })
}

/// A hash, 32 bytes.
pub fn hash(field: &'static str, bytes: &[u8]) -> Result<Hash, FieldError> {
    array(field, bytes).map(Hash::new)
}

/// A hash, or nothing where the field is empty.
pub fn optional_hash(field: &'static str, bytes: &[u8]) -> Result<Option<Hash>, FieldError> {
    if bytes.is_empty() { Ok(None) } else { hash(field, bytes).map(Some) }
}

/// An identity, 32 bytes.
pub fn identity(field: &'static str, bytes: &[u8]) -> Result<Identity, FieldError> {
    array(field, bytes).map(Identity::new)
}

/// A session public key, 32 bytes.
pub fn session_key(field: &'static str, bytes: &[u8]) -> Result<SessionKey, FieldError> {
    array(field, bytes).map(SessionKey::new)
}

/// An account, 32 bytes.
pub fn account(field: &'static str, bytes: &[u8]) -> Result<AccountId, FieldError> {
    array(field, bytes).map(AccountId::new)
}

/// A transaction's id, 32 bytes.
pub fn transaction_id(field: &'static str, bytes: &[u8]) -> Result<TransactionId, FieldError> {
    array(field, bytes).map(TransactionId::new)
}

/// A signature, 64 bytes.
pub fn signature(field: &'static str, bytes: &[u8]) -> Result<Signature, FieldError> {
    array(field, bytes).map(Signature::new)
}
