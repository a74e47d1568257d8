//! The cgroups of a cluster: one tree per hierarchy, named after the checkout, in which all its processes are found.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::checkout::{Checkout, Node};
use crate::error::{Doing, Error, Result};

const ROOT: &str = "/sys/fs/cgroup";
/// Longest wait for killed processes to be gone.
const KILL_SECONDS_MAX: u64 = 20;

/// Which cgroups this machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// One hierarchy per controller (a v2 hierarchy without controllers may be beside them).
    One,
    /// One hierarchy for all.
    Two,
}

/// A part of the cluster's tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Everything.
    Cluster,
    /// Our own helpers on the host: relays and the listener.
    Host,
    /// A node with all its pods.
    Node(Node),
}

/// Tells the version from the mounts.
///
/// # Errors
/// When no cgroups are mounted.
pub fn version() -> Result<Version> {
    let mounts = mounts()?;
    let kind = |path: &str| mounts.iter().find(|(place, _)| place == Path::new(path)).map(|(_, kind)| kind.as_str());
    if kind(ROOT) == Some("cgroup2") {
        return Ok(Version::Two);
    }
    if mounts.iter().any(|(_, kind)| kind == "cgroup") {
        return Ok(Version::One);
    }
    Err(Error::Preflight {
        problem: format!("no cgroups are mounted under {ROOT}"),
        advice: "mount them: apt-get install cgroupfs-mount && cgroupfs-mount".into(),
    })
}

/// Path of a part below the mount point of a hierarchy, as kubelet wants it.
pub fn path(checkout: &Checkout, part: Part) -> String {
    let top = checkout.cgroup();
    match part {
        Part::Cluster => format!("/{top}"),
        Part::Host => format!("/{top}/host"),
        Part::Node(node) => format!("/{top}/{node}"),
    }
}

/// Makes the cgroups of a part and returns the files that a process writes `0` into to join them.
///
/// Daemons sit in a leaf, `system`: on v2 only leaves hold processes.
///
/// # Errors
/// When the kernel refuses.
pub fn make(checkout: &Checkout, part: Part) -> Result<Vec<PathBuf>> {
    let below = format!("{}/system", path(checkout, part));
    let mut joins = Vec::new();
    for hierarchy in hierarchies()? {
        let mut folder = hierarchy.clone();
        for name in below.split('/').filter(|name| !name.is_empty()) {
            let parent = folder.clone();
            delegate(&parent);
            folder.push(name);
            std::fs::create_dir_all(&folder).doing("create", &folder)?;
            inherit_cpuset(&parent, &folder)?;
        }
        joins.push(folder.join("cgroup.procs"));
    }
    Ok(joins)
}

/// Kills every process of a part, those in the network namespaces of `nodes` too, and removes the cgroups.
///
/// # Errors
/// When a process does not end or a cgroup stays.
pub fn remove(checkout: &Checkout, part: Part, nodes: &[Node]) -> Result<()> {
    // In all mounts, not only in those that nodes are made in: runc also uses a v2 hierarchy that stands beside v1.
    let trees: Vec<PathBuf> = mounts()?
        .into_iter()
        .filter(|(place, kind)| kind.starts_with("cgroup") && place.starts_with(ROOT))
        .map(|(place, _)| place.join(path(checkout, part).trim_start_matches('/')))
        .filter(|tree| tree.exists())
        .collect();
    let namespaces: Vec<u64> = nodes.iter().filter_map(|node| namespace(&checkout.network_namespace(*node))).collect();
    let end = Instant::now() + Duration::from_secs(KILL_SECONDS_MAX);
    loop {
        let left = processes(&trees, &namespaces);
        for process in &left {
            // Gone already is as good.
            let _ = kill_process(*process, Signal::KILL);
        }
        if left.is_empty() && trees.iter().all(|tree| remove_tree(tree)) {
            return Ok(());
        }
        if Instant::now() >= end {
            let ids = left.iter().map(|process| process.as_raw_nonzero().to_string()).collect::<Vec<_>>().join(" ");
            return Err(Error::Timeout {
                what: format!("the end of all processes of {}", path(checkout, part)),
                seconds: KILL_SECONDS_MAX,
                hint: format!("still there: {}", if ids.is_empty() { "a cgroup without processes" } else { &ids }),
            });
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The number of the namespace that a file stands for.
pub fn namespace(file: &Path) -> Option<u64> {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(file).ok().map(|metadata| metadata.ino())
}

fn processes(trees: &[PathBuf], namespaces: &[u64]) -> Vec<Pid> {
    let mut ids = BTreeSet::new();
    for tree in trees {
        collect(tree, &mut ids);
    }
    if !namespaces.is_empty() {
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let id = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok());
            let inside = namespace(&entry.path().join("ns/net")).is_some_and(|number| namespaces.contains(&number));
            ids.extend(id.filter(|_| inside));
        }
    }
    ids.into_iter().filter_map(Pid::from_raw).collect()
}

fn collect(folder: &Path, ids: &mut BTreeSet<i32>) {
    let list = std::fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    ids.extend(list.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|id| *id > 0));
    for child in folders(folder) {
        collect(&child, ids);
    }
}

/// Removes depth first; false when something stays, such as a process that is still ending.
fn remove_tree(folder: &Path) -> bool {
    let mut gone = true;
    for child in folders(folder) {
        gone &= remove_tree(&child);
    }
    gone && (std::fs::remove_dir(folder).is_ok() || !folder.exists())
}

fn folders(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect()
}

/// The mount points in which every node gets a cgroup.
fn hierarchies() -> Result<Vec<PathBuf>> {
    let kind = match version()? {
        Version::One => "cgroup",
        Version::Two => "cgroup2",
    };
    let places = mounts()?.into_iter().filter(|(_, found)| found == kind).map(|(place, _)| place);
    Ok(places.filter(|place| place.starts_with(ROOT)).collect())
}

fn mounts() -> Result<Vec<(PathBuf, String)>> {
    let text = std::fs::read_to_string("/proc/self/mountinfo").doing("read", "/proc/self/mountinfo")?;
    Ok(parse_mounts(&text))
}

/// Mount point and type of each line.
fn parse_mounts(text: &str) -> Vec<(PathBuf, String)> {
    let line = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        Some((PathBuf::from(before.split(' ').nth(4)?), after.split(' ').next()?.to_string()))
    };
    text.lines().filter_map(line).collect()
}

/// On v2 a child has only the controllers that its parent hands on. One that cannot be handed on is not ours to
/// judge: kubelet names the controllers that it misses.
fn delegate(parent: &Path) {
    let controllers = std::fs::read_to_string(parent.join("cgroup.controllers")).unwrap_or_default();
    for controller in controllers.split_whitespace() {
        let _ = std::fs::write(parent.join("cgroup.subtree_control"), format!("+{controller}"));
    }
}

/// On v1 a new cpuset is empty, and nothing can join it until it is filled.
fn inherit_cpuset(parent: &Path, child: &Path) -> Result<()> {
    for name in ["cpuset.cpus", "cpuset.mems"] {
        let (from, to) = (parent.join(name), child.join(name));
        if child.join("cgroup.controllers").exists() || !to.exists() {
            continue;
        }
        if std::fs::read_to_string(&to).doing("read", &to)?.trim().is_empty() {
            let value = std::fs::read_to_string(&from).doing("read", &from)?;
            std::fs::write(&to, value.trim()).doing("write", &to)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_read_with_their_types() {
        let text = "33 32 0:29 / /sys/fs/cgroup/cpu rw,relatime shared:9 - cgroup cgroup rw,cpu\n\
                    34 32 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\nbroken line\n";
        let expected = [("/sys/fs/cgroup/cpu", "cgroup"), ("/sys/fs/cgroup/unified", "cgroup2")];
        assert_eq!(parse_mounts(text), expected.map(|(place, kind)| (PathBuf::from(place), kind.to_string())));
    }
}
