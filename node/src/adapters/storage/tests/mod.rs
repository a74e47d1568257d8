//! Tests of everything that a node keeps on its volume: each store by itself, then disasters.

mod batches;
mod blocks;
mod chain;
mod consensus_log;
mod disasters;
mod documents;
mod events;
mod formats;
mod rebuild;
mod state;
