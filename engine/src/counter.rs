//! The counters of a subject, and the one decision over all of them: every window of every key, or nothing.
//!
//! This is the model of the store. The shim's embedded store and the node's local counters run it as it
//! stands; `lua/take.lua` says the same in Lua.

use std::time::Duration;

use crate::lease::{Lease, LeaseAsk};
use crate::units::Timestamp;
use crate::window::{Algorithm, Tally, TokenBucket, Weighted, Window};
use crate::wire::Operation;

mod returns;
mod spent;

pub use returns::Returns;

/// Into how many buckets the store divides a sliding window: a token comes back late by at most 1/256 of the
/// window (0.4 %), and a subject in full use holds at most 257 small numbers.
pub const STORE_BUCKETS: u32 = 256;

/// The counter of one subject in one window.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Counter {
    /// Of a sliding window, a sliding log or a fixed window.
    Tally(Tally),
    /// Of a sliding counter.
    Weighted(Weighted),
    /// Of a token bucket.
    TokenBucket(TokenBucket),
}

/// The counters of one subject under one key: one for each window, in the windows' order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct SubjectCounters {
    /// The latest moment these counters have seen. Their time never runs backwards.
    pub seen: Timestamp,
    /// One for each window. A fresh subject has none yet.
    pub counters: Vec<Counter>,
    /// What was given back of late.
    pub returns: Returns,
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

impl WindowVerdict {
    /// What a clock says that is so far behind the subject's time, which stands still until it has caught up.
    fn as_told(self, behind: Duration) -> Self {
        let until = |span: Duration| if span.is_zero() { span } else { span + behind };
        Self { reset: until(self.reset), wait: until(self.wait), ..self }
    }
}

/// What is asked of the counters of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Whether they are charged.
    pub operation: Operation,
    /// How much is wanted; at most the capacity of each window.
    pub cost: u32,
    /// How much there has to be: 1 to `cost`, or 1 where the cost is nothing.
    pub at_least: u32,
    /// What is wanted in advance.
    pub lease: Option<LeaseAsk>,
}

impl Ask {
    /// All of `cost` or nothing.
    pub fn take(cost: u32) -> Self {
        Self { operation: Operation::Take, cost, at_least: cost, lease: None }
    }

    /// Whether all of `cost` would be granted.
    pub fn peek(cost: u32) -> Self {
        Self { operation: Operation::Peek, ..Self::take(cost) }
    }
}

/// One key of a decision: whose counters, in which windows, and what is asked of them.
#[derive(Debug)]
pub struct Charge<'a> {
    /// The subject's windows; none twice.
    pub windows: &'a [Window],
    /// What is asked.
    pub ask: Ask,
    /// The subject's counters.
    pub counters: &'a mut SubjectCounters,
}

/// The outcome of a decision over all its keys, in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Every window allowed, and all that is to be charged is; else nothing is.
    pub allowed: bool,
    /// One for each key.
    pub keys: Vec<KeyVerdict>,
}

/// What the windows of one key say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyVerdict {
    /// How much was granted; zero when the decision is a rejection.
    pub granted: u32,
    /// When, by the subject's own time.
    pub at: Timestamp,
    /// What was charged in advance.
    pub lease: Option<Lease>,
    /// One for each window.
    pub windows: Vec<WindowVerdict>,
}

/// Decides at `now` over all `charges`; what is charged may be spent until `now + spend_within`.
///
/// Charges are dated at the end of that span, so that no trailing window of *spends* holds more than its
/// limit however late within the span they come.
pub fn decide(charges: &mut [Charge<'_>], buckets: u32, now: Timestamp, spend_within: Duration) -> Decision {
    let settle_and_ask = |charge: &mut Charge<'_>| {
        charge.counters.settle(charge.windows, buckets, now);
        charge.counters.room(charge.windows)
    };
    let rooms: Vec<u32> = charges.iter_mut().map(settle_and_ask).collect();
    let allowed = rooms.iter().zip(&*charges).all(|(room, charge)| *room >= charge.ask.at_least);
    let keys = charges.iter_mut().zip(rooms).map(|(charge, room)| {
        let granted = if allowed { room.min(charge.ask.cost) } else { 0 };
        let mut lease = None;
        if allowed && charge.ask.operation == Operation::Take {
            charge.counters.charge(charge.windows, buckets, granted, spend_within);
            lease = charge.ask.lease.and_then(|ask| charge.counters.lease(charge.windows, buckets, ask));
        }
        let wanted = if allowed { 0 } else { charge.ask.at_least };
        let at = charge.counters.seen;
        let behind = at.since(now);
        let verdicts = charge.counters.verdicts(charge.windows, buckets, wanted).into_iter();
        KeyVerdict { granted, at, lease, windows: verdicts.map(|verdict| verdict.as_told(behind)).collect() }
    });
    Decision { allowed, keys: keys.collect() }
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

    /// How much every window has room for. Counters must be settled.
    pub fn room(&self, windows: &[Window]) -> u32 {
        self.pairs(windows).map(|(window, counter)| counter.remaining(window, self.seen)).min().unwrap_or(0)
    }

    /// Charges in advance what of `ask` fits, dated at its end. Counters must be settled.
    fn lease(&mut self, windows: &[Window], buckets: u32, ask: LeaseAsk) -> Option<Lease> {
        let remaining = self.pairs(windows).map(|(window, counter)| counter.remaining(window, self.seen));
        let lease = ask.fit(windows.iter().zip(remaining), self.seen)?;
        self.charge(windows, buckets, lease.tokens, lease.life());
        Some(lease)
    }

    /// Charges `cost` to every window, dated `spend_within` ahead. Nothing happens where it costs nothing. Counters must be settled.
    pub fn charge(&mut self, windows: &[Window], buckets: u32, cost: u32, spend_within: Duration) {
        if cost == 0 {
            return;
        }
        let dated = self.seen.plus(spend_within);
        for (window, counter) in windows.iter().zip(&mut self.counters) {
            match counter {
                Counter::Tally(counter) => counter.charge(window, buckets, dated, cost),
                Counter::Weighted(counter) => counter.charge(window, dated, cost),
                Counter::TokenBucket(counter) => counter.charge(window, dated, cost),
            }
        }
    }

    /// Gives back `tokens` of a charge that was dated `dated`, as long as they could still be spent; returns how
    /// many that is. A return is known by its `id`, and the second of an id gives back nothing; tokens that were never
    /// granted need none, and go back whenever that is. Counters must be settled.
    pub fn give_back(
        &mut self,
        windows: &[Window],
        buckets: u32,
        tokens: u32,
        dated: Timestamp,
        id: Option<u64>,
    ) -> u32 {
        if !self.returns.accept(id, dated, self.seen) {
            return 0;
        }
        for (window, counter) in windows.iter().zip(&mut self.counters) {
            match counter {
                Counter::TokenBucket(counter) if id.is_some() => counter.give_back(window, self.seen, tokens),
                counter => counter.uncharge(window, buckets, tokens, dated),
            }
        }
        tokens
    }

    /// Takes back a charge of `cost` that was dated `dated`.
    pub fn uncharge(&mut self, windows: &[Window], buckets: u32, cost: u32, dated: Timestamp) {
        for (window, counter) in windows.iter().zip(&mut self.counters) {
            counter.uncharge(window, buckets, cost, dated);
        }
    }

    /// What each window says at the latest moment seen; `wait` is for a request of `cost`. Counters must be settled.
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
        self.seen.plus(idle_in.unwrap_or_default()).max(self.returns.known_until())
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

    fn uncharge(&mut self, window: &Window, buckets: u32, cost: u32, dated: Timestamp) {
        match self {
            Counter::Tally(counter) => counter.uncharge(window, buckets, dated, cost),
            Counter::Weighted(counter) => counter.uncharge(window, dated, cost),
            Counter::TokenBucket(counter) => counter.uncharge(window, cost),
        }
    }

    pub(crate) fn remaining(&self, window: &Window, now: Timestamp) -> u32 {
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
