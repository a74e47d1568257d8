//! What the types of a gateway's configuration cannot say.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Authentication, BACKENDS_MAX, ENTRIES_MAX, GatewayConfig, GatewaySection, Gateways, Limits, PER_MINUTE_MAX,
    RoleGrant,
};
use crate::config::ConfigError;

impl GatewayConfig {
    /// Checks what the types cannot say.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let GatewaySection { backends, edge, authentication, roles, limits, cors_origins } = &self.gateway;
        if backends.submit.is_empty() {
            return refuse("gateway.backends.submit", "is empty", "name at least one validator");
        }
        for (list, backends) in [("submit", &backends.submit), ("read", &backends.read)] {
            check_count(&format!("gateway.backends.{list}"), backends.len(), BACKENDS_MAX)?;
            for (index, backend) in backends.iter().enumerate() {
                check_range(&format!("gateway.backends.{list}[{index}].weight"), u64::from(backend.weight), 1, 100)?;
            }
        }
        check_count("gateway.edge.trustedProxies", edge.trusted_proxies.len(), ENTRIES_MAX)?;
        if edge.plaintext && edge.tls_directory.is_some() {
            return refuse("gateway.edge.plaintext", "is set beside tlsDirectory", "remove one of the two");
        }
        check_count("gateway.corsOrigins", cors_origins.len(), ENTRIES_MAX)?;
        for (index, origin) in cors_origins.iter().enumerate() {
            if origin != "*" && (!origin.contains("://") || !origin.bytes().all(|byte| byte.is_ascii_graphic())) {
                let key = format!("gateway.corsOrigins[{index}]");
                return refuse(&key, "is no origin", "write * or scheme://host[:port], as in https://app.example.org");
            }
        }
        check_count("gateway.roles", roles.len(), ENTRIES_MAX)?;
        authentication.validate(roles)?;
        limits.validate()
    }
}

impl Authentication {
    fn validate(&self, roles: &BTreeMap<String, RoleGrant>) -> Result<(), ConfigError> {
        let known = |key: &str, names: &[String]| match names.iter().find(|name| !roles.contains_key(*name)) {
            Some(name) => {
                let there = roles.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
                let problem = format!("{name:?} is not in gateway.roles, which has {there}");
                refuse(key, &problem, "add the role there, or remove it")
            }
            None => Ok(()),
        };
        known("gateway.authentication.anonymousRoles", &self.anonymous_roles)?;
        known("gateway.authentication.certificateRoles", &self.certificate_roles)?;
        check_count("gateway.authentication.issuers", self.issuers.len(), ENTRIES_MAX)?;
        let mut seen = BTreeSet::new();
        for (index, issuer) in self.issuers.iter().enumerate() {
            let key = |name: &str| format!("gateway.authentication.issuers[{index}].{name}");
            known(&key("defaultRoles"), &issuer.default_roles)?;
            for (name, url) in [("url", Some(&issuer.url)), ("jwksUrl", issuer.jwks_url.as_ref())] {
                let Some(url) = url else { continue };
                let allowed = url.starts_with("https://") || (issuer.insecure_http && url.starts_with("http://"));
                if !allowed || url.parse::<http::Uri>().is_err() {
                    return refuse(
                        &key(name),
                        &format!("{url:?} is not a https URL"),
                        "write it as the issuer names it",
                    );
                }
            }
            if !seen.insert(&issuer.url) {
                return refuse(&key("url"), "is named twice", "give each issuer one entry");
            }
            if issuer.audiences.is_empty() {
                return refuse(&key("audiences"), "is empty", "name the audience that tokens for this gateway carry");
            }
            check_count(&key("audiences"), issuer.audiences.len(), ENTRIES_MAX)?;
            check_range(&key("clockSkewS"), issuer.clock_skew_s, 0, 300)?;
        }
        Ok(())
    }
}

impl Limits {
    fn validate(&self) -> Result<(), ConfigError> {
        let Self { user_per_minute, ip_per_minute, service_per_minute, burst_percent, principals_max, .. } = self;
        check_range("gateway.limits.userPerMinute", *user_per_minute, 1, PER_MINUTE_MAX)?;
        check_range("gateway.limits.ipPerMinute", *ip_per_minute, 1, PER_MINUTE_MAX)?;
        check_range("gateway.limits.servicePerMinute", *service_per_minute, 1, PER_MINUTE_MAX)?;
        check_range("gateway.limits.burstPercent", *burst_percent, 1, 100)?;
        let size = |size: usize| u64::try_from(size).unwrap_or(u64::MAX);
        check_range("gateway.limits.principalsMax", size(*principals_max), 100, 10_000_000)?;
        check_range("gateway.limits.bodyBytesMax", size(self.body_bytes_max), 1 << 10, 16 << 20)?;
        let body = size(self.body_bytes_max);
        check_range("gateway.limits.bodiesBytesMax", size(self.bodies_bytes_max), body, 4 << 30)?;
        for (key, value) in [
            ("gateway.limits.requestsMax", self.requests_max),
            ("gateway.limits.streamsMax", self.streams_max),
            ("gateway.limits.streamsPerCallerMax", self.streams_per_caller_max),
            ("gateway.limits.connectionsMax", self.connections_max),
            ("gateway.limits.connectionsPerAddressMax", self.connections_per_address_max),
        ] {
            check_range(key, size(value), 1, 1_000_000)?;
        }
        check_range("gateway.limits.connectionAgeS", self.connection_age_s, 1, 86_400)?;
        check_range("gateway.limits.sendTimeoutMs", self.send_timeout_ms, 1_000, 600_000)?;
        check_range("gateway.limits.timeoutMsMax", self.timeout_ms_max, 100, 600_000)?;
        check_range("gateway.limits.timeoutMs", self.timeout_ms, 100, self.timeout_ms_max)?;
        check_range("gateway.limits.cacheBytesMax", self.cache_bytes_max, 0, 16 << 30)?;
        if let Some(redis) = &self.redis {
            redis.validate()?;
        }
        match &self.gateways {
            Gateways::Count(count) => check_range("gateway.limits.gateways.count", u64::from(*count), 1, 10_000),
            Gateways::Service(_) => Ok(()),
        }
    }
}

pub(super) fn refuse(key: &str, problem: &str, advice: &'static str) -> Result<(), ConfigError> {
    Err(ConfigError::Value { key: key.to_owned(), problem: problem.to_owned(), advice })
}

fn check_count(key: &str, found: usize, most: usize) -> Result<(), ConfigError> {
    if found <= most { Ok(()) } else { refuse(key, &format!("{found} entries, at most {most}"), "name fewer") }
}

pub(super) fn check_range(key: &str, found: u64, least: u64, most: u64) -> Result<(), ConfigError> {
    if (least..=most).contains(&found) {
        return Ok(());
    }
    refuse(key, &format!("{found} is not in {least} to {most}"), "choose a number in this range")
}

#[cfg(test)]
mod tests {
    use super::GatewayConfig;

    fn with(limits: &str) -> Result<GatewayConfig, String> {
        let text = format!(
            "configVersion: 1\nchainId: demo-main\nrole: gateway\n\
             gateway: {{backends: {{submit: [{{address: 'nodes:7200'}}]}}, limits: {{{limits}}}}}\n"
        );
        GatewayConfig::from_yaml(&text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_role_that_is_not_defined_is_refused_with_the_names_of_those_that_are() {
        let with = |roles: &str, authentication: &str| {
            let text = format!(
                "configVersion: 1\nchainId: demo-main\nrole: gateway\n\
                 gateway: {{backends: {{submit: [{{address: 'nodes:7200'}}]}}, authentication: {authentication}{roles}}}\n"
            );
            GatewayConfig::from_yaml(&text).map_err(|error| error.to_string())
        };
        let issuer =
            |roles| format!("{{issuers: [{{url: 'https://a.example', audiences: [a], defaultRoles: {roles}}}]}}");
        for authentication in
            ["{anonymousRoles: [auditor]}".to_owned(), "{certificateRoles: [auditor]}".to_owned(), issuer("[auditor]")]
        {
            let problem = with("", &authentication).expect_err("there is no auditor");
            assert!(
                problem.contains("\"auditor\" is not in gateway.roles, which has reader, service, writer"),
                "{problem}"
            );
            let both = ", roles: {auditor: {permissions: [read, status]}, writer: {permissions: [submit]}}";
            with(both, &authentication).expect("there is one");
        }
        let problem = with(", roles: {auditor: {permissions: [vote]}}", "{certificateRoles: []}").expect_err("refused");
        assert!(problem.contains("vote") && problem.contains("`prove`"), "{problem}");
    }

    #[test]
    fn times_of_connections_have_bounds_and_stand_in_the_file_only_when_they_differ() {
        for (limits, good) in [
            ("connectionAgeS: 1, sendTimeoutMs: 1000", true),
            ("connectionAgeS: 86400, sendTimeoutMs: 600000", true),
            ("connectionAgeS: 0", false),
            ("connectionAgeS: 86401", false),
            ("sendTimeoutMs: 999", false),
            ("sendTimeoutMs: 600001", false),
        ] {
            let found = with(limits);
            assert_eq!(found.is_ok(), good, "{limits}: {found:?}");
        }
        let problem = with("connectionAgeS: 0").expect_err("is refused");
        assert!(problem.contains("gateway.limits.connectionAgeS"), "{problem}");
        let text = with("").and_then(|config| config.to_yaml().map_err(|error| error.to_string())).expect("is good");
        assert!(!text.contains("connectionAgeS") && !text.contains("sendTimeoutMs"), "{text}");
        let changed = with("connectionAgeS: 60").expect("is good");
        let again = GatewayConfig::from_yaml(&changed.to_yaml().expect("text")).expect("is good");
        assert_eq!((again.gateway.limits.connection_age_s, again), (60, changed));
    }
}
