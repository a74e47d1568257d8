//! The W3C `traceparent` that calls carry, so that one request can be followed through all nodes.

use std::{fmt, str::FromStr};

use rand::RngCore;
use thiserror::Error;

/// Name of the header and of the gRPC metadata key.
pub const TRACEPARENT: &str = "traceparent";

/// A position in a trace: `00-<trace id>-<parent id>-<flags>`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceParent {
    trace_id: [u8; 16],
    parent_id: [u8; 8],
    flags: u8,
}

/// A text that is no `traceparent` of version 00.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("not a W3C traceparent: 00-<32 hex digits, not all 0>-<16 hex digits, not all 0>-<2 hex digits>")]
pub struct TraceParentError;

impl TraceParent {
    /// The start of a new sampled trace.
    pub fn start() -> Self {
        let mut trace_id = [0; 16];
        rand::rng().fill_bytes(&mut trace_id);
        // All zero is not valid.
        trace_id = if trace_id == [0; 16] { [1; 16] } else { trace_id };
        Self { trace_id, parent_id: new_parent_id(), flags: 1 }
    }

    /// The same trace with a new parent, for the calls that this process makes.
    #[must_use]
    pub fn child(&self) -> Self {
        Self { parent_id: new_parent_id(), ..*self }
    }

    /// The trace id as 32 hex digits, for logs.
    pub fn trace_id(&self) -> String {
        hex::encode(self.trace_id)
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "00-{}-{}-{:02x}", hex::encode(self.trace_id), hex::encode(self.parent_id), self.flags)
    }
}

impl fmt::Debug for TraceParent {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl FromStr for TraceParent {
    type Err = TraceParentError;

    fn from_str(text: &str) -> Result<Self, TraceParentError> {
        if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(TraceParentError);
        }
        let parts: Vec<&str> = text.split('-').collect();
        let ["00", trace, parent, flags] = parts.as_slice() else { return Err(TraceParentError) };
        let (mut trace_id, mut parent_id, mut flag) = ([0; 16], [0; 8], [0; 1]);
        let decoded = hex::decode_to_slice(trace, &mut trace_id)
            .and_then(|()| hex::decode_to_slice(parent, &mut parent_id))
            .and_then(|()| hex::decode_to_slice(flags, &mut flag));
        if decoded.is_err() || trace_id == [0; 16] || parent_id == [0; 8] {
            return Err(TraceParentError);
        }
        let [flags] = flag;
        Ok(Self { trace_id, parent_id, flags })
    }
}

fn new_parent_id() -> [u8; 8] {
    let mut parent_id = [0; 8];
    rand::rng().fill_bytes(&mut parent_id);
    if parent_id == [0; 8] { [1; 8] } else { parent_id }
}
