//! The rules of the gateway as pure state machines: time is an input, nothing waits, nothing reads a clock.
//!
//! | module | decides |
//! |---|---|
//! | [`rate`], [`callers`] | whether a caller has tokens left, for many callers in bounded memory |
//! | [`breaker`], [`probes`] | whether a backend may be called, and when it is probed |
//! | [`discovery`] | when names are looked up |
//! | [`wheel`] | which backend is next |
//! | [`address`] | which address a request comes from |

pub mod address;
pub mod breaker;
pub mod callers;
pub mod discovery;
pub mod probes;
pub mod rate;
pub mod wheel;
