//! A breaker as one would write it for a single thread, with a log of every call.

use super::*;

/// Kept apart from the real one on purpose: this is what it is held to.
#[derive(Clone, Debug)]
pub(super) struct Model {
    settings: Settings,
    /// Every call that ended in this state, and how.
    log: Vec<(Timestamp, Ended)>,
    state: ModelState,
    /// How often the state has changed.
    changes: u64,
    attempt: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum ModelState {
    Closed,
    Open { until: Timestamp },
    HalfOpen { taken: usize, last_at: Timestamp },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ended {
    failed: bool,
    slow: bool,
}

/// What a call brings back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ModelPermit {
    changes: u64,
    pub(super) is_probe: bool,
}

impl Model {
    pub(super) fn new(settings: Settings) -> Self {
        Self { settings, log: Vec::new(), state: ModelState::Closed, changes: 0, attempt: 0 }
    }

    pub(super) fn state(&self) -> State {
        match self.state {
            ModelState::Closed => State::Closed,
            ModelState::Open { .. } => State::Open,
            ModelState::HalfOpen { .. } => State::HalfOpen,
        }
    }

    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    /// It opened at another moment than it would have without delay.
    pub(super) fn opened_later_by(&mut self, delay: Duration) {
        if let ModelState::Open { until } = &mut self.state {
            *until = until.plus(delay);
        }
    }

    pub(super) fn enter(&mut self, now: Timestamp) -> Result<ModelPermit, (Why, Duration)> {
        if matches!(self.state, ModelState::Open { until } if until <= now) {
            self.go(ModelState::HalfOpen { taken: 0, last_at: now });
        }
        let probes = self.settings.half_open_calls as usize;
        if let ModelState::HalfOpen { taken, last_at } = self.state {
            let patience = self.settings.open_for.max(self.settings.slow_call.over);
            if taken == probes && now >= last_at.plus(patience) {
                self.open(now);
            }
        }
        match &mut self.state {
            ModelState::Closed => Ok(ModelPermit { changes: self.changes, is_probe: false }),
            ModelState::Open { until } => Err((Why::Open, until.since(now))),
            ModelState::HalfOpen { taken, .. } if *taken == probes => Err((Why::HalfOpen, AGAIN_SOON)),
            ModelState::HalfOpen { taken, last_at } => {
                (*taken, *last_at) = (*taken + 1, now);
                Ok(ModelPermit { changes: self.changes, is_probe: true })
            }
        }
    }

    pub(super) fn leave(&mut self, permit: ModelPermit, outcome: Outcome, now: Timestamp) {
        if permit.changes != self.changes {
            return;
        }
        let slow = |took| took > self.settings.slow_call.over;
        let ended = match outcome {
            Outcome::Success { took } => Ended { failed: false, slow: slow(took) },
            Outcome::Failure { took } => Ended { failed: true, slow: slow(took) },
            Outcome::Ignored => {
                if let ModelState::HalfOpen { taken, .. } = &mut self.state {
                    *taken -= 1;
                }
                return;
            }
        };
        self.log.push((now, ended));
        match self.state {
            ModelState::Closed if self.trips(now) => self.open(now),
            ModelState::HalfOpen { .. } => self.conclude(now),
            ModelState::Closed | ModelState::Open { .. } => {}
        }
    }

    fn trips(&self, now: Timestamp) -> bool {
        let in_a_row = self.log.iter().rev().take_while(|(_, ended)| ended.failed).count();
        let most_in_a_row = self.settings.consecutive_failures.map(|most| most.get() as usize);
        if most_in_a_row.is_some_and(|most| in_a_row >= most) {
            return true;
        }
        let tenth = |at: Timestamp| at.as_micros() / (self.settings.window.as_micros() as u64 / 10);
        let counted: Vec<Ended> =
            self.log.iter().filter(|(at, _)| tenth(*at) + 10 > tenth(now)).map(|(_, ended)| *ended).collect();
        let share = |is: fn(&Ended) -> bool| {
            counted.iter().filter(|ended| is(ended)).count() as f64 / counted.len() as f64
        };
        counted.len() >= self.settings.min_calls as usize
            && (share(|ended| ended.failed) >= part(self.settings.failure_rate)
                || share(|ended| ended.slow) >= part(self.settings.slow_call.rate))
    }

    /// Plays all ways in which the missing probes could end: it is decided when the verdict is the same in all of them.
    fn conclude(&mut self, now: Timestamp) {
        let all = self.settings.half_open_calls as usize;
        let missing = all.saturating_sub(self.log.len());
        let is_bad = |failed: usize, slow: usize| {
            failed as f64 / all as f64 >= part(self.settings.failure_rate)
                || slow as f64 / all as f64 >= part(self.settings.slow_call.rate)
        };
        let failed = self.log.iter().filter(|(_, ended)| ended.failed).count();
        let slow = self.log.iter().filter(|(_, ended)| ended.slow).count();
        let ways = (0..=missing).flat_map(|more| (0..=missing).map(move |slower| (more, slower)));
        let verdicts: Vec<bool> = ways.map(|(more, slower)| is_bad(failed + more, slow + slower)).collect();
        if verdicts.iter().all(|bad| *bad) {
            self.open(now);
        } else if verdicts.iter().all(|bad| !*bad) {
            self.attempt = 0;
            self.go(ModelState::Closed);
        }
    }

    fn open(&mut self, now: Timestamp) {
        let factor = f64::from(self.settings.backoff.factor_thousandths) / 1000.0;
        let grown = self.settings.open_for.as_secs_f64() * factor.powi(self.attempt as i32);
        let written = Duration::from_secs_f64(grown.min(self.settings.backoff.max.as_secs_f64()));
        self.attempt += 1;
        self.go(ModelState::Open { until: now.plus(written) });
    }

    fn go(&mut self, state: ModelState) {
        self.state = state;
        self.changes += 1;
        self.log.clear();
    }
}

/// Exact for the shares that the tests use, and so is their comparison.
fn part(share: Share) -> f64 {
    f64::from(share.millionths()) / 1e6
}
