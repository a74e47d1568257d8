//! Identifiers as types of their own: keys, ids and names that cannot be mixed up.

use std::{fmt, str::FromStr};

use thiserror::Error;

use super::Hash;
use crate::codec::{Decode, DecodeError, Encode, Reader, Writer};

/// A text that is not an identifier.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("not a valid {kind}: {text:?}")]
pub struct InvalidIdentifier {
    /// The kind of identifier.
    pub kind: &'static str,
    /// The text, cut after 80 characters.
    pub text: String,
}

impl InvalidIdentifier {
    pub(crate) fn new(kind: &'static str, text: &str) -> Self {
        Self { kind, text: text.chars().take(80).collect() }
    }
}

/// Bytes from lower or upper case hexadecimal digits, two for each byte.
pub(crate) fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != N * 2 {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let [high, low] = pair else { return None };
        let high = char::from(*high).to_digit(16)?;
        let low = char::from(*low).to_digit(16)?;
        *byte = u8::try_from(high * 16 + low).ok()?;
    }
    Some(bytes)
}

/// Declares an identifier of a fixed number of bytes, written as hexadecimal digits.
macro_rules! bytes_newtype {
    ($(#[$doc:meta])* $name:ident, $size:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub struct $name([u8; $size]);

        impl $name {
            /// The number of bytes.
            pub const SIZE: usize = $size;

            /// From its bytes.
            #[must_use]
            pub const fn new(bytes: [u8; $size]) -> Self {
                Self(bytes)
            }

            /// Its bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; $size] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl std::str::FromStr for $name {
            type Err = super::InvalidIdentifier;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                super::identifiers::from_hex(text)
                    .map(Self)
                    .ok_or_else(|| super::InvalidIdentifier::new(stringify!($name), text))
            }
        }

        impl Encode for $name {
            fn encode_to(&self, writer: &mut Writer) {
                writer.raw(&self.0);
            }
        }

        impl Decode for $name {
            fn decode_from(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
                Ok(Self(reader.array(stringify!($name))?))
            }
        }
    };
}
pub(crate) use bytes_newtype;

bytes_newtype! {
    /// The identity of a validator: an ed25519 public key. Signs the peer record, transactions and rotations; never a vote.
    Identity, 32
}
bytes_newtype! {
    /// The ed25519 public key that alone signs proposals and votes of a voter. Made on its volume, never leaves it.
    SessionKey, 32
}
bytes_newtype! {
    /// An account: the ed25519 public key that signs its transactions.
    AccountId, 32
}
bytes_newtype! {
    /// An ed25519 public key of the governance set.
    GovernanceKey, 32
}
bytes_newtype! {
    /// A transaction: the hash of its signing bytes, so that other signatures over the same body do not make another id.
    TransactionId, 32
}
bytes_newtype! {
    /// One life of a chain: the genesis hash; after a recovery the hash of the accepted manifest. Part of everything signed.
    Incarnation, 32
}
bytes_newtype! {
    /// A number that a genesis ceremony uses once, so that proofs of possession of another ceremony do not count.
    CeremonyNonce, 32
}
bytes_newtype! {
    /// An ed25519 signature.
    Signature, 64
}
bytes_newtype! {
    /// The 128 bits of a UUID: a pod, a claim, an instance, a machine, a boot.
    Uid, 16
}

impl From<Hash> for Incarnation {
    fn from(hash: Hash) -> Self {
        Self(*hash.as_bytes())
    }
}

impl From<Hash> for TransactionId {
    fn from(hash: Hash) -> Self {
        Self(*hash.as_bytes())
    }
}

/// A validator's own account has the same key as its identity.
impl From<Identity> for AccountId {
    fn from(identity: Identity) -> Self {
        Self(*identity.as_bytes())
    }
}

impl Uid {
    /// From text with or without hyphens, as in `/proc/sys/kernel/random/boot_id`, a pod UID or a DMI product UUID.
    pub fn parse(text: &str) -> Result<Self, InvalidIdentifier> {
        let digits: String = text.trim().chars().filter(|character| *character != '-').collect();
        from_hex(&digits).map(Self).ok_or_else(|| InvalidIdentifier::new("Uid", text))
    }

    /// In the usual notation: 8-4-4-4-12 digits.
    #[must_use]
    pub fn hyphenated(&self) -> String {
        let mut text = String::with_capacity(36);
        for (index, digit) in self.to_string().chars().enumerate() {
            if matches!(index, 8 | 12 | 16 | 20) {
                text.push('-');
            }
            text.push(digit);
        }
        text
    }
}

/// The name of a chain: 1 to 63 lower-case letters, digits and hyphens, first and last no hyphen.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ChainId(String);

impl ChainId {
    /// The longest name, in bytes.
    pub const LENGTH_MAX: usize = 63;

    /// From text, if it is a name.
    pub fn new(text: impl Into<String>) -> Result<Self, InvalidIdentifier> {
        let text = text.into();
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let valid = (1..=Self::LENGTH_MAX).contains(&text.len())
            && text.bytes().all(allowed)
            && !text.starts_with('-')
            && !text.ends_with('-');
        if valid { Ok(Self(text)) } else { Err(InvalidIdentifier::new("ChainId", &text)) }
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ChainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ChainId {
    type Err = InvalidIdentifier;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::new(text)
    }
}

impl Encode for ChainId {
    fn encode_to(&self, writer: &mut Writer) {
        writer.bytes(self.0.as_bytes());
    }
}

impl Decode for ChainId {
    fn decode_from(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let bytes = reader.bytes("ChainId", Self::LENGTH_MAX)?;
        let text = std::str::from_utf8(bytes).map_err(|error| DecodeError::invalid("ChainId", error))?;
        Self::new(text).map_err(|error| DecodeError::invalid("ChainId", error))
    }
}
