//! The pods of a tier, and what they count: read at the HTTP port of each from its own machine, where no policy stands between.

use althing_crds::names;
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper_util::rt::TokioIo;
use node_api::tls::{Dialer, RelayDialer};

use crate::network::Network;

/// A pod of a tier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TierPod {
    /// Its name.
    pub name: String,
    /// Its address inside the cluster.
    pub address: String,
    /// The machine that it runs on.
    pub host: String,
}

/// The pods of a tier that have an address.
///
/// # Errors
/// When they cannot be listed.
pub async fn pods(network: &Network, component: &str) -> Result<Vec<TierPod>> {
    let selector = format!("{}={component},{}={}", names::LABEL_APP_COMPONENT, names::LABEL_NETWORK, network.name);
    let path = "jsonpath={range .items[*]}{.metadata.name} {.spec.nodeName} {.status.podIP}{\"\\n\"}{end}";
    let listed = network.kubectl(&["get", "pods", "-l", &selector, "-o", path]).await?;
    let pod = |line: &str| match line.split(' ').collect::<Vec<_>>().as_slice() {
        [name, host, address] if !address.is_empty() => {
            Some(TierPod { name: (*name).to_string(), address: (*address).to_string(), host: (*host).to_string() })
        }
        _ => None,
    };
    Ok(listed.lines().filter_map(pod).collect())
}

/// The sum over all gateways of their calls to this backend that were answered.
///
/// # Errors
/// When a gateway does not tell.
pub async fn calls_to(network: &Network, address: &str) -> Result<u64> {
    let backend = format!("backend=\"{address}:{}\"", names::PORT_GRPC);
    let mut calls = 0;
    for pod in pods(network, names::COMPONENT_GATEWAY).await? {
        let text = metrics(network, &pod).await.with_context(|| format!("no metrics of {}", pod.name))?;
        calls += value(&text, "althing_gateway_backend_calls_total", &[&backend, "result=\"answered\""]);
    }
    Ok(calls)
}

/// How many backends of a tier are up for the gateway that knows the fewest: each finds them by itself, in its own time.
///
/// # Errors
/// When a gateway does not tell.
pub async fn backends_up(network: &Network, tier: &str) -> Result<u64> {
    let tier = format!("tier=\"{tier}\"");
    let mut fewest = u64::MAX;
    for pod in pods(network, names::COMPONENT_GATEWAY).await? {
        let text = metrics(network, &pod).await.with_context(|| format!("no metrics of {}", pod.name))?;
        fewest = fewest.min(value(&text, "althing_gateway_backend_up", &[&tier]));
    }
    Ok(fewest)
}

/// What a pod counts, as Prometheus reads it.
///
/// # Errors
/// When it does not answer.
pub async fn metrics(network: &Network, pod: &TierPod) -> Result<String> {
    let target = format!("{}:{}", pod.address, names::PORT_HTTP);
    let stream = RelayDialer::new(network.environment.relay(&pod.host)?, &target).dial().await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let request = Request::get("/metrics").header("host", target).body(Empty::<Bytes>::new())?;
    let answer = sender.send_request(request).await?;
    ensure!(answer.status() == 200, "{}", answer.status());
    let bytes = answer.into_body().collect().await?.to_bytes();
    connection.abort();
    Ok(String::from_utf8(bytes.to_vec())?)
}

/// The sum of the values of a metric with these labels.
fn value(text: &str, name: &str, labels: &[&str]) -> u64 {
    let lines = text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('{')?.split_once("} "));
    let with_labels = lines.filter(|(found, _)| labels.iter().all(|label| found.split(',').any(|one| one == *label)));
    with_labels.filter_map(|(_, value)| value.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lines_with_all_labels_are_summed() {
        let text = "# TYPE calls counter\ncalls{backend=\"a:1\",result=\"answered\"} 3\n\
                    calls{backend=\"a:12\",result=\"answered\"} 5\ncalls{backend=\"a:1\",result=\"failed\"} 7\n\
                    calls_more{backend=\"a:1\",result=\"answered\"} 9\n";
        assert_eq!(value(text, "calls", &["backend=\"a:1\"", "result=\"answered\""]), 3);
        assert_eq!(value(text, "calls", &["backend=\"a:1\""]), 10);
    }
}
