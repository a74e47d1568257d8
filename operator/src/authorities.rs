//! Certificate authorities of networks, read from their Secrets and kept for a short while.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};

use crate::error::Error;
use crate::rollover::{Authority, Source};

/// How long an authority is used before its Secret is read again. The look at the network mostly comes before that, and
/// what it reads is taken.
const AGE_MAX: Duration = Duration::from_secs(60);

/// Namespace and network.
type Key = (String, String);

/// Whose authority.
#[derive(Clone, Copy, Debug)]
pub struct Of<'a> {
    /// Namespace of the network.
    pub namespace: &'a str,
    /// Its name.
    pub network: &'a str,
    /// Where its authority comes from.
    pub source: Source,
}

/// All authorities by namespace and network.
#[derive(Default)]
pub struct Authorities {
    kept: Mutex<HashMap<Key, Kept>>,
}

/// What is known of one network.
#[derive(Default)]
struct Kept {
    read: Option<(Instant, Authority)>,
    /// How often it was forgotten: what was read before that is not kept.
    forgotten: u64,
}

impl Authorities {
    /// The authority of a network, if it is the one that the network has recorded. One whose Secret is gone or cannot be read goes
    /// on being used while this process runs: the network says that it is lost, and its nodes still trust it.
    pub async fn get(&self, client: &Client, of: Of<'_>, recorded: Option<&str>) -> Result<Option<Authority>, Error> {
        let Of { namespace, network, source } = of;
        let key = (namespace.to_string(), network.to_string());
        let is_recorded = |authority: &Authority| recorded.is_none_or(|hash| authority.answers_to(hash));
        let (known, forgotten) = self.known(&key);
        if let Some((read_at, authority)) = &known
            && read_at.elapsed() < AGE_MAX
            && is_recorded(authority)
        {
            return Ok(Some(authority.clone()));
        }
        let name = source.secret(network);
        let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
        let secret = api.get_opt(&name).await.map_err(Error::read(format!("Secret {namespace}/{name}")))?;
        let read = secret.map(|secret| source.read(network, &secret));
        let known = known.map(|(_, authority)| authority);
        Ok(self.take((key, forgotten), known, read).filter(is_recorded))
    }

    /// What is used after this read of the Secret. One that is gone, or holds what nobody can read, leaves what is known: the network
    /// says what is wrong with it, and everybody else goes on.
    fn take(
        &self,
        (key, forgotten): (Key, u64),
        known: Option<Authority>,
        read: Option<Result<Authority, Error>>,
    ) -> Option<Authority> {
        match read {
            None => known,
            Some(Ok(authority)) => {
                self.keep(key, forgotten, &authority);
                Some(authority)
            }
            Some(Err(error)) => {
                tracing::debug!(namespace = %key.0, network = %key.1, %error, "the authority cannot be read");
                known
            }
        }
    }

    /// This is what the Secret holds now.
    pub fn learn(&self, namespace: &str, network: &str, authority: &Authority) {
        self.forget(namespace, network);
        let key = (namespace.to_string(), network.to_string());
        let (_, forgotten) = self.known(&key);
        self.keep(key, forgotten, authority);
    }

    /// The Secret was made or changed: read it again next time.
    pub fn forget(&self, namespace: &str, network: &str) {
        let key = (namespace.to_string(), network.to_string());
        let mut all = self.lock();
        let kept = all.entry(key).or_default();
        kept.read = None;
        kept.forgotten = kept.forgotten.wrapping_add(1);
    }

    fn known(&self, key: &Key) -> (Option<(Instant, Authority)>, u64) {
        self.lock().get(key).map_or((None, 0), |kept| (kept.read.clone(), kept.forgotten))
    }

    /// Keeps what was read, unless it was forgotten while it was being read.
    fn keep(&self, key: Key, forgotten: u64, authority: &Authority) {
        let mut all = self.lock();
        let kept = all.entry(key).or_default();
        if kept.forgotten == forgotten {
            kept.read = Some((Instant::now(), authority.clone()));
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificates::new_authority;

    #[test]
    fn what_was_read_before_a_change_is_not_kept() {
        let authorities = Authorities::default();
        let key = ("demo".to_string(), "demo".to_string());
        let authority = Authority::settled(new_authority("demo", 1_800_000_000).expect("an authority"));
        let (_, before) = authorities.known(&key);
        authorities.forget("demo", "demo");
        authorities.keep(key.clone(), before, &authority);
        assert!(authorities.known(&key).0.is_none(), "a read that began before the change");
        let (_, after) = authorities.known(&key);
        authorities.keep(key.clone(), after, &authority);
        assert!(authorities.known(&key).0.is_some());
    }

    #[test]
    fn what_is_known_goes_on_being_used_while_the_secret_is_gone_or_unreadable() {
        let authorities = Authorities::default();
        let key = ("demo".to_string(), "demo".to_string());
        let authority = Authority::settled(new_authority("demo", 1_800_000_000).expect("an authority"));
        let unreadable = || Source::Own.read("demo", &Secret::default());
        assert!(unreadable().is_err());
        let hash = |used: Option<Authority>| used.map(|authority| authority.hash);
        let take = |read| {
            let (known, forgotten) = authorities.known(&key);
            hash(authorities.take((key.clone(), forgotten), known.map(|(_, known)| known), read))
        };
        assert_eq!(take(Some(unreadable())), None, "nobody has ever read it");
        let expected = Some(authority.hash.clone());
        assert_eq!(take(Some(Ok(authority))), expected);
        assert_eq!([take(None), take(Some(unreadable()))], [expected.clone(), expected.clone()]);
        assert_eq!(hash(authorities.known(&key).0.map(|(_, known)| known)), expected, "it is still what is known");
    }
}
