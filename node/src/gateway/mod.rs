//! The gateway: the public entrance before the nodes, which authenticates, limits, forwards and caches. It has no state
//! that another gateway would miss.
//!
//! | module | holds |
//! |---|---|
//! | [`rules`] | the decisions, pure: buckets, breaker, probes, round robin |
//! | [`calls`], [`routes`] | the two tables: calls of the nodes that are offered, and the REST routes over them |
//! | [`entrance`] | what happens to every request before and after its handler |
//! | [`auth`], [`limits`], [`shared_limits`] | who somebody is and may do; how much they get |
//! | [`backends`] | the nodes: probes, choice, retry, deadlines |
//! | [`rest`], [`grpc`], [`feed`] | the handlers |
//! | [`launch`], [`serve`], [`readiness`] | the process |

pub mod auth;
pub mod backends;
pub mod bodies;
pub mod cache;
pub mod calls;
pub mod entrance;
pub mod feed;
#[cfg(test)]
mod fuzzed;
pub mod grpc;
pub mod json;
pub mod launch;
pub mod limits;
pub mod metrics;
pub mod openapi;
pub mod readiness;
pub mod refusal;
pub mod rest;
pub mod routes;
pub mod rules;
pub mod serve;
pub mod shared_limits;
pub mod shares;
pub mod state;
