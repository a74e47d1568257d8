//! A node as a box of namespaces: it begins with one process and ends, whole, with that process.

use std::path::Path;
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};

use crate::cgroups::{self, Part};
use crate::checkout::{Checkout, Node};
use crate::command::{command, run};
use crate::error::{Doing, Error, Result};
use crate::interrupt::{Wait, wait_for};
use crate::network;

/// Runs inside the node before anything else.
const INIT: &str = include_str!("../node/init.sh");

/// Joins the node's cgroups, then makes its namespaces; survives this tool (a session of its own, output into a log).
const LAUNCH: &str = r#"exec </dev/null >>"$LOG/init-$NAME.log" 2>&1
cd /
for file in $CGROUPS; do echo 0 >"$file"; done
exec nsenter --net="$NET" -- unshare --mount --propagation slave --uts --ipc --pid --fork --kill-child sh -c "$INIT""#;

/// Folders that a node's daemons expect below `/var`.
const VAR: [&str; 6] = ["lib/containerd", "lib/kubelet", "lib/local-path", "lib/calico", "log/pods", "tmp"];

/// Makes the cgroups, the network and the namespaces of a node. What the node had on its disk is still there.
///
/// # Errors
/// When the system refuses, or the first process does not get through.
pub fn make(checkout: &Checkout, node: Node) -> Result<()> {
    let joins = cgroups::make(checkout, Part::Node(node))?;
    network::make(checkout, node)?;
    let folder = prepare_disk(checkout, node)?;

    let joins: Vec<String> = joins.iter().map(|file| file.display().to_string()).collect();
    let mut launch = command("setsid");
    launch.args(["--fork", "sh", "-c", LAUNCH]);
    launch.env("NAME", node.to_string()).env("NODE", &folder).env("INIT", INIT).env("CGROUPS", joins.join(" "));
    launch.env("NET", checkout.network_namespace(node)).env("PID_FILE", checkout.init_pid(node));
    launch.env("PKI", checkout.pki()).env("LOG", checkout.log()).env("LOADED", checkout.loaded_images());
    launch.env("IMAGES", checkout.images()).env("BIN", checkout.bin()).env("CNI", checkout.cni());
    run(&mut launch)?;

    let log = checkout.log().join(format!("init-{node}.log"));
    let (what, hint) = (format!("the start of {node}"), format!("see {}", log.display()));
    let wait = Wait { what: &what, seconds_max: 10, every_ms: 10, hint: &hint };
    wait_for(wait, || Ok(folder.join("ready").exists().then_some(())))
}

/// Host's process id of a node's first process, when it runs and is really that node's.
pub fn first_process(checkout: &Checkout, node: Node) -> Option<Pid> {
    let id: i32 = std::fs::read_to_string(checkout.init_pid(node)).ok()?.trim().parse().ok()?;
    // A number may have been given to another process since; nobody else is in this network namespace.
    let own = cgroups::namespace(Path::new(&format!("/proc/{id}/ns/net")))?;
    let expected = cgroups::namespace(&checkout.network_namespace(node))?;
    Pid::from_raw(id).filter(|_| own == expected)
}

/// A command inside all namespaces of a node.
///
/// # Errors
/// When the node does not run.
pub fn inside(checkout: &Checkout, node: Node) -> Result<Command> {
    let process = first_process(checkout, node)
        .ok_or_else(|| Error::Refused(format!("{node} does not run; `cluster node add {node}` starts it")))?;
    let mut nsenter = command("nsenter");
    nsenter.args(["--target", &process.as_raw_nonzero().to_string(), "--mount", "--net", "--pid", "--uts", "--ipc"]);
    nsenter.args(["--", "env", "-i", "HOME=/root", PATH]);
    Ok(nsenter)
}

/// `PATH` inside a node: our programs come first.
const PATH: &str = "PATH=/run/althing/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Ends a node at once, as a power cut does, and removes all of it but its disk.
///
/// # Errors
/// When something of it stays.
pub fn remove(checkout: &Checkout, node: Node) -> Result<()> {
    if let Some(process) = first_process(checkout, node) {
        // The kernel ends everything in the process namespace with its first process.
        let _ = kill_process(process, Signal::KILL);
    }
    cgroups::remove(checkout, Part::Node(node), &[node])?;
    network::remove(checkout, node)?;
    for file in [checkout.init_pid(node), checkout.relay(node)] {
        match std::fs::remove_file(&file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).doing("remove", &file)?,
            _ => {}
        }
    }
    Ok(())
}

fn prepare_disk(checkout: &Checkout, node: Node) -> Result<std::path::PathBuf> {
    let folder = checkout.node(node);
    // Numbers of processes mean nothing after a crash.
    for name in ["pids", "daemons"] {
        let _ = std::fs::remove_dir_all(folder.join(name));
    }
    for name in ["run", "config", "pids", "daemons"] {
        std::fs::create_dir_all(folder.join(name)).doing("create", folder.join(name))?;
    }
    for name in VAR {
        let name = folder.join("var").join(name);
        std::fs::create_dir_all(&name).doing("create", &name)?;
    }
    for (name, target) in [("run", "/run"), ("lock", "/run/lock")] {
        let link = folder.join("var").join(name);
        if !link.is_symlink() {
            std::os::unix::fs::symlink(target, &link).doing("link", &link)?;
        }
    }
    let ready = folder.join("ready");
    if ready.exists() {
        std::fs::remove_file(&ready).doing("remove", &ready)?;
    }
    let mut hosts = "127.0.0.1 localhost\n".to_string();
    for other in Node::all() {
        hosts.push_str(&format!("{} {other}\n", network::address(other)));
    }
    std::fs::write(folder.join("hosts"), hosts).doing("write", folder.join("hosts"))?;
    let resolver = format!("nameserver {}\n", network::DNS_ADDRESS);
    std::fs::write(folder.join("resolv.conf"), resolver).doing("write", folder.join("resolv.conf"))?;
    Ok(folder)
}
