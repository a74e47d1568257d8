//! Facts about this process that later tell whether it has ended: boot, machine, pod, start.

use std::io;

use node_core::{
    session::Owner,
    types::{TimeMs, Uid},
};
use thiserror::Error;

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
const PROCESS_STAT: &str = "/proc/self/stat";
const SYSTEM_STAT: &str = "/proc/stat";
const KERNEL_VERSION: &str = "/proc/version";
const KERNEL_COMMAND_LINE: &str = "/proc/cmdline";
/// Readable by root only, and missing on many machines.
const MACHINE_UUID: &str = "/sys/class/dmi/id/product_uuid";
/// The variable that the pod's manifest fills from `metadata.uid`.
const POD_UID: &str = "POD_UID";
/// Field 22 of /proc/self/stat, counted from 1; the 20th after the command's closing parenthesis.
const START_FIELD: usize = 19;
/// The clock tick of every number that Linux shows to programs.
const MS_PER_TICK: u64 = 10;
/// The version that gVisor shows, whatever kernel is below it.
const GVISOR_VERSION: &str = "Linux version 4.4.0 #1 SMP Sun Jan 10 15:06:54 PST 2016";
/// What the kernel of a Kata virtual machine is started with.
const KATA_ARGUMENTS: [&str; 2] = ["kata-containers", "agent.log"];
/// Numbers that makers of boards forget to change.
const SHARED_MACHINE_UUIDS: [&str; 3] = [
    "00000000-0000-0000-0000-000000000000",
    "ffffffff-ffff-ffff-ffff-ffffffffffff",
    "03000200-0400-0500-0006-000700080009",
];

/// Why the facts could not be gathered.
#[derive(Debug, Error)]
pub enum OwnerError {
    /// The kernel did not say.
    #[error("failed to read {path}: {source}; the node needs Linux with /proc mounted")]
    Unreadable {
        /// The file.
        path: &'static str,
        /// What the operating system said.
        source: io::Error,
    },
    /// Something else stands there than should.
    #[error("{place} holds {found:?}, which is not what it should hold")]
    Unexpected {
        /// The file or variable.
        place: &'static str,
        /// The beginning of it.
        found: String,
    },
}

/// Who this process is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct OwnerFacts {
    /// The pod; nothing outside Kubernetes.
    pub pod: Option<Uid>,
    /// When this process started, which is when its container did: the node is the first process in it.
    pub started: TimeMs,
    /// New at each boot of the machine. Nothing in a sandbox (gVisor, Kata), whose kernel ends with its pod.
    pub boot: Option<Uid>,
    /// The machine. Nothing where the process may not know it, as in a pod without privileges.
    pub machine: Option<Uid>,
}

impl OwnerFacts {
    /// The facts about this process.
    pub fn gather() -> Result<Self, OwnerError> {
        let pod = match std::env::var(POD_UID) {
            Ok(text) if !text.is_empty() => Some(parse_uid(POD_UID, &text)?),
            _ => None,
        };
        let boot_time_ms = parse_boot_time(&read(SYSTEM_STAT)?)?;
        let start_ticks = parse_start(&read(PROCESS_STAT)?)?;
        let started = TimeMs::new(boot_time_ms.saturating_add(start_ticks.saturating_mul(MS_PER_TICK)));
        if is_sandbox(&read(KERNEL_VERSION)?, &read(KERNEL_COMMAND_LINE).unwrap_or_default()) {
            return Ok(Self { pod, started, boot: None, machine: None });
        }
        let boot = Some(parse_uid(BOOT_ID, &read(BOOT_ID)?)?);
        let machine = std::fs::read_to_string(MACHINE_UUID).ok().and_then(|text| parse_machine(&text));
        Ok(Self { pod, started, boot, machine })
    }

    /// This process as the owner of a key. `instance` is the pod, or outside Kubernetes the configured instance.
    #[must_use]
    pub fn owner(&self, instance: Uid) -> Owner {
        Owner { pod: instance, container_start: self.started, boot: self.boot, machine: self.machine }
    }
}

fn read(path: &'static str) -> Result<String, OwnerError> {
    std::fs::read_to_string(path).map_err(|source| OwnerError::Unreadable { path, source })
}

pub(super) fn parse_uid(place: &'static str, text: &str) -> Result<Uid, OwnerError> {
    Uid::parse(text.trim()).map_err(|_| unexpected(place, text))
}

pub(super) fn parse_machine(text: &str) -> Option<Uid> {
    let text = text.trim().to_ascii_lowercase();
    let shared = SHARED_MACHINE_UUIDS.contains(&text.as_str());
    if shared { None } else { Uid::parse(&text).ok() }
}

/// The ticks from boot to the start of the process.
pub(super) fn parse_start(stat: &str) -> Result<u64, OwnerError> {
    // The command may contain spaces and parentheses; nothing after its last closing one does.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let ticks = fields.split_ascii_whitespace().nth(START_FIELD).and_then(|ticks| ticks.parse().ok());
    ticks.ok_or_else(|| unexpected(PROCESS_STAT, stat))
}

/// When the machine started, in milliseconds of Unix time.
pub(super) fn parse_boot_time(stat: &str) -> Result<u64, OwnerError> {
    let seconds =
        stat.lines().find_map(|line| line.strip_prefix("btime ")).and_then(|text| text.trim().parse::<u64>().ok());
    seconds.and_then(|seconds| seconds.checked_mul(1_000)).ok_or_else(|| unexpected(SYSTEM_STAT, stat))
}

/// Whether the kernel is that of a sandbox, whose boot says nothing about the machine.
pub(super) fn is_sandbox(version: &str, command_line: &str) -> bool {
    version.starts_with(GVISOR_VERSION) || KATA_ARGUMENTS.iter().any(|argument| command_line.contains(argument))
}

fn unexpected(place: &'static str, text: &str) -> OwnerError {
    OwnerError::Unexpected { place, found: text.chars().take(80).collect() }
}
