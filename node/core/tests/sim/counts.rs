//! How often each fault and each way out of it happened: a simulation that never meets a fault proves nothing.

use std::collections::BTreeMap;

#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Counts(BTreeMap<&'static str, u64>);

/// What must have happened at least once over a whole run.
pub const REQUIRED: [&str; 60] = [
    "storms",
    "messages lost",
    "messages duplicated",
    "messages reordered",
    "partitions",
    "one-way partitions",
    "crashes between effects",
    "crashes of everybody",
    "unflushed entries lost",
    "restarts with a log to replay",
    "restarts in the same boot",
    "take-overs with a tripwire",
    "tripwires touched",
    "volumes rolled back",
    "grants that come late",
    "heights that a light client jumped to",
    "jumps that a light client refused",
    "forged sets shown to a light client",
    "decisions without a grant",
    "decisions with a stale grant",
    "volumes lost",
    "volumes copied, old process alive",
    "volumes copied, old process dead",
    "rotations that count",
    "objections executed",
    "silent proposals",
    "contradicting proposals",
    "contradicting votes",
    "evidence found",
    "late votes seen",
    "blocks caught up",
    "fresh nodes",
    "transfers executed",
    "rounds after the first",
    "rounds ended early",
    "heights",
    "keys retired",
    "identities contested",
    "keys lost while unable to object",
    "blocks judged invalid",
    "batches withheld",
    "batches asked for",
    "transactions durable",
    "voters added",
    "voters removed",
    "voters replaced",
    "voters with another key",
    "powers changed",
    "parameters changed",
    "changes that were too large",
    "changes that left too few voters",
    "old keys refused",
    "nodes recovered",
    "changes that too few signed",
    "signatures given twice",
    "nodes that halted alone",
    "nodes that halted again",
    "nodes that halted again over a block that they had",
    "chains that stand where too many differ",
    "blocks one millisecond after another",
];

/// A required count below this in a whole run may be missed by the next history that changes.
const RARE: u64 = 10;

impl Counts {
    pub fn add(&mut self, what: &'static str, count: u64) {
        *self.0.entry(what).or_default() += count;
    }

    pub fn merge(&mut self, other: &Self) {
        for (what, count) in &other.0 {
            self.add(what, *count);
        }
    }

    pub fn of(&self, what: &str) -> u64 {
        self.0.get(what).copied().unwrap_or_default()
    }

    pub fn missing(&self) -> Vec<&'static str> {
        REQUIRED.into_iter().filter(|what| self.of(what) == 0).collect()
    }

    /// What is required and did not happen often.
    pub fn rare(&self) -> Vec<&'static str> {
        REQUIRED.into_iter().filter(|what| self.of(what) < RARE).collect()
    }

    pub fn report(&self) -> String {
        self.0.iter().map(|(what, count)| format!("  {count:>9}  {what}\n")).collect()
    }
}
