//! `cluster up`: from nothing, or from what is there, to a cluster with so many nodes.

use std::path::Path;

use crate::build::Addon;
use crate::checkout::{Checkout, Node};
use crate::error::{Doing, Error, Result};
use crate::kubectl::kubectl;
use crate::membership::Heartbeats;
use crate::progress::Progress;
use crate::state::Environment;
use crate::{
    addons, build, calico, control_plane, down, interrupt, membership, pki, preflight, relay, sandbox, worker,
};

/// Whether controller manager and scheduler run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Controllers {
    /// As in every cluster.
    All,
    /// Somebody else plays them: API server and etcd alone.
    None,
}

/// Brings the cluster up. Does nothing when it runs; starts what is missing when it runs with fewer nodes. A failed or
/// interrupted start from nothing leaves nothing, but for the logs of one that failed.
///
/// # Errors
/// Why it cannot be brought up.
pub fn up(checkout: &Checkout, nodes: u8, with: &[Addon], controllers: Controllers) -> Result<Environment> {
    let _lock = checkout.lock()?;
    let mut progress = Progress::start();
    if let Some(environment) = running(checkout) {
        return complete(checkout, environment, nodes, with, &mut progress);
    }
    preflight::check(checkout)?;
    progress.done("machine checked");
    build::build(checkout, with)?;
    progress.done("programs and images are in the cache");
    if checkout.state().exists() || checkout.runtime().exists() {
        down::remove(checkout)?;
        progress.done("remains of an earlier cluster removed");
    }
    match make(checkout, nodes, with, controllers, &mut progress) {
        Ok(environment) => Ok(environment),
        Err(error) => {
            interrupt::shield();
            eprintln!("removing what was begun, because: {error}");
            match error {
                Error::Interrupted => down::remove(checkout)?,
                _ => down::remove_but_logs(checkout)?,
            }
            Err(error)
        }
    }
}

/// The cluster that a finished `up` left, if its first node still runs.
pub fn running(checkout: &Checkout) -> Option<Environment> {
    let environment = Environment::read(checkout)?;
    sandbox::first_process(checkout, Node::FIRST).map(|_| environment)
}

fn make(
    checkout: &Checkout,
    nodes: u8,
    with: &[Addon],
    controllers: Controllers,
    progress: &mut Progress,
) -> Result<Environment> {
    make_folders(checkout)?;
    pki::make(&checkout.pki())?;
    progress.done("keys and certificates");

    sandbox::make(checkout, Node::FIRST)?;
    progress.done("node1: namespaces, network, cgroups");
    control_plane::start_api_server(checkout)?;
    relay::start(checkout, Node::FIRST)?;
    let api_port = relay::start_api_listener(checkout)?;
    pki::write_host_kubeconfig(&checkout.pki(), api_port, &checkout.kubeconfig())?;
    progress.done("etcd, API server, relay started");

    let all: Vec<Node> = Node::first(nodes).collect();
    std::thread::scope(|scope| {
        // Nodes start beside the API server; a kubelet that comes first just retries.
        let workers = scope.spawn(|| worker::on_each(&all, |node| start_node(checkout, node)));
        let control = start_control_plane(checkout, &all, controllers, progress);
        let workers = workers.join().unwrap_or_else(|_| Err(Error::Refused("a thread died".into())));
        control.and(workers)
    })?;
    progress.done("containerd, images, kubelet, kube-proxy started");
    if !all.is_empty() {
        finish_nodes(checkout, &all, &Heartbeats::default(), progress)?;
    }
    for addon in with {
        addons::start(checkout, *addon)?;
        progress.done("metrics-server answers");
    }
    let environment = Environment::new(checkout, nodes, api_port);
    environment.write(checkout)?;
    Ok(environment)
}

fn start_control_plane(
    checkout: &Checkout,
    nodes: &[Node],
    controllers: Controllers,
    progress: &mut Progress,
) -> Result<()> {
    control_plane::wait_until_ready(checkout)?;
    progress.done("API server ready");
    match controllers {
        Controllers::All => control_plane::start_controllers(checkout)?,
        Controllers::None => progress.done("no controllers, as asked"),
    }
    if !nodes.is_empty() {
        calico::prepare_datastore(checkout)?;
        addons::apply_base(checkout)?;
        progress.done("Calico's resources, DNS and provisioner applied");
    }
    Ok(())
}

/// Everything of one node that needs no API server.
fn start_node(checkout: &Checkout, node: Node) -> Result<()> {
    if sandbox::first_process(checkout, node).is_none() {
        sandbox::make(checkout, node)?;
    }
    relay::start(checkout, node)?;
    worker::start(checkout, node)
}

/// Policy enforcement, then the wait until the nodes are ready.
fn finish_nodes(checkout: &Checkout, nodes: &[Node], before: &Heartbeats, progress: &mut Progress) -> Result<()> {
    worker::on_each(nodes, |node| calico::start_felix(checkout, node))?;
    membership::wait_until_ready(checkout, nodes, before)?;
    progress.done("nodes Ready");
    addons::wait_for_base(checkout)?;
    progress.done("DNS and volumes ready");
    Ok(())
}

/// What is missing in a cluster that runs: nodes that crashed or were never there, add-ons.
fn complete(
    checkout: &Checkout,
    mut environment: Environment,
    nodes: u8,
    with: &[Addon],
    progress: &mut Progress,
) -> Result<Environment> {
    if !control_plane::is_ready(checkout) {
        return Err(Error::Refused(format!(
            "the cluster runs, but its API server does not answer; see {}, or start anew: cluster down && cluster up",
            checkout.log().display()
        )));
    }
    let missing: Vec<Node> = Node::first(nodes).filter(|node| !worker::is_whole(checkout, *node)).collect();
    if missing.is_empty() && with.is_empty() {
        eprintln!("the cluster is up already, with {} nodes: nothing to do", environment.nodes);
        return Ok(environment);
    }
    build::build(checkout, with)?;
    if !missing.is_empty() {
        if environment.nodes == 0 {
            calico::prepare_datastore(checkout)?;
            addons::apply_base(checkout)?;
        }
        join(checkout, &missing, progress)?;
    }
    for addon in with {
        addons::start(checkout, *addon)?;
        progress.done("metrics-server answers");
    }
    environment = Environment::new(checkout, environment.nodes.max(nodes), environment.api_port);
    environment.write(checkout)?;
    Ok(environment)
}

/// Starts one node of a cluster that runs: a new one, or one that crashed (with the disk it had).
///
/// # Errors
/// When the cluster does not run or the node does not get ready.
pub fn add_node(checkout: &Checkout, node: Node) -> Result<()> {
    let environment = membership::expect_running(checkout)?;
    if worker::is_whole(checkout, node) {
        eprintln!("{node} runs already: nothing to do");
        return Ok(());
    }
    if environment.nodes == 0 {
        return Err(Error::Refused("the cluster has no nodes yet; use `cluster up --nodes N`".into()));
    }
    join(checkout, &[node], &mut Progress::start())?;
    Environment::new(checkout, environment.nodes.max(node.number()), environment.api_port).write(checkout)
}

/// Makes nodes part of a cluster that runs. Nodes that do not get ready are removed, if they did not run before.
fn join(checkout: &Checkout, nodes: &[Node], progress: &mut Progress) -> Result<()> {
    let absent = |node: &&Node| sandbox::first_process(checkout, **node).is_none();
    let new: Vec<Node> = nodes.iter().filter(absent).copied().collect();
    let before = Heartbeats::now(checkout)?;
    let started = worker::on_each(nodes, |node| start_node(checkout, node));
    let joined = started.and_then(|()| finish_nodes(checkout, nodes, &before, progress));
    if joined.is_err() {
        interrupt::shield();
        for node in new {
            sandbox::remove(checkout, node)?;
        }
    }
    joined
}

fn make_folders(checkout: &Checkout) -> Result<()> {
    for folder in [checkout.log(), checkout.loaded_images(), checkout.runtime(), checkout.state().join("nodes")] {
        std::fs::create_dir_all(&folder).doing("create", &folder)?;
    }
    let bin = checkout.state().join("bin");
    if !bin.is_symlink() {
        std::os::unix::fs::symlink(checkout.bin(), &bin).doing("link", &bin)?;
    }
    Ok(())
}

/// What a person wants to read when the cluster is up.
pub fn describe(checkout: &Checkout, environment: &Environment) -> String {
    let short = |path: &Path| path.strip_prefix(checkout.root()).unwrap_or(path).display().to_string();
    let kubectl = short(&environment.bin.join("kubectl"));
    format!(
        "API server  https://127.0.0.1:{}\nkubeconfig  {}\nlook        {kubectl} --kubeconfig {} get pods -A\nend         cluster down",
        environment.api_port,
        environment.kubeconfig.display(),
        short(&environment.kubeconfig),
    )
}

/// Does the cluster answer at all? For `status`.
pub fn nodes_table(checkout: &Checkout) -> Result<String> {
    kubectl(checkout, &["get", "nodes", "-o", "wide", "--request-timeout=5s"])
}
