//! When the store is left alone: a request must not wait for a store that has just failed ten others.
//!
//! ```text
//!            failures in a row            probe_every has passed
//!   Closed ---------------------> Open --------------------------> Probing
//!     ^                            ^                                  |
//!     |                            +---------- failure ---------------+
//!     +------------------------------ success ------------------------+
//! ```
//!
//! One stands in each worker: it needs no shared state, and a worker that lost its connections learns so by
//! itself. Not to be confused with the breakers of commands, which guard upstreams.

use std::time::Duration;

use crate::policy::CircuitSettings;
use crate::units::Timestamp;

/// The circuit of one worker to the store.
#[derive(Debug)]
pub struct Circuit {
    settings: CircuitSettings,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Questions go to the store.
    Closed { failures_in_a_row: u32 },
    /// None do, until this moment.
    Open { until: Timestamp },
    /// One is under way; when it never ends, another may go at this moment.
    Probing { again_at: Timestamp },
}

impl Circuit {
    /// A closed circuit.
    pub fn new(settings: CircuitSettings) -> Self {
        Self { settings, state: State::Closed { failures_in_a_row: 0 } }
    }

    /// Whether a question may go to the store at `now`. An open circuit answers yes once in `probe_every`.
    pub fn lets_through(&mut self, now: Timestamp) -> bool {
        match self.state {
            State::Closed { .. } => true,
            State::Open { until: at } | State::Probing { again_at: at } if now < at => false,
            State::Open { .. } | State::Probing { .. } => {
                self.state = State::Probing { again_at: now.plus(self.settings.probe_every) };
                true
            }
        }
    }

    /// Whether the store is taken to be well.
    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed { .. })
    }

    /// The store answered, after so long. A slow answer counts as a failure.
    pub fn answered(&mut self, now: Timestamp, after: Duration) {
        if after > self.settings.slow {
            self.failed(now);
        } else {
            self.state = State::Closed { failures_in_a_row: 0 };
        }
    }

    /// The store gave no answer that could be used.
    pub fn failed(&mut self, now: Timestamp) {
        let failures = match self.state {
            State::Closed { failures_in_a_row } => failures_in_a_row.saturating_add(1),
            State::Open { .. } | State::Probing { .. } => self.settings.failures,
        };
        self.state = if failures >= self.settings.failures {
            State::Open { until: now.plus(self.settings.probe_every) }
        } else {
            State::Closed { failures_in_a_row: failures }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn circuit() -> Circuit {
        let (slow, probe_every) = (Duration::from_millis(10), Duration::from_secs(1));
        Circuit::new(CircuitSettings { failures: 3, slow, probe_every })
    }

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_micros(millis * 1000)
    }

    #[test]
    fn opens_at_the_third_failure_in_a_row() {
        let mut circuit = circuit();
        circuit.failed(at(0));
        circuit.failed(at(0));
        circuit.answered(at(0), Duration::ZERO);
        circuit.failed(at(0));
        circuit.failed(at(0));
        assert!(circuit.lets_through(at(0)));
        assert!(circuit.is_closed());
        circuit.failed(at(0));
        assert!(!circuit.lets_through(at(999)) && !circuit.is_closed());
    }

    #[test]
    fn slow_answers_count_as_failures() {
        let mut circuit = circuit();
        for _ in 0..3 {
            circuit.answered(at(0), Duration::from_micros(10_001));
        }
        assert!(!circuit.lets_through(at(0)));
    }

    #[test]
    fn lets_one_probe_through_each_second_and_closes_when_it_succeeds() {
        let mut circuit = circuit();
        (0..3).for_each(|_| circuit.failed(at(0)));
        assert!(circuit.lets_through(at(1000)) && !circuit.lets_through(at(1000)));
        circuit.failed(at(1020));
        assert!(!circuit.lets_through(at(2019)) && circuit.lets_through(at(2020)));
        circuit.answered(at(2021), Duration::from_millis(10));
        assert!(circuit.lets_through(at(2021)) && circuit.lets_through(at(2021)));
    }

    #[test]
    fn a_probe_that_never_ends_is_followed_by_another() {
        let mut circuit = circuit();
        (0..3).for_each(|_| circuit.failed(at(0)));
        assert!(circuit.lets_through(at(1000)));
        assert!(!circuit.lets_through(at(1999)) && circuit.lets_through(at(2000)));
    }
}
