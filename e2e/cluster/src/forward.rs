//! `cluster forward`: a port of a Service on 127.0.0.1, until Ctrl-C.

use std::net::{SocketAddr, TcpListener};
use std::str::FromStr;

use serde_json::Value;

use crate::checkout::{Checkout, Node};
use crate::error::{Doing, Error, Result};
use crate::interrupt::{self, Wait};
use crate::kubectl::kubectl;
use crate::relay;

/// `NAMESPACE/SERVICE:PORT`; the port is a number or a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    namespace: String,
    service: String,
    port: String,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let split = text.split_once('/').and_then(|(namespace, rest)| Some((namespace, rest.split_once(':')?)));
        match split {
            Some((namespace, (service, port))) if ![namespace, service, port].contains(&"") => {
                Ok(Self { namespace: namespace.into(), service: service.into(), port: port.into() })
            }
            _ => Err("a target is NAMESPACE/SERVICE:PORT, like althing-demo/demo-main-rpc:7200".into()),
        }
    }
}

/// Listens and serves until the user interrupts.
///
/// # Errors
/// When there is no such Service or port, or the address is taken.
pub fn forward(checkout: &Checkout, target: &Target, listen: SocketAddr) -> Result<()> {
    let address = resolve(checkout, target)?;
    let listener = TcpListener::bind(listen).doing("listen on", listen.to_string())?;
    let own = listener.local_addr().doing("listen on", listen.to_string())?;
    println!("{own} -> {}/{}:{} ({address}); Ctrl-C ends it", target.namespace, target.service, target.port);
    let socket = checkout.relay(Node::FIRST);
    std::thread::spawn(move || relay::serve_listener(&listener, &socket, &address));
    let wait = Wait { what: "the end", seconds_max: u64::from(u32::MAX), every_ms: 100, hint: "Ctrl-C ends it" };
    match interrupt::wait_for(wait, || Ok(None::<()>)) {
        Err(Error::Interrupted) => Ok(()),
        other => other,
    }
}

/// The address of a Service inside the cluster: its virtual one, or a ready pod's of a headless Service.
///
/// # Errors
/// When there is no such Service or port, or no pod behind a headless one.
pub fn resolve(checkout: &Checkout, target: &Target) -> Result<String> {
    let get = |kind: &str| -> Result<Value> {
        let text = kubectl(checkout, &["-n", &target.namespace, "get", kind, &target.service, "-o", "json"])?;
        serde_json::from_str(&text).map_err(|source| Error::Json { action: format!("read a {kind}"), source })
    };
    let service = get("service")?;
    let ports = service.pointer("/spec/ports").and_then(Value::as_array).cloned().unwrap_or_default();
    let port = find_port(&ports, &target.port).ok_or_else(|| {
        let known: Vec<String> = ports.iter().map(describe).collect();
        Error::Refused(format!("{} has no port {}; it has: {}", target.service, target.port, known.join(" ")))
    })?;
    match service.pointer("/spec/clusterIP").and_then(Value::as_str) {
        Some(address) if address != "None" => Ok(format!("{address}:{port}")),
        _ => {
            let endpoints = get("endpoints")?;
            let address = endpoints.pointer("/subsets/0/addresses/0/ip").and_then(Value::as_str);
            let port = endpoints.pointer("/subsets/0/ports").and_then(Value::as_array);
            let port = port.and_then(|ports| find_port(ports, &target.port)).unwrap_or(port_or(port, 0));
            let address =
                address.ok_or_else(|| Error::Refused(format!("no pod behind {} is ready", target.service)))?;
            Ok(format!("{address}:{port}"))
        }
    }
}

fn find_port(ports: &[Value], wanted: &str) -> Option<u64> {
    let number = |port: &Value| port.get("port").and_then(Value::as_u64);
    let found = ports.iter().find(|port| {
        port.get("name").and_then(Value::as_str) == Some(wanted) || number(port).map(|n| n.to_string()).as_deref() == Some(wanted)
    });
    found.and_then(number)
}

fn port_or(ports: Option<&Vec<Value>>, otherwise: u64) -> u64 {
    ports.and_then(|ports| ports.first()).and_then(|port| port.get("port")).and_then(Value::as_u64).unwrap_or(otherwise)
}

fn describe(port: &Value) -> String {
    let name = port.get("name").and_then(Value::as_str).unwrap_or("-");
    format!("{name}={}", port.get("port").and_then(Value::as_u64).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_target_has_namespace_service_and_port() {
        let target: Target = "demo/main-rpc:grpc".parse().unwrap();
        assert_eq!(target, Target { namespace: "demo".into(), service: "main-rpc".into(), port: "grpc".into() });
        for wrong in ["demo", "demo/rpc", "/rpc:1", "demo/:1", "demo/rpc:", "rpc:1"] {
            assert!(wrong.parse::<Target>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_port_is_found_by_name_and_by_number() {
        let ports = [json!({"name": "p2p", "port": 7100}), json!({"name": "grpc", "port": 7200})];
        assert_eq!(find_port(&ports, "grpc"), Some(7200));
        assert_eq!(find_port(&ports, "7100"), Some(7100));
        assert_eq!(find_port(&ports, "http"), None);
    }
}
