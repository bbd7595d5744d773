//! What was spent without asking: nodes admitted it by themselves while the store was away, and tell of it afterwards.
//!
//! It cannot be refused any more, so it counts regardless of the limit, each slice from its own date on. A window that
//! has taken it in admits what it would admit had it seen it all.
//!
//! Of a window that counts requests the youngest of its limit decide everything: what is older leaves before there is room
//! anyway, and is not charged. A bucket of a sliding counter never holds more than the limit. A token bucket goes
//! through the slices from where it was left before the outage, repaid in between; what was repaid already, to others or
//! to an earlier report, is not repaid twice, and it is never more than empty: so it may be emptier than it would be, and
//! never fuller. Only of a bucket that is full by then, and was told nothing before, it is not known any more what was
//! taken from it when: stores may have forgotten it altogether, and so it is as if fresh.
//!
//! A report is known by its id for as long as what it charged counts. Where too many are known already it counts all the
//! same: a message that comes twice is rarer than one that comes once.

use std::time::Duration;

use super::{Counter, SubjectCounters};
use crate::units::Timestamp;
use crate::window::{TokenBucket, Window};
use crate::wire::Slice;

impl SubjectCounters {
    /// Counts what a report says, the oldest slices first, at `now`. `false` when the report of this `id` was counted
    /// before.
    pub fn record(
        &mut self,
        windows: &[Window],
        buckets: u32,
        slices: &[Slice],
        id: u64,
        now: Timestamp,
    ) -> bool {
        if self.returns.knows(id, self.seen.max(now)) {
            return false;
        }
        let as_left: Vec<TokenBucket> = self.counters.iter().map(bucket_of).collect();
        self.settle(windows, buckets, now);
        let was_told = self.returns.knows_any(self.seen);
        let dated: Vec<(Timestamp, u32)> = slices.iter().map(|slice| self.date(slice)).collect();
        let mut counts_until = None;
        for (at, (window, counter)) in windows.iter().zip(&mut self.counters).enumerate() {
            let until = match counter {
                Counter::Tally(counter) => counter.record(window, buckets, &dated, self.seen),
                Counter::Weighted(counter) => counter.record(window, &dated, self.seen),
                Counter::TokenBucket(counter) => {
                    let as_left = as_left.get(at).filter(|_| was_told || counter.debt > 0);
                    *counter = as_left.copied().unwrap_or_default();
                    Some(counter.record(window, &dated, self.seen))
                }
            };
            counts_until = counts_until.max(until);
        }
        if let Some(until) = counts_until {
            self.returns.remember_report(id, until, self.seen);
        }
        true
    }

    /// When a slice was spent, by the subject's own time.
    fn date(&self, slice: &Slice) -> (Timestamp, u32) {
        let age = Duration::from_micros(slice.age_us);
        (Timestamp::default().plus(self.seen.since(Timestamp::default()).saturating_sub(age)), slice.tokens)
    }
}

/// A token bucket as it stands; a full one where there is none.
fn bucket_of(counter: &Counter) -> TokenBucket {
    match counter {
        Counter::TokenBucket(bucket) => *bucket,
        Counter::Tally(_) | Counter::Weighted(_) => TokenBucket::default(),
    }
}
