//! Durable acts on files: folders, whole-file replacement, and the fsync of a folder that makes a new name last.

use std::{
    fs::{self, File, OpenOptions},
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use super::StorageError;

/// Only the owner may read or write: keys are among the files.
const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;

/// Makes the folder and those above it, each one durably.
pub fn create_directory(path: &Path) -> Result<(), StorageError> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = parent(path) {
        create_directory(parent)?;
    }
    match fs::DirBuilder::new().mode(DIRECTORY_MODE).create(path) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && path.is_dir() => return Ok(()),
        Err(error) => return Err(StorageError::io("create the folder", path, error)),
    }
    parent(path).map_or(Ok(()), sync_directory)
}

/// Makes names in this folder last: a file whose folder was not synced may be gone after a power cut.
pub fn sync_directory(path: &Path) -> Result<(), StorageError> {
    File::open(path)
        .and_then(|folder| folder.sync_all())
        .map_err(|error| StorageError::io("sync the folder", path, error))
}

/// Replaces the whole file: afterwards it holds either the old bytes or the new ones, never a mixture.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<(), StorageError> {
    publish(path, |file| file.write_all(bytes))
}

/// Fills a temporary file, makes it durable, and gives it its name.
pub fn publish(path: &Path, fill: impl FnOnce(&mut File) -> std::io::Result<()>) -> Result<(), StorageError> {
    let temporary = temporary_name(path);
    // A leftover of an interrupted attempt was never published.
    remove(&temporary)?;
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(FILE_MODE)
        .open(&temporary)
        .map_err(|error| StorageError::io("create", &temporary, error))?;
    fill(&mut file).map_err(|error| StorageError::io("write", &temporary, error))?;
    file.sync_all().map_err(|error| StorageError::io("sync", &temporary, error))?;
    fs::rename(&temporary, path).map_err(|error| StorageError::io("publish", path, error))?;
    parent(path).map_or(Ok(()), sync_directory)
}

/// The bytes of a file, or nothing if there is no such file.
pub fn read(path: &Path) -> Result<Option<Vec<u8>>, StorageError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StorageError::io("read", path, error)),
    }
}

/// Removes a file if it is there, durably.
pub fn remove(path: &Path) -> Result<(), StorageError> {
    match fs::remove_file(path) {
        Ok(()) => parent(path).map_or(Ok(()), sync_directory),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(StorageError::io("remove", path, error)),
    }
}

/// Removes a folder with all that is in it, if it is there.
pub fn remove_directory(path: &Path) -> Result<(), StorageError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(StorageError::io("remove", path, error)),
        _ => Ok(()),
    }
}

/// The names in a folder that have this ending, in ascending order.
pub fn names_ending(folder: &Path, ending: &str) -> Result<Vec<String>, StorageError> {
    let list = |error| StorageError::io("list", folder, error);
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(list)? {
        let name = entry.map_err(list)?.file_name();
        if let Some(name) = name.to_str().filter(|name| name.ends_with(ending)) {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

fn parent(path: &Path) -> Option<&Path> {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Some(Path::new(".")),
        other => other,
    }
}

fn temporary_name(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".new");
    path.with_file_name(name)
}
