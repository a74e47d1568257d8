//! How much of the volume is free.

use std::{io, path::Path};

/// The bytes that this user can still write to the file system of this folder.
pub fn available_bytes(folder: &Path) -> io::Result<u64> {
    fs4::available_space(folder)
}
