//! Can this machine run the cluster? Every "no" says what to do; tools that are missing are installed by apt-get.

use std::path::{Path, PathBuf};

use crate::cgroups::{self, Version};
use crate::checkout::Checkout;
use crate::command::{command, run};
use crate::error::{Doing, Error, Result};

/// Programs of the host that nodes use, and the Debian package of each. None of them starts a service.
const TOOLS: [(&str, &str); 10] = [
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("iptables-nft-restore", "iptables"),
    ("ipset", "ipset"),
    ("conntrack", "conntrack"),
    ("unshare", "util-linux"),
    ("nsenter", "util-linux"),
    ("mount", "mount"),
    ("sysctl", "procps"),
    ("dpkg-deb", "dpkg"),
];

/// Modules that a kernel may have outside its image; one that is built in or missing is judged by [`PROBE`].
const KERNEL_MODULES: [&str; 14] = [
    "overlay",
    "bridge",
    "veth",
    "nf_tables",
    "nf_nat",
    "nf_conntrack",
    "ip_set",
    "ip_set_hash_ip",
    "ip_set_hash_net",
    "xt_set",
    "xt_mark",
    "xt_comment",
    "xt_conntrack",
    "nft_compat",
];

/// Uses what the nodes will use, in a network namespace that ends with the shell.
const PROBE: &str = "set -e
ip link add bridge0 type bridge
ip link add veth0 type veth peer name veth1
nft add table ip probe
ipset create probe hash:net
iptables-nft -A INPUT -m set --match-set probe src -m comment --comment probe -j DROP";

/// Room on the disk of the checkout: etcd, images of four nodes, volumes.
const STATE_GIB_MIN: u64 = 4;
/// Room for Go's modules and build cache besides the programs.
const BUILD_GIB_MIN: u64 = 14;
const MEMORY_GIB_MIN: u64 = 3;

/// Looks at everything that a cluster needs before anything is made.
///
/// # Errors
/// The first thing that is missing.
pub fn check(checkout: &Checkout) -> Result<()> {
    operating_system()?;
    room(checkout.root(), STATE_GIB_MIN)?;
    memory()?;
    install_tools()?;
    match cgroups::version()? {
        Version::One => {}
        Version::Two => eprintln!(
            "note: this machine has cgroup v2. The cluster was developed and run on cgroup v1 only; on v2 it makes one\n\
             \x20     cgroup per node with all controllers delegated, which should do, but nobody has run it. If nodes do not\n\
             \x20     become Ready, look at .cluster/log/kubelet-node1.log, or boot with systemd.unified_cgroup_hierarchy=0."
        ),
    }
    kernel()
}

/// Is there a Go compiler and room to build?
///
/// # Errors
/// When not.
pub fn check_build(cache: &Path) -> Result<()> {
    operating_system()?;
    std::fs::create_dir_all(cache).doing("create", cache)?;
    room(cache, BUILD_GIB_MIN)?;
    install_tools()?;
    let version = run(command("go").args(["env", "GOVERSION"])).map_err(|_| missing_go("there is no Go compiler"))?;
    if go_is_older_than_1_26(version.trim()) {
        return Err(missing_go(&format!("the Go compiler is {}", version.trim())));
    }
    Ok(())
}

fn operating_system() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Err(refused("the cluster needs root: it makes namespaces, mounts and cgroups", "run it with sudo"));
    }
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    if !is_debian(&release) {
        return Err(refused(
            "this is not Debian: containerd, runc and other programs come from Debian's packages",
            "use a Debian machine (12 was run), or an existing cluster with CONTEXT=name",
        ));
    }
    Ok(())
}

fn is_debian(release: &str) -> bool {
    let value = |line: &str, key: &str| line.strip_prefix(key).map(|value| value.trim_matches('"').to_string());
    release.lines().any(|line| {
        value(line, "ID=").is_some_and(|id| id == "debian")
            || value(line, "ID_LIKE=").is_some_and(|like| like.split(' ').any(|id| id == "debian"))
    })
}

fn room(path: &Path, gib_min: u64) -> Result<()> {
    let system = rustix::fs::statvfs(path).map_err(std::io::Error::from).doing("measure", path)?;
    let gib = system.f_bavail.saturating_mul(system.f_frsize) >> 30;
    if gib >= gib_min {
        return Ok(());
    }
    Err(refused(&format!("{} has {gib} GiB free, {gib_min} GiB are needed", path.display()), "make room"))
}

fn memory() -> Result<()> {
    let text = std::fs::read_to_string("/proc/meminfo").doing("read", "/proc/meminfo")?;
    let available = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib: u64 = available
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|number| number.parse().ok())
        .unwrap_or(u64::MAX);
    if kib >> 20 >= MEMORY_GIB_MIN {
        return Ok(());
    }
    Err(refused(
        &format!("{} MiB of memory are available, {MEMORY_GIB_MIN} GiB are needed", kib >> 10),
        "end other programs, or use fewer nodes",
    ))
}

fn install_tools() -> Result<()> {
    let mut missing: Vec<&str> =
        TOOLS.iter().filter(|(program, _)| find_program(program).is_none()).map(|(_, package)| *package).collect();
    if find_library("libseccomp.so.2").is_none() {
        missing.push("libseccomp2");
    }
    missing.dedup();
    if missing.is_empty() {
        return Ok(());
    }
    eprintln!("installing with apt-get: {}", missing.join(" "));
    let install = || {
        let mut apt = command("apt-get");
        apt.env("DEBIAN_FRONTEND", "noninteractive");
        apt.args(["-y", "-o", "DPkg::Lock::Timeout=300", "install", "--no-install-recommends"]).args(&missing);
        run(&mut apt)
    };
    // The first try fails on a machine whose package lists are absent or old.
    if install().is_err() {
        run(command("apt-get").args(["update"]))?;
        install()?;
    }
    Ok(())
}

/// Where a program lies, in `PATH` or the folders that a user's `PATH` lacks.
fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    let folders = path.split(':').chain(["/usr/local/sbin", "/usr/sbin", "/sbin"]);
    folders.map(|folder| Path::new(folder).join(name)).find(|file| file.is_file())
}

fn find_library(name: &str) -> Option<PathBuf> {
    let triple = format!("{}-linux-gnu", std::env::consts::ARCH);
    let folders = [format!("/lib/{triple}"), format!("/usr/lib/{triple}"), "/usr/lib".to_string()];
    folders.iter().map(|folder| Path::new(folder).join(name)).find(|file| file.exists())
}

fn kernel() -> Result<()> {
    if find_program("modprobe").is_some() {
        // Built-in modules make modprobe fail or succeed depending on the distribution; the probe decides.
        let _ = run(command("modprobe").args(["-a", "-q"]).args(KERNEL_MODULES));
    }
    let filesystems = std::fs::read_to_string("/proc/filesystems").doing("read", "/proc/filesystems")?;
    if !filesystems.lines().any(|line| line.ends_with("overlay")) {
        return Err(refused("the kernel has no overlay file system", "load it: modprobe overlay"));
    }
    let probe = run(command("unshare").args(["--net", "--mount", "sh", "-c", PROBE]));
    probe.map(drop).map_err(|error| {
        refused(
            &format!("a network namespace with bridge, veth, nftables and ipset cannot be made here: {error}"),
            "the cluster needs a virtual machine or a host with these kernel features (a container is not enough)",
        )
    })
}

fn go_is_older_than_1_26(version: &str) -> bool {
    let mut numbers = version.trim_start_matches("go").split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let (major, minor) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    (major, minor) < (1, 26)
}

fn missing_go(problem: &str) -> Error {
    refused(problem, "install Go 1.26 or newer from https://go.dev/dl into /usr/local/go (Debian 12's own is too old)")
}

fn refused(problem: &str, advice: &str) -> Error {
    Error::Preflight { problem: problem.into(), advice: advice.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debian_and_its_children_are_debian() {
        assert!(is_debian("NAME=\"Debian GNU/Linux\"\nID=debian\n"));
        assert!(is_debian("ID=ubuntu\nID_LIKE=debian\n"));
        assert!(is_debian("ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n"));
        assert!(!is_debian("ID=fedora\nVERSION_ID=44\n"));
        assert!(!is_debian(""));
    }

    #[test]
    fn the_age_of_go_is_read_from_its_version() {
        for old in ["go1.19.8", "go1.25", "", "devel"] {
            assert!(go_is_older_than_1_26(old), "{old}");
        }
        for new in ["go1.26.8", "go1.26", "go1.30.1", "go2.0"] {
            assert!(!go_is_older_than_1_26(new), "{new}");
        }
    }
}
