//! What a worker has seen of a closed breaker and not told the others yet.

use std::time::Duration;

use super::window::{Counts, Window};
use crate::units::Timestamp;

/// A worker tells the others after so long at the latest,
const PUBLISH_AFTER: Duration = Duration::from_millis(100);
/// or after so many calls.
const PUBLISH_CALLS: u32 = 64;

/// Calls that ended, of one generation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) window: Window,
    pub(super) run: Run,
    calls: u32,
    /// When the first of them ended,
    since: Timestamp,
    /// and when the last.
    pub(super) last_at: Timestamp,
}

impl Tally {
    pub(super) fn is_empty(&self) -> bool {
        self.calls == 0
    }

    /// Counts a call that ended at `now`, under a window of this length.
    pub(super) fn count(&mut self, counts: Counts, window: Duration, now: Timestamp) {
        if self.is_empty() {
            self.since = now;
        }
        self.calls = self.calls.saturating_add(1);
        self.last_at = now;
        self.window.fit(window);
        self.window.count(counts, now);
        self.run.count(counts.failures > 0);
    }

    /// When the others are to be told.
    pub(super) fn due(&self) -> Option<Timestamp> {
        match self.calls {
            0 => None,
            calls if calls >= PUBLISH_CALLS => Some(self.since),
            _ => Some(self.since.plus(PUBLISH_AFTER)),
        }
    }

    /// Forgets everything, and keeps its memory.
    pub(super) fn clear(&mut self) {
        self.window.clear();
        (self.run, self.calls) = (Run::default(), 0);
    }
}

/// Failures in a row, in calls that follow upon others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Run {
    /// Before the first success: they prolong the run of those others.
    before: u32,
    /// The longest between two successes.
    between: u32,
    /// After the last success, if there was one.
    after: Option<u32>,
}

impl Run {
    fn count(&mut self, failed: bool) {
        match (&mut self.after, failed) {
            (None, true) => self.before = self.before.saturating_add(1),
            (Some(after), true) => {
                *after = after.saturating_add(1);
                self.between = self.between.max(*after);
            }
            (after, false) => *after = Some(0),
        }
    }

    /// The run at the end, after one of so many.
    pub(super) fn after(self, run: u32) -> u32 {
        self.after.unwrap_or_else(|| run.saturating_add(self.before))
    }

    /// The longest run, after one of so many.
    pub(super) fn longest_after(self, run: u32) -> u32 {
        let first = if self.before > 0 || self.after.is_none() { run.saturating_add(self.before) } else { 0 };
        first.max(self.between)
    }
}
