//! The counters of a subject, and the one decision over all of them: every window of every key, or nothing.
//!
//! This is the model of the store. The shim's embedded store and the node's local counters run it as it
//! stands; `lua/take.lua` says the same in Lua.

use std::time::Duration;

use crate::units::Timestamp;
use crate::window::{Algorithm, Tally, TokenBucket, Weighted, Window};
use crate::wire::Operation;

/// Into how many buckets the store divides a sliding window: a token comes back late by at most 1/256 of the
/// window (0.4 %), and a subject in full use holds at most 257 small numbers.
pub const STORE_BUCKETS: u32 = 256;

/// The counter of one subject in one window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Counter {
    /// Of a sliding window, a sliding log or a fixed window.
    Tally(Tally),
    /// Of a sliding counter.
    Weighted(Weighted),
    /// Of a token bucket.
    TokenBucket(TokenBucket),
}

/// The counters of one subject under one key: one for each window, in the windows' order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubjectCounters {
    /// The latest moment these counters have seen. Their time never runs backwards.
    pub seen: Timestamp,
    /// One for each window. A fresh subject has none yet.
    pub counters: Vec<Counter>,
}

/// What one window says of one decision, as it stands after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowVerdict {
    /// What is left: requests, or whole tokens.
    pub remaining: u32,
    /// Until more is left than now. Zero when nothing is used.
    pub reset: Duration,
    /// Until the cost fits. Zero in a window that allowed.
    pub wait: Duration,
}

/// One key of a decision: whose counters, in which windows, at what cost.
#[derive(Debug)]
pub struct Charge<'a> {
    /// The subject's windows; none twice.
    pub windows: &'a [Window],
    /// What the request costs; at most the capacity of each window.
    pub cost: u32,
    /// The subject's counters.
    pub counters: &'a mut SubjectCounters,
}

/// The outcome of a decision over all its keys, in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Every window allowed, and all of them are charged; else none is.
    pub allowed: bool,
    /// One list of windows for each key.
    pub keys: Vec<Vec<WindowVerdict>>,
}

/// Decides at `now` over all `charges`; what is charged may be spent until `now + spend_within`.
///
/// Charges are dated at the end of that span, so that no trailing window of *spends* holds more than its
/// limit however late within the span they come.
pub fn take(charges: &mut [Charge<'_>], buckets: u32, now: Timestamp, spend_within: Duration) -> Decision {
    let allowed = all_fit(charges, buckets, now);
    if allowed {
        for charge in &mut *charges {
            charge.counters.charge(charge.windows, buckets, charge.cost, spend_within);
        }
    }
    decision(charges, buckets, allowed)
}

/// Does what `operation` says: [`take`] or [`peek`].
pub fn decide(
    operation: Operation,
    charges: &mut [Charge<'_>],
    buckets: u32,
    now: Timestamp,
    spend_within: Duration,
) -> Decision {
    match operation {
        Operation::Take => take(charges, buckets, now, spend_within),
        Operation::Peek => peek(charges, buckets, now),
    }
}

/// What [`take`] would decide at `now`, with nothing charged.
pub fn peek(charges: &mut [Charge<'_>], buckets: u32, now: Timestamp) -> Decision {
    let allowed = all_fit(charges, buckets, now);
    decision(charges, buckets, allowed)
}

fn all_fit(charges: &mut [Charge<'_>], buckets: u32, now: Timestamp) -> bool {
    charges.iter_mut().fold(true, |all, charge| {
        charge.counters.settle(charge.windows, buckets, now);
        all & charge.counters.fits(charge.windows, buckets, charge.cost)
    })
}

fn decision(charges: &[Charge<'_>], buckets: u32, allowed: bool) -> Decision {
    let cost_if_rejected = |cost: u32| if allowed { 0 } else { cost };
    let keys =
        charges.iter().map(|c| c.counters.verdicts(c.windows, buckets, cost_if_rejected(c.cost))).collect();
    Decision { allowed, keys }
}

impl SubjectCounters {
    /// Brings every counter up to `now`, or to the latest moment seen when that lies later. Counters belong to
    /// windows by their place: whoever keeps counters while windows change must match them by [`Window::unit`].
    pub fn settle(&mut self, windows: &[Window], buckets: u32, now: Timestamp) {
        self.seen = self.seen.max(now);
        self.counters.truncate(windows.len());
        for (at, window) in windows.iter().enumerate() {
            match (self.counters.get_mut(at), window.algorithm()) {
                (
                    Some(Counter::Tally(counter)),
                    Algorithm::SlidingWindow | Algorithm::SlidingLog | Algorithm::FixedWindow { .. },
                ) => {
                    counter.settle(window, buckets, self.seen);
                }
                (Some(Counter::Weighted(counter)), Algorithm::SlidingCounter) => {
                    counter.settle(window, self.seen);
                }
                (Some(Counter::TokenBucket(counter)), Algorithm::TokenBucket { .. }) => {
                    counter.settle(window, self.seen);
                }
                (Some(other), _) => *other = Counter::fresh(window),
                (None, _) => self.counters.push(Counter::fresh(window)),
            }
        }
    }

    /// Whether every window has room for `cost`. Counters must be settled.
    pub fn fits(&self, windows: &[Window], buckets: u32, cost: u32) -> bool {
        self.pairs(windows).all(|(window, counter)| {
            cost <= window.capacity() && counter.wait(window, buckets, self.seen, cost).is_zero()
        })
    }

    /// Charges `cost` to every window, dated `spend_within` ahead. Counters must be settled.
    pub fn charge(&mut self, windows: &[Window], buckets: u32, cost: u32, spend_within: Duration) {
        let dated = self.seen.plus(spend_within);
        for (window, counter) in windows.iter().zip(&mut self.counters) {
            match counter {
                Counter::Tally(counter) => counter.charge(window, buckets, dated, cost),
                Counter::Weighted(counter) => counter.charge(window, dated, cost),
                Counter::TokenBucket(counter) => counter.charge(window, dated, cost),
            }
        }
    }

    /// Takes back a charge of `cost` that was dated `dated`.
    pub fn uncharge(&mut self, windows: &[Window], buckets: u32, cost: u32, dated: Timestamp) {
        for (window, counter) in windows.iter().zip(&mut self.counters) {
            match counter {
                Counter::Tally(counter) => counter.uncharge(window, buckets, dated, cost),
                Counter::Weighted(counter) => counter.uncharge(window, dated, cost),
                Counter::TokenBucket(counter) => counter.uncharge(window, cost),
            }
        }
    }

    /// What each window says now; `wait` is for a request of `cost`. Counters must be settled.
    pub fn verdicts(&self, windows: &[Window], buckets: u32, cost: u32) -> Vec<WindowVerdict> {
        self.pairs(windows)
            .map(|(window, counter)| WindowVerdict {
                remaining: counter.remaining(window, self.seen),
                reset: counter.reset(window, buckets, self.seen),
                wait: counter.wait(window, buckets, self.seen, cost),
            })
            .collect()
    }

    /// The moment from which these counters say nothing any more: every window is as if fresh.
    pub fn idle_at(&self, windows: &[Window], buckets: u32) -> Timestamp {
        let idle_in = self.pairs(windows).map(|(w, c)| c.wait(w, buckets, self.seen, w.capacity())).max();
        self.seen.plus(idle_in.unwrap_or_default())
    }

    fn pairs<'a>(&'a self, windows: &'a [Window]) -> impl Iterator<Item = (&'a Window, &'a Counter)> {
        windows.iter().zip(&self.counters)
    }
}

impl Counter {
    /// The counter of a subject that `window` has never seen.
    pub fn fresh(window: &Window) -> Self {
        match window.algorithm() {
            Algorithm::SlidingWindow | Algorithm::SlidingLog | Algorithm::FixedWindow { .. } => {
                Counter::Tally(Tally::default())
            }
            Algorithm::SlidingCounter => Counter::Weighted(Weighted::default()),
            Algorithm::TokenBucket { .. } => Counter::TokenBucket(TokenBucket::default()),
        }
    }

    fn remaining(&self, window: &Window, now: Timestamp) -> u32 {
        match self {
            Counter::Tally(counter) => counter.remaining(window),
            Counter::Weighted(counter) => counter.remaining(window, now),
            Counter::TokenBucket(counter) => counter.remaining(window),
        }
    }

    fn reset(&self, window: &Window, buckets: u32, now: Timestamp) -> Duration {
        match self {
            Counter::Tally(counter) => counter.reset(window, buckets, now),
            Counter::Weighted(counter) => counter.reset(window, now),
            Counter::TokenBucket(counter) => counter.reset(window, now),
        }
    }

    fn wait(&self, window: &Window, buckets: u32, now: Timestamp, cost: u32) -> Duration {
        match self {
            Counter::Tally(counter) => counter.wait(window, buckets, now, cost),
            Counter::Weighted(counter) => counter.wait(window, now, cost),
            Counter::TokenBucket(counter) => counter.wait(window, now, cost),
        }
    }
}

#[cfg(test)]
mod tests;
