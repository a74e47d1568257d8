//! What the machine spent: processor time of the nodes, of this process and of everything else, memory, disk.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Instant,
};

/// Clock ticks a second in `/proc`: 100 on every Linux that matters here.
const TICKS_PER_SECOND: f64 = 100.0;

/// The processes that are measured.
#[derive(Clone, Debug, Default)]
pub struct Watched {
    /// Process ids of the nodes; none when they run elsewhere.
    pub nodes: Vec<u32>,
    /// Their data directories.
    pub data: Vec<PathBuf>,
}

/// What was spent until one moment.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    at: Instant,
    nodes_s: f64,
    own_s: f64,
    all_s: f64,
    disk_bytes: u64,
}

/// What was spent between two moments.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spent {
    /// Processor seconds of all nodes together.
    pub nodes_s: f64,
    /// Processor seconds of this process.
    pub own_s: f64,
    /// Cores that something else used.
    pub other_cores: f64,
    /// Growth of the nodes' data on disk.
    pub disk_bytes: u64,
}

impl Watched {
    /// Reads everything as it is now.
    pub fn read(&self) -> io::Result<Reading> {
        let mut nodes_s = 0.0;
        for id in &self.nodes {
            nodes_s += process_seconds(&format!("/proc/{id}/stat"))?;
        }
        let mut disk_bytes = 0;
        for directory in &self.data {
            disk_bytes += allocated_bytes(directory)?;
        }
        let own_s = process_seconds("/proc/self/stat")?;
        Ok(Reading { at: Instant::now(), nodes_s, own_s, all_s: machine_seconds()?, disk_bytes })
    }

    /// The largest resident size that any node ever had, MiB.
    pub fn rss_max_mib(&self) -> io::Result<f64> {
        let mut max_kib = 0.0_f64;
        for id in &self.nodes {
            let status = fs::read_to_string(format!("/proc/{id}/status"))?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            let kib = line.and_then(|rest| rest.split_whitespace().next()).and_then(|number| number.parse().ok());
            max_kib = max_kib.max(kib.unwrap_or_default());
        }
        Ok(max_kib / 1024.0)
    }
}

impl Reading {
    /// From this moment until a later one.
    pub fn until(&self, later: &Self) -> Spent {
        let seconds = later.at.duration_since(self.at).as_secs_f64().max(0.001);
        let (nodes_s, own_s) = (later.nodes_s - self.nodes_s, later.own_s - self.own_s);
        let other_cores = ((later.all_s - self.all_s - nodes_s - own_s) / seconds).max(0.0);
        Spent { nodes_s, own_s, other_cores, disk_bytes: later.disk_bytes.saturating_sub(self.disk_bytes) }
    }
}

/// User and system time of a process with all its threads.
fn process_seconds(path: &str) -> io::Result<f64> {
    let text = fs::read_to_string(path)?;
    // The name in parentheses may hold spaces; utime and stime are the 12th and 13th field after it.
    let fields = text.rsplit(')').next().unwrap_or_default();
    let ticks: f64 = fields.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
    Ok(ticks / TICKS_PER_SECOND)
}

/// Time that all processors were busy; waiting for the disk and time that the hypervisor took are not.
fn machine_seconds() -> io::Result<f64> {
    let text = fs::read_to_string("/proc/stat")?;
    let fields: Vec<f64> = text
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(1)
        .filter_map(|field| field.parse().ok())
        .collect();
    // user, nice, system, (idle, iowait,) irq, softirq.
    let busy: f64 = [0, 1, 2, 5, 6].iter().filter_map(|index| fields.get(*index)).sum();
    Ok(busy / TICKS_PER_SECOND)
}

/// What the files below a directory take on disk: files made at full size count as far as they are written.
fn allocated_bytes(directory: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => bytes += allocated_bytes(&entry.path())?,
            Ok(metadata) => bytes += metadata.blocks() * 512,
            // Removed meanwhile by its owner.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::Watched;

    #[test]
    fn what_this_process_spends_is_its_own_and_not_others() -> std::io::Result<()> {
        let directory = tempfile::tempdir()?;
        let watched = Watched { nodes: vec![std::process::id()], data: vec![directory.path().to_owned()] };
        let before = watched.read()?;
        std::fs::write(directory.path().join("data"), vec![1_u8; 1 << 20])?;
        let spent = before.until(&watched.read()?);
        assert!((1 << 20..2 << 20).contains(&spent.disk_bytes), "{spent:?}");
        assert!(watched.rss_max_mib()? > 1.0);
        Ok(())
    }
}
