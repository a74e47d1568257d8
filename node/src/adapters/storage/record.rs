//! The records of a log: bound to their place by checksums, and laid out so that a torn write can be told from damage.
//!
//! A record is a header of 16 bytes {magic, body length, checksum of the body, checksum of the header and its place}, the
//! body, zeros up to a multiple of 16, and one last byte that is never zero. Headers start at multiples of 16, so none
//! lies across two sectors. A file is made with all its bytes zero. From this follows what a crash in the middle of a
//! write can leave: sectors that were written and sectors that are still zero, nothing else. A record that does not fit
//! its checksum and has no zero sector was whole once, and is damaged.

/// Records begin at multiples of this.
pub const ALIGNMENT: u64 = 16;
/// The length of a header.
pub const HEADER_BYTES: usize = 16;
/// What a disk writes whole or not at all.
const SECTOR_BYTES: u64 = 512;
const MAGIC: [u8; 4] = *b"rec1";
const TRAILER: u8 = 0xa5;

/// Where a record stands. Part of its checksum: a record of another place or file is not valid here.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// The number of the file.
    pub file: u64,
    /// The offset of the header in the file.
    pub offset: u64,
}

/// What a valid header says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Header {
    length: u32,
    checksum: u32,
}

/// What stands where a header may stand.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum HeaderCell {
    /// Nothing was written here.
    Empty,
    /// A record starts here.
    Valid(Header),
    /// Something that nobody wrote here.
    Invalid,
}

impl Header {
    /// The length of the body in bytes.
    pub fn body_length(self) -> u64 {
        u64::from(self.length)
    }

    /// The bytes after the header: body, zeros, last byte.
    pub fn tail_length(self) -> u64 {
        tail_length(self.body_length())
    }

    /// The body, if these bytes after the header are what was written.
    pub fn body(self, tail: &[u8]) -> Option<&[u8]> {
        let (body, padding) = tail.split_at_checked(usize::try_from(self.length).ok()?)?;
        let (last, zeros) = padding.split_last()?;
        let intact = *last == TRAILER && zeros.iter().all(|byte| *byte == 0) && crc32c::crc32c(body) == self.checksum;
        intact.then_some(body)
    }
}

/// The length of a record with a body of this length.
pub fn record_length(body_length: u64) -> u64 {
    HEADER_BYTES as u64 + tail_length(body_length)
}

fn tail_length(body_length: u64) -> u64 {
    // At least one byte for the trailer.
    (body_length / ALIGNMENT + 1) * ALIGNMENT
}

/// The bytes of a record for this place.
pub fn encode(place: Place, body: &[u8]) -> Option<Vec<u8>> {
    let length = u32::try_from(body.len()).ok()?;
    let total = usize::try_from(record_length(u64::from(length))).ok()?;
    let header = Header { length, checksum: crc32c::crc32c(body) };
    let mut bytes = Vec::with_capacity(total);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&header.length.to_be_bytes());
    bytes.extend_from_slice(&header.checksum.to_be_bytes());
    bytes.extend_from_slice(&header_checksum(place, header).to_be_bytes());
    bytes.extend_from_slice(body);
    bytes.resize(total - 1, 0);
    bytes.push(TRAILER);
    Some(bytes)
}

/// Reads what stands at this place.
pub fn decode_header(place: Place, cell: &[u8; HEADER_BYTES]) -> HeaderCell {
    if cell.iter().all(|byte| *byte == 0) {
        return HeaderCell::Empty;
    }
    let [m0, m1, m2, m3, l0, l1, l2, l3, c0, c1, c2, c3, h0, h1, h2, h3] = *cell;
    let header =
        Header { length: u32::from_be_bytes([l0, l1, l2, l3]), checksum: u32::from_be_bytes([c0, c1, c2, c3]) };
    let valid = [m0, m1, m2, m3] == MAGIC && u32::from_be_bytes([h0, h1, h2, h3]) == header_checksum(place, header);
    if valid { HeaderCell::Valid(header) } else { HeaderCell::Invalid }
}

/// Whether a part of these bytes, which start at `offset` of the file, is a sector (or the piece of one) that is still
/// zero. The first piece shares its sector with the header, which is there, so it does not count.
pub fn has_unwritten_sector(offset: u64, bytes: &[u8]) -> bool {
    let shared = usize::try_from((SECTOR_BYTES - offset % SECTOR_BYTES) % SECTOR_BYTES).unwrap_or(0);
    bytes
        .get(shared..)
        .unwrap_or_default()
        .chunks(SECTOR_BYTES as usize)
        .any(|piece| piece.iter().all(|byte| *byte == 0))
}

fn header_checksum(place: Place, header: Header) -> u32 {
    let checksum = crc32c::crc32c(&MAGIC);
    let checksum = crc32c::crc32c_append(checksum, &place.file.to_be_bytes());
    let checksum = crc32c::crc32c_append(checksum, &place.offset.to_be_bytes());
    let checksum = crc32c::crc32c_append(checksum, &header.length.to_be_bytes());
    crc32c::crc32c_append(checksum, &header.checksum.to_be_bytes())
}
