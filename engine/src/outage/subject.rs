//! One subject, and what was admitted to it.

use std::sync::Arc;
use std::time::Duration;

use super::AGAIN_AFTER;
use super::slices::Slices;
use crate::units::Timestamp;
use crate::window::{Algorithm, Window};
use crate::wire::{KeyCheck, KeySpent};

pub(super) struct Subject {
    key: String,
    shards: u16,
    windows: Arc<[Window]>,
    /// What no report has told yet.
    open: Slices,
    told: Option<Told>,
    /// When it may be told by itself.
    pub(super) due: Timestamp,
}

/// A report that the store may have heard.
struct Told {
    id: u64,
    slices: Slices,
    is_under_way: bool,
}

impl Subject {
    pub(super) fn new(key: &KeyCheck, now: Timestamp) -> Self {
        let (windows, open) = (Arc::clone(&key.windows), Slices::default());
        Self { key: key.key.clone(), shards: key.shards, windows, open, told: None, due: now }
    }

    pub(super) fn note(&mut self, tokens: u32, now: Timestamp) {
        self.open.forget(counts_for(&self.windows), now);
        let most = self.windows.iter().map(Window::capacity).max().unwrap_or(1);
        let shortest = self.windows.iter().map(Window::per).min().unwrap_or_default();
        self.open.note(tokens, most, shortest, now);
    }

    /// Whether it is not being told.
    pub(super) fn may_be_told(&self) -> bool {
        self.told.as_ref().is_none_or(|told| !told.is_under_way)
    }

    pub(super) fn is_under_way(&self, id: u64) -> bool {
        self.told.as_ref().is_some_and(|told| told.is_under_way && told.id == id)
    }

    /// Its report: the one that the store has not answered, or a new one, known by `id`. None if nothing of it counts.
    pub(super) fn tell(&mut self, id: u64, now: Timestamp) -> Option<KeySpent> {
        let span = counts_for(&self.windows);
        self.open.forget(span, now);
        if let Some(told) = &mut self.told {
            told.slices.forget(span, now);
        }
        let mut told = match self.told.take().filter(|told| !told.slices.is_empty()) {
            Some(told) => told,
            None if self.open.is_empty() => return None,
            None => Told { id, slices: std::mem::take(&mut self.open), is_under_way: true },
        };
        told.is_under_way = true;
        let (id, slices) = (told.id, told.slices.told(now));
        self.told = Some(told);
        Some(KeySpent {
            key: self.key.clone(),
            shards: self.shards,
            id,
            slices,
            windows: Arc::clone(&self.windows),
        })
    }

    /// Its report has ended. When it is to be told again; none if there is nothing more to tell.
    pub(super) fn ended(&mut self, is_recorded: bool, now: Timestamp) -> Option<Timestamp> {
        if is_recorded {
            self.told = None;
            self.due = now;
            return (!self.open.is_empty()).then_some(now);
        }
        if let Some(told) = &mut self.told {
            told.is_under_way = false;
        }
        self.due = now.plus(AGAIN_AFTER);
        Some(self.due)
    }
}

/// For how long a request may count in one of these windows.
fn counts_for(windows: &[Window]) -> Duration {
    windows.iter().map(window_counts_for).max().unwrap_or_default()
}

fn window_counts_for(window: &Window) -> Duration {
    match window.algorithm() {
        // the time in which an empty one fills
        Algorithm::TokenBucket { burst } => {
            let (token, rate) = window.token();
            Duration::from_micros((u64::from(burst.get()) * token).div_ceil(rate))
        }
        Algorithm::SlidingWindow | Algorithm::SlidingLog => window.per(),
        // a request counts until the bucket after its own is over, and a day in which clocks are put back is longer
        Algorithm::SlidingCounter | Algorithm::FixedWindow { .. } => 2 * window.per(),
    }
}
