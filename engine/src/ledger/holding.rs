//! What a worker holds of one subject: a chunk of a lease, and what it takes to renew and to return it.

use std::sync::Arc;
use std::time::Duration;

use super::LOOK_EVERY;
use super::demand::Rate;
use super::record::Portion;
use crate::units::{Timestamp, micros};
use crate::window::Window;
use crate::wire::{KeyAnswer, KeyCheck, KeyReturn, WindowAnswer};

/// Tokens go back when more than one part in so many of a window is used: else nobody misses them.
const MISSED_FROM: u64 = 16;

/// A worker's part of a subject's leases.
#[derive(Clone, Debug)]
pub(super) struct Holding {
    key: Box<str>,
    shards: u16,
    windows: Arc<[Window]>,
    /// What this worker may spend.
    pub(super) chunk: Option<Portion>,
    /// How fast this worker spends.
    rate: Rate,
    filled_at: Timestamp,
    filled: u32,
    /// What the windows said last, to be shown, beside what was left then of the leases.
    shown: Box<[WindowAnswer]>,
    shown_at: Timestamp,
    /// What is left in the pool, as this worker saw it last.
    pool: u32,
    /// When the lease ends that this worker looks after.
    pub(super) lease_ends: Timestamp,
    /// When it asks for a renewal.
    pub(super) renew_at: Option<Timestamp>,
    /// When it returns what is left.
    pub(super) return_at: Option<Timestamp>,
}

impl Holding {
    pub(super) fn new(key: &KeyCheck) -> Self {
        Self {
            key: key.key.as_str().into(),
            shards: key.shards,
            windows: Arc::clone(&key.windows),
            chunk: None,
            rate: Rate::default(),
            filled_at: Timestamp::default(),
            filled: 0,
            shown: Box::default(),
            shown_at: Timestamp::default(),
            pool: 0,
            lease_ends: Timestamp::default(),
            renew_at: None,
            return_at: None,
        }
    }

    /// Spends `cost` of its chunk, if it can at `now`.
    pub(super) fn spend(&mut self, cost: u32, now: Timestamp) -> Option<KeyAnswer> {
        let chunk = self.chunk.as_mut().filter(|chunk| chunk.tokens >= cost && now < chunk.ends)?;
        chunk.tokens -= cost;
        let (left, shard) = (chunk.tokens.saturating_add(self.pool), chunk.shard);
        let age = micros(now.since(self.shown_at));
        let shown = |window: &WindowAnswer| WindowAnswer {
            remaining: window.remaining.saturating_add(left),
            reset_us: window.reset_us.saturating_sub(age),
            wait_us: 0,
        };
        let windows = self.shown.iter().map(shown).collect();
        Some(KeyAnswer { granted: cost, at_us: 0, shard, lease: None, windows })
    }

    /// How much this worker would like to hold of a lease with so long to live: half of what it will spend, so that others find
    /// the rest when it is they who are asked.
    pub(super) fn wanted(&self, life: Duration, now: Timestamp) -> u32 {
        self.rate.after(self.filled, now.since(self.filled_at)).within(life / 2)
    }

    /// Takes a chunk in the place of what it had, and what is left in the pool beside it.
    pub(super) fn fill(&mut self, chunk: Portion, pool: u32, now: Timestamp) {
        self.rate = self.rate.after(self.filled, now.since(self.filled_at));
        (self.filled, self.filled_at, self.pool) = (chunk.tokens, now, pool);
        self.chunk = Some(chunk);
    }

    /// What is left of its chunk.
    pub(super) fn rest(&self, now: Timestamp) -> Option<Portion> {
        self.chunk.filter(|chunk| chunk.tokens > 0 && chunk.ends > now)
    }

    /// Looks after a lease that ends at `ends`: renews it ahead of that, sooner for some subjects than for others, and
    /// returns what is left.
    pub(super) fn look_after(&mut self, ends: Timestamp, spread: u8, now: Timestamp) {
        let life = ends.since(now);
        let ahead = (life / 8 + life / 8 * u32::from(spread) / 256).max(3 * LOOK_EVERY).min(life / 2);
        self.lease_ends = ends;
        self.renew_at = Some(now.plus(life - ahead));
        self.return_before(ends, now);
    }

    /// Returns what is left shortly before `ends`, unless it returns something sooner.
    pub(super) fn return_before(&mut self, ends: Timestamp, now: Timestamp) {
        let life = ends.since(now);
        let at = now.plus(life - (2 * LOOK_EVERY).min(life / 4));
        self.return_at = Some(self.return_at.map_or(at, |known| known.min(at)));
    }

    /// Notes what the windows say.
    pub(super) fn show(&mut self, windows: &[WindowAnswer], at: Timestamp) {
        self.shown = windows.into();
        self.shown_at = at;
    }

    /// Whether so much of a window is used that unspent tokens would be missed.
    pub(super) fn is_missed(&self) -> bool {
        self.windows.iter().zip(&self.shown).any(|(window, shown)| {
            let capacity = u64::from(window.capacity());
            capacity.saturating_sub(shown.remaining.into()) * MISSED_FROM > capacity
        })
    }

    /// When to look at it next, if ever.
    pub(super) fn due(&self) -> Option<Timestamp> {
        self.renew_at.into_iter().chain(self.return_at).min()
    }

    /// The question that renews its lease.
    pub(super) fn renewal(&self) -> KeyCheck {
        KeyCheck { shards: self.shards, ..KeyCheck::take(&*self.key, 0, Arc::clone(&self.windows)) }
    }

    /// These tokens on their way back.
    pub(super) fn give_back(&self, portion: Portion, id: u64) -> KeyReturn {
        let Portion { tokens, dated_us, shard, .. } = portion;
        let (key, windows) = (self.key.to_string(), Arc::clone(&self.windows));
        KeyReturn { key, shards: self.shards, shard, tokens, dated_us, id, windows }
    }
}
