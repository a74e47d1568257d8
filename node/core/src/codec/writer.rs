//! Writing of the fixed layout.

/// A growing buffer in the fixed layout.
#[derive(Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// An empty buffer.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty buffer with room for so many bytes.
    #[must_use]
    pub fn with_room(bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes) }
    }

    /// Appends bytes as they are, without a length.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Appends one byte.
    pub fn u8(&mut self, value: u8) {
        self.bytes.push(value);
    }

    /// Appends a big-endian 16-bit integer.
    pub fn u16(&mut self, value: u16) {
        self.raw(&value.to_be_bytes());
    }

    /// Appends a big-endian 32-bit integer.
    pub fn u32(&mut self, value: u32) {
        self.raw(&value.to_be_bytes());
    }

    /// Appends a big-endian 64-bit integer.
    pub fn u64(&mut self, value: u64) {
        self.raw(&value.to_be_bytes());
    }

    /// Appends a length as a `u32`.
    pub fn length(&mut self, length: usize) {
        self.u32(u32::try_from(length).expect("every list in memory is bounded far below 2^32 entries"));
    }

    /// Appends bytes after their `u32` length.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.length(bytes.len());
        self.raw(bytes);
    }

    /// Appends the entries of a list after their `u32` count.
    pub fn list<T: Encode>(&mut self, entries: &[T]) {
        self.length(entries.len());
        for entry in entries {
            entry.encode_to(self);
        }
    }

    /// Appends `0`, or `1` and the value.
    pub fn option<T: Encode>(&mut self, value: Option<&T>) {
        match value {
            None => self.u8(0),
            Some(value) => {
                self.u8(1);
                value.encode_to(self);
            }
        }
    }

    /// The bytes written so far.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// A value with exactly one encoding in the fixed layout.
pub trait Encode {
    /// Appends the encoding of this value.
    fn encode_to(&self, writer: &mut Writer);

    /// About how many bytes the encoding has, so that it is written without moving it.
    fn room(&self) -> usize {
        256
    }

    /// The encoding of this value.
    fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::with_room(self.room());
        self.encode_to(&mut writer);
        writer.into_bytes()
    }
}

impl<T: Encode> Encode for std::sync::Arc<T> {
    fn encode_to(&self, writer: &mut Writer) {
        T::encode_to(self, writer);
    }

    fn room(&self) -> usize {
        T::room(self)
    }
}
