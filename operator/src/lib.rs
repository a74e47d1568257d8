//! The operator of Althing networks: three kinds, one reconcile shape, one writer.
//!
//! `observe` (reads) → `validate` (pure) → `desired` (pure) → `apply` (the only writer) → `status` (pure).
//!
//! | folder or file | is |
//! |---|---|
//! | `network/`, `group/`, `validator/` | one kind each, with the same files in each |
//! | `parts/` | pure builders of children |
//! | `budget/` | how much power may be taken away on purpose: every disruption asks it |
//! | `rollover/` | which certificate authority signs, which ones are trusted, when the next step is safe |
//! | `issuer/` | certificates from an issuer of cert-manager: what it is asked, what of its answers is used |
//! | `chain/` | the nodes' answers and what they add up to |
//! | `apply.rs`, `kinds.rs` | the only writer, and whose a child is |
//! | `watches.rs`, `news.rs`, `memory.rs`, `context.rs` | caches, what of their changes is looked at, and what a reconcile may use |
//! | `faults/` | faults between operator and API server, for tests only |
//! | `run.rs`, `lease.rs`, `http.rs`, `metrics.rs`, `events.rs` | the process around it |

pub mod apply;
pub mod authorities;
pub mod budget;
pub mod bundles;
pub mod certificates;
pub mod chain;
pub mod config;
pub mod context;
pub mod error;
pub mod events;
pub mod faults;
pub mod group;
pub mod http;
pub mod issuer;
pub mod kinds;
pub mod lease;
pub mod memory;
pub mod metrics;
pub mod network;
pub mod news;
pub mod parts;
pub mod pause;
pub mod prints;
pub mod readings;
pub mod reconcile;
pub mod references;
pub mod refusal;
pub mod rollover;
pub mod run;
#[cfg(test)]
mod states;
pub mod validator;
pub mod watches;
