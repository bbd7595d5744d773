//! One subject, and what was admitted to it.

use std::sync::Arc;
use std::time::Duration;

use super::slices::Slices;
use super::{AGAIN_AFTER, SETTLES};
use crate::units::Timestamp;
use crate::window::{Algorithm, Window};
use crate::wire::{KeyCheck, KeySpent, Recorded};

pub(super) struct Subject {
    key: String,
    shards: u16,
    windows: Arc<[Window]>,
    /// What no report has told yet.
    open: Slices,
    told: Option<Told>,
    /// When it may be told by itself, or is settled.
    pub(super) due: Timestamp,
    /// From then on it is settled, if there is nothing to tell.
    pub(super) settles_at: Timestamp,
}

/// A report that the store may have heard.
struct Told {
    id: u64,
    slices: Slices,
    is_under_way: bool,
    /// Whether the store may have heard it, though nobody knows.
    may_count: bool,
}

/// How the way of a report has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// It counts.
    Counts,
    /// It does not.
    DoesNotCount,
    /// Nobody knows.
    Unknown,
}

impl From<Recorded> for Ended {
    fn from(answer: Recorded) -> Self {
        match answer {
            Recorded::Recorded => Self::Counts,
            Recorded::NotRecorded(_) => Self::DoesNotCount,
            Recorded::Failed(_) => Self::Unknown,
        }
    }
}

impl Subject {
    pub(super) fn new(key: &KeyCheck, now: Timestamp) -> Self {
        let (windows, open) = (Arc::clone(&key.windows), Slices::default());
        Self {
            key: key.key.clone(),
            shards: key.shards,
            windows,
            open,
            told: None,
            due: now,
            settles_at: now,
        }
    }

    pub(super) fn note(&mut self, tokens: u32, now: Timestamp) {
        self.open.forget(counts_for(&self.windows), now);
        self.open.note(tokens, self.most(), self.shortest(), now);
    }

    /// What a slice holds at most.
    fn most(&self) -> u32 {
        self.windows.iter().map(Window::capacity).max().unwrap_or(1)
    }

    fn shortest(&self) -> Duration {
        self.windows.iter().map(Window::per).min().unwrap_or_default()
    }

    /// Whether something was admitted of which the store may not know.
    pub(super) fn has_untold(&self) -> bool {
        self.told.is_some() || !self.open.is_empty()
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
            None => Told { id, slices: std::mem::take(&mut self.open), is_under_way: true, may_count: false },
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

    /// Its report has ended.
    pub(super) fn ended(&mut self, how: Ended, now: Timestamp) {
        let told = self.told.take();
        if how == Ended::Counts {
            self.settles_at = now.plus(SETTLES);
            self.due = if self.open.is_empty() { self.settles_at } else { now };
            return;
        }
        match told {
            // what is admitted next goes along with it: so the store, once it is back, hears all of it at once
            Some(told) if how == Ended::DoesNotCount && !told.may_count => {
                self.open.put_before(told.slices, self.most(), self.shortest(), now);
            }
            Some(told) => self.told = Some(Told { is_under_way: false, may_count: true, ..told }),
            None => {}
        }
        self.due = now.plus(AGAIN_AFTER);
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
