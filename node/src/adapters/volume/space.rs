//! How much of the volume is free, and how little is too little.

use std::{fmt, io, path::Path};

/// What a node leaves free: enough to end in order, and to write down what is on its way. Below it nothing is signed.
pub const RESERVE_BYTES: u64 = 64 << 20;
/// The volume runs full: the node says so while there is time to act.
const LOW_BYTES: u64 = 4 * RESERVE_BYTES;
/// The same as a share of the volume: one in so many bytes.
const LOW_SHARE: u64 = 10;

/// The file system of a folder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// Its size in bytes.
    pub total: u64,
    /// The bytes that this user can still write.
    pub available: u64,
}

/// What follows from the space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    /// Nothing.
    Roomy,
    /// A person should look.
    Low,
    /// Nothing is signed any more.
    Full,
}

impl Space {
    /// The file system of this folder.
    pub fn of(folder: &Path) -> io::Result<Self> {
        let found = fs4::statvfs(folder)?;
        Ok(Self { total: found.total_space(), available: found.available_space() })
    }

    /// What follows from it.
    #[must_use]
    pub fn fill(&self) -> Fill {
        if self.available < RESERVE_BYTES {
            Fill::Full
        } else if self.available < LOW_BYTES || self.available < self.total / LOW_SHARE {
            Fill::Low
        } else {
            Fill::Roomy
        }
    }

    /// True when a node that stopped because the volume was full may go on: not at the very byte at which it stopped.
    #[must_use]
    pub fn is_enough_again(&self) -> bool {
        self.available >= 2 * RESERVE_BYTES
    }
}

impl fmt::Display for Space {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} MiB of {} MiB are free", self.available >> 20, self.total >> 20)
    }
}

#[cfg(test)]
mod tests {
    use super::{Fill, Space};

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_volume_is_low_before_it_is_full() {
        let table = [
            (100_000, 50_000, Fill::Roomy),
            (100_000, 10_000, Fill::Roomy),
            (100_000, 9_999, Fill::Low),
            (1_000, 256, Fill::Roomy),
            (1_000, 255, Fill::Low),
            (1_000, 64, Fill::Low),
            (1_000, 63, Fill::Full),
            (1_000, 0, Fill::Full),
        ];
        for (total, available, expected) in table {
            let space = Space { total: total * MIB, available: available * MIB };
            assert_eq!(space.fill(), expected, "{space}");
            assert!(expected != Fill::Full || !space.is_enough_again(), "{space}");
        }
    }

    #[test]
    fn a_folder_has_a_file_system() {
        let space = Space::of(&std::env::temp_dir()).expect("it is there");
        assert!(space.total > 0 && space.available <= space.total, "{space}");
    }
}
