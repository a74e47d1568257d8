//! The edge itself: limits, bounds, rubbish, versions and cross-origin calls, with nobody behind it.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, StatusCode};
use http_body_util::Full;
use node_api::gateway::api_keys::NewKey;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::harness::{GatewayProcess, certificate, until};

async fn gateway(directory: &TempDir, limits: &str) -> GatewayProcess {
    let section = format!(
        "  backends: {{submit: [{{address: '127.0.0.1:9'}}]}}\n  edge: {{plaintext: true, trustedProxies: ['127.0.0.0/8']}}\n  \
         authentication: {{anonymousRoles: [writer]}}\n  corsOrigins: ['https://app.example']\n  limits: {{{limits}}}\n"
    );
    GatewayProcess::start(directory.path(), &certificate(directory.path()), &section).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_gets_its_limit_and_is_told_when_to_come_again() {
    let directory = TempDir::new().expect("a directory");
    let gateway = gateway(&directory, "ipPerMinute: 60").await;
    let ask = async |from: &str| gateway.get_with("/api/v1/blocks/1", &[("x-forwarded-for", from)]).await;
    let mut passed = 0;
    let refused = loop {
        let answer = ask("198.51.100.1").await;
        if answer.status == StatusCode::TOO_MANY_REQUESTS {
            break answer;
        }
        passed += 1;
        assert!(passed <= 100, "no limit");
    };
    // A tenth of 60 at once, and what a little time adds.
    assert!((6..=30).contains(&passed), "{passed}");
    assert_eq!(refused.json()["type"], "urn:althing:problem:too-many-requests");
    assert!(refused.header("retry-after").parse::<u64>().expect("seconds") >= 1);
    assert!(refused.header("ratelimit").starts_with("\"ip\";r=0;t="));
    // Another address, and a made-up one to the left of it, is somebody else.
    assert_eq!(ask("198.51.100.2").await.status, StatusCode::SERVICE_UNAVAILABLE);
    // A token a second comes back, so one of two calls may pass after a pause of this process.
    let made_up = ask("203.0.113.5, 198.51.100.1").await.status;
    let again = ask("203.0.113.5, 198.51.100.1").await.status;
    assert!([made_up, again].contains(&StatusCode::TOO_MANY_REQUESTS), "{made_up} and {again}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paths_bodies_and_origins_are_answered_with_problems() {
    let directory = TempDir::new().expect("a directory");
    let gateway = gateway(&directory, "ipPerMinute: 1000000, burstPercent: 100, bodyBytesMax: 2048").await;
    let versions = gateway.get("/api").await;
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("strict-transport-security", "max-age=31536000"),
        ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
        ("cache-control", "public, max-age=3600"),
    ] {
        assert_eq!(versions.header(name), value);
    }
    let versions = versions.json();
    assert_eq!(versions["versions"][0]["version"], "v1");
    let unknown = gateway.get("/api/v2/blocks").await;
    assert_eq!(
        (unknown.status, unknown.json()["detail"].as_str()),
        (StatusCode::NOT_FOUND, Some("versions that exist: v1"))
    );
    assert_eq!(gateway.get("/api/v1/nothing").await.json()["type"], "urn:althing:problem:no-such-route");
    let method = gateway.post("/api/v1/blocks", "application/json", "{}").await;
    assert_eq!(method.header("allow"), "GET,HEAD");
    assert_eq!((method.status, method.json()["status"].as_u64()), (StatusCode::METHOD_NOT_ALLOWED, Some(405)));
    let path = "/api/v1/transactions";
    for (kind, body, expected) in [
        ("text/plain", Bytes::from_static(b"x"), StatusCode::UNSUPPORTED_MEDIA_TYPE),
        ("application/json", Bytes::from_static(b"{"), StatusCode::BAD_REQUEST),
        ("application/json", Bytes::from_static(b"{\"transaction\": \"%\"}"), StatusCode::BAD_REQUEST),
        ("application/octet-stream", vec![0; 4096].into(), StatusCode::PAYLOAD_TOO_LARGE),
        ("application/octet-stream", vec![0; 16].into(), StatusCode::SERVICE_UNAVAILABLE),
    ] {
        let answer = gateway.post(path, kind, body).await;
        assert_eq!(answer.status, expected, "{kind}: {:?}", answer.body);
        assert_eq!(answer.header("content-type"), "application/problem+json");
    }
    // JSON that is long enough is sent compressed, and nothing else.
    for (path, accepted, compressed) in [
        ("/api/v1/openapi.json", "gzip", true),
        ("/api/v1/openapi.json", "identity", false),
        ("/api", "gzip", false),
        ("/api/v1/stream/blocks", "gzip", false),
    ] {
        let request = gateway.request(Method::GET, path).header("accept-encoding", accepted);
        let answer = gateway.open(request.body(Full::default()).expect("a request")).await;
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        assert_eq!(answer.headers().contains_key("content-encoding"), compressed, "{path} {accepted}");
    }
    let preflight = gateway
        .request(Method::OPTIONS, path)
        .header("origin", "https://app.example")
        .header("access-control-request-method", "POST");
    let preflight = gateway.send(preflight.body(Full::default()).expect("a request")).await;
    assert_eq!(preflight.header("access-control-allow-origin"), "https://app.example");
    let stranger = gateway.get_with("/api", &[("origin", "https://evil.example")]).await;
    assert!(!stranger.headers.contains_key("access-control-allow-origin"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rubbish_on_the_wire_never_ends_the_gateway() {
    let directory = TempDir::new().expect("a directory");
    let gateway = gateway(&directory, "ipPerMinute: 1000000, burstPercent: 100").await;
    let mut state = 11_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize
    };
    let seeds: [&[u8]; 5] = [
        b"GET /api/v1/blocks/1 HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer a.b.c\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n",
        b"POST /api/v1/transactions HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: 20\r\n\r\n{\"transaction\":\"AA\"}",
        b"POST /althing.v1.Accounts/GetAccount HTTP/1.1\r\nHost: h\r\nContent-Type: application/grpc\r\nGrpc-Timeout: 1S\r\nContent-Length: 9\r\n\r\n\0\0\0\0\x04abcd",
        b"GET /api/v1/socket?from=1 HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
    ];
    for round in 0..400 {
        let mut bytes = seeds[round % seeds.len()].to_vec();
        for _ in 0..1 + next() % 6 {
            let place = next() % bytes.len();
            bytes[place] = next() as u8;
        }
        let Ok(mut stream) = TcpStream::connect(gateway.edge).await else { panic!("the gateway is gone") };
        let _ = stream.write_all(&bytes).await;
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        let _ = timeout(Duration::from_secs(2), stream.read_to_end(&mut answer)).await;
    }
    assert_eq!(gateway.get("/api").await.status, StatusCode::OK);
    let log = std::fs::read_to_string(&gateway.log).expect("the log");
    assert!(!log.contains("panicked"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn through_three_gateways_one_user_gets_at_most_a_fifth_more_than_the_limit() {
    let directory = TempDir::new().expect("a directory");
    let key = NewKey::generate("one", vec!["writer".to_owned()]).expect("a key");
    let file = directory.path().join("keys.yaml");
    std::fs::write(&file, key.file().expect("text")).expect("written");
    let tls = certificate(directory.path());
    let section = format!(
        "  backends: {{submit: [{{address: '127.0.0.1:9'}}]}}\n  edge: {{plaintext: true}}\n  \
         authentication: {{apiKeysFile: {}}}\n  limits: {{userPerMinute: 600, gateways: {{count: 3}}}}\n",
        file.display()
    );
    let mut gateways = Vec::new();
    for _ in 0..3 {
        gateways.push(GatewayProcess::start(directory.path(), &tls, &section).await);
    }
    let begin = Instant::now();
    let (mut passed, mut asked) = (0_u32, 0_u32);
    // On a slow machine for longer: enough have to be refused.
    while begin.elapsed() < Duration::from_secs(6) || asked <= 2 * passed.max(90) {
        assert!(begin.elapsed() < Duration::from_secs(60), "{passed} of {asked} passed");
        for gateway in &gateways {
            let answer = gateway.get_with("/api/v1/blocks/1", &[("x-api-key", &key.key)]).await;
            asked += 1;
            passed += u32::from(answer.status != StatusCode::TOO_MANY_REQUESTS);
        }
    }
    // The rate over the time, a tenth of a minute at once, and one for each gateway at the edge of the time.
    let most = (begin.elapsed().as_secs_f64() * 10.0) as u32 + 60 + 3;
    assert!(passed <= most, "{passed} passed, at most {most}");
    assert!(passed >= 90, "{passed} of {asked} passed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_too_much_to_do_new_requests_are_turned_away_at_once() {
    let directory = TempDir::new().expect("a directory");
    let gateway = gateway(&directory, "ipPerMinute: 1000000, burstPercent: 100, requestsMax: 2").await;
    let head = "POST /api/v1/transactions HTTP/1.1\r\nHost: h\r\nContent-Type: application/octet-stream\r\n\
                Content-Length: 100\r\n\r\nhalf";
    let mut slow = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(gateway.edge).await.expect("connects");
        stream.write_all(head.as_bytes()).await.expect("the head leaves");
        slow.push(stream);
    }
    let shed = until("a request is turned away", async || {
        let answer = gateway.get("/api/v1/blocks/1").await;
        (answer.json()["type"] == "urn:althing:problem:overloaded").then_some(answer)
    })
    .await;
    assert_eq!((shed.status, shed.header("retry-after")), (StatusCode::SERVICE_UNAVAILABLE, "1"));
    // Those that came first are served to their end, and then there is room again.
    for stream in &mut slow {
        stream.write_all(&[b'x'; 96]).await.expect("the rest leaves");
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.expect("an answer");
        assert_eq!(&answer, b"HTTP/1.1 503");
    }
    until("there is room again", async || {
        let answer = gateway.get("/api/v1/blocks/1").await;
        (answer.json()["type"] != "urn:althing:problem:overloaded").then_some(())
    })
    .await;
    assert!(gateway.metrics().await.contains("althing_gateway_shed_total{reason="));
}
