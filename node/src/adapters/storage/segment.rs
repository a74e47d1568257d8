//! One file of a log: made at its full size with zeros, filled with records from the front, read while it is written.

use std::{
    fs::{File, OpenOptions},
    io::Write as _,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use super::{
    StorageError, file,
    record::{self, ALIGNMENT, HEADER_BYTES, Header, HeaderCell, Place},
};

/// The header of a file: magic, format, number, size, checksum.
const FILE_HEADER_BYTES: u64 = 32;
const FORMAT: u8 = 1;
/// How much is read at once where only zeros are expected.
const SURVEY_BYTES: usize = 64 * 1024;

/// What tells the files of one log from those of another, and what to do when one is damaged.
#[derive(Debug)]
pub struct Kind {
    /// The first bytes of each file.
    pub magic: [u8; 7],
    /// The ending of each file name, with its dot.
    pub ending: &'static str,
    /// What the reader of an error can do.
    pub advice: &'static str,
}

/// One file of a log.
#[derive(Debug)]
pub struct Segment {
    kind: &'static Kind,
    file: File,
    path: PathBuf,
    number: u64,
    size: u64,
}

/// Where the records of a file end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ending {
    /// Where the next record goes.
    pub offset: u64,
    /// Up to where the remains of an interrupted write reach, if there are any.
    pub remains_until: Option<u64>,
}

impl Segment {
    /// Where the first record of a file starts.
    pub const FIRST: u64 = FILE_HEADER_BYTES;

    /// The numbers of the files in a folder, ascending.
    pub fn numbers(folder: &Path, kind: &'static Kind) -> Result<Vec<u64>, StorageError> {
        let mut numbers = Vec::new();
        for name in file::names_ending(folder, kind.ending)? {
            match name.strip_suffix(kind.ending).and_then(|number| u64::from_str_radix(number, 16).ok()) {
                Some(number) if file_name(kind, number) == name => numbers.push(number),
                _ => {
                    let reason = "the name is not one that this log gives".to_owned();
                    return Err(StorageError::Damaged {
                        path: folder.join(name),
                        offset: 0,
                        reason,
                        advice: kind.advice,
                    });
                }
            }
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Makes a file, durably. It takes records up to `size` bytes in total.
    pub fn create(folder: &Path, kind: &'static Kind, number: u64, size: u64) -> Result<Self, StorageError> {
        let path = folder.join(file_name(kind, number));
        file::publish(&path, |file| {
            file.write_all(&file_header(kind, number, size))?;
            // Not written, so it takes no space yet, and reads as zeros.
            file.set_len(size)
        })?;
        Self::open(folder, kind, number)
    }

    /// Opens a file and checks that it is the one it should be and has its size.
    pub fn open(folder: &Path, kind: &'static Kind, number: u64) -> Result<Self, StorageError> {
        let path = folder.join(file_name(kind, number));
        let file = OpenOptions::new().read(true).write(true).open(&path).map_err(|error| {
            if error.kind() == std::io::ErrorKind::NotFound {
                StorageError::Missing { path: path.clone(), advice: kind.advice }
            } else {
                StorageError::io("open", &path, error)
            }
        })?;
        let found_size = file.metadata().map_err(|error| StorageError::io("inspect", &path, error))?.len();
        let mut segment = Self { kind, file, path, number, size: found_size };
        if found_size < FILE_HEADER_BYTES {
            return Err(segment.damaged(found_size, "the file ends inside its header"));
        }
        let header: [u8; FILE_HEADER_BYTES as usize] = segment.read_array(0)?;
        let size = segment.check_file_header(&header)?;
        if size != found_size {
            return Err(
                segment.damaged(found_size.min(size), format!("the file has {found_size} bytes instead of {size}"))
            );
        }
        segment.size = size;
        Ok(segment)
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The number in its name.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Whether a record with a body of this length still fits behind `offset`.
    pub fn fits(&self, offset: u64, body_length: u64) -> bool {
        offset.saturating_add(record::record_length(body_length)) <= self.size
    }

    /// The longest body that a file of this size takes.
    pub fn body_length_max(size: u64) -> u64 {
        size.saturating_sub(FILE_HEADER_BYTES + HEADER_BYTES as u64 + ALIGNMENT)
    }

    /// Writes one record and makes it durable. Returns where the next one goes.
    pub fn append(&self, offset: u64, body: &[u8]) -> Result<u64, StorageError> {
        let too_large = || StorageError::TooLarge {
            path: self.path.clone(),
            size: body.len() as u64,
            size_max: Self::body_length_max(self.size),
        };
        if !self.fits(offset, body.len() as u64) {
            return Err(too_large());
        }
        let bytes = record::encode(self.place(offset), body).ok_or_else(too_large)?;
        self.file.write_all_at(&bytes, offset).map_err(|error| StorageError::io("append to", &self.path, error))?;
        self.file.sync_data().map_err(|error| StorageError::io("sync", &self.path, error))?;
        Ok(offset + bytes.len() as u64)
    }

    /// Reads the record at `offset`: its body and where the next one starts. Nothing if no record was written there.
    pub fn read(&self, offset: u64) -> Result<Option<(Vec<u8>, u64)>, StorageError> {
        let Some(header) = self.header(offset)? else { return Ok(None) };
        let tail = self.tail(offset, header)?;
        let body = header.body(&tail).ok_or_else(|| self.damaged(offset, "a record does not fit its checksum"))?;
        Ok(Some((body.to_vec(), offset + HEADER_BYTES as u64 + header.tail_length())))
    }

    /// Where the record after the one at `offset` starts, without reading the body. Nothing if there is none at `offset`.
    pub fn skip(&self, offset: u64) -> Result<Option<u64>, StorageError> {
        let header = self.header(offset)?;
        Ok(header.map(|header| offset + HEADER_BYTES as u64 + header.tail_length()))
    }

    /// Reads all records in order, and decides what the bytes behind the last whole one are.
    pub fn replay(
        &self,
        mut visit: impl FnMut(u64, &[u8]) -> Result<(), StorageError>,
    ) -> Result<Ending, StorageError> {
        let mut offset = Self::FIRST;
        while let Some(header) = self.header(offset)? {
            let tail = self.tail(offset, header)?;
            let next = offset + HEADER_BYTES as u64 + header.tail_length();
            match header.body(&tail) {
                Some(body) => visit(offset, body)?,
                None => return self.remains_of_record(offset, &tail, next),
            }
            offset = next;
        }
        let survey = self.survey(offset)?;
        if let Some(later) = survey.record_at {
            return Err(self.damaged(offset, format!("records are missing before the one at byte {later}")));
        }
        Ok(Ending { offset, remains_until: survey.written_until })
    }

    /// Overwrites the remains of an interrupted write with zeros, so that the next record starts on clean ground.
    pub fn cut(&self, ending: Ending) -> Result<(), StorageError> {
        let Some(until) = ending.remains_until else { return Ok(()) };
        let zeros = vec![0; SURVEY_BYTES];
        let mut offset = ending.offset;
        while offset < until {
            let count = usize::try_from(until - offset).unwrap_or(SURVEY_BYTES).min(SURVEY_BYTES);
            let piece = zeros.get(..count).unwrap_or_default();
            self.file.write_all_at(piece, offset).map_err(|error| StorageError::io("cut", &self.path, error))?;
            offset += count as u64;
        }
        self.file.sync_data().map_err(|error| StorageError::io("sync", &self.path, error))
    }

    /// An error that names this file and a place in it.
    pub fn damaged(&self, offset: u64, reason: impl Into<String>) -> StorageError {
        StorageError::Damaged { path: self.path.clone(), offset, reason: reason.into(), advice: self.kind.advice }
    }

    /// A record whose header is there and whose body is not: damage, unless a sector of it was never written and
    /// nothing follows.
    fn remains_of_record(&self, offset: u64, tail: &[u8], next: u64) -> Result<Ending, StorageError> {
        let torn = record::has_unwritten_sector(offset + HEADER_BYTES as u64, tail);
        if torn && self.survey(next)?.written_until.is_none() {
            return Ok(Ending { offset, remains_until: Some(next) });
        }
        Err(self.damaged(offset, "a record does not fit its checksum"))
    }

    fn header(&self, offset: u64) -> Result<Option<Header>, StorageError> {
        if offset.saturating_add(HEADER_BYTES as u64) > self.size {
            return Ok(None);
        }
        let cell = self.read_array(offset)?;
        match record::decode_header(self.place(offset), &cell) {
            HeaderCell::Empty => Ok(None),
            HeaderCell::Valid(header) if self.fits(offset, header.body_length()) => Ok(Some(header)),
            HeaderCell::Valid(_) => Err(self.damaged(offset, "a record reaches past the end of its file")),
            HeaderCell::Invalid => Err(self.damaged(offset, "no record starts here")),
        }
    }

    fn tail(&self, offset: u64, header: Header) -> Result<Vec<u8>, StorageError> {
        let length =
            usize::try_from(header.tail_length()).map_err(|_| self.damaged(offset, "the record is too long"))?;
        let mut tail = vec![0; length];
        self.read_exact(&mut tail, offset + HEADER_BYTES as u64)?;
        Ok(tail)
    }

    fn place(&self, offset: u64) -> Place {
        Place { file: self.number, offset }
    }

    fn read_exact(&self, buffer: &mut [u8], offset: u64) -> Result<(), StorageError> {
        self.file.read_exact_at(buffer, offset).map_err(|error| StorageError::io("read", &self.path, error))
    }

    fn read_array<const N: usize>(&self, offset: u64) -> Result<[u8; N], StorageError> {
        let mut bytes = [0; N];
        self.read_exact(&mut bytes, offset)?;
        Ok(bytes)
    }

    /// Looks through everything behind `offset`.
    fn survey(&self, mut offset: u64) -> Result<Survey, StorageError> {
        let mut survey = Survey { written_until: None, record_at: None };
        let mut buffer = vec![0; SURVEY_BYTES];
        while offset < self.size {
            let count = usize::try_from(self.size - offset).unwrap_or(SURVEY_BYTES).min(SURVEY_BYTES);
            let piece = buffer.get_mut(..count).unwrap_or_default();
            self.read_exact(piece, offset)?;
            if piece.iter().any(|byte| *byte != 0) {
                for (cell, bytes) in piece.chunks(HEADER_BYTES).enumerate() {
                    self.survey_cell(&mut survey, offset + (cell * HEADER_BYTES) as u64, bytes);
                }
            }
            offset += count as u64;
        }
        Ok(survey)
    }

    fn survey_cell(&self, survey: &mut Survey, offset: u64, bytes: &[u8]) {
        if bytes.iter().all(|byte| *byte == 0) {
            return;
        }
        survey.written_until = Some(offset + bytes.len() as u64);
        let header = bytes.first_chunk().map(|cell| record::decode_header(self.place(offset), cell));
        if let (None, Some(HeaderCell::Valid(_))) = (survey.record_at, header) {
            survey.record_at = Some(offset);
        }
    }

    fn check_file_header(&self, header: &[u8; FILE_HEADER_BYTES as usize]) -> Result<u64, StorageError> {
        let field = |from: usize| {
            header.get(from..).and_then(|rest| rest.first_chunk()).map_or(0, |bytes| u64::from_be_bytes(*bytes))
        };
        let (number, size) = (field(8), field(16));
        let format = header.get(7).copied().unwrap_or(0);
        let intact = file_header_with(self.kind, format, number, size) == *header;
        if !intact {
            return Err(self.damaged(0, "the header of the file does not fit its checksum"));
        }
        if format != FORMAT {
            return Err(StorageError::Format { path: self.path.clone(), found: format, expected: FORMAT });
        }
        if number != self.number {
            return Err(self.damaged(8, format!("the file is number {number:016x} under another name")));
        }
        Ok(size)
    }
}

#[cfg(test)]
impl Segment {
    /// From now on every write finds the disk full.
    pub fn fill_disk(&mut self) {
        self.file = OpenOptions::new().read(true).write(true).open("/dev/full").expect("every Linux has this device");
    }
}

/// What stands behind the last record.
struct Survey {
    written_until: Option<u64>,
    record_at: Option<u64>,
}

fn file_name(kind: &Kind, number: u64) -> String {
    format!("{number:016x}{ending}", ending = kind.ending)
}

fn file_header(kind: &Kind, number: u64, size: u64) -> [u8; FILE_HEADER_BYTES as usize] {
    file_header_with(kind, FORMAT, number, size)
}

fn file_header_with(kind: &Kind, format: u8, number: u64, size: u64) -> [u8; FILE_HEADER_BYTES as usize] {
    let mut bytes = Vec::with_capacity(FILE_HEADER_BYTES as usize);
    bytes.extend_from_slice(&kind.magic);
    bytes.push(format);
    bytes.extend_from_slice(&number.to_be_bytes());
    bytes.extend_from_slice(&size.to_be_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_be_bytes());
    bytes.first_chunk().copied().unwrap_or([0; FILE_HEADER_BYTES as usize])
}
