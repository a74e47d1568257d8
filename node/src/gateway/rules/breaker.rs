//! The circuit breaker of one backend: five failures in a row open it, 30 s later three trials decide.

/// Failures in a row that open the breaker.
pub const FAILURES_MAX: u32 = 5;
/// How long it stays open, in milliseconds.
pub const OPEN_MS: u64 = 30_000;
/// Trials that must succeed before it closes again.
pub const TRIALS: u32 = 3;

/// What the breaker lets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// Everything.
    Closed,
    /// Nothing.
    Open,
    /// A few trials.
    HalfOpen,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed { failures: u32 },
    Open { until_ms: u64 },
    HalfOpen { running: u32, succeeded: u32 },
}

/// The breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Breaker {
    state: State,
    /// Counts changes of position: the result of a call that began before the last change says nothing about now.
    turn: u64,
}

/// The right to make one call. Give it back with its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    turn: u64,
}

/// How a call ended, as far as the backend is to blame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallResult {
    /// It answered.
    Answered,
    /// It did not, or said that it cannot.
    Failed,
    /// The caller went away before.
    Abandoned,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { state: State::Closed { failures: 0 }, turn: 0 }
    }
}

impl Breaker {
    /// Whether [`Breaker::admit`] would admit a call now.
    pub const fn would_admit(&self, now_ms: u64) -> bool {
        match self.state {
            State::Closed { .. } => true,
            State::Open { until_ms } => now_ms >= until_ms,
            State::HalfOpen { running, succeeded } => running + succeeded < TRIALS,
        }
    }

    /// Asks for one call.
    pub fn admit(&mut self, now_ms: u64) -> Option<Ticket> {
        if !self.would_admit(now_ms) {
            return None;
        }
        match &mut self.state {
            State::Closed { .. } => {}
            State::Open { .. } => self.turn_to(State::HalfOpen { running: 1, succeeded: 0 }),
            State::HalfOpen { running, .. } => *running += 1,
        }
        Some(Ticket { turn: self.turn })
    }

    /// Tells how an admitted call ended.
    pub fn settle(&mut self, ticket: Ticket, result: CallResult, now_ms: u64) {
        if ticket.turn != self.turn {
            return;
        }
        let open = State::Open { until_ms: now_ms.saturating_add(OPEN_MS) };
        match (self.state, result) {
            (State::Closed { .. }, CallResult::Answered) => self.state = State::Closed { failures: 0 },
            (State::Closed { failures }, CallResult::Failed) if failures + 1 < FAILURES_MAX => {
                self.state = State::Closed { failures: failures + 1 };
            }
            (State::Closed { .. } | State::HalfOpen { .. }, CallResult::Failed) => self.turn_to(open),
            (State::HalfOpen { succeeded, .. }, CallResult::Answered) if succeeded + 1 >= TRIALS => {
                self.turn_to(State::Closed { failures: 0 });
            }
            (State::HalfOpen { running, succeeded }, CallResult::Answered) => {
                self.state = State::HalfOpen { running: running.saturating_sub(1), succeeded: succeeded + 1 };
            }
            (State::HalfOpen { running, succeeded }, CallResult::Abandoned) => {
                self.state = State::HalfOpen { running: running.saturating_sub(1), succeeded };
            }
            // Nothing runs under the ticket of an open breaker.
            (State::Closed { .. }, CallResult::Abandoned) | (State::Open { .. }, _) => {}
        }
    }

    /// Where it stands.
    pub const fn position(&self) -> Position {
        match self.state {
            State::Closed { .. } => Position::Closed,
            State::Open { .. } => Position::Open,
            State::HalfOpen { .. } => Position::HalfOpen,
        }
    }

    fn turn_to(&mut self, state: State) {
        self.state = state;
        self.turn += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::{Breaker, CallResult, OPEN_MS, Position, TRIALS, Ticket};

    /// One step of an exhaustive run.
    #[derive(Clone, Copy)]
    enum Step {
        Admit,
        Settle(CallResult),
        SettleOldest(CallResult),
        Wait,
    }

    const STEPS: [Step; 7] = [
        Step::Admit,
        Step::Settle(CallResult::Answered),
        Step::Settle(CallResult::Failed),
        Step::Settle(CallResult::Abandoned),
        Step::SettleOldest(CallResult::Answered),
        Step::SettleOldest(CallResult::Failed),
        Step::Wait,
    ];

    /// Every sequence of `depth` steps after `before`, with what must hold after each step.
    fn explore(breaker: Breaker, tickets: &[Ticket], now_ms: u64, depth: u32, visited: &mut u64) {
        *visited += 1;
        let trials = tickets.iter().filter(|ticket| ticket.turn == breaker.turn).count() as u32;
        if breaker.position() == Position::HalfOpen {
            assert!(trials <= TRIALS, "more than {TRIALS} trials at one time");
        }
        if breaker.position() == Position::Open {
            assert_eq!(trials, 0, "a call runs under an open breaker's turn");
        }
        if depth == 0 {
            return;
        }
        for step in STEPS {
            let (mut next, mut left, mut now_ms) = (breaker, tickets.to_vec(), now_ms);
            match step {
                Step::Admit => match next.admit(now_ms) {
                    Some(ticket) => left.push(ticket),
                    None => assert_eq!(next, breaker, "a refusal changes nothing"),
                },
                Step::Settle(result) => match left.pop() {
                    Some(ticket) => next.settle(ticket, result, now_ms),
                    None => continue,
                },
                Step::SettleOldest(result) => match left.is_empty() {
                    false => next.settle(left.remove(0), result, now_ms),
                    true => continue,
                },
                Step::Wait => now_ms += OPEN_MS,
            }
            if breaker.position() == Position::Open && next.position() == Position::Closed {
                panic!("from open to closed without a trial");
            }
            explore(next, &left, now_ms, depth - 1, visited);
        }
    }

    fn opened() -> Breaker {
        let mut breaker = Breaker::default();
        for _ in 0..5 {
            assert_eq!(breaker.position(), Position::Closed);
            let ticket = breaker.admit(0).expect("a closed breaker admits");
            breaker.settle(ticket, CallResult::Failed, 0);
        }
        breaker
    }

    #[test]
    fn every_sequence_of_eight_steps_keeps_the_bounds() {
        let mut visited = 0;
        explore(Breaker::default(), &[], 0, 8, &mut visited);
        explore(opened(), &[], OPEN_MS, 8, &mut visited);
        assert!(visited > 100_000, "explored only {visited} states");
    }

    #[test]
    fn five_failures_in_a_row_open_it_for_thirty_seconds() {
        let mut breaker = opened();
        assert_eq!((breaker.position(), breaker.admit(OPEN_MS - 1)), (Position::Open, None));
        assert!(breaker.admit(OPEN_MS).is_some());
        assert_eq!(breaker.position(), Position::HalfOpen);
    }

    #[test]
    fn an_answer_between_failures_starts_the_count_anew() {
        let mut breaker = Breaker::default();
        for round in 0..20 {
            let result = if round % 5 == 4 { CallResult::Answered } else { CallResult::Failed };
            let ticket = breaker.admit(0).expect("stays closed");
            breaker.settle(ticket, result, 0);
        }
        assert_eq!(breaker.position(), Position::Closed);
    }

    #[test]
    fn three_good_trials_close_it_and_one_bad_opens_it_again() {
        for bad in [false, true] {
            let mut breaker = opened();
            let tickets: Vec<Ticket> = (0..5).filter_map(|_| breaker.admit(OPEN_MS)).collect();
            assert_eq!(tickets.len(), 3, "three trials, no more");
            for (number, ticket) in tickets.iter().enumerate() {
                let result = if bad && number == 1 { CallResult::Failed } else { CallResult::Answered };
                breaker.settle(*ticket, result, OPEN_MS);
            }
            assert_eq!(breaker.position(), if bad { Position::Open } else { Position::Closed });
            assert_eq!(breaker.would_admit(2 * OPEN_MS - 1), !bad);
        }
    }

    #[test]
    fn a_trial_whose_caller_left_frees_its_place() {
        let mut breaker = opened();
        for _ in 0..10 {
            let ticket = breaker.admit(OPEN_MS).expect("there is a place");
            breaker.settle(ticket, CallResult::Abandoned, OPEN_MS);
        }
        assert_eq!(breaker.position(), Position::HalfOpen);
    }

    #[test]
    fn a_late_result_of_an_earlier_turn_counts_for_nothing() {
        let mut breaker = Breaker::default();
        let early = breaker.admit(0).expect("admits");
        let open = opened();
        breaker = open;
        breaker.settle(early, CallResult::Answered, 1);
        assert_eq!(breaker, open);
    }
}
