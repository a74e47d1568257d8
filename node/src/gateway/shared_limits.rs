//! The buckets of all gateways in one Redis: it looks and takes in one step, by its own clock.
//!
//! A request never waits longer for Redis than it is told to, and while Redis is away not at all: the gateway counts by
//! its share then, and one task tries to come back.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use node_api::gateway::RedisLimits;
use node_core::types::ChainId;
use redis::{
    AsyncConnectionConfig, Client, IntoConnectionInfo, RedisError, Script, TlsCertificates, aio::MultiplexedConnection,
};
use sha2::{Digest, Sha256};
use thiserror::Error;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::{
    auth::Class,
    metrics::GatewayMetrics,
    rules::rate::{Rate, Verdict},
};
use crate::causes;

/// How often Redis is asked whether it is there, and tried again when it is not.
const LOOK: Duration = Duration::from_secs(1);
/// Longest time for a connection.
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// Bytes of the hash that names a bucket.
const NAME_BYTES: usize = 16;

/// The rule of [`Rate::take`] in microseconds. A bucket that is full again is forgotten by Redis.
const TAKE: &str = r"
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local interval, room = tonumber(ARGV[1]), tonumber(ARGV[2])
local full = math.max(tonumber(redis.call('GET', KEYS[1]) or '0'), now)
local after = full + interval
if after - now > room then
  return {full - now, after - now - room}
end
redis.call('SET', KEYS[1], string.format('%.0f', after), 'PX', math.ceil((after - now) / 1000))
return {after - now, -1}
";

/// Why there is no connection.
#[derive(Debug, Error)]
enum ConnectError {
    #[error("failed to read {path}")]
    File {
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("failed to connect")]
    Redis(#[from] RedisError),
    #[error("no answer in time")]
    Time,
}

/// The count that all gateways share.
pub struct SharedLimits {
    settings: RedisLimits,
    /// Begins the names of all buckets: networks may share a Redis.
    prefix: String,
    script: Script,
    connection: ArcSwapOption<MultiplexedConnection>,
    metrics: Arc<GatewayMetrics>,
}

impl std::fmt::Debug for SharedLimits {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("SharedLimits").field("url", &self.settings.url).finish_non_exhaustive()
    }
}

impl SharedLimits {
    /// As configured. Nothing is connected yet.
    pub fn new(settings: RedisLimits, chain_id: &ChainId, metrics: Arc<GatewayMetrics>) -> Self {
        Self {
            settings,
            prefix: format!("althing:{chain_id}:limit:"),
            script: Script::new(TAKE),
            connection: ArcSwapOption::empty(),
            metrics,
        }
    }

    /// Takes one request of a caller; nothing when Redis does not say.
    pub async fn take(&self, class: Class, caller: &str, rate: Rate) -> Option<Verdict> {
        let result = |result: &str| self.metrics.shared_limits_total.with_label_values(&[result]).inc();
        let Some(connection) = self.connection.load_full() else {
            result("away");
            return None;
        };
        let (interval_us, room_us) = rate.in_microseconds();
        let mut call = self.script.key(self.name(class, caller));
        call.arg(interval_us).arg(room_us);
        let mut connection = MultiplexedConnection::clone(&connection);
        let answer = timeout(self.time_max(), call.invoke_async::<(u64, i64)>(&mut connection)).await;
        match answer.map_err(|_| ConnectError::Time).and_then(|answer| Ok(answer?)) {
            Ok((full_in_us, refused_for_us)) => {
                result("counted");
                Some(rate.told(full_in_us, u64::try_from(refused_for_us).ok()))
            }
            Err(error) => {
                result("failed");
                self.lost(&error);
                None
            }
        }
    }

    /// Keeps a connection until the future is dropped.
    pub async fn keep_connected(&self) {
        let mut ticks = interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut said = false;
        loop {
            ticks.tick().await;
            match self.connection.load_full() {
                Some(connection) => {
                    if let Err(error) = self.ping(&connection).await {
                        self.lost(&error);
                    }
                }
                None => match self.connect().await {
                    Ok(connection) => {
                        said = false;
                        self.connection.store(Some(Arc::new(connection)));
                        self.metrics.shared_limits_up.set(1);
                        tracing::info!(url = self.settings.url, "the gateways count together");
                    }
                    // Once for each time that it is away.
                    Err(error) => {
                        if !said {
                            let error = causes::chain(&error);
                            tracing::warn!(url = self.settings.url, error, "failed to reach the Redis of the limits");
                        }
                        said = true;
                    }
                },
            }
        }
    }

    async fn ping(&self, connection: &MultiplexedConnection) -> Result<(), ConnectError> {
        let mut connection = connection.clone();
        let ping = redis::cmd("PING");
        let answer = timeout(CONNECT_MAX, ping.query_async::<()>(&mut connection)).await;
        Ok(answer.map_err(|_| ConnectError::Time)??)
    }

    async fn connect(&self) -> Result<MultiplexedConnection, ConnectError> {
        let RedisLimits { url, username, password_file, ca_file, timeout_ms: _ } = &self.settings;
        let info = url.as_str().into_connection_info()?;
        let mut login = info.redis_settings().clone();
        if let Some(username) = username {
            login = login.set_username(username);
        }
        if let Some(path) = password_file {
            login = login.set_password(String::from_utf8_lossy(&read(path).await?).trim());
        }
        let info = info.set_redis_settings(login);
        let client = match ca_file {
            Some(path) => {
                let root_cert = Some(read(path).await?);
                Client::build_with_tls(info, TlsCertificates { client_tls: None, root_cert })?
            }
            None => Client::open(info)?,
        };
        // The time of each request is kept here, where it can be less than what all have.
        let config = AsyncConnectionConfig::new().set_connection_timeout(Some(CONNECT_MAX)).set_response_timeout(None);
        let connecting = client.get_multiplexed_async_connection_with_config(&config);
        let connection = timeout(CONNECT_MAX, connecting).await.map_err(|_| ConnectError::Time)??;
        self.ping(&connection).await?;
        Ok(connection)
    }

    fn lost(&self, error: &ConnectError) {
        if self.connection.swap(None).is_some() {
            self.metrics.shared_limits_up.set(0);
            let error = causes::chain(error);
            tracing::warn!(url = self.settings.url, error, "each gateway counts by its share");
        }
    }

    const fn time_max(&self) -> Duration {
        Duration::from_millis(self.settings.timeout_ms)
    }

    /// The name of a bucket says nothing of the caller, and is no longer for long names.
    fn name(&self, class: Class, caller: &str) -> String {
        let hash = Sha256::digest(caller.as_bytes());
        let hash = hex::encode(hash.get(..NAME_BYTES).unwrap_or_default());
        format!("{}{}:{hash}", self.prefix, class.as_str())
    }
}

async fn read(path: &std::path::Path) -> Result<Vec<u8>, ConnectError> {
    let failed = |source| ConnectError::File { path: path.display().to_string(), source };
    tokio::fs::read(path).await.map_err(failed)
}
