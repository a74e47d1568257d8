//! A snapshot file: the manifest of a state, the pieces of its operations, and an end that says that nothing is missing.
//!
//! ```text
//! ALSNAPS format:u8
//! frame*    kind:u8 length:u32 crc32c:u32 body     (the checksum covers kind, length, number of the frame, and body)
//! kinds     1 manifest (first, once)   2 piece (in order)   3 end: number of pieces:u64, SHA-256 of all bytes before
//! ```
//! A file without its end is what a writer that was interrupted left behind: [`SnapshotWriter::resume`] goes on with it.

use std::{
    fs::{File, OpenOptions},
    io::{BufReader, ErrorKind, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use node_core::{
    codec::{Decode as _, Encode as _},
    sync::StateManifest,
    types::BLOCK_BYTES_CEILING,
};
use sha2::{Digest as _, Sha256};

use super::{PIECE_BYTES_MAX, StorageError, file};

const MAGIC: &[u8; 7] = b"ALSNAPS";
const FORMAT: u8 = 1;
const FRAME_HEADER_BYTES: usize = 9;
const MANIFEST: u8 = 1;
const PIECE: u8 = 2;
const END: u8 = 3;
/// The largest block with the longest way to it.
const MANIFEST_BYTES_MAX: usize = 2 * BLOCK_BYTES_CEILING + (512 << 20);
const ADVICE: &str = "copy the snapshot again, or make another one";

/// Writes a snapshot from its beginning to its end.
#[derive(Debug)]
pub struct SnapshotWriter {
    path: PathBuf,
    file: File,
    hasher: Sha256,
    frames: u64,
}

impl SnapshotWriter {
    /// Starts a file in place of any that is there.
    pub fn create(path: &Path, manifest: &StateManifest) -> Result<Self, StorageError> {
        let options = OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(path);
        let file = options.map_err(|error| StorageError::io("create", path, error))?;
        let mut writer = Self { path: path.to_path_buf(), file, hasher: Sha256::new(), frames: 0 };
        let mut magic = MAGIC.to_vec();
        magic.push(FORMAT);
        writer.write(&magic)?;
        writer.frame(MANIFEST, &manifest.encode())?;
        Ok(writer)
    }

    /// Goes on with a file that has no end yet, after its last whole piece. Nothing if there is no manifest in it.
    pub fn resume(path: &Path) -> Result<Option<(StateManifest, Self)>, StorageError> {
        let Ok(mut reader) = SnapshotReader::open(path) else { return Ok(None) };
        let whole = loop {
            let offset = reader.offset;
            match reader.next_piece() {
                Ok(Some(_)) => {}
                // A whole snapshot needs no more; its end is written again.
                Ok(None) => break offset,
                Err(StorageError::Damaged { .. }) => break offset,
                Err(error) => return Err(error),
            }
        };
        let SnapshotReader { manifest, .. } = reader;
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .map_err(|error| StorageError::io("open", path, error))?;
        file.set_len(whole).map_err(|error| StorageError::io("cut", path, error))?;
        file.seek(SeekFrom::End(0)).map_err(|error| StorageError::io("seek in", path, error))?;
        // What is kept is read once more for the checksum at the end, and to count it.
        let (hasher, frames) = digest_of(path, whole)?;
        Ok(Some((manifest, Self { path: path.to_path_buf(), file, hasher, frames })))
    }

    /// How many pieces there are so far.
    #[must_use]
    pub fn pieces(&self) -> u64 {
        self.frames.saturating_sub(1)
    }

    /// Adds the next piece.
    pub fn piece(&mut self, body: &[u8]) -> Result<(), StorageError> {
        if body.len() > PIECE_BYTES_MAX {
            let (path, size) = (self.path.clone(), body.len() as u64);
            return Err(StorageError::TooLarge { path, size, size_max: PIECE_BYTES_MAX as u64 });
        }
        self.frame(PIECE, body)
    }

    /// Writes the end, durably.
    pub fn finish(mut self) -> Result<(), StorageError> {
        let mut end = self.pieces().to_be_bytes().to_vec();
        end.extend_from_slice(&self.hasher.clone().finalize());
        self.frame(END, &end)?;
        self.file.sync_all().map_err(|error| StorageError::io("sync", &self.path, error))
    }

    fn frame(&mut self, kind: u8, body: &[u8]) -> Result<(), StorageError> {
        let too_large = |_| StorageError::TooLarge {
            path: self.path.clone(),
            size: body.len() as u64,
            size_max: u64::from(u32::MAX),
        };
        let length = u32::try_from(body.len()).map_err(too_large)?;
        let mut bytes = frame_header(kind, length, self.frames, body);
        bytes.extend_from_slice(body);
        self.write(&bytes)?;
        self.frames += 1;
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        self.hasher.update(bytes);
        self.file.write_all(bytes).map_err(|error| StorageError::io("append to", &self.path, error))
    }
}

/// Reads a snapshot from its beginning to its end.
#[derive(Debug)]
pub struct SnapshotReader {
    path: PathBuf,
    file: BufReader<File>,
    hasher: Sha256,
    frames: u64,
    offset: u64,
    manifest: StateManifest,
}

impl SnapshotReader {
    /// Opens a file and reads its manifest, which nobody has verified yet.
    pub fn open(path: &Path) -> Result<Self, StorageError> {
        let file = File::open(path).map_err(|error| StorageError::io("open", path, error))?;
        let mut source = Frames {
            path: path.to_path_buf(),
            file: BufReader::new(file),
            hasher: Sha256::new(),
            frames: 0,
            offset: 0,
        };
        source.magic()?;
        let (kind, body) = source.next()?;
        let manifest = match kind {
            MANIFEST => StateManifest::decode(&body).map_err(|error| source.damaged(error.to_string()))?,
            _ => return Err(source.damaged("it does not start with a manifest".to_owned())),
        };
        let Frames { path, file, hasher, frames, offset } = source;
        Ok(Self { path, file, hasher, frames, offset, manifest })
    }

    /// The manifest.
    #[must_use]
    pub fn manifest(&self) -> &StateManifest {
        &self.manifest
    }

    /// The next piece; nothing at the end, which is checked.
    pub fn next_piece(&mut self) -> Result<Option<Vec<u8>>, StorageError> {
        let before: [u8; 32] = self.hasher.clone().finalize().into();
        let pieces = self.frames.saturating_sub(1);
        let mut source = Frames {
            path: self.path.clone(),
            file: &mut self.file,
            hasher: self.hasher.clone(),
            frames: self.frames,
            offset: self.offset,
        };
        let (kind, body) = source.next()?;
        let result = match kind {
            PIECE => Some(body),
            END => {
                let mut end = pieces.to_be_bytes().to_vec();
                end.extend_from_slice(&before);
                if end != body {
                    return Err(source.damaged("the end does not fit what is before it".to_owned()));
                }
                if source.file.read(&mut [0]).map_err(|error| StorageError::io("read", &self.path, error))? > 0 {
                    return Err(source.damaged("something follows the end".to_owned()));
                }
                None
            }
            _ => return Err(source.damaged(format!("a frame of unknown kind {kind}"))),
        };
        let Frames { hasher, frames, offset, .. } = source;
        (self.hasher, self.frames, self.offset) = (hasher, frames, offset);
        Ok(result)
    }
}

struct Frames<R> {
    path: PathBuf,
    file: R,
    hasher: Sha256,
    frames: u64,
    offset: u64,
}

impl<R: std::io::Read> Frames<R> {
    fn magic(&mut self) -> Result<(), StorageError> {
        let magic = self.read(MAGIC.len() + 1)?;
        match magic.split_last() {
            Some((format, magic)) if magic == MAGIC => {
                if *format == FORMAT {
                    return Ok(());
                }
                Err(StorageError::Format { path: self.path.clone(), found: *format, expected: FORMAT })
            }
            _ => Err(StorageError::Damaged {
                path: self.path.clone(),
                offset: 0,
                reason: "it is no snapshot".to_owned(),
                advice: ADVICE,
            }),
        }
    }

    fn next(&mut self) -> Result<(u8, Vec<u8>), StorageError> {
        let start = self.offset;
        let header = self.read(FRAME_HEADER_BYTES)?;
        let kind = header.first().copied().unwrap_or_default();
        let length =
            header.get(1..).and_then(|rest| rest.first_chunk()).map_or(0, |length| u32::from_be_bytes(*length));
        let size = usize::try_from(length).unwrap_or(usize::MAX);
        let size_max = if kind == MANIFEST { MANIFEST_BYTES_MAX } else { PIECE_BYTES_MAX };
        if size > size_max {
            return Err(self.damaged_at(start, "the length of a frame is too large".to_owned()));
        }
        let body = self.read(size)?;
        if frame_header(kind, length, self.frames, &body) != header {
            return Err(self.damaged_at(start, "a frame does not fit its checksum".to_owned()));
        }
        self.frames += 1;
        Ok((kind, body))
    }

    /// Reads in steps, so that a wrong length does not ask for memory that the file cannot fill.
    fn read(&mut self, size: usize) -> Result<Vec<u8>, StorageError> {
        let mut bytes = Vec::new();
        let limit = u64::try_from(size).unwrap_or(u64::MAX);
        let read = (&mut self.file).take(limit).read_to_end(&mut bytes);
        match read {
            Ok(found) if found == size => {}
            Ok(_) => return Err(self.damaged("the file ends before its end: it was cut off".to_owned())),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                return Err(self.damaged("the file ends before its end: it was cut off".to_owned()));
            }
            Err(error) => return Err(StorageError::io("read", &self.path, error)),
        }
        self.hasher.update(&bytes);
        self.offset = self.offset.saturating_add(limit);
        Ok(bytes)
    }

    fn damaged(&self, reason: String) -> StorageError {
        self.damaged_at(self.offset, reason)
    }

    fn damaged_at(&self, offset: u64, reason: String) -> StorageError {
        StorageError::Damaged { path: self.path.clone(), offset, reason, advice: ADVICE }
    }
}

fn frame_header(kind: u8, length: u32, number: u64, body: &[u8]) -> Vec<u8> {
    let mut header = vec![kind];
    header.extend_from_slice(&length.to_be_bytes());
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&header), &number.to_be_bytes());
    header.extend_from_slice(&crc32c::crc32c_append(checksum, body).to_be_bytes());
    header
}

/// The hash of the first bytes of a file, and the number of frames in them.
fn digest_of(path: &Path, length: u64) -> Result<(Sha256, u64), StorageError> {
    let file = File::open(path).map_err(|error| StorageError::io("open", path, error))?;
    let mut source =
        Frames { path: path.to_path_buf(), file: BufReader::new(file), hasher: Sha256::new(), frames: 0, offset: 0 };
    source.magic()?;
    while source.offset < length {
        source.next()?;
    }
    Ok((source.hasher, source.frames))
}

/// Gives a finished snapshot its name, durably.
pub fn publish_snapshot(from: &Path, to: &Path) -> Result<(), StorageError> {
    std::fs::rename(from, to).map_err(|error| StorageError::io("publish", to, error))?;
    match to.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => file::sync_directory(parent),
        _ => file::sync_directory(Path::new(".")),
    }
}
