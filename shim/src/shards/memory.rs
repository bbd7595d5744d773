//! What the shards of hot keys said last.
//!
//! It is bounded by being forgotten whole: it only saves questions.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use lanekeeper_engine::window::Window;
use lanekeeper_engine::wire::{KeyCheck, WindowAnswer};
use tokio::time::Instant;

/// So many keys are remembered, some 100 bytes a shard.
const MOST_KEYS: usize = 1024;

#[derive(Default)]
pub(super) struct Memory {
    keys: HashMap<String, Shards>,
}

/// The shards of one key.
struct Shards {
    /// The windows of the whole key: what was said of other ones says nothing.
    windows: Arc<[Window]>,
    seen: Vec<Option<Seen>>,
}

/// What one shard said.
struct Seen {
    at: Instant,
    windows: Vec<WindowAnswer>,
}

impl Seen {
    /// Until when there cannot be more left than was said: in every window that has less than `least`.
    fn is_full_until(&self, least: u32) -> Option<Instant> {
        let short = self.windows.iter().filter(|window| window.remaining < least);
        short.map(|window| self.at + Duration::from_micros(window.reset_us)).max()
    }

    /// Whether it still says something: before its first window has more left.
    fn holds(&self, now: Instant) -> bool {
        self.windows
            .iter()
            .all(|window| window.reset_us == 0 || now < self.at + Duration::from_micros(window.reset_us))
    }

    /// What its windows would say now, if nothing happened meanwhile.
    fn aged(&self, now: Instant) -> impl Iterator<Item = WindowAnswer> + '_ {
        let age = u64::try_from(now.duration_since(self.at).as_micros()).unwrap_or(u64::MAX);
        self.windows.iter().map(move |window| WindowAnswer {
            remaining: window.remaining,
            reset_us: window.reset_us.saturating_sub(age),
            wait_us: window.wait_us.saturating_sub(age),
        })
    }
}

impl Memory {
    /// Notes what a shard answered to a question of `asked_at`.
    pub(super) fn learn(&mut self, key: &KeyCheck, shard: u16, windows: &[WindowAnswer], asked_at: Instant) {
        if !self.keys.contains_key(&key.key) {
            if self.keys.len() >= MOST_KEYS {
                self.keys.clear();
            }
            self.keys.insert(key.key.clone(), Shards::of(key));
        }
        let Some(shards) = self.keys.get_mut(&key.key) else { return };
        if !shards.are_of(key) {
            *shards = Shards::of(key);
        }
        if let Some(seen) = shards.seen.get_mut(usize::from(shard)) {
            *seen = Some(Seen { at: asked_at, windows: windows.to_vec() });
        }
    }

    /// Whether what `shard` said last still holds.
    pub(super) fn knows(&self, key: &KeyCheck, shard: u16, now: Instant) -> bool {
        self.seen(key).nth(usize::from(shard)).flatten().is_some_and(|seen| seen.holds(now))
    }

    /// The shard to ask: from `turn` on the first that is not known to be full, else the one that is so for the
    /// shortest.
    pub(super) fn choose(&self, key: &KeyCheck, turn: usize, now: Instant) -> u16 {
        let least = key.ask().at_least;
        let full_until = |shard: u16| {
            let seen = self.seen(key).nth(usize::from(shard)).flatten();
            seen.and_then(|seen| seen.is_full_until(least)).filter(|until| now < *until)
        };
        let first = u16::try_from(turn % usize::from(key.shards)).unwrap_or_default();
        let in_turn = (first..key.shards).chain(0..first);
        // of equals the first; and what is not known to be full comes before all
        in_turn.min_by_key(|shard| full_until(*shard)).unwrap_or_default()
    }

    /// Whether a shard of the key is not known to be full.
    pub(super) fn may_have_room(&self, key: &KeyCheck, now: Instant) -> bool {
        let least = key.ask().at_least;
        let may = |seen: Option<&Seen>| {
            seen.and_then(|seen| seen.is_full_until(least)).is_none_or(|until| until <= now)
        };
        self.seen(key).any(may)
    }

    /// Makes what one shard said what the whole key says, as far as it is known: what is left in all shards, and
    /// when the first of the full ones has room.
    pub(super) fn speak_for_all(&self, key: &KeyCheck, windows: &mut [WindowAnswer], now: Instant) {
        let least = key.ask().at_least;
        let is_rejected = windows.iter().any(|window| window.wait_us > 0);
        let own: Vec<u32> = windows.iter().map(|window| window.remaining).collect();
        if is_rejected {
            let known = self.seen(key).flatten();
            let full = known.filter_map(|seen| Some((seen.is_full_until(least)?, seen)));
            if let Some((_, soonest)) = full.min_by_key(|(until, _)| *until) {
                for (window, aged) in windows.iter_mut().zip(soonest.aged(now)) {
                    // what it said when it allowed names no wait
                    let wait_us = if aged.remaining < least { aged.wait_us.max(aged.reset_us) } else { 0 };
                    *window = WindowAnswer { wait_us, ..aged };
                }
            }
        }
        for (at, (window, own)) in windows.iter_mut().zip(own).enumerate() {
            let left = |seen: Option<&Seen>| {
                seen.and_then(|seen| seen.windows.get(at)).map_or(own, |window| window.remaining)
            };
            window.remaining = self.seen(key).map(left).fold(0, u32::saturating_add);
        }
    }

    /// Forgets what a shard said: it has more left than that.
    pub(super) fn forget_shard(&mut self, key: &str, shard: u16) {
        let shards = self.keys.get_mut(key);
        if let Some(seen) = shards.and_then(|shards| shards.seen.get_mut(usize::from(shard))) {
            *seen = None;
        }
    }

    /// Forgets what every shard of every key said.
    pub(super) fn forget(&mut self) {
        self.keys.clear();
    }

    /// What each shard said last.
    fn seen<'a>(&'a self, key: &KeyCheck) -> impl Iterator<Item = Option<&'a Seen>> + use<'a> {
        let shards = self.keys.get(&key.key).filter(|shards| shards.are_of(key));
        (0..usize::from(key.shards)).map(move |at| shards?.seen.get(at)?.as_ref())
    }
}

impl Shards {
    fn of(key: &KeyCheck) -> Self {
        let seen = (0..key.shards).map(|_| None).collect();
        Self { windows: key.windows.clone(), seen }
    }

    fn are_of(&self, key: &KeyCheck) -> bool {
        self.seen.len() == usize::from(key.shards) && self.windows == key.windows
    }
}
