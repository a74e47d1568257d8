//! Builds and signs transactions.

use node_core::{
    crypto::{KeyPair, RotationTerms, SigningBytes},
    types::{
        AccountId, Amount, Epoch, Height, Identity, Incarnation, KeepSession, Nonce, Payload, RotateSession,
        SessionKey, Signature, Transaction, TransactionBody, TransactionSignature, Transfer,
    },
};

/// A transfer to be signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransferTerms {
    /// Incarnation of the chain, from `GetStatus`.
    pub incarnation: Incarnation,
    /// Nonce that the account's next transaction must carry, from `GetAccount`.
    pub nonce: Nonce,
    /// Last height at which it may be executed.
    pub valid_until: Height,
    /// Who gets it.
    pub to: AccountId,
    /// How much, in the smallest unit.
    pub amount: Amount,
}

/// A rotation to be signed.
#[derive(Clone, Copy, Debug)]
pub struct RotationRequest<'a> {
    /// Incarnation of the chain.
    pub incarnation: Incarnation,
    /// The present epoch plus one.
    pub epoch: Epoch,
    /// Last height at which it may be executed; at most 100 blocks ahead.
    pub valid_until: Height,
    /// The identity key.
    pub identity: &'a KeyPair,
    /// The new session key.
    pub new_key: &'a KeyPair,
    /// The present session key, if this process may use it: the new one then counts sooner.
    pub current_key: Option<&'a KeyPair>,
}

/// An objection to be signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepTerms {
    /// Incarnation of the chain.
    pub incarnation: Incarnation,
    /// The voter whose key is to be kept.
    pub identity: Identity,
    /// Epoch of the pending rotation that is to become void.
    pub voided_epoch: Epoch,
    /// Key of the pending rotation that is to become void.
    pub voided_key: SessionKey,
    /// Last height at which it may be executed.
    pub valid_until: Height,
}

/// A transfer from the account of `sender`.
pub fn transfer(sender: &KeyPair, terms: &TransferTerms) -> Transaction {
    let TransferTerms { incarnation, nonce, valid_until, to, amount } = *terms;
    let account = AccountId::new(sender.public());
    let payload = Payload::Transfer(Transfer { to, amount });
    signed(TransactionBody { incarnation, sender: account, nonce, valid_until, payload }, Some(sender))
}

/// A rotation of the session key, with the proof that the new key is held.
pub fn rotate_session(request: &RotationRequest<'_>) -> Transaction {
    let RotationRequest { incarnation, epoch, valid_until, identity, new_key, current_key } = *request;
    let voter = Identity::new(identity.public());
    let new_public = SessionKey::new(new_key.public());
    let terms = RotationTerms { incarnation, identity: voter, epoch, new_key: new_public, valid_until };
    let possession = new_key.sign(&SigningBytes::rotation_possession(&terms));
    let co_signature = current_key.map(|key| key.sign(&SigningBytes::rotate_session(&terms)));
    let payload =
        Payload::RotateSession(RotateSession { identity: voter, epoch, new_key: new_public, possession, co_signature });
    let body =
        TransactionBody { incarnation, sender: AccountId::from(voter), nonce: Nonce::ZERO, valid_until, payload };
    signed(body, Some(identity))
}

/// The objection of the present session key to a rotation that only the identity signed.
pub fn keep_session(current_key: &KeyPair, terms: &KeepTerms) -> Transaction {
    let KeepTerms { incarnation, identity, voided_epoch, voided_key, valid_until } = *terms;
    let rotation = RotationTerms { incarnation, identity, epoch: voided_epoch, new_key: voided_key, valid_until };
    let signature: Signature = current_key.sign(&SigningBytes::keep_session(&rotation));
    let payload = Payload::KeepSession(KeepSession { identity, voided_epoch, voided_key, signature });
    let body =
        TransactionBody { incarnation, sender: AccountId::from(identity), nonce: Nonce::ZERO, valid_until, payload };
    signed(body, None)
}

fn signed(body: TransactionBody, signer: Option<&KeyPair>) -> Transaction {
    let bytes = SigningBytes::transaction(&body);
    let signatures = signer.map(|key| TransactionSignature { key: key.public(), signature: key.sign(&bytes) });
    Transaction::new(body, signatures.into_iter().collect()).expect("at most one signature is always in order")
}
