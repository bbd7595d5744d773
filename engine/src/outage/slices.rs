//! When how much was admitted, in a few slices.
//!
//! Of two neighbours those become one that make the shortest slice, in relation to how old it is and to the shortest
//! window. So within that window slices are about of one length, and beyond it the longer the older they are.

use std::time::Duration;

use crate::units::{Timestamp, micros};
use crate::wire::{MAX_SLICES, Slice};

/// Admissions, in order.
#[derive(Clone, Debug, Default)]
pub(super) struct Slices(Vec<Span>);

#[derive(Clone, Copy, Debug)]
struct Span {
    first: Timestamp,
    last: Timestamp,
    tokens: u32,
}

impl Slices {
    /// Notes so many at `now`; no slice holds more than `most`. `shortest` is the shortest window.
    pub(super) fn note(&mut self, tokens: u32, most: u32, shortest: Duration, now: Timestamp) {
        // a clock that was read a moment ago is no reason for disorder
        let now = self.0.last().map_or(now, |newest| newest.last.max(now));
        self.0.push(Span { first: now, last: now, tokens: tokens.min(most) });
        self.shorten(most, shortest, now);
    }

    /// Puts what was noted before in front.
    pub(super) fn put_before(&mut self, before: Self, most: u32, shortest: Duration, now: Timestamp) {
        self.0.splice(0..0, before.0);
        self.shorten(most, shortest, now);
    }

    /// Joins neighbours until there are few enough.
    fn shorten(&mut self, most: u32, shortest: Duration, now: Timestamp) {
        while self.0.len() > MAX_SLICES {
            self.join_two(most, shortest, now);
        }
    }

    fn join_two(&mut self, most: u32, shortest: Duration, now: Timestamp) {
        let weight = |(older, newer): (&Span, &Span)| {
            let length = micros(newer.last.since(older.first));
            let age = micros(now.since(older.first)).saturating_add(micros(shortest)).max(1);
            length as f64 / age as f64
        };
        let weights = self.0.iter().zip(self.0.iter().skip(1)).map(weight).enumerate();
        let Some((at, _)) = weights.min_by(|(_, a), (_, b)| a.total_cmp(b)) else { return };
        let older = self.0.remove(at);
        if let Some(newer) = self.0.get_mut(at) {
            newer.first = older.first;
            newer.tokens = newer.tokens.saturating_add(older.tokens).min(most);
        }
    }

    /// Forgets those that ended `span` ago or longer.
    pub(super) fn forget(&mut self, span: Duration, now: Timestamp) {
        self.0.retain(|slice| now.since(slice.last) < span);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As the store is told at `now`.
    pub(super) fn told(&self, now: Timestamp) -> Vec<Slice> {
        let told = |slice: &Span| Slice { age_us: micros(now.since(slice.last)), tokens: slice.tokens };
        self.0.iter().map(told).collect()
    }
}
