//! What a new user does: apply an example, wait, send transactions, read the columns.

use std::time::Duration;

use althing_e2e::dial::Access;
use althing_e2e::load::{Sender, demo_account, submit};
use althing_e2e::network::{Judged, Network, eventually};
use althing_e2e::watch::Watch;
use anyhow::{Context, Result, ensure};
use node_api::proto::get_transaction_response::Status;
use node_core::types::TransactionId;
use tokio::time::{Instant, interval};

use crate::Scene;

const TRANSACTIONS: usize = 100;

/// `examples/devnet.yaml` finalises a hundred transfers, readable from a validator that was not asked.
pub async fn the_devnet_example_finalises(scene: &Scene) -> Result<()> {
    let network = applied_example(scene, "devnet", "demo").await?;
    let watch = Watch::start(&network).await?;
    let access = Access::operator(&network).await?;
    let voters = network.voters().await?;
    let [first, second, ..] = voters.as_slice() else { anyhow::bail!("two voters exist") };
    let asked = access.client(&network, first)?;
    let other = access.client(&network, second)?;
    let mut sender = Sender::new(&asked, demo_account(&scene.environment.root)?).await?;
    let mut finalised = vec![];
    let mut sent = vec![];
    for _ in 0..TRANSACTIONS {
        let transaction = sender.next(&asked).await?;
        let client = asked.clone();
        sent.push(tokio::spawn(async move { submit(&client, &transaction).await }));
    }
    for task in sent {
        finalised.push(task.await??);
    }
    for transaction in &finalised {
        ensure!(transaction.applied, "{transaction:?} failed");
        let id: TransactionId = transaction.id.parse()?;
        eventually("the other validator has the receipt", 20, || async {
            let found = other.transaction(&id).await?.status.context("a status is set")?;
            let Status::Final(found) = found else { anyhow::bail!("it says {found:?}") };
            ensure!(found.height == transaction.height, "heights differ");
            Ok(())
        })
        .await?;
    }
    watch.acknowledged(&finalised);
    columns_tell_the_truth(&network).await?;
    watch.report(0).await?;
    Ok(())
}

/// `examples/production.yaml` comes up as it stands.
pub async fn the_production_example_finalises(scene: &Scene) -> Result<()> {
    let network = applied_example(scene, "production", "production").await?;
    let watch = Watch::start(&network).await?;
    watch.wait_height(watch.chain_height().await? + 5, 60).await?;
    watch.report(0).await?;
    Ok(())
}

/// Applies an example with the image under test and waits until all voters sign.
async fn applied_example(scene: &Scene, file: &str, name: &str) -> Result<Network> {
    let path = scene.environment.root.join(format!("examples/{file}.yaml"));
    let text = std::fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))?;
    let network = Network::new(&scene.environment, &scene.client, &scene.namespace, name, "main");
    network.apply(&text).await?;
    nobody_is_told_too_early(&network).await?;
    network.wait_all_signing(4, 180).await?;
    eventually("everything is current and healthy", 60, || async {
        let verdicts = network.verdicts().await?;
        ensure!(verdicts.len() == 6, "{} objects", verdicts.len());
        for Judged { name, verdict, .. } in verdicts {
            let well = (verdict.kstatus.as_str(), verdict.argocd.as_str()) == ("Current", "Healthy");
            ensure!(well, "{name}: {verdict:?}");
        }
        Ok(())
    })
    .await?;
    Ok(network)
}

/// Until a quorum signs, kstatus and Argo CD say of the network that it is on its way: neither done nor failed.
async fn nobody_is_told_too_early(network: &Network) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(180);
    let mut pace = interval(Duration::from_millis(250));
    let mut on_its_way = 0;
    loop {
        pace.tick().await;
        let object = serde_json::to_value(network.object("BlockchainNetwork", &network.name).await?)?;
        let verdict = network.environment.judge(&object).await?;
        let said = (verdict.kstatus.as_str(), verdict.argocd.as_str());
        if said == ("Current", "Healthy") {
            let signing = object.pointer("/status/signing").and_then(serde_json::Value::as_str);
            ensure!(signing == Some("4/4"), "{verdict:?} too early: {object}");
            break;
        }
        ensure!(said.0 == "InProgress" && ["Progressing", "Unknown"].contains(&said.1), "{verdict:?} of {object}");
        ensure!(Instant::now() < end, "not Current within 180 s: {verdict:?} of {object}");
        on_its_way += 1;
    }
    ensure!(on_its_way > 0, "the network was never seen on its way");
    Ok(())
}

async fn columns_tell_the_truth(network: &Network) -> Result<()> {
    let expected = [
        ("bcn", "NAME AVAILABLE SIGNING MARGIN HEIGHT BLOCK-AGE VERSION AGE"),
        ("cgrp", "NAME AVAILABLE SIGNING MARGIN HEIGHT BLOCK-AGE DESIRED UPTODATE VERSION AGE"),
        ("vnode", "NAME READY SIGNING SYNCED POWER VERSION AGE"),
    ];
    for (kind, columns) in expected {
        let table = network.kubectl(&["get", kind]).await?;
        let header: Vec<&str> = table.lines().next().unwrap_or_default().split_whitespace().collect();
        ensure!(header.join(" ") == columns, "kubectl get {kind} shows {header:?}");
    }
    // Right after a burst of transactions the operator may not have seen the newest votes.
    eventually("kubectl get cgrp says that all sign", 30, || async {
        let table = network.kubectl(&["get", "cgrp", "--no-headers"]).await?;
        ensure!(table.contains("True") && table.contains("4/4"), "it says {table}");
        Ok(())
    })
    .await
}
