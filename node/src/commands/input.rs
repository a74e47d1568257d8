//! What a command reads: a file, or standard input where the path is `-`, never more than a bound.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

/// Opens it; what is read ends after `bytes_max`.
pub fn open(path: &Path, bytes_max: usize) -> io::Result<impl Read> {
    let source: Box<dyn Read> =
        if path.as_os_str() == "-" { Box::new(io::stdin().lock()) } else { Box::new(File::open(path)?) };
    Ok(source.take(u64::try_from(bytes_max).unwrap_or(u64::MAX)))
}

/// Reads it as text.
pub fn read_text(path: &Path, bytes_max: usize) -> io::Result<String> {
    let mut text = String::new();
    open(path, bytes_max)?.read_to_string(&mut text)?;
    Ok(text)
}
