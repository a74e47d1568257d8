//! What goes wrong on a volume, where, and what the person who reads the log can do about it.

use std::{
    io,
    path::{Path, PathBuf},
};

use thiserror::Error;

/// Why something on the volume could not be read or written.
#[derive(Debug, Error)]
pub enum StorageError {
    /// The volume is full.
    #[error("failed to {action} {path}: no space left on the volume; free or add space, then start the node again", path = .path.display())]
    NoSpace {
        /// What was being done.
        action: &'static str,
        /// To which file or folder.
        path: PathBuf,
    },
    /// The volume takes no writes.
    #[error("failed to {action} {path}: the file system is read-only; look for disk errors on the node or a volume that is mounted read-only", path = .path.display())]
    ReadOnly {
        /// What was being done.
        action: &'static str,
        /// To which file or folder.
        path: PathBuf,
    },
    /// The process may not.
    #[error("failed to {action} {path}: permission denied; the data folder must belong to the user of this process (fsGroup 65532 in a pod)", path = .path.display())]
    Denied {
        /// What was being done.
        action: &'static str,
        /// To which file or folder.
        path: PathBuf,
    },
    /// Any other error of the operating system.
    #[error("failed to {action} {path}: {source}", path = .path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// To which file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A file that must be there is not.
    #[error("{path} is missing; {advice}", path = .path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// What to do.
        advice: &'static str,
    },
    /// Bytes that were on disk are not what was written.
    #[error("{path} is damaged at byte {offset}: {reason}; {advice}", path = .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The first byte of what does not fit.
        offset: u64,
        /// Which rule it breaks.
        reason: String,
        /// What to do.
        advice: &'static str,
    },
    /// The file was made by a later release.
    #[error("{path} has format {found}, this release reads format {expected}; start the release that wrote it", path = .path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// The format of the file.
        found: u8,
        /// The format that this build reads.
        expected: u8,
    },
    /// One record is larger than its file can be.
    #[error("a record of {size} bytes does not fit into {path}, the maximum is {size_max}", path = .path.display())]
    TooLarge {
        /// The folder of the log.
        path: PathBuf,
        /// The size of the record.
        size: u64,
        /// The largest size allowed.
        size_max: u64,
    },
    /// Heights are kept without gaps.
    #[error("height {found} cannot follow height {last} in {path}", path = .path.display())]
    OutOfOrder {
        /// The folder of the log.
        path: PathBuf,
        /// The height of the record.
        found: u64,
        /// The last height that is kept.
        last: u64,
    },
    /// An earlier write failed, so what the disk holds is unknown.
    #[error("{path} takes no more writes after a write that failed; start the node again", path = .path.display())]
    Failed {
        /// The folder or file.
        path: PathBuf,
    },
    /// Another genesis was accepted before, or the chain was started with it.
    #[error("{path} holds the accepted genesis {accepted}, not {asked}", path = .path.display())]
    OtherGenesis {
        /// The file.
        path: PathBuf,
        /// The hash that is accepted.
        accepted: String,
        /// The hash that was asked for.
        asked: String,
    },
    /// A started chain keeps its genesis.
    #[error("{path} cannot be dropped: the chain was started", path = .path.display())]
    ChainStarted {
        /// The file.
        path: PathBuf,
    },
}

impl StorageError {
    /// An error of the operating system, sorted by what can be done about it.
    pub(super) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_path_buf();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NoSpace { action, path },
            io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly { action, path },
            io::ErrorKind::PermissionDenied => Self::Denied { action, path },
            _ => Self::Io { action, path, source },
        }
    }

    /// Whether bytes that were once on disk are gone or changed. If it is the consensus log, its session key may never
    /// sign again.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged { .. } | Self::Missing { .. })
    }
}
