//! Facts about this process that later tell whether it has ended: boot, machine, pod, start.

use std::{io, path::Path};

use thiserror::Error;

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
const PROCESS_STAT: &str = "/proc/self/stat";
/// Readable by root only, and missing on many machines.
const MACHINE_UUID: &str = "/sys/class/dmi/id/product_uuid";
/// The variable that the pod's manifest fills from `metadata.uid`.
const POD_UID: &str = "POD_UID";
/// Field 22 of /proc/self/stat, counted from 1; the 20th after the command's closing parenthesis.
const START_FIELD: usize = 19;

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
    /// The kernel said something else.
    #[error("{path} holds {found:?}, which is not what this kernel file should hold")]
    Unexpected {
        /// The file.
        path: &'static str,
        /// The beginning of it.
        found: String,
    },
}

/// Who this process is. Two processes with equal boot id ran on one kernel since its start; no two processes of one boot
/// have equal start and id.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct OwnerFacts {
    /// Random, new at each boot of the machine. Under a sandboxed runtime (gVisor, Kata) it is that of the sandbox.
    pub boot_id: String,
    /// The UID of the pod; nothing outside Kubernetes.
    pub pod_uid: Option<String>,
    /// When this process started, in clock ticks since the boot. In a container the node is its first process.
    pub start_ticks: u64,
    /// The machine; nothing where the process may not know it, as in a pod without privileges.
    pub machine_uuid: Option<String>,
}

impl OwnerFacts {
    /// The facts about this process.
    pub fn gather() -> Result<Self, OwnerError> {
        Ok(Self {
            boot_id: parse_boot_id(&read(BOOT_ID)?)?,
            pod_uid: std::env::var(POD_UID).ok().filter(|uid| !uid.is_empty()),
            start_ticks: parse_start(&read(PROCESS_STAT)?)?,
            machine_uuid: std::fs::read_to_string(MACHINE_UUID).ok().and_then(|uuid| parse_uuid(&uuid)),
        })
    }
}

fn read(path: &'static str) -> Result<String, OwnerError> {
    std::fs::read_to_string(Path::new(path)).map_err(|source| OwnerError::Unreadable { path, source })
}

pub(super) fn parse_boot_id(text: &str) -> Result<String, OwnerError> {
    parse_uuid(text).ok_or_else(|| unexpected(BOOT_ID, text))
}

pub(super) fn parse_start(stat: &str) -> Result<u64, OwnerError> {
    // The command may contain spaces and parentheses; nothing after its last closing one does.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    fields
        .split_ascii_whitespace()
        .nth(START_FIELD)
        .and_then(|ticks| ticks.parse().ok())
        .ok_or_else(|| unexpected(PROCESS_STAT, stat))
}

fn parse_uuid(text: &str) -> Option<String> {
    let uuid = text.trim().to_ascii_lowercase();
    let lengths: Vec<usize> = uuid.split('-').map(str::len).collect();
    let digits = uuid.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit());
    (digits && lengths == [8, 4, 4, 4, 12]).then_some(uuid)
}

fn unexpected(path: &'static str, text: &str) -> OwnerError {
    OwnerError::Unexpected { path, found: text.chars().take(80).collect() }
}
