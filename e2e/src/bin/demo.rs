//! `make demo`: four validators from one `BlockchainNetwork` finalise a hundred transactions on a Kubernetes cluster.

use std::time::Instant;

use althing_e2e::dial::{Access, Forward};
use althing_e2e::environment::{Environment, Images, Profile, root};
use althing_e2e::load::{Sender, demo_account, submit};
use althing_e2e::network::{Network, eventually};
use anyhow::{Context, Result, ensure};
use clap::{CommandFactory, Parser, error::ErrorKind};
use node_api::client::Client;
use node_api::proto::get_transaction_response::Status;
use node_core::types::TransactionId;
use serde::Serialize;

const NAMESPACE: &str = "althing-demo";
const LABEL: &str = "althing.dev/demo";
const NETWORK: &str = "demo";
const GROUP: &str = "main";
const VOTERS: usize = 4;
const TRANSACTIONS: usize = 100;
/// How many receipts are printed; all are counted.
const SHOWN: usize = 5;

/// Shows four validators finalising transactions on a Kubernetes cluster.
#[derive(Parser)]
#[command(about, long_about = None)]
struct Arguments {
    /// Use this context of your kubeconfig instead of the local cluster. Nothing is built; the images come from
    /// --registry.
    #[arg(long)]
    context: Option<String>,
    /// Where the images are, for example registry.example/team; their names are <registry>/node and <registry>/operator.
    #[arg(long)]
    registry: Option<String>,
    /// Tag of the images in --registry.
    #[arg(long, default_value = env!("CARGO_PKG_VERSION"))]
    tag: String,
    /// Remove what the demo made: the local cluster, or on a given context everything that carries the demo's label.
    #[arg(long)]
    down: bool,
}

/// What `target/demo.json` holds.
#[derive(Debug, Default, Serialize)]
struct Outcome {
    cluster_up_s: f64,
    images_s: f64,
    apply_to_first_block_s: f64,
    available: bool,
    validators_signing: u64,
    transactions_sent: u64,
    transactions_finalised: u64,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if arguments.down {
        return down(&arguments).await;
    }
    if arguments.context.is_some() && arguments.registry.is_none() {
        let mut command = Arguments::command();
        let problem =
            "--context needs --registry: where that cluster finds the images (make demo CONTEXT=.. REGISTRY=..)";
        command.error(ErrorKind::MissingRequiredArgument, problem).exit();
    }
    let mut outcome = Outcome::default();
    let result = run(&arguments, &mut outcome).await;
    let path = root().join("target/demo.json");
    std::fs::create_dir_all(root().join("target"))?;
    std::fs::write(&path, serde_json::to_string_pretty(&outcome)?)?;
    println!("{}", serde_json::to_string(&outcome)?);
    result?;
    let all = u64::try_from(TRANSACTIONS)?;
    ensure!(
        outcome.transactions_finalised == all,
        "only {} of {all} transactions are final",
        outcome.transactions_finalised
    );
    Ok(())
}

async fn run(arguments: &Arguments, outcome: &mut Outcome) -> Result<()> {
    let begin = Instant::now();
    let environment = match &arguments.context {
        Some(context) => {
            println!("cluster: context {context}; namespaces: {NAMESPACE}, althing-system");
            Environment::existing(Profile::Release, context).await?
        }
        None => {
            println!(
                "==> local Kubernetes cluster (the first time it is built from source, about a quarter of an hour)"
            );
            Environment::local(Profile::Release, 4).await?
        }
    };
    outcome.cluster_up_s = begin.elapsed().as_secs_f64();

    let begin = Instant::now();
    let images = match &arguments.registry {
        Some(registry) if arguments.context.is_some() => Images {
            operator: format!("{registry}/operator:{}", arguments.tag),
            node: format!("{registry}/node:{}", arguments.tag),
        },
        _ => {
            println!("==> images");
            environment.load_images().await?
        }
    };
    outcome.images_s = begin.elapsed().as_secs_f64();
    println!("    {}\n    {}", images.operator, images.node);

    println!("==> operator (helm chart)");
    prepare_namespace(&environment).await?;
    environment.install_operator(&images, &[NAMESPACE.to_string()]).await?;
    let client = environment.client().await?;
    let network = Network::new(&environment, &client, NAMESPACE, NETWORK, GROUP);

    println!("==> kubectl apply -f examples/devnet.yaml");
    let manifest = std::fs::read_to_string(environment.root.join("examples/devnet.yaml"))?;
    let begin = Instant::now();
    network.apply(&manifest).await?;
    wait_first_block(&network).await?;
    outcome.apply_to_first_block_s = begin.elapsed().as_secs_f64();
    println!("    first finalised block {:.1} s after apply", outcome.apply_to_first_block_s);
    network.wait_all_signing(VOTERS, 180).await?;
    outcome.available = true;
    outcome.validators_signing = u64::try_from(VOTERS)?;
    println!("    Available, {VOTERS} of {VOTERS} validators sign, {:.1} s after apply", begin.elapsed().as_secs_f64());

    send_and_show(&network, outcome).await?;
    println!("==> kubectl get bcn,cgrp,vnode\n{}", network.kubectl(&["get", "bcn,cgrp,vnode"]).await?);
    farewell(&environment);
    Ok(())
}

/// Makes the demo's namespace, with the label by which `--down` knows it. Not by `kubectl apply`: the example applies the same
/// namespace without that label, and would take it away.
async fn prepare_namespace(environment: &Environment) -> Result<()> {
    let labels =
        ["get", "namespace", NAMESPACE, "--ignore-not-found", "-o", "jsonpath={.metadata.name} {.metadata.labels}"];
    let found = environment.kubectl(&labels).await?;
    if found.contains(LABEL) {
        return Ok(());
    }
    ensure!(
        found.trim().is_empty(),
        "namespace {NAMESPACE} exists and is not one that the demo made (it has no label {LABEL}): remove it, or label it"
    );
    let manifest = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": { "name": NAMESPACE, "labels": { LABEL: "true", "pod-security.kubernetes.io/enforce": "restricted" } },
    });
    environment.kubectl_call(&["create", "-f", "-"]).input(manifest.to_string()).stdout().await?;
    Ok(())
}

async fn wait_first_block(network: &Network) -> Result<()> {
    eventually("the first block", 180, || async {
        let group = network.object("ConsensusGroup", &network.group).await?;
        let height = group.data.pointer("/status/height").and_then(serde_json::Value::as_i64).unwrap_or(0);
        ensure!(height >= 1, "status says height {height}");
        Ok(())
    })
    .await
}

/// Sends to the first validator and reads every receipt from the second.
async fn send_and_show(network: &Network, outcome: &mut Outcome) -> Result<()> {
    let voters = network.voters().await?;
    let [first, second, ..] = voters.as_slice() else { anyhow::bail!("two validators exist") };
    println!("==> {TRANSACTIONS} transactions to {}, receipts from {}", first.node, second.node);
    let access = Access::user(network).await?;
    let to_first = Forward::open(network, &format!("pod/{}", first.pod)).await?;
    let to_second = Forward::open(network, &format!("pod/{}", second.pod)).await?;
    let asked = access.client_at(&to_first.address);
    let other = access.client_at(&to_second.address);
    let mut sender = Sender::new(&asked, demo_account(&network.environment.root)?).await?;
    let mut tasks = vec![];
    for _ in 0..TRANSACTIONS {
        let transaction = sender.next(&asked).await?;
        let asked = asked.clone();
        outcome.transactions_sent += 1;
        tasks.push(tokio::spawn(async move { submit(&asked, &transaction).await }));
    }
    for (index, task) in tasks.into_iter().enumerate() {
        let finalised = task.await??;
        let line = receipt(&other, &finalised.id).await?;
        outcome.transactions_finalised += 1;
        if index < SHOWN {
            println!("    {line}");
        } else if index == SHOWN {
            println!("    ...");
        }
    }
    Ok(())
}

async fn receipt(client: &Client, id: &str) -> Result<String> {
    let parsed: TransactionId = id.parse()?;
    eventually(&format!("the receipt of {id}"), 30, || async {
        let found = client.transaction(&parsed).await?.status.context("a status is set")?;
        let Status::Final(found) = found else { anyhow::bail!("it says {found:?}") };
        let receipt = found.receipt.context("a receipt is set")?;
        Ok(format!("{id} final at height {} index {}: {:?}", found.height, found.index, receipt.outcome()))
    })
    .await
}

fn farewell(environment: &Environment) {
    println!("==> look around");
    if environment.context.is_none() {
        println!("    export KUBECONFIG={}", environment.kubeconfig.display());
        println!("    export PATH={}:$PATH", environment.root.join(".cluster/bin").display());
    }
    println!("    kubectl get bcn,cgrp,vnode,pods -n {NAMESPACE}");
    println!("    kubectl describe cgrp -n {NAMESPACE}");
    println!("    kubectl explain bcn.spec");
    println!(
        "==> stop\n    make demo-down{}",
        environment.context.as_ref().map_or(String::new(), |c| format!(" CONTEXT={c}"))
    );
}

async fn down(arguments: &Arguments) -> Result<()> {
    let Some(context) = &arguments.context else {
        let binary = root().join("target/x86_64-unknown-linux-gnu/release/cluster");
        return althing_e2e::process::Call::new(binary, &["down"]).inside(&root()).within(120).shown().await;
    };
    let environment = Environment::existing(Profile::Release, context).await?;
    println!("cluster: context {context}; removing namespaces with the label {LABEL}=true and the chart's release");
    let selector = format!("{LABEL}=true");
    let networks =
        ["delete", "bcn,cgrp,vnode", "--all", "--namespace", NAMESPACE, "--timeout=120s", "--ignore-not-found"];
    let labelled = environment.kubectl(&["get", "namespaces", "-l", &selector, "-o", "name"]).await?;
    if labelled.lines().any(|name| name == format!("namespace/{NAMESPACE}")) {
        environment.kubectl_call(&networks).within(150).stdout().await?;
    }
    environment.kubectl_call(&["delete", "namespaces", "-l", &selector, "--timeout=120s"]).within(150).stdout().await?;
    println!("the chart's release stays, as other networks may need it: helm uninstall althing -n althing-system");
    Ok(())
}
