//! How much each caller gets: one bucket for each user, each service, and each address without a credential.

use std::{
    collections::BTreeSet,
    hash::{BuildHasher, RandomState},
    net::{IpAddr, UdpSocket},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use http::{HeaderMap, HeaderValue};
use node_api::gateway::{Gateways, Limits};
use tokio::time::Instant;

use super::{
    auth::{Class, Principal},
    refusal::Refusal,
    rules::{
        address,
        callers::Callers,
        rate::{Quota, Rate, Verdict},
    },
    shared_limits::SharedLimits,
};

/// How often the gateways are counted.
const COUNT: Duration = Duration::from_secs(5);
/// Pause before another try of the first count.
const FIRST_COUNT_PAUSE: Duration = Duration::from_secs(1);
/// Failed tries of the first count, in a row, after which this gateway takes itself for the only one: the name of a
/// tier that has no ready gateway yet may have no address at all.
const FIRST_COUNT_FAILURES_MAX: u32 = 3;
/// Most gateways that a name is believed to have.
const GATEWAYS_MAX: usize = 10_000;

struct ClassLimit {
    quota: Quota,
    callers: Mutex<Callers>,
}

/// The limits: of this gateway's share, or of all gateways together.
pub struct Limiter {
    anonymous: ClassLimit,
    user: ClassLimit,
    service: ClassLimit,
    /// 0 until they are counted.
    gateways: AtomicU32,
    configured: Gateways,
    /// Counts for all gateways, while it answers.
    shared: Option<SharedLimits>,
    /// Keyed by chance, so that nobody can choose who shares a bucket.
    hasher: RandomState,
    start: Instant,
}

impl std::fmt::Debug for Limiter {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Limiter").field("gateways", &self.gateways).finish_non_exhaustive()
    }
}

/// What the limit says of one request.
#[derive(Clone, Copy, Debug)]
pub struct Limited {
    class: Class,
    rate: Rate,
    verdict: Verdict,
}

impl Limiter {
    /// As configured; with `shared` the limits are exact.
    pub fn new(limits: &Limits, shared: Option<SharedLimits>) -> Self {
        let class = |per_minute| ClassLimit {
            quota: Quota { per_minute, burst_percent: limits.burst_percent },
            callers: Mutex::new(Callers::new(limits.principals_max)),
        };
        let gateways = match limits.gateways {
            Gateways::Count(count) => count,
            Gateways::Service(_) => 0,
        };
        Self {
            anonymous: class(limits.ip_per_minute),
            user: class(limits.user_per_minute),
            service: class(limits.service_per_minute),
            gateways: AtomicU32::new(gateways),
            configured: limits.gateways.clone(),
            shared,
            hasher: RandomState::new(),
            start: Instant::now(),
        }
    }

    /// Counts the gateways until the future is dropped. A failed count leaves the last one.
    pub async fn count_gateways(&self) {
        let Gateways::Service(name) = &self.configured else { return std::future::pending().await };
        let mut failures = 0_u32;
        loop {
            match tokio::time::timeout(COUNT, tokio::net::lookup_host(name.as_str())).await {
                Ok(Ok(found)) => {
                    let found = found.take(GATEWAYS_MAX).map(|address| address.ip()).collect();
                    self.set_gateways(sharing(&found, is_own));
                    failures = 0;
                }
                Ok(Err(error)) => {
                    tracing::warn!(name = name.as_str(), %error, "failed to count the gateways");
                    failures = failures.saturating_add(1);
                }
                Err(_) => {
                    tracing::warn!(name = name.as_str(), "no answer in time when counting the gateways");
                    failures = failures.saturating_add(1);
                }
            }
            self.after_failures(failures);
            tokio::time::sleep(if self.counted() { COUNT } else { FIRST_COUNT_PAUSE }).await;
        }
    }

    /// So many counts in a row failed.
    fn after_failures(&self, failures: u32) {
        if !self.counted() && failures >= FIRST_COUNT_FAILURES_MAX {
            self.set_gateways(1);
        }
    }

    fn set_gateways(&self, found: usize) {
        let found = u32::try_from(found).unwrap_or(u32::MAX).max(1);
        let before = self.gateways.swap(found, Ordering::Relaxed);
        if before != found {
            tracing::info!(before, found, "the number of gateways changed");
        }
    }

    /// Whether the gateways are counted; before, this one would give everybody the share of all.
    pub fn counted(&self) -> bool {
        self.gateways.load(Ordering::Relaxed) > 0
    }

    /// Gateways that share the limits.
    pub fn gateways(&self) -> u32 {
        self.gateways.load(Ordering::Relaxed).max(1)
    }

    /// Callers that are counted now.
    pub fn callers(&self) -> usize {
        [&self.anonymous, &self.user, &self.service].iter().map(|class| lock(&class.callers).len()).sum()
    }

    /// Takes one request of a caller with a good credential, or of its address without one.
    pub async fn take(&self, principal: &Principal, from: IpAddr) -> Limited {
        match principal.class {
            Class::Anonymous => self.take_address(from).await,
            Class::User | Class::Service => self.count(principal.class, &principal.name).await,
        }
    }

    /// Takes one request of an address: nobody, or somebody whose credential is not good.
    pub async fn take_address(&self, from: IpAddr) -> Limited {
        self.count(Class::Anonymous, &address::counted(from).to_string()).await
    }

    /// Keeps the connection to the shared count until the future is dropped.
    pub async fn keep_shared(&self) {
        match &self.shared {
            Some(shared) => shared.keep_connected().await,
            None => std::future::pending().await,
        }
    }

    async fn count(&self, class: Class, caller: &str) -> Limited {
        let limit = match class {
            Class::Anonymous => &self.anonymous,
            Class::User => &self.user,
            Class::Service => &self.service,
        };
        if let Some(shared) = &self.shared {
            let rate = Rate::share(limit.quota, 1);
            if let Some(verdict) = shared.take(class, caller, rate).await {
                return Limited { class, rate, verdict };
            }
        }
        self.count_share(limit, class, self.hasher.hash_one(caller))
    }

    /// Counts here, by this gateway's share.
    fn count_share(&self, limit: &ClassLimit, class: Class, caller: u64) -> Limited {
        let rate = Rate::share(limit.quota, self.gateways());
        // A bucket is full at 0, so time begins later than that.
        let now_ns = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX).saturating_add(1);
        let verdict = lock(&limit.callers).take(caller, rate, now_ns);
        Limited { class, rate, verdict }
    }
}

/// How many share the limits when the name has these addresses. It lists gateways that are ready, and one that starts
/// or stops is not, but gives out its share all the same.
fn sharing(found: &BTreeSet<IpAddr>, is_own: impl Fn(IpAddr) -> bool) -> usize {
    found.len() + usize::from(!found.iter().any(|address| is_own(*address)))
}

/// Whether an address is one of this machine: nobody else may bind it.
fn is_own(address: IpAddr) -> bool {
    UdpSocket::bind((address, 0)).is_ok()
}

fn lock(callers: &Mutex<Callers>) -> std::sync::MutexGuard<'_, Callers> {
    callers.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Limited {
    /// How long to wait before the next try; nothing when this one passed.
    pub const fn wait(&self) -> Option<Duration> {
        if self.verdict.allowed { None } else { Some(Duration::from_nanos(self.verdict.retry_in_ns)) }
    }

    /// The refusal of a request that came too early.
    pub fn check(&self) -> Result<(), Refusal> {
        if self.verdict.allowed {
            return Ok(());
        }
        Err(Refusal::TooMany { retry_in: Duration::from_nanos(self.verdict.retry_in_ns) })
    }

    /// Writes `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers). The numbers are this gateway's
    /// share, or those of all gateways when they count together.
    pub fn write(&self, headers: &mut HeaderMap) {
        let (class, quota) = (self.class.as_str(), self.rate.per_minute());
        let reset_s = self.verdict.full_in_ns.div_ceil(1_000_000_000);
        let fields = [
            ("ratelimit-policy", format!("\"{class}\";q={quota};w=60")),
            ("ratelimit", format!("\"{class}\";r={};t={reset_s}", self.verdict.remaining)),
        ];
        for (name, value) in fields {
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(name, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, net::IpAddr};

    use http::HeaderMap;
    use node_api::gateway::{Gateways, Limits};

    use super::{Class, Limiter, Principal, is_own, sharing};

    fn user(name: &str) -> Principal {
        Principal { class: Class::User, name: name.into(), permissions: BTreeSet::new() }
    }

    /// How many of this many requests of one user pass.
    async fn passed(limiter: &Limiter, requests: usize) -> usize {
        let mut passed = 0;
        for _ in 0..requests {
            passed += usize::from(limiter.take(&user("a"), IpAddr::from([192, 0, 2, 1])).await.check().is_ok());
        }
        passed
    }

    #[tokio::test]
    async fn three_gateways_together_give_one_user_at_most_a_fifth_more_than_the_limit() {
        let limits = Limits { gateways: Gateways::Count(3), ..Limits::default() };
        let gateways: Vec<Limiter> = (0..3).map(|_| Limiter::new(&limits, None)).collect();
        // All at once: what the buckets hold. What a minute adds is the share of the limit, as `rate` shows.
        let mut at_once = 0;
        for gateway in &gateways {
            at_once += passed(gateway, 1_000).await;
        }
        assert!((90..=120).contains(&at_once), "{at_once}");
    }

    #[tokio::test]
    async fn each_class_has_its_own_numbers_and_says_them() {
        let limiter = Limiter::new(&Limits::default(), None);
        let address = IpAddr::from([192, 0, 2, 1]);
        let policy = |limited: super::Limited| {
            let mut headers = HeaderMap::new();
            limited.write(&mut headers);
            headers["ratelimit-policy"].to_str().expect("text").to_owned()
        };
        let service = Principal { class: Class::Service, ..user("s") };
        assert_eq!(policy(limiter.take(&user("a"), address).await), "\"user\";q=1000;w=60");
        assert_eq!(policy(limiter.take(&service, address).await), "\"service\";q=10000;w=60");
        assert_eq!(policy(limiter.take_address(address).await), "\"ip\";q=500;w=60");
    }

    #[tokio::test]
    async fn the_share_shrinks_when_gateways_appear() {
        let limiter = Limiter::new(&Limits::default(), None);
        limiter.set_gateways(4);
        let passed = passed(&limiter, 1_000).await;
        assert!((25..=30).contains(&passed), "{passed}");
    }

    #[tokio::test]
    async fn nothing_is_given_out_before_the_first_count_and_a_gateway_counts_itself() {
        let service =
            |name: &str| Limits { gateways: Gateways::Service(name.parse().expect("a name")), ..Limits::default() };
        let limiter = Limiter::new(&service("127.0.0.1:8443"), None);
        assert!(!limiter.counted(), "a gateway that has just started knows nothing");
        assert!(Limiter::new(&Limits::default(), None).counted());

        // Two others are ready; this one is not in their list until it is ready too.
        let others = BTreeSet::from([IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2])]);
        assert_eq!(sharing(&others, |_| false), 3);
        assert_eq!(sharing(&others, |address| address == IpAddr::from([192, 0, 2, 2])), 2);
        assert_eq!(sharing(&BTreeSet::new(), |_| false), 1);
        assert!(is_own(IpAddr::from([127, 0, 0, 1])) && !is_own(IpAddr::from([192, 0, 2, 1])));

        // The address of another machine, and one of this machine.
        for (name, expected) in [("192.0.2.1:8443", 2), ("127.0.0.1:8443", 1)] {
            let limiter = Limiter::new(&service(name), None);
            tokio::select! {
                () = limiter.count_gateways() => {}
                () = async { while !limiter.counted() { tokio::task::yield_now().await } } => {}
            }
            assert_eq!(limiter.gateways(), expected, "{name}");
        }
    }

    #[test]
    fn failed_counts_leave_the_last_one_and_the_first_is_given_up_after_three() {
        let limits =
            Limits { gateways: Gateways::Service("gateways:8443".parse().expect("a name")), ..Limits::default() };
        let limiter = Limiter::new(&limits, None);
        limiter.after_failures(2);
        assert!(!limiter.counted());
        limiter.after_failures(3);
        assert_eq!((limiter.counted(), limiter.gateways()), (true, 1));
        limiter.set_gateways(4);
        limiter.after_failures(9);
        assert_eq!(limiter.gateways(), 4);
    }
}
