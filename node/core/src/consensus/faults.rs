//! Rules that a test may switch off, to prove that its checkers notice. Nothing but a test can reach them.

/// Which rules are broken. The default breaks none.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Faults {
    /// Messages leave before the log is flushed.
    pub log_not_flushed: bool,
    /// Votes for what is proposed, whatever it is locked on.
    pub lock_ignored: bool,
    /// More than one third decides.
    pub quorum_of_one_third: bool,
    /// Goes on with the old session key after its successor counts.
    pub old_key_kept: bool,
    /// Signs whatever it is asked to, without looking at the record.
    pub record_ignored: bool,
    /// Acknowledges a batch that is not durable yet.
    pub acknowledged_early: bool,
    /// Tells clients that their transactions are durable when it alone has stored them.
    pub durable_alone: bool,
    /// Forgets at a restart what it said before in this height.
    pub replay_skipped: bool,
    /// Takes what a block changes of the voters for the next height already.
    pub changes_count_at_once: bool,
    /// Signs for the incarnation that ends after it has accepted a recovery.
    pub old_incarnation_kept: bool,
    /// Gives blocks the time of its clock and takes those of others whatever their time.
    pub time_unchecked: bool,
    /// Takes blocks that name other results than its own.
    pub results_unchecked: bool,
    /// Forgets at a restart which final headers it has not compared with its own results yet.
    pub headers_forgotten: bool,
}
