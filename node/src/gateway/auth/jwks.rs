//! The keys of one issuer: found by discovery, fetched again in time, and at once when a token names an unknown one.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, PublicKeyUse},
};
use node_api::gateway::Issuer;
use serde::Deserialize;
use thiserror::Error;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::fetch::{FetchError, Fetcher};

/// How often the keys are fetched.
const REFRESH: Duration = Duration::from_secs(300);
/// How often they are fetched while there are none.
const RETRY: Duration = Duration::from_secs(5);
/// Shortest time between two fetches because of unknown keys, so that nobody makes us press the issuer.
const UNKNOWN_KEY_PAUSE: Duration = Duration::from_secs(10);
/// Most keys of one issuer.
const KEYS_MAX: usize = 64;

/// Why an issuer's keys are not there.
#[derive(Debug, Error)]
pub enum IssuerError {
    /// A document could not be fetched.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The discovery document is of somebody else.
    #[error("the discovery document of {expected} names {found:?} as its issuer")]
    OtherIssuer {
        /// As configured.
        expected: String,
        /// What it says.
        found: String,
    },
    /// The keys are at a place that is not safe.
    #[error("the keys of {issuer} are at {url:?}, which is not https")]
    NotHttps {
        /// The issuer.
        issuer: String,
        /// Where they are.
        url: String,
    },
}

/// A key that signatures are checked with.
pub(super) struct IssuerKey {
    pub(super) key: DecodingKey,
    pub(super) algorithms: Vec<Algorithm>,
}

/// The keys of one issuer by their ids.
pub(super) type Keys = HashMap<String, Arc<IssuerKey>>;

/// An issuer and what is known of it.
pub(super) struct Provider {
    pub(super) issuer: Issuer,
    fetcher: Fetcher,
    keys: ArcSwap<Keys>,
    /// One fetch at a time; those who wait for it use its result.
    fetching: tokio::sync::Mutex<()>,
    last_unknown: Mutex<Option<Instant>>,
}

impl std::fmt::Debug for Provider {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Provider").field("issuer", &self.issuer.url).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

impl Provider {
    pub(super) fn new(issuer: Issuer) -> Result<Self, IssuerError> {
        let fetcher = Fetcher::new(issuer.ca_file.as_deref())?;
        Ok(Self {
            issuer,
            fetcher,
            keys: ArcSwap::default(),
            fetching: tokio::sync::Mutex::new(()),
            last_unknown: Mutex::new(None),
        })
    }

    /// Keeps the keys fresh until the future is dropped. A failed fetch leaves the old ones in use.
    pub(super) async fn refresh(&self) {
        let mut ticks = interval(RETRY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut next = Instant::now();
        loop {
            ticks.tick().await;
            if Instant::now() >= next || self.keys.load().is_empty() {
                self.fetch_logged().await;
                next = Instant::now() + REFRESH;
            }
        }
    }

    /// The key with this id; an id that is not known may be that of a new key.
    pub(super) async fn key(&self, id: Option<&str>) -> Option<Arc<IssuerKey>> {
        if let Some(key) = self.find(id) {
            return Some(key);
        }
        let before = self.keys.load_full();
        let _one = self.fetching.lock().await;
        // Somebody else may have fetched while this one waited.
        if Arc::ptr_eq(&before, &self.keys.load_full()) && self.may_ask_again() {
            self.fetch_logged().await;
        }
        self.find(id)
    }

    fn find(&self, id: Option<&str>) -> Option<Arc<IssuerKey>> {
        let keys = self.keys.load();
        match id {
            Some(id) => keys.get(id).map(Arc::clone),
            // Without an id there must be no choice.
            None if keys.len() == 1 => keys.values().next().map(Arc::clone),
            None => None,
        }
    }

    fn may_ask_again(&self) -> bool {
        let mut last = self.last_unknown.lock().unwrap_or_else(PoisonError::into_inner);
        let may = last.is_none_or(|last| last.elapsed() >= UNKNOWN_KEY_PAUSE);
        if may {
            *last = Some(Instant::now());
        }
        may
    }

    async fn fetch_logged(&self) {
        match self.fetch().await {
            Ok(keys) => {
                tracing::debug!(issuer = self.issuer.url, keys = keys.len(), "fetched the keys of an issuer");
                self.keys.store(Arc::new(keys));
            }
            Err(error) => {
                let error = crate::causes::chain(&error);
                tracing::warn!(issuer = self.issuer.url, error, "failed to fetch the keys of an issuer");
            }
        }
    }

    async fn fetch(&self) -> Result<Keys, IssuerError> {
        let Issuer { url: issuer, jwks_url, insecure_http, .. } = &self.issuer;
        let url = match jwks_url {
            Some(url) => url.clone(),
            None => {
                let place = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
                let discovery: Discovery = self.fetcher.json(&place).await?;
                if discovery.issuer != *issuer {
                    let found = discovery.issuer.chars().take(200).collect();
                    return Err(IssuerError::OtherIssuer { expected: issuer.clone(), found });
                }
                discovery.jwks_uri
            }
        };
        if !url.starts_with("https://") && !insecure_http {
            return Err(IssuerError::NotHttps { issuer: issuer.clone(), url });
        }
        let set: JwkSet = self.fetcher.json(&url).await?;
        Ok(usable(&set))
    }
}

/// The keys of a set that signatures may be checked with. Secrets that both sides share are never among them: a
/// public key would then pass as one.
fn usable(set: &JwkSet) -> Keys {
    let mut keys = Keys::new();
    for jwk in set.keys.iter().take(KEYS_MAX) {
        let algorithms = algorithms(jwk);
        let signs = matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature));
        if algorithms.is_empty() || !signs {
            continue;
        }
        if let Ok(key) = DecodingKey::from_jwk(jwk) {
            keys.insert(jwk.common.key_id.clone().unwrap_or_default(), Arc::new(IssuerKey { key, algorithms }));
        }
    }
    keys
}

/// What the type of a key allows, narrowed to what the key itself says.
fn algorithms(jwk: &Jwk) -> Vec<Algorithm> {
    use Algorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
    let by_type: &[Algorithm] = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => &[RS256, RS384, RS512, PS256, PS384, PS512],
        AlgorithmParameters::EllipticCurve(parameters) => match parameters.curve {
            EllipticCurve::P256 => &[ES256],
            EllipticCurve::P384 => &[ES384],
            _ => &[],
        },
        AlgorithmParameters::OctetKeyPair(parameters) => match parameters.curve {
            EllipticCurve::Ed25519 => &[EdDSA],
            _ => &[],
        },
        // Shared secrets, and whatever comes later.
        _ => &[],
    };
    match jwk.common.key_algorithm.as_ref().map(ToString::to_string) {
        None => by_type.to_vec(),
        Some(named) => by_type.iter().copied().filter(|algorithm| format!("{algorithm:?}") == named).collect(),
    }
}
