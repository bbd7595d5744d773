//! One breaker, as it stands in shared data: its state and how that changes.

use std::time::Duration;

use super::places::Places;
use super::probes::Probes;
use super::settings::{Backoff, Control, Settings};
use super::tally::Tally;
use super::window::{Counts, Window};
use super::{Cause, State, Turn, Why, reaches};
use crate::packed::{Packed, write};
use crate::units::{Timestamp, micros};

/// An open breaker stays so for up to a tenth longer than is written, and by this at most, so that the breakers of
/// many nodes do not probe at the same moment.
const LONGEST_JITTER: Duration = Duration::from_millis(500);

/// Draws evenly from all of `u32`.
pub(super) type Chance<'a> = &'a dyn Fn() -> u32;

/// A breaker. A new one is closed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Record {
    /// The moment of the last change of state, or later: no two states of a breaker have the same. 0 for a new one.
    pub(super) generation: u64,
    pub(super) phase: Phase,
    /// What ended while it was closed.
    pub(super) window: Window,
    /// How many of the last calls failed in a row.
    pub(super) run: u32,
    /// The calls under way.
    pub(super) places: Places,
}

/// A state, with what it needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) enum Phase {
    #[default]
    Closed,
    Open {
        until: Timestamp,
        /// How often it has opened since it was closed.
        attempt: u32,
    },
    HalfOpen {
        /// How often it had opened.
        attempt: u32,
        probes: Probes,
    },
}

/// What stands between a call and the upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Door {
    /// Nothing.
    Free,
    /// Nothing gets through, and that for so long.
    Shut(Why, Duration),
    /// The record has to change first.
    Stuck,
}

/// How a call gets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// As any call of a closed breaker.
    Call,
    /// As one of those that decide.
    Probe,
}

impl Record {
    pub(super) fn state(&self) -> State {
        match self.phase {
            Phase::Closed => State::Closed,
            Phase::Open { .. } => State::Open,
            Phase::HalfOpen { .. } => State::HalfOpen,
        }
    }

    /// What a call meets.
    pub(super) fn door(&self, settings: &Settings, now: Timestamp) -> Door {
        match self.phase {
            Phase::Closed => Door::Free,
            _ if settings.control == Control::ForceClosed => Door::Stuck,
            Phase::Open { until, .. } if now < until => Door::Shut(Why::Open, until.since(now)),
            Phase::Open { .. } => Door::Stuck,
            Phase::HalfOpen { probes, .. } => {
                let is_due = probes.verdict(settings).is_some() || probes.are_given_up(settings, now);
                if probes.has_room(settings) || is_due {
                    Door::Stuck
                } else {
                    Door::Shut(Why::HalfOpen, super::AGAIN_SOON)
                }
            }
        }
    }

    /// Goes into the state that is due for the next call.
    pub(super) fn prepare(
        &mut self,
        settings: &Settings,
        now: Timestamp,
        chance: Chance<'_>,
    ) -> Option<Turn> {
        match self.phase {
            Phase::Closed => None,
            _ if settings.control == Control::ForceClosed => {
                Some(self.turn(Phase::Closed, Cause::Forced, now))
            }
            Phase::Open { until, .. } if now < until => None,
            Phase::Open { attempt, .. } => {
                let probes = Probes { last_at: now, ..Probes::default() };
                Some(self.turn(Phase::HalfOpen { attempt, probes }, Cause::Waited, now))
            }
            Phase::HalfOpen { attempt, probes } => self.conclude(settings, now, chance).or_else(|| {
                let again =
                    || self.open(attempt.saturating_add(1), Cause::ProbesUnanswered, settings, now, chance);
                probes.are_given_up(settings, now).then(again)
            }),
        }
    }

    /// Lets a call through, if it is closed or has room for another probe. To be prepared first.
    pub(super) fn admit(&mut self, settings: &Settings, now: Timestamp) -> Option<Role> {
        match &mut self.phase {
            Phase::Closed => Some(Role::Call),
            Phase::HalfOpen { probes, .. } if probes.has_room(settings) => {
                probes.take(now);
                Some(Role::Probe)
            }
            Phase::Open { .. } | Phase::HalfOpen { .. } => None,
        }
    }

    /// Counts what a worker saw while it was closed, in this generation. Whether it trips is judged as of the last call's
    /// end: that a worker tells of it later changes nothing.
    pub(super) fn count(
        &mut self,
        tally: &Tally,
        settings: &Settings,
        now: Timestamp,
        chance: Chance<'_>,
    ) -> Option<Turn> {
        if self.phase != Phase::Closed || tally.is_empty() {
            return None;
        }
        self.window.fit(settings.window);
        self.window.merge(&tally.window, tally.last_at);
        let longest = tally.run.longest_after(self.run);
        self.run = tally.run.after(self.run);
        let cause = trips(settings, self.window.total(tally.last_at), longest)?;
        Some(self.open(1, cause, settings, now, chance))
    }

    /// Whether it would trip if that were counted now.
    pub(super) fn would_trip(&self, tally: &Tally, settings: &Settings) -> bool {
        let mut total = self.window.total(tally.last_at);
        total.add(tally.window.total(tally.last_at));
        trips(settings, total, tally.run.longest_after(self.run)).is_some()
    }

    /// Hears of a probe of this generation: how it ended, or that it says nothing.
    pub(super) fn hear(
        &mut self,
        counts: Option<Counts>,
        settings: &Settings,
        now: Timestamp,
        chance: Chance<'_>,
    ) -> Option<Turn> {
        let Phase::HalfOpen { probes, .. } = &mut self.phase else { return None };
        probes.end(counts);
        self.conclude(settings, now, chance)
    }

    fn conclude(&mut self, settings: &Settings, now: Timestamp, chance: Chance<'_>) -> Option<Turn> {
        let Phase::HalfOpen { attempt, probes } = self.phase else { return None };
        let cause = probes.verdict(settings)?;
        Some(match cause {
            Cause::ProbesSucceeded => self.turn(Phase::Closed, cause, now),
            _ => self.open(attempt.saturating_add(1), cause, settings, now, chance),
        })
    }

    fn open(
        &mut self,
        attempt: u32,
        cause: Cause,
        settings: &Settings,
        now: Timestamp,
        chance: Chance<'_>,
    ) -> Turn {
        let written = open_for(settings.open_for, settings.backoff, attempt);
        let until = now.plus(written).plus(jitter(written, chance()));
        self.turn(Phase::Open { until, attempt }, cause, now)
    }

    /// Nothing that was counted in one state says anything in the next.
    fn turn(&mut self, to: Phase, cause: Cause, now: Timestamp) -> Turn {
        let from = self.state();
        self.generation = self.generation.saturating_add(1).max(now.as_micros());
        self.phase = to;
        self.window.clear();
        self.run = 0;
        let open_for = match to {
            Phase::Open { until, .. } => Some(until.since(now)),
            Phase::Closed | Phase::HalfOpen { .. } => None,
        };
        Turn { from, to: self.state(), cause, open_for }
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        write(out, self.generation);
        match &self.phase {
            Phase::Closed => write(out, CLOSED),
            Phase::Open { until, attempt } => {
                write(out, OPEN);
                write(out, until.as_micros());
                write(out, (*attempt).into());
            }
            Phase::HalfOpen { attempt, probes } => {
                write(out, HALF_OPEN);
                write(out, (*attempt).into());
                probes.encode(out);
            }
        }
        self.window.encode(out);
        write(out, self.run.into());
        self.places.encode(out);
    }

    /// `None` for bytes that are no record.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut packed = Packed(bytes);
        let generation = packed.number()?;
        let phase = match packed.number()? {
            CLOSED => Phase::Closed,
            OPEN => Phase::Open { until: Timestamp::from_micros(packed.number()?), attempt: packed.small()? },
            HALF_OPEN => Phase::HalfOpen { attempt: packed.small()?, probes: Probes::decode(&mut packed)? },
            _ => return None,
        };
        let window = Window::decode(&mut packed)?;
        let run = packed.small()?;
        let places = Places::decode(&mut packed)?;
        packed.0.is_empty().then_some(Self { generation, phase, window, run, places })
    }
}

const CLOSED: u64 = 0;
const OPEN: u64 = 1;
const HALF_OPEN: u64 = 2;

/// Why it trips, if it does.
fn trips(settings: &Settings, total: Counts, longest_run: u32) -> Option<Cause> {
    if settings.control == Control::ForceClosed {
        return None;
    }
    if settings.consecutive_failures.is_some_and(|most| longest_run >= most.get()) {
        return Some(Cause::ConsecutiveFailures { failures: longest_run });
    }
    let Counts { calls, failures, slow } = total;
    if calls < settings.min_calls {
        None
    } else if reaches(failures, calls, settings.failure_rate) {
        Some(Cause::FailureRate { failures, calls })
    } else if reaches(slow, calls, settings.slow_call.rate) {
        Some(Cause::SlowRate { slow, calls })
    } else {
        None
    }
}

/// How long it is open when it opens for the `attempt`th time.
fn open_for(first: Duration, backoff: Backoff, attempt: u32) -> Duration {
    let most = micros(backoff.max);
    let mut span = micros(first);
    for _ in 1..attempt {
        let grown = span.saturating_mul(backoff.factor_thousandths.into()) / 1000;
        if span >= most || grown <= span {
            break;
        }
        span = grown;
    }
    Duration::from_micros(span.min(most))
}

fn jitter(open_for: Duration, chance: u32) -> Duration {
    let most = u64::from(u32::MAX).min(micros((open_for / 10).min(LONGEST_JITTER)));
    Duration::from_micros((most * u64::from(chance)) >> 32)
}
