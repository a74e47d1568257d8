//! Effects of one step in their only safe order: log entries, one flush, then everything that relies on them.

use std::sync::Arc;

use super::effect::Effect;
use crate::types::{Height, PeerMessage};

/// Collects effects. What relies on the log is held back until the log is flushed, so that all entries of a step share
/// one flush.
#[derive(Debug, Default)]
pub struct Outbox {
    done: Vec<Effect>,
    entries: Vec<Effect>,
    held: Vec<Effect>,
    /// Entries were appended since the last flush, in this step or an earlier one.
    unflushed: bool,
    /// Something held back relies on them.
    relies: bool,
    /// A test lets messages leave before the log is flushed.
    never_flush: bool,
}

impl Outbox {
    /// An empty one. `never_flush` is for a test.
    pub fn new(never_flush: bool) -> Self {
        Self { never_flush, ..Self::default() }
    }

    /// Appends an entry to the log.
    pub fn append(&mut self, entry: Vec<u8>) {
        self.entries.push(Effect::AppendLog(entry));
        self.unflushed = true;
    }

    /// An effect that relies on nothing.
    pub fn push(&mut self, effect: Effect) {
        self.held.push(effect);
    }

    /// A message to all that promises what the log holds.
    pub fn promise(&mut self, message: PeerMessage) {
        self.relies = true;
        self.held.push(Effect::Broadcast(Arc::new(message)));
    }

    /// A block is final: the log is flushed before it is committed.
    pub fn commit(&mut self, effect: Effect) {
        self.relies = true;
        self.held.push(effect);
        self.settle();
    }

    /// Replaces the log. Everything before comes first.
    pub fn reset_log(&mut self, height: Height, first: Vec<u8>) {
        self.settle();
        self.unflushed = false;
        self.done.push(Effect::ResetLog { height, first });
    }

    fn settle(&mut self) {
        self.done.append(&mut self.entries);
        if self.relies && self.unflushed && !self.never_flush {
            self.done.push(Effect::FlushLog);
            self.unflushed = false;
        }
        self.relies = false;
        self.done.append(&mut self.held);
    }

    /// All effects so far, in order.
    pub fn take(&mut self) -> Vec<Effect> {
        self.settle();
        std::mem::take(&mut self.done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(effects: &[Effect]) -> Vec<&'static str> {
        let name = |effect: &Effect| match effect {
            Effect::AppendLog(_) => "append",
            Effect::FlushLog => "flush",
            Effect::ResetLog { .. } => "reset",
            Effect::Broadcast(_) => "broadcast",
            _ => "other",
        };
        effects.iter().map(name).collect()
    }

    fn status() -> PeerMessage {
        PeerMessage::Status { height: Height::ZERO }
    }

    #[test]
    fn one_flush_covers_all_entries_of_a_step() {
        let mut out = Outbox::default();
        out.promise(status());
        out.append(vec![1]);
        out.promise(status());
        out.append(vec![2]);
        assert_eq!(names(&out.take()), ["append", "append", "flush", "broadcast", "broadcast"]);
    }

    #[test]
    fn entries_of_an_earlier_step_are_flushed_before_a_promise() {
        let mut out = Outbox::default();
        out.append(vec![1]);
        assert_eq!(names(&out.take()), ["append"]);
        out.promise(status());
        assert_eq!(names(&out.take()), ["flush", "broadcast"]);
        out.promise(status());
        assert_eq!(names(&out.take()), ["broadcast"]);
    }

    #[test]
    fn nothing_passes_a_reset_of_the_log() {
        let mut out = Outbox::default();
        out.append(vec![1]);
        out.promise(status());
        out.reset_log(Height::new(2), vec![]);
        out.append(vec![2]);
        out.promise(status());
        assert_eq!(names(&out.take()), ["append", "flush", "broadcast", "reset", "append", "flush", "broadcast"]);
    }
}
