//! How a gateway that has just started comes to know all of its backends.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use althing_node::gateway::{
    backends::{Backends, Dialing, Names},
    calls::Tier,
    metrics::GatewayMetrics,
    rules::probes::Standing,
};
use node_api::{gateway, tls::TlsStore};

use crate::{
    fake::{FakeChain, Manner},
    harness::until,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_are_looked_up_more_often_than_backends_are_probed_until_they_have_settled() {
    let chain = FakeChain::new();
    let nodes = [chain.node(Manner::Answers).await, chain.node(Manner::Answers).await];
    let looks = Arc::new(AtomicUsize::new(0));
    // The second is named only when the first serves already.
    let (first, both) = (nodes[0].address, nodes.each_ref().map(|node| node.address));
    let names = Names::by({
        let looks = Arc::clone(&looks);
        move |name| {
            assert_eq!(name, "nodes.test:7200");
            let found = if looks.fetch_add(1, Ordering::Relaxed) < 5 { vec![first] } else { both.to_vec() };
            Box::pin(async move { Ok(found) })
        }
    });
    let configured: gateway::Backends =
        serde_json::from_str(r#"{"submit": [{"address": "nodes.test:7200"}]}"#).expect("backends");
    let dialing = Dialing {
        tls: TlsStore::from_directory(&chain.gateway).expect("a certificate"),
        chain_id: "devnet".parse().expect("a chain id"),
        names,
    };
    let metrics = Arc::new(GatewayMetrics::new().expect("metrics"));
    let backends = Arc::new(Backends::new(&configured, dialing, metrics));
    let probing = tokio::spawn(backends.probe(Tier::Submit));
    until("both serve", || async {
        let view = backends.pool(Tier::Submit).view();
        let serving = view.iter().filter(|backend| backend.standing == Standing::Serves);
        (serving.count() == 2).then_some(())
    })
    .await;
    assert!(nodes[0].seen("/GetStatus").len() <= 3, "five looks take as long as one pause between two probes");
    until("it was probed again", || async { (nodes[0].seen("/GetStatus").len() > 3).then_some(()) }).await;
    let (looks, probes) = (looks.load(Ordering::Relaxed), nodes[0].seen("/GetStatus").len());
    assert!(looks > 2 * probes, "{looks} looks, {probes} probes");
    probing.abort();
}
