//! Three gateways and one user: by shares, and counted together in a real Redis that may go and come back.

use std::{path::Path, time::Instant};

use http::StatusCode;
use node_api::gateway::api_keys::{KeyFile, NewKey};
use tempfile::TempDir;
use tokio::{
    net::TcpStream,
    process::{Child, Command},
};

use crate::{
    companion,
    harness::{GatewayProcess, certificate, until},
};

const PER_MINUTE: usize = 600;
/// A tenth of it at once.
const BURST: usize = 60;
/// The user who only looks by what limit it is counted.
const WATCHER: usize = 0;

/// Redis as its own process, without a file and without a service.
struct Redis {
    process: Child,
}

impl Redis {
    /// On this port; `tls` names certificate and key.
    async fn start(directory: &Path, port: u16, password: &str, tls: Option<(&Path, &Path)>) -> Self {
        let program = companion::folder("redis").await.join("redis-server");
        let mut command = Command::new(program);
        command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--requirepass", password]);
        match tls {
            Some((certificate, key)) => {
                command.args(["--port", "0", "--tls-port", &port.to_string(), "--tls-auth-clients", "no"]);
                command.arg("--tls-cert-file").arg(certificate).arg("--tls-key-file").arg(key);
            }
            None => {
                command.args(["--port", &port.to_string()]);
            }
        }
        let process = command.current_dir(directory).stdout(std::process::Stdio::null()).kill_on_drop(true).spawn();
        let redis = Self { process: process.expect("Redis starts") };
        until("Redis listens", || async { TcpStream::connect(("127.0.0.1", port)).await.ok() }).await;
        redis
    }

    async fn kill(mut self) {
        self.process.kill().await.expect("Redis ends");
    }
}

/// Three gateways that share the limits, and the keys of some users.
struct Three {
    gateways: Vec<GatewayProcess>,
    keys: Vec<String>,
    directory: TempDir,
}

impl Three {
    /// `more` is added to their limits.
    async fn start(directory: TempDir, more: &str) -> Self {
        let user = |name: &&str| NewKey::generate(name, vec!["writer".to_owned()]).expect("a key");
        let users: Vec<NewKey> = ["watcher", "first", "second"].iter().map(user).collect();
        let file = directory.path().join("keys.yaml");
        let keys = users.iter().map(|user| user.entry.clone()).collect();
        std::fs::write(&file, serde_yaml::to_string(&KeyFile { keys }).expect("text")).expect("written");
        let section = format!(
            "  backends: {{submit: [{{address: '127.0.0.1:9'}}]}}\n  edge: {{plaintext: true}}\n  \
             limits: {{userPerMinute: {PER_MINUTE}, gateways: {{count: 3}}{more}}}\n  \
             authentication: {{apiKeysFile: '{}'}}\n",
            file.display()
        );
        let certificate = certificate(directory.path());
        let mut gateways = Vec::new();
        for _ in 0..3 {
            gateways.push(GatewayProcess::start(directory.path(), &certificate, &section).await);
        }
        let keys = users.into_iter().map(|user| user.key).collect();
        let three = Self { gateways, keys, directory };
        for gateway in &three.gateways {
            until("the key is known", || async {
                (three.ask(gateway, WATCHER).await.0 != StatusCode::UNAUTHORIZED).then_some(())
            })
            .await;
        }
        three
    }

    /// One request: the status, and the limit that it was counted by.
    async fn ask(&self, gateway: &GatewayProcess, user: usize) -> (StatusCode, String) {
        let answer = gateway.get_with("/api/v1/blocks/1", &[("x-api-key", &self.keys[user])]).await;
        let policy = answer.headers.get("ratelimit-policy").map(|policy| policy.to_str().expect("text").to_owned());
        (answer.status, policy.unwrap_or_default())
    }

    /// How many of many requests pass; the rest is told to come later.
    async fn passed(&self, gateway: &GatewayProcess, user: usize) -> usize {
        let mut passed = 0;
        for _ in 0..200 {
            passed += usize::from(self.ask(gateway, user).await.0 != StatusCode::TOO_MANY_REQUESTS);
        }
        passed
    }

    async fn counted_by(&self, per_minute: usize) {
        for gateway in &self.gateways {
            let policy = format!("\"user\";q={per_minute};w=60");
            until("the limit is counted like this", || async {
                (self.ask(gateway, WATCHER).await.1 == policy).then_some(())
            })
            .await;
        }
    }
}

/// What may pass from `begin` on: what the buckets hold, and what time adds.
fn allowed(begin: Instant) -> usize {
    BURST + begin.elapsed().as_millis() as usize * PER_MINUTE / 60_000 + 3
}

/// In a minute that is 1.1 times the limit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_shares_three_gateways_give_one_user_the_limit_and_a_tenth() {
    let begin = Instant::now();
    let three = Three::start(TempDir::new().expect("a directory"), "").await;
    let mut passed = 0;
    for gateway in &three.gateways {
        let here = three.passed(gateway, 1).await;
        assert!(here >= BURST / 3 - 5, "{here} of a third of {BURST}");
        passed += here;
    }
    assert!(passed <= allowed(begin), "{passed} passed, at most {}", allowed(begin));
    // Who is refused is known all the same.
    let gateway = &three.gateways[0];
    let limited = gateway.metric("althing_gateway_limited_total{class=\"user\"}").await;
    assert!(limited.is_some_and(|limited| limited >= 100.0), "{limited:?}");
    assert_eq!(gateway.metric("althing_gateway_limited_total{class=\"ip\"}").await, None);
    let log = std::fs::read_to_string(&gateway.log).expect("the log");
    let refused = log.lines().find(|line| line.contains("\"status\":\"429\"")).expect("a line");
    assert!(refused.contains("\"class\":\"user\"") && refused.contains("\"principal\":\"key:first\""), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counted_together_one_gateway_may_give_all_and_the_others_nothing_more() {
    let directory = TempDir::new().expect("a directory");
    let port = althing_node::devnet::ports::free(1).expect("free ports")[0].grpc;
    let redis = Redis::start(directory.path(), port, "secret", None).await;
    std::fs::write(directory.path().join("password"), "secret\n").expect("written");
    let more = format!(
        ", redis: {{url: 'redis://127.0.0.1:{port}', passwordFile: '{}/password', timeoutMs: 1000}}",
        directory.path().display()
    );
    let three = Three::start(directory, &more).await;
    three.counted_by(PER_MINUTE).await;
    let begin = Instant::now();
    let alone = three.passed(&three.gateways[0], 1).await;
    assert!(alone >= BURST, "{alone} of {BURST}");
    let others = three.passed(&three.gateways[1], 1).await + three.passed(&three.gateways[2], 1).await;
    assert!(alone + others <= allowed(begin), "{alone} and {others} passed, at most {}", allowed(begin));

    // Without Redis everybody counts by the share, and says so; when it is back, together again.
    redis.kill().await;
    three.counted_by(PER_MINUTE / 3).await;
    let (begin, mut passed) = (Instant::now(), 0);
    for gateway in &three.gateways {
        assert!(gateway.metrics().await.contains("althing_gateway_shared_limits_up 0"));
        passed += three.passed(gateway, 2).await;
    }
    assert!(passed <= allowed(begin), "{passed} passed, at most {}", allowed(begin));
    let _redis = Redis::start(three.directory.path(), port, "secret", None).await;
    three.counted_by(PER_MINUTE).await;
    assert!(three.gateways[0].metrics().await.contains("althing_gateway_shared_limits_up 1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_is_reached_over_tls_with_an_authority_of_its_own_and_never_with_another() {
    let directory = TempDir::new().expect("a directory");
    let pair = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    let [certificate, key, other] = ["redis.crt", "redis.key", "other.crt"].map(|name| directory.path().join(name));
    std::fs::write(&certificate, pair.cert.pem()).expect("written");
    std::fs::write(&key, pair.signing_key.serialize_pem()).expect("written");
    let stranger = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    std::fs::write(&other, stranger.cert.pem()).expect("written");
    std::fs::write(directory.path().join("password"), "secret").expect("written");
    let port = althing_node::devnet::ports::free(1).expect("free ports")[0].grpc;
    let _redis = Redis::start(directory.path(), port, "secret", Some((&certificate, &key))).await;
    let limits = |authorities: &Path| {
        format!(
            ", redis: {{url: 'rediss://localhost:{port}/1', passwordFile: '{}/password', caFile: '{}', timeoutMs: 1000}}",
            directory.path().display(),
            authorities.display()
        )
    };
    let (good, bad) = (limits(&certificate), limits(&other));
    let three = Three::start(directory, &good).await;
    three.counted_by(PER_MINUTE).await;
    let wrong = Three::start(TempDir::new().expect("a directory"), &bad).await;
    let gateway = &wrong.gateways[0];
    until("the wrong authority is noticed", || async {
        let log = std::fs::read_to_string(&gateway.log).expect("the log");
        log.contains("failed to reach the Redis of the limits").then_some(())
    })
    .await;
    assert_eq!(wrong.ask(gateway, WATCHER).await.1, format!("\"user\";q={};w=60", PER_MINUTE / 3));
}
