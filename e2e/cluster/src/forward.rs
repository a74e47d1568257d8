//! `cluster forward`: a port of a Service on 127.0.0.1, until Ctrl-C.

use std::net::{SocketAddr, TcpListener};
use std::str::FromStr;

use serde_json::Value;

use crate::checkout::{Checkout, Node};
use crate::error::{Doing, Error, Result};
use crate::interrupt;
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
    interrupt::wait();
    Ok(())
}

/// The address of a Service inside the cluster: its virtual one, or a ready pod's of a headless Service.
///
/// # Errors
/// When there is no such Service or port, or no pod behind a headless one.
pub fn resolve(checkout: &Checkout, target: &Target) -> Result<String> {
    let get = |arguments: &[&str]| -> Result<Value> {
        let arguments = [&["-n", &target.namespace, "get", "-o", "json"], arguments].concat();
        serde_json::from_str(&kubectl(checkout, &arguments)?)
            .map_err(|source| Error::Json { action: "read what kubectl printed".into(), source })
    };
    let service = get(&["service", &target.service])?;
    let ports = list(&service, "/spec/ports");
    let port = find_port(ports, &target.port).ok_or_else(|| {
        let known: Vec<String> = ports.iter().map(describe).collect();
        Error::Refused(format!("{} has no port {}; it has: {}", target.service, target.port, known.join(" ")))
    })?;
    match text(&service, "/spec/clusterIP") {
        Some(address) if address != "None" => Ok(format!("{address}:{}", number(port))),
        _ => {
            let label = format!("kubernetes.io/service-name={}", target.service);
            let slices = get(&["endpointslices", "-l", &label])?;
            list(&slices, "/items")
                .iter()
                .find_map(|slice| ready_pod(slice, text(port, "/name").unwrap_or_default()))
                .ok_or_else(|| Error::Refused(format!("no pod behind {} is ready", target.service)))
        }
    }
}

/// Address and port of a ready pod; the port of a pod need not be that of its Service, only its name is.
fn ready_pod(slice: &Value, port_name: &str) -> Option<String> {
    let is_ready = |endpoint: &&Value| endpoint.pointer("/conditions/ready") == Some(&Value::Bool(true));
    let endpoint = list(slice, "/endpoints").iter().find(is_ready)?;
    let port = list(slice, "/ports").iter().find(|port| text(port, "/name").unwrap_or_default() == port_name)?;
    Some(format!("{}:{}", text(endpoint, "/addresses/0")?, number(port)))
}

fn find_port<'a>(ports: &'a [Value], wanted: &str) -> Option<&'a Value> {
    ports.iter().find(|port| text(port, "/name") == Some(wanted) || number(port).to_string() == wanted)
}

fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn text<'a>(value: &'a Value, pointer: &str) -> Option<&'a str> {
    value.pointer(pointer).and_then(Value::as_str)
}

fn number(port: &Value) -> u64 {
    port.pointer("/port").and_then(Value::as_u64).unwrap_or_default()
}

fn describe(port: &Value) -> String {
    format!("{}={}", text(port, "/name").unwrap_or("-"), number(port))
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
        assert_eq!(find_port(&ports, "grpc").map(number), Some(7200));
        assert_eq!(find_port(&ports, "7100").map(number), Some(7100));
        assert_eq!(find_port(&ports, "http"), None);
    }

    #[test]
    fn a_headless_service_leads_to_a_pod_that_is_ready() {
        let slice = json!({
            "ports": [{"name": "http", "port": 7300}, {"name": "grpc", "port": 7200}],
            "endpoints": [
                {"addresses": ["10.244.0.5"], "conditions": {"ready": false}},
                {"addresses": ["10.244.1.7"], "conditions": {"ready": true}},
            ],
        });
        assert_eq!(ready_pod(&slice, "grpc").as_deref(), Some("10.244.1.7:7200"));
        assert_eq!(ready_pod(&slice, "p2p"), None);
    }
}
