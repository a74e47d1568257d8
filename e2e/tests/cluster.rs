//! The cluster cases: one shared local cluster, a namespace each, invariants watched in all of them, node loss last.
//!
//! `cargo test -p althing-e2e --test cluster -- NAME..` runs the cases whose name contains one of these words; `--list`
//! names them.
//! `ALTHING_E2E_FULL=1` adds what `make test-full` runs. `ALTHING_E2E_KEEP=1` leaves cluster and namespaces for a look around.

#[path = "cases/mod.rs"]
mod cases;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use althing_e2e::environment::{Environment, Images, OPERATOR_NAMESPACE, Profile};
use althing_e2e::invariants::Counts;
use althing_e2e::measured;
use anyhow::{Context, Result, bail};
use futures::FutureExt;
use futures::future::BoxFuture;
use serde::Serialize;

/// Nodes of the local cluster: one voter each where nodes are lost.
const NODES: u8 = 4;
/// Observers and gateways, which are no ValidatorNodes.
const TIERS: &str = "app.kubernetes.io/component in (gateway, observers)";
const CASE_DEADLINE: Duration = Duration::from_secs(420);

/// What a case works with.
pub struct Scene {
    /// The shared cluster.
    pub environment: Environment,
    /// The images under test.
    pub images: Images,
    /// The node under another tag: what an upgrade goes to.
    pub node_next: String,
    /// Client of the API server.
    pub client: kube::Client,
    /// This case's own namespace.
    pub namespace: String,
    /// All namespaces in which the operator works.
    pub namespaces: Vec<String>,
}

/// A named case.
pub struct Case {
    /// Name, also of its namespace.
    pub name: &'static str,
    /// What it does.
    pub run: for<'a> fn(&'a Scene) -> BoxFuture<'a, Result<()>>,
}

impl Case {
    /// The case's namespace; the examples bring their own.
    fn namespace(&self) -> String {
        match self.name {
            "the_devnet_example_finalises" => "althing-demo".to_string(),
            "certificates_come_from_an_issuer" => "althing-issuer".to_string(),
            "the_production_example_finalises" => "althing-production".to_string(),
            "clients_come_in_through_the_gateway" => "althing-gateway".to_string(),
            name => name.replace('_', "-"),
        }
    }
}

impl Case {
    /// All its namespaces: a second member of a chain has its own, and so has a copy of a network.
    fn namespaces(&self) -> Vec<String> {
        let own = self.namespace();
        match self.name {
            "a_group_in_another_namespace_joins_a_chain" => vec![member_namespace(&own), own],
            "a_network_restored_elsewhere_waits" => vec![copy_namespace(&own), own],
            _ => vec![own],
        }
    }

    /// Whether it runs in the full suite only, or when it is named: it builds a large program of others the first time.
    fn is_of_full_suite(&self) -> bool {
        self.name == "certificates_come_from_an_issuer"
    }

    /// Whether it needs the metrics API, whose server is built from source the first time.
    fn needs_metrics(&self) -> bool {
        self.name == "gateways_grow_under_load_and_shrink_after_it"
    }
}

/// The namespaces of these cases: the operator's rights are given by namespace, so they come before it.
fn namespaces_of(cases: &[Case]) -> Vec<String> {
    cases.iter().flat_map(Case::namespaces).collect()
}

/// The namespace of the second member of a case's chain.
pub fn member_namespace(namespace: &str) -> String {
    format!("{namespace}-member")
}

/// What is kept of a case.
#[derive(Serialize)]
struct Report {
    seconds: u64,
    passed: bool,
    /// Gaps between blocks, who was silent or away, what was acknowledged; nothing if no watch came to its end.
    watched: Option<Counts>,
}

/// The namespace of the copy of a case's network.
pub fn copy_namespace(namespace: &str) -> String {
    format!("{namespace}-copy")
}

async fn create_namespace(environment: &Environment, name: &str) -> Result<()> {
    let manifest = serde_json::json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {
        "name": name, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}}});
    environment.kubectl_call(&["apply", "-f", "-"]).input(manifest.to_string()).stdout().await?;
    Ok(())
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|word| !word.is_empty()).collect();
    if arguments.iter().any(|word| word == "--list") {
        for case in cases::all() {
            println!("{}: test", case.name);
        }
        return;
    }
    let parts: Vec<String> = arguments.into_iter().filter(|word| !word.starts_with('-')).collect();
    let is_full = std::env::var_os("ALTHING_E2E_FULL").is_some_and(|value| value == "1");
    let wanted = |case: &Case| match parts.as_slice() {
        [] => is_full || !case.is_of_full_suite(),
        parts => parts.iter().any(|part| case.name.contains(part.as_str())),
    };
    let selected: Vec<Case> = cases::all().into_iter().filter(wanted).collect();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    let code = match runtime.block_on(run_until_interrupted(selected)) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("e2e: {error:#}");
            1
        }
    };
    runtime.shutdown_timeout(Duration::from_secs(5));
    std::process::exit(code);
}

async fn run_until_interrupted(selected: Vec<Case>) -> Result<()> {
    if selected.is_empty() {
        bail!("no case has such a name; --list names them");
    }
    let environment = Environment::local(Profile::Ci, NODES).await?;
    let outcome = tokio::select! {
        outcome = run_all(&environment, selected) => outcome,
        _ = interrupted() => Err(anyhow::anyhow!("interrupted")),
    };
    if std::env::var_os("ALTHING_E2E_KEEP").is_none() {
        environment.cluster(&["down"]).await.context("failed to take the cluster down")?;
    }
    outcome
}

async fn interrupted() {
    let mut terminate =
        tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).expect("a handler installs");
    tokio::select! { _ = tokio::signal::ctrl_c() => {}, _ = terminate.recv() => {} }
}

async fn run_all(environment: &Environment, selected: Vec<Case>) -> Result<()> {
    let images = environment.load_images().await?;
    let node_next = environment.load_next_node().await?;
    let namespaces = namespaces_of(&selected);
    for namespace in &namespaces {
        create_namespace(environment, namespace).await?;
    }
    environment.install_operator(&images, &namespaces).await.context("the operator did not start")?;
    let client = environment.client().await?;
    let mut reports = BTreeMap::new();
    let mut failed = vec![];
    let count = selected.len();
    println!("running {count} cases");
    for case in selected {
        if case.needs_metrics() {
            environment.add_metrics_server().await.context("metrics-server does not answer")?;
        }
        let begin = Instant::now();
        let scene = Scene {
            environment: environment.clone(),
            images: images.clone(),
            node_next: node_next.clone(),
            client: client.clone(),
            namespace: case.namespace(),
            namespaces: namespaces.clone(),
        };
        let outcome = run_one(&case, &scene).await;
        let took = begin.elapsed().as_secs();
        let watched = environment.take_counts();
        reports.insert(case.name, Report { seconds: took, passed: outcome.is_ok(), watched });
        write_reports(&environment.root, &reports)?;
        match outcome {
            Ok(()) => println!("case {} ... ok ({took} s)", case.name),
            Err(error) => {
                let reason = format!("case {} ... FAILED ({took} s)\n{error:#}", case.name);
                println!("{reason}");
                for namespace in case.namespaces() {
                    diagnose(&scene, &namespace).await;
                }
                failed.push(reason);
                mend(&scene).await;
            }
        }
        if std::env::var_os("ALTHING_E2E_KEEP").is_none() {
            for namespace in case.namespaces() {
                if let Err(error) = clean(&scene.environment, &namespace).await {
                    failed.push(format!("cleaning up {namespace}: {error:#}"));
                }
            }
        }
    }
    println!("{} passed, {} failed", count.saturating_sub(failed.len()), failed.len());
    if !failed.is_empty() {
        // Once more at the end: of a long run people often have the last lines only.
        bail!("{}", failed.join("\n"));
    }
    Ok(())
}

async fn run_one(case: &Case, scene: &Scene) -> Result<()> {
    let work = std::panic::AssertUnwindSafe((case.run)(scene)).catch_unwind();
    match tokio::time::timeout(CASE_DEADLINE, work).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_)) => bail!("the case panicked"),
        Err(_) => bail!("the case did not end within {} s", CASE_DEADLINE.as_secs()),
    }
}

/// A case that failed may have left machines cordoned, crashed or cut off; those after it shall not fail for that.
async fn mend(scene: &Scene) {
    let environment = &scene.environment;
    let uncordon = environment.kubectl(&["uncordon", "--selector", "kubernetes.io/hostname"]).await.map(drop);
    let mut outcomes = vec![uncordon];
    for node in 2..=NODES {
        for repair in ["add", "heal"] {
            outcomes.push(environment.cluster(&["node", repair, &node.to_string()]).await.map(drop));
        }
    }
    for error in outcomes.into_iter().filter_map(Result::err) {
        println!("    {error:#}");
    }
}

/// Removes the networks first, while the operator is there, then what is kept.
async fn clean(environment: &Environment, namespace: &str) -> Result<()> {
    let networks = ["delete", "bcn,cgrp,vnode", "--all", "--namespace", namespace, "--timeout=60s"];
    environment.kubectl_call(&networks).within(90).stdout().await?;
    // The namespace itself stays until the cluster goes: the operator's rights in it belong to the release.
    let rest = ["delete", "pods,pvc,secrets,cm", "--all", "--namespace", namespace, "--timeout=90s"];
    environment.kubectl_call(&rest).within(120).stdout().await?;
    Ok(())
}

/// Writes what a person needs to understand a failure to `target/e2e/<case>/`.
async fn diagnose(scene: &Scene, namespace: &str) {
    let folder = scene.environment.root.join("target/e2e").join(namespace);
    if let Err(error) = std::fs::create_dir_all(&folder) {
        eprintln!("failed to create {}: {error}", folder.display());
        return;
    }
    let calls: &[(&str, &[&str])] = &[
        ("objects.txt", &["get", "bcn,cgrp,vnode,all,hpa,pvc,netpol,pdb,secrets,cm", "-n", namespace, "-o", "wide"]),
        ("resources.yaml", &["get", "bcn,cgrp,vnode", "-n", namespace, "-o", "yaml"]),
        ("pods.yaml", &["get", "pods", "-n", namespace, "-o", "yaml"]),
        ("events.txt", &["get", "events", "-n", namespace, "--sort-by=.lastTimestamp"]),
        ("nodes.log", &["logs", "-n", namespace, "-l", "althing.dev/node", "--prefix", "--tail=300"]),
        ("tiers.log", &["logs", "-n", namespace, "-l", TIERS, "--prefix", "--tail=300"]),
        (
            "operator.log",
            &[
                "logs",
                "-n",
                OPERATOR_NAMESPACE,
                "-l",
                "app.kubernetes.io/name=althing-operator",
                "--prefix",
                "--tail=800",
            ],
        ),
    ];
    for (file, arguments) in calls {
        let text = match scene.environment.kubectl_call(arguments).within(20).output().await {
            Ok(output) => format!("{}{}", output.stdout, output.stderr),
            Err(error) => format!("{error:#}"),
        };
        if let Err(error) = std::fs::write(folder.join(file), text) {
            eprintln!("failed to write {file}: {error}");
        }
    }
    eprintln!("diagnosis is in {}", folder.display());
}

/// Writes `target/e2e.json`, after every case what is known so far.
fn write_reports(root: &Path, reports: &BTreeMap<&str, Report>) -> Result<()> {
    let seconds: BTreeMap<&str, u64> = reports.iter().map(|(name, report)| (*name, report.seconds)).collect();
    let all = serde_json::json!({ "case_seconds": seconds, "cases": reports, "measured": measured::all() });
    let text = serde_json::to_string_pretty(&all)?;
    std::fs::write(root.join("target/e2e.json"), text).context("failed to write target/e2e.json")
}
