//! The fixed, canonical, bounded layout of everything that is hashed, signed or stored.
//!
//! Integers are big-endian and of fixed width, lists and strings carry a `u32` length that is checked against a maximum
//! of their own before anything is allocated, options are one byte `0` or `1`, variants are one tag byte, and every
//! document starts with a version byte. A value has exactly one encoding; bytes left over after decoding are an error.

mod reader;
mod writer;

pub use reader::{Decode, DecodeError, Reader};
pub use writer::{Encode, Writer};

#[cfg(test)]
mod frozen;
#[cfg(test)]
mod samples;
#[cfg(test)]
mod tests;
