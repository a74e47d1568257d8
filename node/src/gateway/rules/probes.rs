//! What regular probes say of one backend: three failures in a row take it out, one good answer brings it back.

/// Time between two probes, in milliseconds.
pub const INTERVAL_MS: u64 = 5_000;
/// Longest probe, in milliseconds.
pub const TIMEOUT_MS: u64 = 3_000;
/// Failures in a row that take a backend out.
pub const FAILURES_MAX: u32 = 3;

/// What one probe found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeResult {
    /// It answers and serves.
    Serving,
    /// It answers and says that it does not serve yet: it is taken out at once.
    NotServing,
    /// No answer in time.
    Silent,
}

/// The opinion that the probes add up to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Probes {
    state: State,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Unknown,
    Up {
        failures: u32,
    },
    Down,
}

impl Probes {
    /// Takes in one result.
    pub fn on_result(&mut self, result: ProbeResult) {
        self.state = match (self.state, result) {
            (_, ProbeResult::Serving) => State::Up { failures: 0 },
            (State::Up { failures }, ProbeResult::Silent) if failures + 1 < FAILURES_MAX => {
                State::Up { failures: failures + 1 }
            }
            // A backend that never answered is not called: there is nothing to take it out of.
            (State::Up { .. } | State::Unknown | State::Down, ProbeResult::Silent) | (_, ProbeResult::NotServing) => {
                State::Down
            }
        };
    }

    /// Whether calls may go there.
    pub const fn is_up(&self) -> bool {
        matches!(self.state, State::Up { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::{ProbeResult, Probes};

    #[test]
    fn every_sequence_of_eight_probes_has_the_state_that_its_end_says() {
        use ProbeResult::{NotServing, Serving, Silent};
        let results = [Serving, NotServing, Silent];
        for number in 0..3_u32.pow(8) {
            let sequence: Vec<ProbeResult> =
                (0..8).map(|place| results[(number / 3_u32.pow(place) % 3) as usize]).collect();
            let mut probes = Probes::default();
            assert!(!probes.is_up(), "nobody is called before the first answer");
            for result in &sequence {
                probes.on_result(*result);
            }
            // Up = the last answer was good, and at most two silences followed.
            let silences = sequence.iter().rev().take_while(|result| **result == Silent).count();
            let last_answer = sequence.iter().rev().find(|result| **result != Silent);
            assert_eq!(probes.is_up(), last_answer == Some(&Serving) && silences < 3, "{sequence:?}");
        }
    }
}
