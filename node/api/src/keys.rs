//! ed25519 keys in files: PKCS#8 PEM, version 1 written, versions 1 and 2 read.
//!
//! Identity keys (`identity.pem`) and account keys have the same form; `openssl genpkey -algorithm ed25519` makes it too.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use ed25519_zebra::ed25519::pkcs8::{DecodePrivateKey, EncodePrivateKey, KeypairBytes, spki::der::pem::LineEnding};
use node_core::crypto::KeyPair;
use rand::{TryRngCore, rngs::OsRng};
use thiserror::Error;
use zeroize::Zeroizing;

/// Largest key file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 16 << 10;

/// Why a key cannot be read or written.
#[derive(Debug, Error)]
pub enum KeyFileError {
    /// The file cannot be read.
    #[error("failed to read the key {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// The file cannot be written. A file that is there is never replaced.
    #[error("failed to write the key {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// The file holds no such key.
    #[error("failed to use the key {}: {source}", path.display())]
    Form {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: KeyFormError,
    },
}

/// Why a text is not a key.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum KeyFormError {
    /// Not PKCS#8 PEM, or of another algorithm.
    #[error("not an ed25519 private key in PKCS#8 PEM: {reason}")]
    Pem {
        /// What the parser said.
        reason: String,
    },
    /// The file names a public key that does not belong to the private one.
    #[error("the public key in the file does not belong to the private key")]
    OtherPublicKey,
}

/// The system gave no randomness.
#[derive(Debug, Error)]
#[error("failed to draw random bytes: {source}")]
pub struct RandomError {
    source: rand::rand_core::OsError,
}

/// A new key from the system's randomness.
pub fn generate() -> Result<KeyPair, RandomError> {
    let mut seed = Zeroizing::new([0; 32]);
    OsRng.try_fill_bytes(&mut *seed).map_err(|source| RandomError { source })?;
    Ok(KeyPair::from_seed(*seed))
}

/// The key as PKCS#8 PEM.
pub fn to_pem(key: &KeyPair) -> Zeroizing<String> {
    let bytes = KeypairBytes { secret_key: key.seed(), public_key: None };
    bytes.to_pkcs8_pem(LineEnding::LF).expect("32 bytes of secret key always have a PKCS#8 form")
}

/// A key from PKCS#8 PEM. A public key in it must belong to the private one.
pub fn from_pem(pem: &str) -> Result<KeyPair, KeyFormError> {
    let bytes = KeypairBytes::from_pkcs8_pem(pem.trim_start())
        .map_err(|error| KeyFormError::Pem { reason: error.to_string() })?;
    let key = KeyPair::from_seed(bytes.secret_key);
    match bytes.public_key {
        Some(public) if public.to_bytes() != key.public() => Err(KeyFormError::OtherPublicKey),
        _ => Ok(key),
    }
}

/// Reads a key file.
pub fn read_key_file(path: &Path) -> Result<KeyPair, KeyFileError> {
    let failed = |source| KeyFileError::Read { path: path.to_owned(), source };
    let mut pem = Zeroizing::new(String::new());
    File::open(path).map_err(failed)?.take(FILE_BYTES_MAX).read_to_string(&mut pem).map_err(failed)?;
    from_pem(&pem).map_err(|source| KeyFileError::Form { path: path.to_owned(), source })
}

/// Writes a key to a new file that only its owner may read, and waits until it is on disk.
pub fn write_key_file(path: &Path, key: &KeyPair) -> Result<(), KeyFileError> {
    let failed = |source| KeyFileError::Write { path: path.to_owned(), source };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    file.write_all(to_pem(key).as_bytes()).and_then(|()| file.sync_all()).map_err(failed)
}
