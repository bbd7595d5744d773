//! What a worker keeps of one subject: a chunk of a lease, and what it takes to renew and to return it.
//!
//! There are many of them, most without a chunk: those of quiet subjects, whose leases this worker looks after.

use std::mem;
use std::sync::Arc;

use super::LOOK_EVERY;
use super::record::{Portion, Record};
use crate::units::{Timestamp, micros};
use crate::window::Window;
use crate::wire::{KeyAnswer, KeyCheck, KeyReturn, WindowAnswer};

/// Half the size of an `Option`, and there are many.
pub(super) const NEVER: Timestamp = Timestamp::from_micros(u64::MAX);

/// A worker's part of a subject's leases.
pub(super) struct Holding {
    key: Box<str>,
    windows: Arc<[Window]>,
    shards: u16,
    chunk: Option<Box<Chunk>>,
    /// When the lease ends that this worker looks after.
    pub(super) lease_ends: Timestamp,
    /// When it asks for a renewal.
    pub(super) renew_at: Timestamp,
    /// When it returns what is left.
    pub(super) return_at: Timestamp,
}

/// What a worker may spend, and what it may say of it.
pub(super) struct Chunk {
    pub(super) portion: Portion,
    /// What the windows said last, and when.
    windows: Box<[WindowAnswer]>,
    said_at: Timestamp,
    /// What was left in the pool when the chunk was taken.
    pool: u32,
}

impl Chunk {
    /// What was just taken from the pool, of which `record` is left.
    pub(super) fn taken(portion: Portion, record: &Record, now: Timestamp) -> Self {
        let windows = record.windows.as_slice().into();
        Self { portion, windows, said_at: record.asked_at, pool: record.left(now) }
    }

    /// Spends `cost` of it, if it can at `now`.
    pub(super) fn spend(&mut self, cost: u32, now: Timestamp) -> Option<KeyAnswer> {
        if self.portion.tokens < cost || self.portion.ends <= now {
            return None;
        }
        self.portion.tokens -= cost;
        let left = self.portion.tokens.saturating_add(self.pool);
        let age = micros(now.since(self.said_at));
        let shown = |window: &WindowAnswer| WindowAnswer {
            remaining: window.remaining.saturating_add(left),
            reset_us: window.reset_us.saturating_sub(age),
            wait_us: 0,
        };
        let windows = self.windows.iter().map(shown).collect();
        Some(KeyAnswer { granted: cost, at_us: 0, shard: self.portion.shard, lease: None, windows })
    }
}

impl Holding {
    pub(super) fn new(key: &KeyCheck) -> Self {
        Self {
            key: key.key.as_str().into(),
            windows: Arc::clone(&key.windows),
            shards: key.shards,
            chunk: None,
            lease_ends: Timestamp::default(),
            renew_at: NEVER,
            return_at: NEVER,
        }
    }

    /// What it may spend.
    pub(super) fn chunk(&mut self) -> Option<&mut Chunk> {
        self.chunk.as_deref_mut()
    }

    /// What is left of its chunk.
    pub(super) fn rest(&self, now: Timestamp) -> Option<Portion> {
        let portion = self.chunk.as_ref().map(|chunk| chunk.portion);
        portion.filter(|portion| portion.tokens > 0 && portion.ends > now)
    }

    /// Holds a chunk in the place of what it had.
    pub(super) fn hold(&mut self, chunk: Chunk, now: Timestamp) {
        self.return_before(chunk.portion.ends, now);
        self.chunk = Some(Box::new(chunk));
    }

    /// Takes the rest of its chunk out.
    pub(super) fn take_rest(&mut self) -> Option<Portion> {
        self.chunk.take().map(|chunk| chunk.portion)
    }

    /// Looks after a lease that ends at `ends`: renews it ahead of that, sooner for some subjects than for others, and
    /// returns what is left.
    pub(super) fn look_after(&mut self, ends: Timestamp, spread: u8, now: Timestamp) {
        let life = ends.since(now);
        let ahead = (life / 8 + life / 8 * u32::from(spread) / 256).max(3 * LOOK_EVERY).min(life / 2);
        self.lease_ends = ends;
        self.renew_at = now.plus(life - ahead);
        self.return_before(ends, now);
    }

    /// Returns what is left shortly before `ends`, unless it returns something sooner.
    pub(super) fn return_before(&mut self, ends: Timestamp, now: Timestamp) {
        let life = ends.since(now);
        let at = now.plus(life - (2 * LOOK_EVERY).min(life / 2));
        self.return_at = self.return_at.min(at);
    }

    /// Its windows, as its record has what they said.
    pub(super) fn windows(&self) -> &[Window] {
        &self.windows
    }

    /// Whether it is to be renewed at `now`, and whether it is to be returned: each once.
    pub(super) fn take_due(&mut self, now: Timestamp) -> (bool, bool) {
        let is_due = |at: &mut Timestamp| *at <= now && mem::replace(at, NEVER) != NEVER;
        (is_due(&mut self.renew_at), is_due(&mut self.return_at))
    }

    /// When to look at it next, if ever.
    pub(super) fn due(&self) -> Option<Timestamp> {
        Some(self.renew_at.min(self.return_at)).filter(|at| *at != NEVER)
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
