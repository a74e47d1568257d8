//! Keys in the form of CometBFT: `priv_validator_key.json`, read and written, so that a validator can move with its key.
//!
//! The file names an address (the first 20 bytes of SHA-256 of the public key), the public key, and the private key as
//! seed and public key in one (CometBFT, `privval/file.go` and `crypto/ed25519`). All three must agree.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use node_core::crypto::KeyPair;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;
use zeroize::{Zeroize as _, Zeroizing};

const PUBLIC_TYPE: &str = "tendermint/PubKeyEd25519";
const PRIVATE_TYPE: &str = "tendermint/PrivKeyEd25519";
const ADDRESS_BYTES: usize = 20;

/// Why a text is no such key.
#[derive(Debug, Error)]
pub enum CometKeyError {
    /// Not the JSON of that file.
    #[error("not a priv_validator_key.json: {0}")]
    Json(#[from] serde_json::Error),
    /// A key of another algorithm.
    #[error("{field} is of type {found}, only ed25519 keys ({expected}) can be used")]
    Algorithm {
        /// Which part.
        field: &'static str,
        /// Its type.
        found: String,
        /// The type that is understood.
        expected: &'static str,
    },
    /// Not the bytes that the type asks for.
    #[error("{field} is not {bytes} bytes in base64")]
    Bytes {
        /// Which part.
        field: &'static str,
        /// How many it should be.
        bytes: usize,
    },
    /// The parts are of different keys.
    #[error("{field} does not belong to the private key in the file")]
    Disagrees {
        /// Which part.
        field: &'static str,
    },
}

#[derive(Deserialize, Serialize)]
struct Document {
    address: String,
    pub_key: Typed,
    priv_key: Typed,
}

#[derive(Deserialize, Serialize)]
struct Typed {
    r#type: String,
    value: String,
}

impl Drop for Typed {
    fn drop(&mut self) {
        self.value.zeroize();
    }
}

/// The key of a `priv_validator_key.json`.
pub fn from_json(text: &str) -> Result<KeyPair, CometKeyError> {
    let Document { address, pub_key, priv_key } = serde_json::from_str(text)?;
    let private: Zeroizing<[u8; 64]> = bytes("priv_key", &priv_key, PRIVATE_TYPE)?;
    let public: Zeroizing<[u8; 32]> = bytes("pub_key", &pub_key, PUBLIC_TYPE)?;
    let (seed, tail) = private.split_at(32);
    let seed = <[u8; 32]>::try_from(seed).map_err(|_| CometKeyError::Bytes { field: "priv_key", bytes: 64 })?;
    let key = KeyPair::from_seed(seed);
    if tail != key.public() {
        return Err(CometKeyError::Disagrees { field: "the second half of priv_key" });
    }
    if *public != key.public() {
        return Err(CometKeyError::Disagrees { field: "pub_key" });
    }
    if !address.eq_ignore_ascii_case(&address_of(&key)) {
        return Err(CometKeyError::Disagrees { field: "address" });
    }
    Ok(key)
}

/// The text of a `priv_validator_key.json` with this key.
pub fn to_json(key: &KeyPair) -> Zeroizing<String> {
    let mut private = Zeroizing::new(Vec::with_capacity(64));
    private.extend_from_slice(&key.seed());
    private.extend_from_slice(&key.public());
    let typed = |kind: &str, bytes: &[u8]| Typed { r#type: kind.to_owned(), value: STANDARD.encode(bytes) };
    let document = Document {
        address: address_of(key),
        pub_key: typed(PUBLIC_TYPE, &key.public()),
        priv_key: typed(PRIVATE_TYPE, &private),
    };
    let mut text = serde_json::to_string_pretty(&document).expect("three strings always have a JSON form");
    text.push('\n');
    text.into()
}

fn address_of(key: &KeyPair) -> String {
    let digest = Sha256::digest(key.public());
    hex::encode_upper(digest.iter().copied().take(ADDRESS_BYTES).collect::<Vec<u8>>())
}

fn bytes<const N: usize>(
    field: &'static str,
    typed: &Typed,
    expected: &'static str,
) -> Result<Zeroizing<[u8; N]>, CometKeyError> {
    if typed.r#type != expected {
        return Err(CometKeyError::Algorithm { field, found: typed.r#type.clone(), expected });
    }
    let decoded = Zeroizing::new(STANDARD.decode(typed.value.as_bytes()).unwrap_or_default());
    decoded.as_slice().try_into().map(Zeroizing::new).map_err(|_| CometKeyError::Bytes { field, bytes: N })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The secret key of RFC 8032, section 7.1, test 1, in the form of CometBFT.
    const FILE: &str = r#"{
  "address": "21FE31DFA154A261626BF854046FD2271B7BED4B",
  "pub_key": {"type": "tendermint/PubKeyEd25519", "value": "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="},
  "priv_key": {"type": "tendermint/PrivKeyEd25519", "value": "nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2DXWpgBgrEKt9VL/tPJZAc6DuFy89qmIyWvAhpo9wdRGg=="}
}"#;

    #[test]
    fn a_key_is_read_and_written_back_in_the_same_form() {
        let key = from_json(FILE).unwrap();
        assert_eq!(hex::encode(key.public()), "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
        let again: serde_json::Value = serde_json::from_str(&to_json(&key)).unwrap();
        assert_eq!(again, serde_json::from_str::<serde_json::Value>(FILE).unwrap());
    }

    #[test]
    fn parts_of_different_keys_are_refused_by_name() {
        let refused = |from: &str, to: &str| from_json(&FILE.replacen(from, to, 1)).unwrap_err().to_string();
        assert_eq!(refused("21FE", "21FF"), "address does not belong to the private key in the file");
        assert_eq!(refused("\"11qY", "\"12qY"), "pub_key does not belong to the private key in the file");
        assert_eq!(
            refused("\"nWGx", "\"nWGy"),
            "the second half of priv_key does not belong to the private key in the file"
        );
        assert_eq!(refused("\"nWGx", "\""), "priv_key is not 64 bytes in base64");
        assert_eq!(
            refused("PrivKeyEd25519", "PrivKeySecp256k1"),
            "priv_key is of type tendermint/PrivKeySecp256k1, only ed25519 keys (tendermint/PrivKeyEd25519) can be used"
        );
    }
}
