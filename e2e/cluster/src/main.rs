//! `cluster`: a real Kubernetes cluster on this machine, for the demo and the end-to-end tests.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::ExitCode;

use althing_cluster::build::{self, Addon};
use althing_cluster::checkout::{Checkout, Node};
use althing_cluster::forward::{self, Target};
use althing_cluster::images::{Image, ImageFile};
use althing_cluster::status::{self, Health};
use althing_cluster::up::Controllers;
use althing_cluster::{daemon, down, interrupt, membership, relay, selftest, up, worker};
use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};

const ABOUT: &str = "A real Kubernetes cluster on one Debian machine, without a container engine.

Each node is a network namespace with its own process tree; node 1 also carries the control plane. Nothing leaves
these namespaces; the API server is on 127.0.0.1. Each checkout has its own cluster, and its state is in .cluster/.";

const AFTER: &str = "Examples:
  cluster up --nodes 4
  .cluster/bin/kubectl --kubeconfig .cluster/kubeconfig get pods -A
  cluster image --name docker.io/althing/node:dev --entrypoint /althing-node \\
      --file /althing-node=target/release/althing-node --output node.tar && cluster load-image node.tar
  cluster forward althing-demo/demo-main-rpc:7200
  cluster node partition 3; cluster node heal 3; cluster node crash 4; cluster node add 4
  cluster down

Exit status: 0 done, 1 failed, 2 wrong arguments, 3 `status` of a cluster that does not run, 4 of one that runs in part,
130 interrupted. docs/local-cluster.md explains how it works and what to do when it does not.";

#[derive(Debug, Parser)]
#[command(name = "cluster", version, about = ABOUT, after_help = AFTER)]
struct Arguments {
    /// A folder of the checkout whose cluster is meant.
    #[arg(long, global = true, default_value = ".", value_name = "PATH")]
    checkout: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start the cluster; nothing happens when it runs, missing nodes are added.
    Up {
        /// How many nodes; 0 is a control plane without nodes.
        #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(0..=i64::from(Node::MAX)))]
        nodes: u8,
        /// Parts that are not there by default.
        #[arg(long, value_enum)]
        with: Vec<Addon>,
        /// API server and etcd alone, for tests that play the controllers themselves; needs --nodes 0.
        #[arg(long)]
        without_controllers: bool,
    },
    /// End the cluster and remove everything it made, also after a crash of this tool.
    Down,
    /// Say what runs and what does not.
    Status,
    /// Build the programs into the cache, once per version; `up` does it, too.
    Build {
        /// Parts that are not built by default.
        #[arg(long, value_enum)]
        with: Vec<Addon>,
        /// Print where this program lies, such as helm or kubectl.
        #[arg(long, value_name = "PROGRAM")]
        print: Option<String>,
    },
    /// Write a container image of static programs as a tar file.
    Image(ImageArguments),
    /// Import image files into all nodes, also those that are added later.
    LoadImage {
        /// Tar files: OCI layouts or what `docker save` writes.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Add, cut off or crash a node.
    #[command(subcommand)]
    Node(NodeCommand),
    /// Kill a daemon (kill -9) and start it again.
    Restart {
        /// Where: 1 to 4.
        node: Node,
        /// Which: etcd, kube-apiserver, kube-controller-manager, kube-scheduler, containerd, kubelet, kube-proxy,
        /// calico-felix.
        daemon: String,
    },
    /// Make a port of a Service reachable on 127.0.0.1, until Ctrl-C.
    Forward {
        /// NAMESPACE/SERVICE:PORT, the port by number or name.
        target: Target,
        /// Where to listen; port 0 takes any free one.
        #[arg(long, default_value = "127.0.0.1:0")]
        listen: SocketAddr,
    },
    /// Prove on the running cluster (4 nodes) that DNS, policies, volumes, partitions and crashes are what they claim.
    Selftest,
    #[command(hide = true)]
    ServeRelay { socket: PathBuf },
    #[command(hide = true)]
    ServeListener { listen: SocketAddr, relay: PathBuf, target: String },
}

#[derive(Debug, Subcommand)]
enum NodeCommand {
    /// Start a node: a new one, or one that crashed, with the disk it had.
    Add {
        /// 1 to 4.
        node: Node,
    },
    /// Pull the cable: the node goes on, but no packet goes in or out.
    Partition {
        /// 2 to 4.
        node: Node,
    },
    /// Plug the cable in again.
    Heal {
        /// 2 to 4.
        node: Node,
    },
    /// Pull the power: all processes end at once, the disk stays.
    Crash {
        /// 2 to 4.
        node: Node,
    },
}

#[derive(Debug, Args)]
struct ImageArguments {
    /// Full name with a tag other than latest.
    #[arg(long)]
    name: String,
    /// The program; repeat for arguments.
    #[arg(long, required = true, allow_hyphen_values = true)]
    entrypoint: Vec<String>,
    /// A file of the image, executable; repeat for more.
    #[arg(long = "file", required = true, value_name = "/PATH=FILE")]
    files: Vec<ImageFile>,
    /// The tar file to write.
    #[arg(long)]
    output: PathBuf,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments) {
        Ok(code) => code,
        Err(error) if matches!(error.downcast_ref(), Some(althing_cluster::Error::Interrupted)) => {
            eprintln!("interrupted");
            ExitCode::from(130)
        }
        Err(error) => {
            eprintln!("cluster: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<ExitCode> {
    // Daemons of ours: they end by being killed, and know no checkout.
    match &arguments.command {
        Command::ServeRelay { socket } => {
            relay::serve(socket)?;
            return Ok(ExitCode::SUCCESS);
        }
        Command::ServeListener { listen, relay, target } => {
            let listener = TcpListener::bind(listen).with_context(|| format!("failed to listen on {listen}"))?;
            relay::serve_listener(&listener, relay, target)?;
            return Ok(ExitCode::SUCCESS);
        }
        _ => {}
    }
    if let Command::Image(image) = arguments.command {
        println!("{}", Image::from(&image).write(&image.output)?);
        return Ok(ExitCode::SUCCESS);
    }
    interrupt::listen()?;
    let checkout = Checkout::find(&arguments.checkout)?;
    match arguments.command {
        Command::Up { nodes, with, without_controllers } => {
            anyhow::ensure!(!without_controllers || nodes == 0, "--without-controllers needs --nodes 0");
            let controllers = if without_controllers { Controllers::None } else { Controllers::All };
            let environment = up::up(&checkout, nodes, &with, controllers)?;
            println!("{}", up::describe(&checkout, &environment));
        }
        Command::Down => down::down(&checkout)?,
        Command::Status => {
            return Ok(match status::status(&checkout) {
                Health::Good => ExitCode::SUCCESS,
                Health::Down => ExitCode::from(3),
                Health::Partial => ExitCode::from(4),
            });
        }
        Command::Build { with, print } => {
            build::build(&checkout, &with)?;
            if let Some(program) = print {
                println!("{}", build::program(&checkout, &program)?.display());
            }
        }
        Command::LoadImage { files } => {
            let _lock = checkout.lock()?;
            let environment = membership::expect_running(&checkout)?;
            worker::load_images(&checkout, &membership::alive(&checkout, &environment), &files)?;
        }
        Command::Node(command) => {
            let _lock = checkout.lock()?;
            match command {
                NodeCommand::Add { node } => up::add_node(&checkout, node)?,
                NodeCommand::Partition { node } => membership::partition(&checkout, node)?,
                NodeCommand::Heal { node } => membership::heal(&checkout, node)?,
                NodeCommand::Crash { node } => membership::crash(&checkout, node)?,
            }
        }
        Command::Restart { node, daemon } => {
            let _lock = checkout.lock()?;
            membership::expect_running(&checkout)?;
            daemon::restart(&checkout, node, &daemon)?;
        }
        Command::Forward { target, listen } => forward::forward(&checkout, &target, listen)?,
        Command::Selftest => selftest::run(&checkout)?,
        Command::Image(_) | Command::ServeRelay { .. } | Command::ServeListener { .. } => {}
    }
    Ok(ExitCode::SUCCESS)
}

impl From<&ImageArguments> for Image {
    fn from(arguments: &ImageArguments) -> Self {
        Self { name: arguments.name.clone(), entrypoint: arguments.entrypoint.clone(), files: arguments.files.clone() }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn up_takes_zero_to_four_nodes() {
        for nodes in ["0", "4"] {
            assert!(Arguments::try_parse_from(["cluster", "up", "--nodes", nodes]).is_ok());
        }
        for nodes in ["5", "-1", "many"] {
            assert!(Arguments::try_parse_from(["cluster", "up", "--nodes", nodes]).is_err(), "{nodes}");
        }
    }

    #[test]
    fn an_image_needs_a_name_an_entrypoint_a_file_and_an_output() {
        let all = ["--name", "a/b:1", "--entrypoint", "/x", "--file", "/x=x", "--output", "x.tar"];
        let parse = |arguments: &[&str]| Arguments::try_parse_from([&["cluster", "image"], arguments].concat());
        assert!(parse(&all).is_ok());
        for missing in (0..all.len()).step_by(2) {
            let mut fewer = all.to_vec();
            fewer.drain(missing..missing + 2);
            assert!(parse(&fewer).is_err(), "{fewer:?}");
        }
    }
}
