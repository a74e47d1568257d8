//! API keys: a file with their hashes, read again when it changes.
//!
//! A key is `althing_<id>_<secret>` with 256 random bits in the secret, so one SHA-256 hides it as well as a slow hash
//! would: there is nothing to guess.

use std::{collections::HashMap, fs, io, path::PathBuf, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use node_api::gateway::api_keys::{KeyEntry, KeyFile, PREFIX, is_id};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use thiserror::Error;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::time::{MissedTickBehavior, interval};

/// Largest file, in bytes.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// Most keys in one file.
const KEYS_MAX: usize = 10_000;
/// How often the file is looked at.
const LOOK: Duration = Duration::from_secs(5);

/// Why the file cannot be used.
#[derive(Debug, Error)]
pub enum ApiKeyError {
    /// It cannot be read.
    #[error("failed to read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is larger than any file of keys.
    #[error("{} has more than {FILE_BYTES_MAX} bytes", .0.display())]
    TooLarge(PathBuf),
    /// It has another form.
    #[error("{}: {problem}", path.display())]
    Form {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) id: String,
    pub(super) roles: Vec<String>,
    digest: [u8; 32],
    expires_s: Option<i64>,
}

#[derive(Debug, Default)]
struct Ring {
    text: [u8; 32],
    entries: HashMap<String, Arc<Entry>>,
}

/// The keys in use.
#[derive(Debug)]
pub(super) struct ApiKeys {
    path: PathBuf,
    ring: ArcSwap<Ring>,
}

impl ApiKeys {
    pub(super) fn load(path: PathBuf) -> Result<Self, ApiKeyError> {
        let ring = ArcSwap::from_pointee(read(&path)?);
        Ok(Self { path, ring })
    }

    /// The entry of a key that is good now.
    pub(super) fn check(&self, key: &str) -> Option<Arc<Entry>> {
        let ring = self.ring.load();
        let id = key.strip_prefix(PREFIX).and_then(|rest| rest.split_once('_')).map_or("", |(id, _)| id);
        let found: [u8; 32] = Sha256::digest(key.as_bytes()).into();
        let entry = ring.entries.get(id);
        // An unknown id takes as long as a wrong secret.
        let expected = entry.map_or([0; 32], |entry| entry.digest);
        let equal = bool::from(expected.ct_eq(&found));
        let now_s = OffsetDateTime::now_utc().unix_timestamp();
        entry.filter(|entry| equal && entry.expires_s.is_none_or(|expires_s| now_s < expires_s)).map(Arc::clone)
    }

    /// Looks at the file again and again. A file that cannot be used leaves the old keys in use.
    pub(super) async fn watch(&self) {
        let mut ticks = interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.reload();
        }
    }

    fn reload(&self) {
        match read(&self.path) {
            Ok(ring) if ring.text != self.ring.load().text => {
                tracing::info!(keys = ring.entries.len(), "the API keys were replaced");
                self.ring.store(Arc::new(ring));
            }
            Ok(_) => {}
            Err(error) => {
                tracing::error!(error = %crate::causes::chain(&error), "the API keys cannot be used, the old ones stay");
            }
        }
    }
}

fn read(path: &PathBuf) -> Result<Ring, ApiKeyError> {
    let failed = |source| ApiKeyError::Read { path: path.clone(), source };
    if fs::metadata(path).map_err(failed)?.len() > FILE_BYTES_MAX {
        return Err(ApiKeyError::TooLarge(path.clone()));
    }
    let text = fs::read_to_string(path).map_err(failed)?;
    parse(&text).map_err(|problem| ApiKeyError::Form { path: path.clone(), problem })
}

fn parse(text: &str) -> Result<Ring, String> {
    let file: KeyFile = serde_yaml::from_str(text).map_err(|error| error.to_string())?;
    if file.keys.len() > KEYS_MAX {
        return Err(format!("{} keys, at most {KEYS_MAX}", file.keys.len()));
    }
    let mut entries = HashMap::new();
    for KeyEntry { id, sha256, roles, expires } in file.keys {
        if !is_id(&id) {
            return Err(format!("{id:?} is not an id: use 1 to 63 of a-z, 0-9 and -"));
        }
        let mut digest = [0; 32];
        hex::decode_to_slice(&sha256, &mut digest).map_err(|_| format!("sha256 of {id:?} is not 64 hex digits"))?;
        let expires_s = expires.map(|text| OffsetDateTime::parse(&text, &Rfc3339).map(OffsetDateTime::unix_timestamp));
        let expires_s =
            expires_s.transpose().map_err(|_| format!("expires of {id:?} is not like 2027-01-31T00:00:00Z"))?;
        let entry = Arc::new(Entry { id: id.clone(), roles, digest, expires_s });
        if entries.insert(id.clone(), entry).is_some() {
            return Err(format!("{id:?} is named twice"));
        }
    }
    Ok(Ring { text: Sha256::digest(text).into(), entries })
}

#[cfg(test)]
mod tests {
    use node_api::gateway::api_keys::NewKey;

    use super::ApiKeys;

    fn file(text: &str) -> (tempfile::TempDir, std::path::PathBuf) {
        let directory = tempfile::TempDir::new().expect("a directory");
        let path = directory.path().join("keys.yaml");
        std::fs::write(&path, text).expect("written");
        (directory, path)
    }

    #[test]
    fn a_key_is_known_by_its_hash_and_anything_else_is_not() {
        let new = NewKey::generate("ci", vec!["writer".to_owned()]).expect("an id");
        let text = new.file().expect("text");
        assert!(!text.contains(&new.key), "the file holds the key itself");
        let (_directory, path) = file(&text);
        let keys = ApiKeys::load(path).expect("is read");
        assert_eq!(keys.check(&new.key).map(|entry| entry.roles.clone()), Some(vec!["writer".to_owned()]));
        let other = NewKey::generate("ci", vec![]).expect("an id");
        for wrong in ["", "althing_", "althing_ci_", "althing_ci", &other.key, &new.key[1..], &format!("{}x", new.key)]
        {
            assert!(keys.check(wrong).is_none(), "{wrong:?}");
        }
    }

    #[test]
    fn an_expired_key_is_refused() {
        let mut new = NewKey::generate("ci", vec![]).expect("an id");
        for (expires, good) in [("2001-01-01T00:00:00Z", false), ("2999-01-01T00:00:00Z", true)] {
            new.entry.expires = Some(expires.to_owned());
            let (_directory, path) = file(&new.file().expect("text"));
            assert_eq!(ApiKeys::load(path).expect("is read").check(&new.key).is_some(), good);
        }
    }

    #[test]
    fn a_changed_file_counts_and_a_broken_one_does_not() {
        let (first, second) =
            (NewKey::generate("a", vec![]).expect("an id"), NewKey::generate("b", vec![]).expect("an id"));
        let (_directory, path) = file(&first.file().expect("text"));
        let keys = ApiKeys::load(path.clone()).expect("is read");
        std::fs::write(&path, "keys: [broken").expect("written");
        keys.reload();
        assert!(keys.check(&first.key).is_some());
        std::fs::write(&path, second.file().expect("text")).expect("written");
        keys.reload();
        assert!(keys.check(&first.key).is_none() && keys.check(&second.key).is_some());
    }

    #[test]
    fn mistakes_in_the_file_are_named() {
        for (text, expected) in [
            ("keys: [{id: A, sha256: x, roles: []}]", "is not an id"),
            ("keys: [{id: a, sha256: x, roles: []}]", "is not 64 hex digits"),
            ("keys: [{id: a, key: x, roles: []}]", "unknown field"),
        ] {
            let (_directory, path) = file(text);
            let error = crate::causes::chain(&ApiKeys::load(path).expect_err("is refused"));
            assert!(error.contains(expected), "{error}");
        }
    }
}
