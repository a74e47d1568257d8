//! Fuzz targets as plain functions over bytes: one for each decoder of what peers, clients, people and disks bring.
//!
//! A target fails by a panic, by an assertion or by taking much memory. `make test` replays the committed inputs, each as
//! it is and mutated; `make fuzz` lets cargo-fuzz look for others. An input that once broke something is added to the
//! folder of its target in `testdata/fuzz`.

mod chain;
mod inputs;
mod made;
mod texts;

#[cfg(test)]
mod tests;

pub use inputs::{mutated, seeds};

/// One decoder.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, and that of the folder of its inputs.
    pub name: &'static str,
    /// Frozen files of `node-core` that are inputs as well, or of which some are made: those of this name, or that start
    /// with it and a hyphen.
    pub frozen: &'static str,
    /// Decodes these bytes; what decodes is checked.
    pub run: fn(&[u8]),
}

/// Every target.
pub fn targets() -> impl Iterator<Item = &'static Target> {
    chain::TARGETS.iter().chain(texts::TARGETS).chain(crate::adapters::storage::fuzzed::TARGETS)
}
