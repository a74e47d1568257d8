//! Reading of the fixed layout: bounded, canonical, never panics.

use thiserror::Error;

use super::Encode;

/// Why bytes are not the encoding of a value.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum DecodeError {
    /// The bytes end before the value does.
    #[error("the bytes end inside {field}")]
    UnexpectedEnd {
        /// The field that was being read.
        field: &'static str,
    },
    /// Bytes are left over after the value.
    #[error("{count} bytes are left over")]
    TrailingBytes {
        /// How many.
        count: usize,
    },
    /// A length exceeds the maximum of its field.
    #[error("{field} has length {found}, the maximum is {max}")]
    TooLong {
        /// The field.
        field: &'static str,
        /// The length that was read.
        found: usize,
        /// The largest length allowed.
        max: usize,
    },
    /// A variant, option or boolean byte that is not known.
    #[error("{field} has unknown tag {found}")]
    UnknownTag {
        /// The field.
        field: &'static str,
        /// The byte that was read.
        found: u8,
    },
    /// A version that this build does not read.
    #[error("{document} has unsupported version {found}")]
    UnsupportedVersion {
        /// The kind of document.
        document: &'static str,
        /// The version that was read.
        found: u8,
    },
    /// The layout is right, the value is not allowed.
    #[error("{field} is invalid: {reason}")]
    Invalid {
        /// The field.
        field: &'static str,
        /// Which rule it breaks.
        reason: String,
    },
}

impl DecodeError {
    /// A value that breaks a rule of its type.
    pub fn invalid(field: &'static str, reason: impl ToString) -> Self {
        Self::Invalid { field, reason: reason.to_string() }
    }
}

/// A position in bytes that are being decoded.
#[derive(Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts at the first of these bytes.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// How many bytes are left.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// The bytes that are left; after a value was read, its own bytes are what is no longer left.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next `count` bytes.
    pub fn raw(&mut self, field: &'static str, count: usize) -> Result<&'a [u8], DecodeError> {
        let (head, tail) = self.rest.split_at_checked(count).ok_or(DecodeError::UnexpectedEnd { field })?;
        self.rest = tail;
        Ok(head)
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DecodeError> {
        let (head, tail) = self.rest.split_first_chunk::<N>().ok_or(DecodeError::UnexpectedEnd { field })?;
        self.rest = tail;
        Ok(*head)
    }

    /// One byte.
    pub fn u8(&mut self, field: &'static str) -> Result<u8, DecodeError> {
        Ok(u8::from_be_bytes(self.array(field)?))
    }

    /// A big-endian 16-bit integer.
    pub fn u16(&mut self, field: &'static str) -> Result<u16, DecodeError> {
        Ok(u16::from_be_bytes(self.array(field)?))
    }

    /// A big-endian 32-bit integer.
    pub fn u32(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        Ok(u32::from_be_bytes(self.array(field)?))
    }

    /// A big-endian 64-bit integer.
    pub fn u64(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        Ok(u64::from_be_bytes(self.array(field)?))
    }

    /// A `u32` length of at most `max`.
    pub fn length(&mut self, field: &'static str, max: usize) -> Result<usize, DecodeError> {
        let found = usize::try_from(self.u32(field)?).unwrap_or(usize::MAX);
        if found > max { Err(DecodeError::TooLong { field, found, max }) } else { Ok(found) }
    }

    /// At most `max` bytes after their `u32` length.
    pub fn bytes(&mut self, field: &'static str, max: usize) -> Result<&'a [u8], DecodeError> {
        let length = self.length(field, max)?;
        self.raw(field, length)
    }

    /// At most `max` entries after their `u32` count.
    pub fn list<T: Decode>(&mut self, field: &'static str, max: usize) -> Result<Vec<T>, DecodeError> {
        let count = self.length(field, max)?;
        // No allocation beyond what the bytes at hand can hold: every entry takes at least one byte.
        let mut entries = Vec::with_capacity(count.min(self.remaining()).min(1024));
        for _ in 0..count {
            entries.push(T::decode_from(self)?);
        }
        Ok(entries)
    }

    /// A value after the byte `1`, nothing after the byte `0`.
    pub fn option<T: Decode>(&mut self, field: &'static str) -> Result<Option<T>, DecodeError> {
        match self.u8(field)? {
            0 => Ok(None),
            1 => Ok(Some(T::decode_from(self)?)),
            found => Err(DecodeError::UnknownTag { field, found }),
        }
    }

    /// A version byte that must be `expected`.
    pub fn version(&mut self, document: &'static str, expected: u8) -> Result<(), DecodeError> {
        match self.u8(document)? {
            found if found == expected => Ok(()),
            found => Err(DecodeError::UnsupportedVersion { document, found }),
        }
    }

    /// Nothing may be left.
    pub fn finish(self) -> Result<(), DecodeError> {
        match self.rest.len() {
            0 => Ok(()),
            count => Err(DecodeError::TrailingBytes { count }),
        }
    }
}

/// A value that can be read back from its one encoding.
pub trait Decode: Encode + Sized {
    /// Reads one value and leaves what follows it.
    fn decode_from(reader: &mut Reader<'_>) -> Result<Self, DecodeError>;

    /// Reads one value that must be all there is.
    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let value = Self::decode_from(&mut reader)?;
        reader.finish()?;
        Ok(value)
    }
}

impl<T: Decode> Decode for std::sync::Arc<T> {
    fn decode_from(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        T::decode_from(reader).map(Self::new)
    }
}
