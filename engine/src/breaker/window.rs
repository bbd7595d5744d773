//! The trailing time that counts, in ten buckets.
//!
//! Bucket `n` holds what ended from `n` to `n + 1` tenths of the window after the clock's epoch, so buckets of different
//! workers add up whatever the order they come in. The oldest leaves as a whole: what counts is nine to ten tenths
//! of the window.

use std::time::Duration;

use crate::packed::{Packed, write};
use crate::units::{Timestamp, micros};

/// How many buckets a window has.
const BUCKETS: u64 = 10;

/// Calls that ended, and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Counts {
    pub(super) calls: u32,
    pub(super) failures: u32,
    pub(super) slow: u32,
}

impl Counts {
    /// One call.
    pub(super) fn of(failed: bool, slow: bool) -> Self {
        Self { calls: 1, failures: failed.into(), slow: slow.into() }
    }

    pub(super) fn add(&mut self, more: Counts) {
        self.calls = self.calls.saturating_add(more.calls);
        self.failures = self.failures.saturating_add(more.failures);
        self.slow = self.slow.saturating_add(more.slow);
    }

    pub(super) fn encode(self, out: &mut Vec<u8>) {
        for count in [self.calls, self.failures, self.slow] {
            write(out, count.into());
        }
    }

    pub(super) fn decode(packed: &mut Packed<'_>) -> Option<Self> {
        Some(Self { calls: packed.small()?, failures: packed.small()?, slow: packed.small()? })
    }
}

/// Calls by the time at which they ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Window {
    /// A tenth of the window, in microseconds; 0 while nothing was counted.
    width_us: u64,
    /// Each with its number; no number twice.
    buckets: Vec<(u64, Counts)>,
}

impl Window {
    /// Makes it one of this length: empty, if it had another.
    pub(super) fn fit(&mut self, length: Duration) {
        let width_us = (micros(length) / BUCKETS).max(1);
        if self.width_us != width_us {
            self.width_us = width_us;
            self.buckets.clear();
        }
    }

    /// Counts what ended at `now`.
    pub(super) fn count(&mut self, counts: Counts, now: Timestamp) {
        self.put(self.number(now), counts);
    }

    /// Adds what another window counted, if it is of the same length, and drops what counts no more at `now`.
    pub(super) fn merge(&mut self, other: &Window, now: Timestamp) {
        if other.width_us == self.width_us {
            other.buckets.iter().for_each(|(number, counts)| self.put(*number, *counts));
        }
        let current = self.number(now);
        self.buckets.retain(|(number, _)| number.saturating_add(BUCKETS) > current);
    }

    /// What counts at `now`.
    pub(super) fn total(&self, now: Timestamp) -> Counts {
        let current = self.number(now);
        let mut total = Counts::default();
        let live = self.buckets.iter().filter(|(number, _)| number.saturating_add(BUCKETS) > current);
        live.for_each(|(_, counts)| total.add(*counts));
        total
    }

    pub(super) fn clear(&mut self) {
        self.buckets.clear();
    }

    fn number(&self, at: Timestamp) -> u64 {
        at.as_micros() / self.width_us.max(1)
    }

    fn put(&mut self, number: u64, counts: Counts) {
        match self.buckets.iter_mut().find(|(known, _)| *known == number) {
            Some((_, known)) => known.add(counts),
            None => self.buckets.push((number, counts)),
        }
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        write(out, self.width_us);
        write(out, self.buckets.len() as u64);
        for (number, counts) in &self.buckets {
            write(out, *number);
            counts.encode(out);
        }
    }

    pub(super) fn decode(packed: &mut Packed<'_>) -> Option<Self> {
        let (width_us, length) = (packed.number()?, packed.number()?);
        let mut buckets = Vec::new();
        for _ in 0..length {
            let number = packed.number()?;
            buckets.push((number, Counts::decode(packed)?));
        }
        Some(Self { width_us, buckets })
    }
}
