//! The leader lease: one process writes, and it stops before its lease can expire.
//!
//! Nobody compares clocks of different machines: a candidate measures how long it has seen a lease unchanged, and the
//! holder counts from before it sent its last renewal that was accepted. Every write carries the resourceVersion that
//! was read, so two candidates never both succeed. A lease holds for as long as is written into it, so that processes that
//! were told different durations do not take it from each other early.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::watch;

use crate::config::Config;
use crate::error::Error;
use crate::http::Health;

/// Shortest time that a lease may hold after its last change.
pub const DURATION_MIN: Duration = Duration::from_secs(10);
/// The holder stops writing this long before its lease can be taken.
const MARGIN: Duration = Duration::from_secs(3);
/// Pause between two looks at the lease.
const PERIOD: Duration = Duration::from_secs(2);
/// Longest time that one request for the lease may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);

/// Until when this process may write.
#[derive(Default)]
pub struct Leadership {
    until: Mutex<Option<Instant>>,
}

impl Leadership {
    /// Time that is left for writing; an error when there is none.
    pub fn remaining(&self) -> Result<Duration, Error> {
        let until = *self.until.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        until.and_then(|until| until.checked_duration_since(Instant::now())).ok_or(Error::NotLeader)
    }

    fn set(&self, until: Option<Instant>) {
        *self.until.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = until;
    }
}

/// What a candidate has seen of the lease.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    holder: Option<String>,
    resource_version: String,
    since: Instant,
    holds: Duration,
}

/// What to do with the lease now.
#[derive(Debug, PartialEq, Eq)]
enum Move {
    Create,
    Renew,
    Take,
    Wait,
}

/// Decides from what is seen; `seen.since` is when this resourceVersion was first seen here, `seen.holds` how long it is
/// good from then on.
fn decide(seen: Option<&Seen>, me: &str, now: Instant) -> Move {
    let Some(seen) = seen else { return Move::Create };
    match seen.holder.as_deref() {
        None | Some("") => Move::Take,
        Some(holder) if holder == me => Move::Renew,
        Some(_) if now.saturating_duration_since(seen.since) >= seen.holds => Move::Take,
        Some(_) => Move::Wait,
    }
}

/// Takes part in the election for as long as the process runs.
pub struct Election {
    api: Api<Lease>,
    name: String,
    me: String,
    duration: Duration,
    seen: Option<Seen>,
}

impl Election {
    /// A candidate named `me`, which must be unique among all processes, for the lease that the
    /// configuration names.
    pub fn new(client: Client, config: &Config, me: &str) -> Self {
        Self {
            api: Api::namespaced(client, &config.namespace),
            name: config.lease_name.clone(),
            me: me.to_string(),
            duration: Duration::from_secs(config.lease_seconds).max(DURATION_MIN),
            seen: None,
        }
    }

    /// Keeps `leadership` up to date until `stop`, then gives the lease back. Returns an error when leadership was lost.
    pub async fn run(
        mut self,
        leadership: &Leadership,
        health: &Health,
        elected: &watch::Sender<bool>,
        mut stop: watch::Receiver<bool>,
    ) -> Result<(), Error> {
        let mut tick = tokio::time::interval(PERIOD);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                _ = stop.wait_for(|stopped| *stopped) => break,
            }
            health.pulse();
            let started = Instant::now();
            match tokio::time::timeout(REQUEST_TIMEOUT, self.turn(started)).await {
                Ok(Ok(held)) => {
                    health.set_ready();
                    if held {
                        leadership.set(started.checked_add(self.duration.saturating_sub(MARGIN)));
                        elected.send_if_modified(|elected| !std::mem::replace(elected, true));
                    }
                }
                Ok(Err(error)) => tracing::warn!(%error, "leader lease"),
                Err(_) => tracing::warn!("leader lease: the API server did not answer in time"),
            }
            if *elected.borrow() && leadership.remaining().is_err() {
                return Err(Error::LeadershipLost);
            }
        }
        leadership.set(None);
        self.release().await;
        Ok(())
    }

    /// One look and at most one write; true when this process holds the lease.
    async fn turn(&mut self, now: Instant) -> Result<bool, Error> {
        let lease = self.api.get_opt(&self.name).await.map_err(Error::Lease)?;
        self.remember(lease.as_ref(), now);
        let written = match decide(self.seen.as_ref(), &self.me, now) {
            Move::Wait => return Ok(false),
            Move::Create => {
                let lease = self.filled(None, 0);
                self.api.create(&PostParams::default(), &lease).await
            }
            Move::Renew => self.replace(lease, 0).await,
            Move::Take => self.replace(lease, 1).await,
        };
        match written {
            Ok(lease) => {
                self.remember(Some(&lease), now);
                Ok(true)
            }
            // Somebody else was faster: look again at the next turn.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(Error::Lease(error)),
        }
    }

    fn remember(&mut self, lease: Option<&Lease>, now: Instant) {
        let Some(lease) = lease else {
            self.seen = None;
            return;
        };
        let resource_version = lease.metadata.resource_version.clone().unwrap_or_default();
        if self.seen.as_ref().is_some_and(|seen| seen.resource_version == resource_version) {
            return;
        }
        let spec = lease.spec.as_ref();
        let holder = spec.and_then(|spec| spec.holder_identity.clone());
        let holds = spec.map_or(DURATION_MIN, holds);
        self.seen = Some(Seen { holder, resource_version, since: now, holds });
    }

    async fn replace(&self, lease: Option<Lease>, transitions: i32) -> Result<Lease, kube::Error> {
        let lease = self.filled(lease, transitions);
        self.api.replace(&self.name, &PostParams::default(), &lease).await
    }

    fn filled(&self, present: Option<Lease>, transitions: i32) -> Lease {
        let now = MicroTime(Timestamp::now());
        let (metadata, spec) = present.map_or_else(
            || (ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() }, LeaseSpec::default()),
            |lease| (lease.metadata, lease.spec.unwrap_or_default()),
        );
        let acquired = if transitions == 0 { spec.acquire_time.clone() } else { None };
        Lease {
            metadata,
            spec: Some(LeaseSpec {
                holder_identity: Some(self.me.clone()),
                lease_duration_seconds: i32::try_from(self.duration.as_secs()).ok(),
                acquire_time: acquired.or_else(|| Some(now.clone())),
                renew_time: Some(now),
                lease_transitions: Some(spec.lease_transitions.unwrap_or(0).saturating_add(transitions)),
                ..spec
            }),
        }
    }

    /// Lets a standby take over at once; failing to do so only costs it the wait.
    async fn release(&self) {
        let Ok(Ok(Some(mut lease))) = tokio::time::timeout(REQUEST_TIMEOUT, self.api.get_opt(&self.name)).await else {
            return;
        };
        let Some(spec) = lease.spec.as_mut().filter(|spec| spec.holder_identity.as_deref() == Some(&self.me)) else {
            return;
        };
        spec.holder_identity = Some(String::new());
        let params = PostParams::default();
        let released = self.api.replace(&self.name, &params, &lease);
        if !matches!(tokio::time::timeout(REQUEST_TIMEOUT, released).await, Ok(Ok(_))) {
            tracing::warn!("the leader lease was not given back");
        }
    }
}

/// How long a lease is good after its last change, as its holder wrote.
fn holds(spec: &LeaseSpec) -> Duration {
    let seconds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or(0);
    Duration::from_secs(seconds).max(DURATION_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(holder: Option<&str>, since: Instant) -> Seen {
        Seen { holder: holder.map(str::to_string), resource_version: "1".to_string(), since, holds: DURATION_MIN }
    }

    #[test]
    fn a_lease_is_taken_only_when_it_is_free_or_was_seen_unchanged_for_its_whole_duration() {
        let start = Instant::now();
        let early = start + DURATION_MIN - Duration::from_millis(1);
        let late = start + DURATION_MIN;
        assert_eq!(decide(None, "a", start), Move::Create);
        assert_eq!(decide(Some(&seen(None, start)), "a", start), Move::Take);
        assert_eq!(decide(Some(&seen(Some(""), start)), "a", start), Move::Take);
        assert_eq!(decide(Some(&seen(Some("a"), start)), "a", late), Move::Renew);
        assert_eq!(decide(Some(&seen(Some("b"), start)), "a", early), Move::Wait);
        assert_eq!(decide(Some(&seen(Some("b"), start)), "a", late), Move::Take);
    }

    #[test]
    fn a_lease_is_good_for_as_long_as_its_holder_wrote() {
        let spec = |seconds| LeaseSpec { lease_duration_seconds: seconds, ..LeaseSpec::default() };
        assert_eq!(holds(&spec(Some(60))), Duration::from_secs(60));
        assert_eq!(holds(&spec(Some(1))), DURATION_MIN);
        assert_eq!(holds(&spec(None)), DURATION_MIN);
        let start = Instant::now();
        let long = Seen { holds: Duration::from_secs(60), ..seen(Some("b"), start) };
        assert_eq!(decide(Some(&long), "a", start + DURATION_MIN), Move::Wait);
        assert_eq!(decide(Some(&long), "a", start + Duration::from_secs(60)), Move::Take);
    }

    #[test]
    fn nobody_writes_without_or_after_the_lease() {
        let leadership = Leadership::default();
        assert!(leadership.remaining().is_err());
        leadership.set(Some(Instant::now() + Duration::from_secs(60)));
        assert!(leadership.remaining().is_ok());
        leadership.set(Some(Instant::now()));
        assert!(leadership.remaining().is_err());
    }

    #[test]
    fn the_holder_stops_before_a_candidate_may_start() {
        assert!(MARGIN > REQUEST_TIMEOUT);
        assert!(DURATION_MIN - MARGIN > PERIOD + REQUEST_TIMEOUT);
    }
}
