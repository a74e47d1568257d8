//! A network that is deleted and applied again goes on with the same chain.

use althing_e2e::dial::Access;
use althing_e2e::load::{Sender, submit};
use althing_e2e::network::eventually;
use althing_e2e::watch::{Watch, client_of};
use althing_node::devnet::accounts;
use anyhow::{Context, Result, ensure};

use super::{manifest, running_alpha};
use crate::Scene;

/// Deletion leaves only what is made once; applying the same manifest again resumes the chain with its balances.
pub async fn a_deleted_network_resumes_its_chain(scene: &Scene) -> Result<()> {
    let network = running_alpha(scene).await?;
    let access = Access::operator(&network).await?;
    let voter = network.voters().await?.into_iter().next().context("a voter exists")?;
    let client = client_of(&network, &access, &voter.node).await?;
    let mut sender = Sender::new(&client, accounts::key(0)).await?;
    let transaction = sender.next(&client).await?;
    let finalised = submit(&client, &transaction).await?;
    let before = client.status().await?;

    let delete = ["delete", "bcn", "alpha", "--timeout=60s"];
    network.kubectl(&delete).await?;
    eventually("only what is made once is left", 60, || async {
        let left = network
            .kubectl(&["get", "cgrp,vnode,statefulsets,pods,services,netpol,pdb,serviceaccounts", "-o", "name"])
            .await?;
        let left: Vec<&str> = left.lines().filter(|line| *line != "serviceaccount/default").collect();
        ensure!(left.is_empty(), "left over: {left:?}");
        Ok(())
    })
    .await?;
    let kept = network.kubectl(&["get", "secrets,pvc,cm", "-o", "name"]).await?;
    for expected in ["secret/alpha-ca", "secret/alpha-main-0-identity", "persistentvolumeclaim/alpha-main-0-data"] {
        ensure!(kept.lines().any(|line| line == expected), "{expected} is gone; kept is:\n{kept}");
    }

    network.apply(&manifest(scene, "alpha", 4)).await?;
    network.wait_all_signing(4, 150).await?;
    let watch = Watch::start(&network).await?;
    watch.acknowledged(&[finalised]);
    let after = client_of(&network, &access, &voter.node).await?.status().await?;
    ensure!(after.genesis_hash == before.genesis_hash, "another genesis was made");
    ensure!(after.height > before.height, "the chain did not go on");
    eventually("votes are seen", 30, || async {
        ensure!(watch.counts().messages > 0, "none");
        Ok(())
    })
    .await?;
    watch.report(0).await?;
    Ok(())
}
