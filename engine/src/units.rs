//! Moments that cannot be mistaken for spans.
//!
//! A moment is a whole number of microseconds, because that is what Redis `TIME` gives and what a Lua number
//! (a double) still holds exactly until the year 2255. A span is a [`Duration`].

use std::time::Duration;

/// A moment, in microseconds since the epoch of the clock it was read from. Two moments are only comparable
/// when the same clock gave both: the store's for counters, the node's monotonic one for waiting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The moment that lies `micros` microseconds after the clock's epoch.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Microseconds since the clock's epoch.
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// The moment `span` later; the end of time when that is out of range.
    pub fn plus(self, span: Duration) -> Self {
        Self(self.0.saturating_add(micros(span)))
    }

    /// How long ago `earlier` was; zero when it lies ahead.
    pub const fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

/// A span in whole microseconds, saturating.
pub fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}
