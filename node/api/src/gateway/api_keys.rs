//! API keys of a gateway: the file that holds their hashes, and making one.
//!
//! A key is `althing_<id>_<secret>` with 256 random bits in the secret, so one SHA-256 hides it as well as a slow hash
//! would: there is nothing to guess.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// How every key begins.
pub const PREFIX: &str = "althing_";

/// One key as the file has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KeyEntry {
    /// Name of the key: 1 to 63 of a-z, 0-9 and `-`.
    pub id: String,
    /// SHA-256 of the whole key, 64 hex digits.
    pub sha256: String,
    /// Roles of whoever shows it.
    pub roles: Vec<String>,
    /// When it ends, as in 2027-01-31T00:00:00Z; without it, never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
}

/// The whole file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KeyFile {
    /// The keys, each id once.
    pub keys: Vec<KeyEntry>,
}

/// Whether a text can be the id of a key.
pub fn is_id(id: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&id.len()) && id.bytes().all(allowed)
}

/// A key that was just made: the text for its owner, and the entry for the file.
#[derive(Debug)]
pub struct NewKey {
    /// What the owner sends.
    pub key: String,
    /// What goes into the file.
    pub entry: KeyEntry,
}

impl NewKey {
    /// Makes a key with 256 random bits; nothing when `id` is not an id.
    pub fn generate(id: &str, roles: Vec<String>) -> Option<Self> {
        if !is_id(id) {
            return None;
        }
        let key = format!("{PREFIX}{id}_{}", URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>()));
        let sha256 = hex::encode(Sha256::digest(key.as_bytes()));
        let entry = KeyEntry { id: id.to_owned(), sha256, roles, expires: None };
        Some(Self { key, entry })
    }

    /// The entry as a file of one key.
    pub fn file(&self) -> Result<String, serde_yaml::Error> {
        serde_yaml::to_string(&KeyFile { keys: vec![self.entry.clone()] })
    }
}
