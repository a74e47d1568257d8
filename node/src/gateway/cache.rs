//! Answers that are kept: finalised facts for ever, others for the time of their kind.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use moka::{Expiry, sync::Cache};
use sha2::{Digest, Sha256};

use super::{calls::Call, metrics::GatewayMetrics};

/// How long an answer stays true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// Finalised: it never changes.
    Final,
    /// Changes only with the program.
    Static,
    /// Changes now and then.
    Dynamic,
    /// May change with every block.
    RealTime,
}

impl Lifetime {
    /// Seconds for which it may be kept; nothing for real time.
    pub const fn seconds(self) -> Option<u64> {
        match self {
            // A year, the longest that HTTP caches understand.
            Self::Final => Some(31_536_000),
            Self::Static => Some(3_600),
            Self::Dynamic => Some(60),
            Self::RealTime => None,
        }
    }
}

/// A JSON answer.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The text.
    pub json: Bytes,
    /// Its validator: weak, because the text may be sent compressed.
    pub etag: String,
    /// How long it stays true.
    pub lifetime: Lifetime,
    made: Instant,
}

impl Stored {
    /// An answer that was just made.
    pub fn new(json: Bytes, lifetime: Lifetime) -> Self {
        let digest = Sha256::digest(&json);
        let etag = format!("W/\"{}\"", hex::encode(digest.get(..12).unwrap_or_default()));
        Self { json, etag, lifetime, made: Instant::now() }
    }

    /// The same answer, made now: for what this process cannot outlive.
    pub fn renewed(&self) -> Self {
        Self { made: Instant::now(), ..self.clone() }
    }

    /// Seconds since it was made.
    pub fn age_s(&self) -> u64 {
        self.made.elapsed().as_secs()
    }
}

/// What an answer is stored under: the call and its encoded request.
pub type CacheKey = (Call, Bytes);

struct ByLifetime;

impl Expiry<CacheKey, Arc<Stored>> for ByLifetime {
    fn expire_after_create(&self, _key: &CacheKey, stored: &Arc<Stored>, _now: Instant) -> Option<Duration> {
        Some(Duration::from_secs(stored.lifetime.seconds().unwrap_or(0)))
    }
}

/// The answers that are kept, in bounded memory.
pub struct AnswerCache {
    answers: Cache<CacheKey, Arc<Stored>>,
    metrics: Arc<GatewayMetrics>,
}

impl std::fmt::Debug for AnswerCache {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("AnswerCache").field("answers", &self.answers.entry_count()).finish_non_exhaustive()
    }
}

/// What an entry costs beyond its texts, about.
const OVERHEAD_BYTES: usize = 256;

impl AnswerCache {
    /// A cache of at most `bytes_max` bytes.
    pub fn new(bytes_max: u64, metrics: Arc<GatewayMetrics>) -> Self {
        let weigh = |(_, request): &CacheKey, stored: &Arc<Stored>| {
            u32::try_from(request.len() + stored.json.len() + OVERHEAD_BYTES).unwrap_or(u32::MAX)
        };
        let answers = Cache::builder().max_capacity(bytes_max).weigher(weigh).expire_after(ByLifetime).build();
        Self { answers, metrics }
    }

    /// The answer that is kept.
    pub fn get(&self, key: &CacheKey) -> Option<Arc<Stored>> {
        let found = self.answers.get(key);
        let result = if found.is_some() { "hit" } else { "miss" };
        self.metrics.cache_total.with_label_values(&[result]).inc();
        found
    }

    /// Keeps an answer for its lifetime.
    pub fn put(&self, key: CacheKey, stored: &Arc<Stored>) {
        if stored.lifetime.seconds().is_some() {
            self.answers.insert(key, Arc::clone(stored));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{AnswerCache, Call, GatewayMetrics, Lifetime, Stored};

    fn cache(bytes_max: u64) -> AnswerCache {
        AnswerCache::new(bytes_max, Arc::new(GatewayMetrics::new().expect("registers")))
    }

    #[test]
    fn real_time_answers_are_not_kept_and_others_are() {
        let cache = cache(1 << 20);
        for (lifetime, kept) in [(Lifetime::Final, true), (Lifetime::Dynamic, true), (Lifetime::RealTime, false)] {
            let key = (Call::GetBlock, vec![lifetime as u8].into());
            cache.put(key.clone(), &Arc::new(Stored::new("{}".into(), lifetime)));
            assert_eq!(cache.get(&key).is_some(), kept, "{lifetime:?}");
        }
    }

    #[test]
    fn lifetimes_are_an_hour_a_minute_and_for_ever() {
        let lifetimes = [Lifetime::Static, Lifetime::Dynamic, Lifetime::RealTime, Lifetime::Final];
        assert_eq!(lifetimes.map(Lifetime::seconds), [Some(3_600), Some(60), None, Some(31_536_000)]);
    }

    #[test]
    fn the_cache_stays_in_its_bounds() {
        let cache = cache(1 << 20);
        for number in 0..10_000_u32 {
            let stored = Arc::new(Stored::new(vec![b' '; 1_000].into(), Lifetime::Final));
            cache.put((Call::GetBlock, number.to_be_bytes().to_vec().into()), &stored);
        }
        cache.answers.run_pending_tasks();
        assert!(cache.answers.weighted_size() <= 1 << 20, "{}", cache.answers.weighted_size());
    }

    #[test]
    fn equal_answers_have_equal_validators() {
        let etag = |text: &'static str| Stored::new(text.into(), Lifetime::Final).etag;
        assert_eq!(etag("{}"), etag("{}"));
        assert_ne!(etag("{}"), etag("[]"));
    }
}
