//! The exclusive lock on the volume: two processes on one node's volume never both run.
//!
//! The lock belongs to the open file, so the kernel frees it when the process ends, however it ends. Holding it says
//! nothing about a process on another machine that has the same volume attached: see "the owner has ended" in the design.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use thiserror::Error;

const FILE_NAME: &str = "lock";

/// Why the volume could not be locked.
#[derive(Debug, Error)]
pub enum LockError {
    /// Another process holds it.
    #[error("{path} is held by another process ({holder}); two nodes may not share one data folder", path = .path.display())]
    Held {
        /// The lock file.
        path: PathBuf,
        /// What that process wrote about itself.
        holder: String,
    },
    /// The file system refuses locks or the file.
    #[error("failed to lock {path}: {source}", path = .path.display())]
    Io {
        /// The lock file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}

/// The volume is locked for this process as long as this value lives.
#[derive(Debug)]
pub struct VolumeLock {
    path: PathBuf,
    // Closing the file frees the lock.
    _file: File,
}

impl VolumeLock {
    /// Locks the data folder, or says who holds it. Does not wait.
    pub fn acquire(data_folder: &Path) -> Result<Self, LockError> {
        let path = data_folder.join(FILE_NAME);
        let failed = |source| LockError::Io { path: path.clone(), source };
        std::fs::create_dir_all(data_folder).map_err(failed)?;
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // Only for the message: an unreadable note does not change that the lock is held.
                let _ = file.take(256).read_to_string(&mut holder);
                return Err(LockError::Held { path, holder: holder.trim().to_owned() });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        let note = format!("process {}\n", std::process::id());
        file.set_len(0)
            .and_then(|()| file.seek(SeekFrom::Start(0)))
            .and_then(|_| file.write_all(note.as_bytes()))
            .map_err(failed)?;
        Ok(Self { path, _file: file })
    }

    /// The lock file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}
