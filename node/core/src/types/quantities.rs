//! Quantities of the chain as types of their own, so that a height never passes for a nonce.

use std::fmt;

use crate::codec::{Decode, DecodeError, Encode, Reader, Writer};

macro_rules! quantity {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub struct $name(u64);

        impl $name {
            /// Zero.
            pub const ZERO: Self = Self(0);

            /// From a plain number.
            #[must_use]
            pub const fn new(value: u64) -> Self {
                Self(value)
            }

            /// As a plain number.
            #[must_use]
            pub const fn get(self) -> u64 {
                self.0
            }

            /// The sum, or nothing where it does not fit.
            #[must_use]
            pub fn checked_add(self, other: u64) -> Option<Self> {
                self.0.checked_add(other).map(Self)
            }

            /// The difference, or nothing where it would be negative.
            #[must_use]
            pub fn checked_sub(self, other: u64) -> Option<Self> {
                self.0.checked_sub(other).map(Self)
            }

            /// The sum, or the largest value where it does not fit.
            #[must_use]
            pub const fn saturating_add(self, other: u64) -> Self {
                Self(self.0.saturating_add(other))
            }

            /// The difference, or zero where it would be negative.
            #[must_use]
            pub const fn saturating_sub(self, other: u64) -> Self {
                Self(self.0.saturating_sub(other))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl Encode for $name {
            fn encode_to(&self, writer: &mut Writer) {
                writer.u64(self.0);
            }
        }

        impl Decode for $name {
            fn decode_from(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
                Ok(Self(reader.u64(stringify!($name))?))
            }
        }
    };
}

quantity! {
    /// The number of a block. Genesis state has height 0, the first block height 1.
    Height
}
quantity! {
    /// The number of a session key of one identity. Only grows, also across removal and return.
    Epoch
}
quantity! {
    /// The weight of a voter.
    Power
}
quantity! {
    /// The number of transactions that an account has made.
    Nonce
}
quantity! {
    /// An amount of the chain's only asset, in its smallest unit.
    Amount
}
quantity! {
    /// A moment in milliseconds since the Unix epoch.
    TimeMs
}

impl Height {
    /// The height after this one. The last one of all has none after it: it stays.
    #[must_use]
    pub const fn next(self) -> Self {
        self.saturating_add(1)
    }
}

impl Epoch {
    /// The epoch of every session key in genesis.
    pub const FIRST: Self = Self(1);
}

/// A round of one height, from 0.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Round(u32);

impl Round {
    /// The first round of a height.
    pub const ZERO: Self = Self(0);

    /// From a plain number.
    #[must_use]
    pub const fn new(value: u32) -> Self {
        Self(value)
    }

    /// As a plain number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Encode for Round {
    fn encode_to(&self, writer: &mut Writer) {
        writer.u32(self.0);
    }
}

impl Decode for Round {
    fn decode_from(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self(reader.u32("Round")?))
    }
}
