//! The gateway as a process: what clients see over REST, gRPC and streams, before real nodes that may fail.

#![expect(clippy::indexing_slicing, clippy::panic, reason = "a test may fail anywhere")]

mod authentication;
mod certificates;
mod companion;
mod connections;
mod discovery;
mod edge;
mod fake;
mod forwarding;
mod generated;
mod harness;
mod health;
mod light;
mod lost;
mod oidc;
mod retries;
mod strait;
mod submits;
mod together;
