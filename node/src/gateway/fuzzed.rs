//! Fuzz targets as plain functions over bytes, and the committed inputs that they are replayed with, each as it is and
//! mutated: JSON bodies, headers, and protobuf answers of nodes. A target fails by a panic or by an assertion.
//!
//! An input that once broke something is added to its folder in `testdata/gateway`.

use std::{fs, net::IpAddr, path::Path};

use axum::body::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;
use node_api::{
    deadline::{TIMEOUT, timeout_ms},
    gateway::{Authentication, Issuer, default_roles},
    trace::TraceParent,
};
use prost_reflect::DynamicMessage;

use super::{
    auth::{Authenticator, Roles},
    json::Translator,
    rest,
    rules::address,
};
use crate::fuzzed::mutated;

/// Mutations of each committed input.
const MUTATIONS: u64 = 2_000;
/// Messages that clients send as JSON, and those that nodes answer with.
const REQUESTS: [&str; 2] = ["SubmitRequest", "GetTransactionRequest"];
const ANSWERS: [&str; 4] = ["SubmitResponse", "GetTransactionResponse", "GetAccountResponse", "Block"];

/// What targets share.
struct Gateway {
    translator: Translator,
    authenticator: Authenticator,
    trusted: Vec<IpNet>,
    runtime: tokio::runtime::Runtime,
}

impl Gateway {
    fn new() -> Self {
        let issuer = Issuer {
            url: "http://127.0.0.1:9".to_owned(),
            audiences: vec!["althing".to_owned()],
            jwks_url: None,
            roles_claim: "realm.roles".to_owned(),
            default_roles: vec!["reader".to_owned()],
            ca_file: None,
            clock_skew_s: 0,
            insecure_http: true,
        };
        let authentication = Authentication { issuers: vec![issuer], ..Authentication::default() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        Self {
            translator: Translator::new().expect("the descriptors are read"),
            authenticator: Authenticator::new(&authentication, Roles::new(default_roles())).expect("is made"),
            trusted: vec!["10.0.0.0/8".parse().expect("a network"), "::1/128".parse().expect("a network")],
            runtime,
        }
    }

    /// A JSON body: what is taken is a message, and that message is the same one through JSON again.
    fn json(&self, input: &[u8]) {
        for name in REQUESTS {
            let Ok(message) = self.translator.from_json(name, input) else { continue };
            let json = self.translator.to_json(name, message.clone()).expect("what was taken can be written");
            let again = self.translator.from_json(name, json.to_string().as_bytes()).expect("and be read again");
            assert_eq!(message, again, "{name}");
        }
    }

    /// An answer of a node: what decodes can be written as JSON.
    fn protobuf(&self, input: &[u8]) {
        for name in ANSWERS {
            let descriptor = self.translator.message(name).expect("there is this message");
            let decodes = DynamicMessage::decode(descriptor, input).is_ok();
            let json = self.translator.to_json(name, Bytes::copy_from_slice(input));
            assert_eq!(decodes, json.is_ok(), "{name}");
        }
    }

    /// Lines of `name: value`. Nobody is let in by such a credential: no key and no issuer answers.
    fn headers(&self, input: &[u8]) {
        let mut headers = HeaderMap::new();
        for line in input.split(|byte| *byte == b'\n').take(32) {
            let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
            let (name, value) = line.split_at(colon);
            let value = value.get(1..).unwrap_or_default().trim_ascii();
            if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
                headers.append(name, value);
            }
        }
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let peer = IpAddr::from([10, 0, 0, 1]);
        let from = address::client(peer, Some(text("x-forwarded-for")), &self.trusted);
        assert_eq!(address::counted(address::counted(from)), address::counted(from));
        if let Ok(trace) = text("traceparent").parse::<TraceParent>() {
            assert_eq!(trace.to_string().parse::<TraceParent>().expect("is one").trace_id(), trace.trace_id());
        }
        assert!(timeout_ms(text(TIMEOUT)).is_none_or(|time_ms| time_ms < u64::MAX));
        rest::read_headers(text("last-event-id"), &headers);
        let principal = self.runtime.block_on(self.authenticator.authenticate(&headers, None));
        assert!(principal.is_err(), "{principal:?} by {:?}", String::from_utf8_lossy(input));
    }
}

/// Runs a target over its folder: each input, and what becomes of it when bytes are changed, cut out, doubled or joined
/// with another input.
fn replay(folder: &str, target: impl Fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/gateway").join(folder);
    let mut paths: Vec<_> =
        fs::read_dir(&folder).expect("a folder").map(|entry| entry.expect("a file").path()).collect();
    paths.sort();
    let inputs: Vec<Vec<u8>> = paths.iter().map(|path| fs::read(path).expect("readable")).collect();
    assert!(inputs.len() >= 4, "{} holds {} inputs", folder.display(), inputs.len());
    mutated(&inputs, MUTATIONS, target);
}

#[test]
fn no_json_breaks_the_gateway() {
    let gateway = Gateway::new();
    replay("json", |input| gateway.json(input));
}

#[test]
fn no_answer_of_a_node_breaks_the_gateway() {
    let gateway = Gateway::new();
    replay("protobuf", |input| gateway.protobuf(input));
}

#[test]
fn no_header_breaks_the_gateway_or_lets_somebody_in() {
    let gateway = Gateway::new();
    replay("headers", |input| gateway.headers(input));
}
