//! Plays how changed Secrets reach running processes: late, each at another time, and to whom first differs from change to
//! change.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use node_api::tls::{TlsPem, TlsStore};
use zeroize::Zeroizing;

use super::witness::{Papers, Party, Witness};

/// The files of a process come after so many of these, or fewer.
const STEPS: u64 = 5;
/// A kubelet takes a minute.
const STEP: Duration = Duration::from_millis(120);

/// Namespace and name of a Secret.
pub type Key = (String, String);

/// The TLS files of a Secret, at one version of it.
#[derive(Clone)]
pub struct Files {
    version: u64,
    pem: TlsPem,
}

impl Files {
    /// What a Secret holds.
    pub fn of(secret: &Secret) -> Result<Self> {
        let name = secret.name_any();
        let entry = |key: &str| secret.data.as_ref().and_then(|data| data.get(key)).map(|bytes| bytes.0.clone());
        let needed = |key: &str| entry(key).with_context(|| format!("Secret {name} has no entry {key}"));
        Ok(Self {
            version: secret.resource_version().unwrap_or_default().parse().context("a version is a number")?,
            pem: TlsPem {
                certificate: needed("tls.crt")?,
                key: Zeroizing::new(needed("tls.key")?),
                authorities: needed("ca.crt")?,
                members: entry("members.crt").unwrap_or_default(),
            },
        })
    }

    /// As a process reads them.
    pub const fn pem(&self) -> &TlsPem {
        &self.pem
    }

    /// What is presented and trusted with them.
    pub fn papers(&self) -> Papers {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Papers { certificate: text(&self.pem.certificate), authorities: text(&self.pem.authorities) }
    }
}

/// A running process.
pub struct Reader {
    /// UID of its pod.
    pub uid: String,
    /// Name of its pod.
    pub pod: String,
    /// The Secret that it reads.
    pub secret: Key,
    /// The files that it uses.
    pub store: Arc<TlsStore>,
}

/// The newest files of all Secrets, and who has which.
pub struct Mounts {
    witness: Witness,
    newest: Mutex<HashMap<Key, Files>>,
    /// By the UID of the pod, with the version of the files.
    readers: Mutex<HashMap<String, (Reader, u64)>>,
}

impl Mounts {
    /// Nobody yet.
    pub fn new(witness: Witness) -> Self {
        Self { witness, newest: Mutex::default(), readers: Mutex::default() }
    }

    /// A Secret is there, or was changed. How long it takes until who runs with former files of it gets these.
    pub fn change(&self, key: &Key, files: Files) -> Duration {
        let number: u64 = key.1.bytes().map(u64::from).sum();
        let steps = (number.wrapping_mul(3).wrapping_add(files.version)) % STEPS + 1;
        locked(&self.newest).insert(key.clone(), files);
        STEP.saturating_mul(u32::try_from(steps).unwrap_or(1))
    }

    /// A process runs with these files from now on.
    pub fn starts(&self, reader: Reader, files: &Files) -> Result<()> {
        let (party, key) = (reader.party(), reader.secret.clone());
        locked(&self.readers).insert(reader.uid.clone(), (reader, files.version));
        self.witness.presents(&key.0, party, files.papers());
        // They may have changed since they were read.
        self.bring(&key)
    }

    /// The process of a pod has ended.
    pub fn ends(&self, pod_uid: &str) {
        if let Some((reader, _)) = locked(&self.readers).remove(pod_uid) {
            self.witness.leaves(&reader.secret.0, pod_uid);
        }
    }

    /// Whoever runs with former files of this Secret takes up the newest.
    pub fn bring(&self, key: &Key) -> Result<()> {
        let Some(newest) = locked(&self.newest).get(key).cloned() else { return Ok(()) };
        for (reader, version) in locked(&self.readers).values_mut() {
            if reader.secret != *key || *version >= newest.version {
                continue;
            }
            reader.store.replace(&newest.pem).with_context(|| format!("files of {}", reader.pod))?;
            *version = newest.version;
            self.witness.presents(&key.0, reader.party(), newest.papers());
        }
        Ok(())
    }
}

impl Reader {
    fn party(&self) -> Party {
        Party::Process { uid: self.uid.clone(), pod: self.pod.clone() }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
    use node_api::pki::{CertificateAuthority, Validity};
    use node_api::roles::{NodeRole, SpiffeId};
    use node_core::types::{ChainId, Identity};

    use super::*;

    fn files(authority: &CertificateAuthority, version: u64) -> Files {
        let chain = ChainId::new("demo-main").expect("a chain id");
        let id = SpiffeId::node(&chain, NodeRole::Validator, &Identity::new([1; 32]));
        let issued = authority.issue(&id, Validity::new(0, 4_000_000_000).expect("a time")).expect("a certificate");
        let texts = [
            ("tls.crt", issued.certificate_pem.as_str()),
            ("tls.key", &issued.key_pem),
            ("ca.crt", authority.certificate_pem()),
        ];
        let data = texts.map(|(name, text)| (name.to_string(), ByteString(text.as_bytes().to_vec())));
        let metadata = ObjectMeta { resource_version: Some(version.to_string()), ..ObjectMeta::default() };
        Files::of(&Secret { metadata, data: Some(data.into()), ..Secret::default() }).expect("files")
    }

    #[test]
    fn a_running_process_takes_up_what_is_newer_and_never_what_is_older() {
        let validity = Validity::new(0, 4_000_000_000).expect("a time");
        let authority = CertificateAuthority::generate("demo", validity).expect("an authority");
        let (mounts, key) = (Mounts::new(Witness::default()), ("a".to_string(), "one-tls".to_string()));
        let [first, second, third] = [1, 2, 3].map(|version| files(&authority, version));
        let store = TlsStore::from_pem(second.pem()).expect("a store");
        let shows = || mounts.witness.processes("a");
        mounts.change(&key, first);
        let (uid, pod) = ("uid".to_string(), "one-0".to_string());
        let reader = Reader { uid, pod, secret: key.clone(), store: Arc::clone(&store) };
        mounts.starts(reader, &second).expect("it runs");
        assert_eq!(shows(), [second.papers()], "the watch is behind what the process has read");
        mounts.change(&key, third.clone());
        assert_eq!(shows(), [second.papers()], "they come later");
        mounts.bring(&key).expect("it takes them up");
        assert_eq!(shows(), [third.papers()]);
        let fingerprint = node_api::pki::fingerprint(&third.papers().certificate).expect("a certificate");
        assert_eq!(store.current().facts().fingerprint, fingerprint);
        mounts.ends("uid");
        assert_eq!(shows(), []);
    }
}
