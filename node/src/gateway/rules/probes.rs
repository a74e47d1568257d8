//! What regular probes and the end of its connection say of one backend: whether it is called, and when it is probed again.

/// Time between two probes of a backend that serves, in milliseconds.
pub const INTERVAL_MS: u64 = 5_000;
/// Time between two probes while nobody serves, and after the first that found a lost backend silent, in milliseconds. It
/// doubles with each that does, up to [`INTERVAL_MS`].
pub const SOON_MS: u64 = 1_000;
/// Longest probe, in milliseconds.
pub const TIMEOUT_MS: u64 = 3_000;
/// Failures in a row that take a backend out.
pub const FAILURES_MAX: u32 = 3;
/// Longest time since its last good probe in which a backend that says that it does not serve is called when no other serves,
/// in milliseconds. It is the bound on how old an answer of a node that is behind can get.
pub const BEHIND_MS_MAX: u64 = 15_000;

/// What one probe found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeResult {
    /// It answers and serves.
    Serving,
    /// It answers and says that it does not serve now: it gives way at once, and is taken out after [`BEHIND_MS_MAX`].
    NotServing,
    /// No answer in time.
    Silent,
}

/// Whether calls go to a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// They do.
    Serves,
    /// Its connection has ended, or it has said for a short time that it does not serve: only while no other serves, and until
    /// its next good probe. A node is behind for moments under load, and when it opens its connections anew; it may be the only one.
    Lost,
    /// They do not.
    Out,
}

/// The opinion that probes and losses add up to. Times count from any start, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Probes {
    state: State,
    /// Probes in a row without an answer.
    silent: u32,
    /// The last good probe.
    good_ms: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Unknown,
    Up,
    Lost,
    Down,
}

impl Probes {
    /// Takes in one result.
    pub fn on_result(&mut self, result: ProbeResult, now_ms: u64) {
        if result == ProbeResult::Serving {
            self.good_ms = now_ms;
        }
        self.silent = match result {
            ProbeResult::Serving | ProbeResult::NotServing => 0,
            ProbeResult::Silent => self.silent.saturating_add(1),
        };
        self.state = match (self.state, result) {
            (_, ProbeResult::Serving) => State::Up,
            (State::Up | State::Lost, ProbeResult::Silent) if self.silent < FAILURES_MAX => self.state,
            (State::Up | State::Lost, ProbeResult::NotServing)
                if now_ms.saturating_sub(self.good_ms) <= BEHIND_MS_MAX =>
            {
                State::Lost
            }
            // A backend that never answered is not called: there is nothing to take it out of.
            (State::Up | State::Lost | State::Unknown | State::Down, ProbeResult::Silent)
            | (_, ProbeResult::NotServing) => State::Down,
        };
    }

    /// Its connection has ended.
    pub fn on_loss(&mut self) {
        self.state = match self.state {
            State::Up | State::Lost => State::Lost,
            // Nobody who is asked is lost.
            State::Unknown => State::Unknown,
            State::Down => State::Down,
        };
    }

    /// Whether calls go there.
    pub const fn standing(&self) -> Standing {
        match self.state {
            State::Up => Standing::Serves,
            State::Lost => Standing::Lost,
            State::Unknown | State::Down => Standing::Out,
        }
    }

    /// Time from the beginning of the last probe to that of the next.
    pub fn pause_ms(&self, tier_serves: bool) -> u64 {
        if !tier_serves {
            return SOON_MS;
        }
        match self.state {
            // Its connection stands, so it is slow; or it says itself that it does not serve.
            State::Up => INTERVAL_MS,
            State::Down if self.silent == 0 => INTERVAL_MS,
            State::Unknown | State::Lost | State::Down => {
                let doublings = self.silent.saturating_sub(1).min(INTERVAL_MS.ilog2());
                SOON_MS.saturating_mul(1 << doublings).min(INTERVAL_MS)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{BEHIND_MS_MAX, ProbeResult, Probes, Standing};

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Event {
        Probe(ProbeResult),
        Loss,
    }

    const SERVING: Event = Event::Probe(ProbeResult::Serving);
    const NOT_SERVING: Event = Event::Probe(ProbeResult::NotServing);
    const SILENT: Event = Event::Probe(ProbeResult::Silent);

    /// Time between two events: the third after a good probe is the last in which a bad one only loses.
    const STEP_MS: u64 = BEHIND_MS_MAX / 3;

    fn after(events: &[Event]) -> Probes {
        let mut probes = Probes::default();
        for (now_ms, event) in (0_u64..).map(|place| place * STEP_MS).zip(events) {
            match event {
                Event::Probe(result) => probes.on_result(*result, now_ms),
                Event::Loss => probes.on_loss(),
            }
        }
        probes
    }

    /// Called = the last answer was good, and at most two silences followed; lost = a loss followed too, or the last answer was
    /// a bad one of a backend that was not out, not long after a good one.
    fn expected(sequence: &[Event]) -> Standing {
        let answer = sequence.iter().rposition(|event| *event == SERVING || *event == NOT_SERVING);
        let Some((before, since)) = answer.map(|place| sequence.split_at(place)) else { return Standing::Out };
        let silences = since.iter().filter(|event| **event == SILENT).count();
        match (silences < 3, since[0] == SERVING, since.contains(&Event::Loss)) {
            (true, true, false) => Standing::Serves,
            (true, true, true) => Standing::Lost,
            (true, false, _) if expected(before) != Standing::Out => {
                let good = before.iter().rposition(|event| *event == SERVING).expect("it was not out");
                if before.len() - good <= 3 { Standing::Lost } else { Standing::Out }
            }
            _ => Standing::Out,
        }
    }

    #[test]
    fn every_sequence_of_eight_events_has_the_standing_that_its_end_says() {
        assert_eq!(Probes::default().standing(), Standing::Out, "nobody is called before the first answer");
        let events = [SERVING, NOT_SERVING, SILENT, Event::Loss];
        for number in 0..4_u32.pow(8) {
            let sequence: Vec<Event> = (0..8).map(|place| events[(number / 4_u32.pow(place) % 4) as usize]).collect();
            assert_eq!(after(&sequence).standing(), expected(&sequence), "{sequence:?}");
        }
    }

    #[test]
    fn who_is_lost_is_probed_soon_and_then_less_and_less_often() {
        let pauses: Vec<u64> = (0..7)
            .map(|silences| {
                let mut events = vec![SERVING, Event::Loss];
                events.extend(vec![SILENT; silences]);
                after(&events).pause_ms(true)
            })
            .collect();
        assert_eq!(pauses, [1_000, 1_000, 2_000, 4_000, 5_000, 5_000, 5_000]);
        for (events, pause_ms) in [
            (vec![SERVING], 5_000),
            (vec![NOT_SERVING], 5_000),
            // Slow, with a connection that stands.
            (vec![SERVING, SILENT], 5_000),
            (vec![SILENT], 1_000),
            (vec![SERVING, NOT_SERVING], 1_000),
            (vec![SERVING, NOT_SERVING, NOT_SERVING, NOT_SERVING], 1_000),
            (vec![SERVING, NOT_SERVING, NOT_SERVING, NOT_SERVING, NOT_SERVING], 5_000),
            (vec![SERVING, Event::Loss, SERVING], 5_000),
        ] {
            assert_eq!(after(&events).pause_ms(true), pause_ms, "{events:?}");
            assert_eq!(after(&events).pause_ms(false), 1_000, "{events:?} while nobody serves");
        }
        assert_eq!(after(&[SILENT; 100]).pause_ms(true), 5_000);
    }
}
