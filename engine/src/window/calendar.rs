//! Where calendar windows begin and end on the clocks of a place.
//!
//! A window's number is the time that the clocks show, divided by the window's span. When clocks are put forward, the
//! window that this skips is not there, or is shorter: a day has 23 hours. When they are put back, the time that they
//! show comes again, and numbers would run backwards. They do not: a moment's number is the largest that any moment
//! up to it has had. So the time that comes again belongs to the window in which clocks were put back, which is
//! longer by it: a day has 25 hours. A longer window is a stricter one, never one over its limit.
//!
//! For windows of an hour or less that would be far too strict: a limit per second would hold for the whole hour that
//! comes again. Nobody asks where a minute stands on the calendar, only that it begins with the clock's minute. So
//! theirs are numbers of what the distance from UTC leaves when it is divided by the span, and a change by whole
//! hours is none for them.
//!
//! Numbers depend on a moment and the clocks around it alone, never on how much of a zone's history is known.

use std::time::Duration;

use super::zone::{Change, Timezone};
use crate::units::{Timestamp, micros};

const HOUR_US: u64 = 3_600_000_000;
/// No clocks are further than this from UTC.
const FURTHEST_US: u64 = 26 * HOUR_US;
/// How much is known around a moment that the one who asks takes for now: he may be wrong by nearly two years, and
/// see a window of a year to its end.
const YEAR_US: u64 = 366 * 24 * HOUR_US;
const YEARS_BACK: u64 = 2;
const YEARS_AHEAD: u64 = 3;

/// The windows of one span, side by side, on the clocks of one place.
#[derive(Clone, Copy, Debug)]
pub struct Calendar {
    /// The windows' span, us.
    width: u64,
    /// What is added to a moment before the first change, us.
    shift: u64,
    changes: &'static [Change],
}

impl Calendar {
    /// Windows of `width` us since the epoch.
    pub(super) fn even(width: u64) -> Self {
        Self { width: width.max(1), shift: 0, changes: &[] }
    }

    /// Windows of `per` in `timezone`.
    pub fn of(per: Duration, timezone: Timezone) -> Self {
        let even = Self::even(micros(per));
        match timezone {
            Timezone::Offset(offset) => Self { shift: micros(offset.shift(per)), ..even },
            Timezone::Zone(zone) => {
                Self { shift: even.shift_of(zone.ahead_s()), changes: zone.changes(), ..even }
            }
        }
    }

    /// The same windows, as far as they can be told apart from a moment that is within nearly two years of `now`.
    pub fn around(self, now: Timestamp) -> Self {
        let (from, until) = (
            now.as_micros().saturating_sub(YEARS_BACK * YEAR_US),
            now.as_micros().saturating_add(YEARS_AHEAD * YEAR_US),
        );
        let before = |moment| self.changes.partition_point(|change| change.from.as_micros() <= moment);
        let (first, end) = (before(from), before(until));
        Self {
            shift: self.shift_in(first),
            changes: self.changes.get(first..end).unwrap_or_default(),
            ..self
        }
    }

    /// What is added to a moment before it is divided by the span, in us, and from when on: the first from the epoch.
    pub fn shifts(&self) -> impl Iterator<Item = (Timestamp, u64)> {
        let mut last = None;
        let spans = (0..=self.changes.len()).map(|span| (self.begin_of(span), self.shift_in(span)));
        spans.filter(move |(_, shift)| last.replace(*shift) != Some(*shift))
    }

    /// The number of the window that `moment` is in. A later moment never has a smaller one.
    pub fn index(&self, moment: Timestamp) -> u64 {
        let passed = self.changes.partition_point(|change| change.from <= moment);
        let mut index = self.shown(moment.as_micros(), passed);
        for (span, change) in self.changes.iter().enumerate().take(passed).rev() {
            // No clocks were ever put back by more than this.
            if micros(moment.since(change.from)) > 2 * FURTHEST_US {
                break;
            }
            index = index.max(self.shown(change.from.as_micros().saturating_sub(1), span));
        }
        index
    }

    /// The first moment that is in window number `index` or in one after it.
    pub fn begins(&self, index: u64) -> Timestamp {
        let shown = index.saturating_mul(self.width);
        let surely_before = shown.saturating_sub(self.lift() + FURTHEST_US);
        let passed = self.changes.partition_point(|change| change.from.as_micros() <= surely_before);
        let ends = self.changes.iter().skip(passed).map(|change| change.from.as_micros());
        let first_in = |span| {
            let reached = shown.saturating_sub(self.shift_in(span));
            reached.max(self.begin_of(span).as_micros())
        };
        let found = ends.zip(passed..).find_map(|(end, span)| Some(first_in(span)).filter(|at| *at < end));
        Timestamp::from_micros(found.unwrap_or_else(|| first_in(self.changes.len())))
    }

    /// The window that clocks show at `moment_us`, which is in the span after the first `span` changes.
    fn shown(&self, moment_us: u64, span: usize) -> u64 {
        moment_us.saturating_add(self.shift_in(span)) / self.width
    }

    fn begin_of(&self, span: usize) -> Timestamp {
        span.checked_sub(1).and_then(|at| self.changes.get(at)).map_or(Timestamp::default(), |c| c.from)
    }

    fn shift_in(&self, span: usize) -> u64 {
        let change = span.checked_sub(1).and_then(|at| self.changes.get(at));
        change.map_or(self.shift, |change| self.shift_of(change.ahead_s))
    }

    fn shift_of(&self, ahead_s: i32) -> u64 {
        let (ahead, width) = (i128::from(ahead_s) * 1_000_000, i128::from(self.width));
        let shift =
            if self.width <= HOUR_US { ahead.rem_euclid(width) } else { ahead + i128::from(self.lift()) };
        u64::try_from(shift).unwrap_or_default()
    }

    /// Whole windows, added so that no shift is below zero.
    fn lift(&self) -> u64 {
        if self.width <= HOUR_US { 0 } else { FURTHEST_US.div_ceil(self.width).saturating_mul(self.width) }
    }
}

#[cfg(test)]
mod tests;
