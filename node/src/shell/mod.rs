//! The shell around the core: one main loop that owns everything that changes, and the tasks that feed it.
//!
//! [`launch`] takes the volume's lock, opens what is on it, and starts the tasks: the peer port, the dialers, the node
//! API, the HTTP port, and the [`main_loop`]. The main loop first lives through the genesis [`ceremony`]; then the chain
//! is [`running`]: it feeds the engine and [`perform`]s its effects strictly in order, disk before wire.

pub mod absence;
pub mod batch_storage;
pub mod ceremony;
mod ending;
mod events;
mod fetching;
pub mod handle;
pub mod health;
mod joining;
pub mod launch;
pub mod lifecycle;
pub mod main_loop;
pub mod perform;
pub mod precommits;
pub mod question;
pub mod receipts;
pub mod recovering;
mod replies;
pub mod report;
pub mod running;
mod sealed;
pub mod serving;
pub mod sessions;
pub mod space;
pub mod startup;
pub mod state;
pub mod submission;
pub mod timers;
pub mod verifier;
pub mod view;
mod waits;
pub mod watched;
