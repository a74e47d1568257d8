//! The Redis that counts requests for all gateways together.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::checks::{check_range, refuse};
use crate::config::ConfigError;

/// Where it is and how it is asked. While it does not answer, each gateway counts by its share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RedisLimits {
    /// `redis://<host>:<port>/<database>`, or `rediss://` with TLS; no credentials in it.
    pub url: String,
    /// Name in its access control list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// File with the password, read with each new connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// Authorities (PEM) for its certificate; without it those of the system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// Longest wait for its answer to one request, in milliseconds: 1 to 1000.
    #[serde(default = "default_timeout_ms")]
    pub timeout_ms: u64,
}

impl RedisLimits {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let Self { url, username: _, password_file: _, ca_file, timeout_ms } = self;
        let key = |name: &str| format!("gateway.limits.redis.{name}");
        let is_encrypted = url.starts_with("rediss://");
        let is_url = is_encrypted || url.starts_with("redis://");
        let host = url.parse::<http::Uri>().ok().filter(|uri| uri.host().is_some_and(|host| !host.is_empty()));
        let Some(parsed) = host.filter(|_| is_url) else {
            let advice = "write redis://<host>:<port>/<database>, or rediss:// with TLS";
            return refuse(&key("url"), &format!("{url:?} is no URL of a Redis"), advice);
        };
        if url.contains('@') {
            return refuse(&key("url"), "has credentials", "name them with username and passwordFile");
        }
        let database = parsed.path().trim_start_matches('/');
        if parsed.query().is_some() || !(database.is_empty() || database.parse::<u16>().is_ok()) {
            return refuse(&key("url"), "has a path that is no database", "write a number after the port, or nothing");
        }
        if ca_file.is_some() && !is_encrypted {
            return refuse(&key("caFile"), "is set for a connection without TLS", "write rediss://, or remove it");
        }
        check_range(&key("timeoutMs"), *timeout_ms, 1, 1_000)
    }
}

const fn default_timeout_ms() -> u64 {
    50
}

#[cfg(test)]
mod tests {
    use super::RedisLimits;

    fn limits(text: &str) -> Result<(), String> {
        let limits: RedisLimits = serde_yaml::from_str(text).map_err(|error| error.to_string())?;
        limits.validate().map_err(|error| error.to_string())
    }

    #[test]
    fn a_place_without_secrets_is_taken_and_everything_else_refused_by_its_name() {
        for good in [
            "url: redis://redis.demo.svc:6379",
            "url: redis://redis.demo.svc/3",
            "{url: 'rediss://[::1]:6380/0', username: althing, passwordFile: /p, caFile: /ca, timeoutMs: 20}",
        ] {
            assert_eq!(limits(good), Ok(()), "{good}");
        }
        for (bad, expected) in [
            ("url: http://redis", "limits.redis.url"),
            ("url: 'redis://'", "limits.redis.url"),
            ("url: redis://user:secret@redis", "has credentials"),
            ("url: redis://redis/name", "no database"),
            ("url: redis://redis/1?protocol=resp3", "no database"),
            ("{url: 'redis://redis', caFile: /ca}", "limits.redis.caFile"),
            ("{url: 'redis://redis', timeoutMs: 0}", "limits.redis.timeoutMs"),
            ("{url: 'redis://redis', password: x}", "unknown field"),
        ] {
            let refused = limits(bad).expect_err(bad);
            assert!(refused.contains(expected), "{bad}: {refused}");
        }
    }
}
