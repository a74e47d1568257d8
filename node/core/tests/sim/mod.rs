//! A simulator: whole networks of the real engine on a virtual clock, network and disk, from one seed each.
//!
//! The engine, the signer, the ledger and the rules of clearance are the ones that run in production; clock, network,
//! disk, operator and everything that goes wrong are made up from the seed. Checkers look at every effect.

pub mod absence;
pub mod chaos;
pub mod checks;
pub mod clearing;
pub mod clocks;
pub mod contested;
pub mod counts;
pub mod dice;
pub mod differing;
pub mod every_effect;
pub mod light;
pub mod members;
pub mod people;
pub mod perform;
pub mod plan;
pub mod process;
pub mod recovering;
pub mod sets;
pub mod usurping;
pub mod volume;
pub mod world;
