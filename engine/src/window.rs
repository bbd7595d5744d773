//! What a window is: "`limit` requests per `per`", and by which algorithm it is kept.
//!
//! | algorithm | promise | what it keeps |
//! | --- | --- | --- |
//! | [`Algorithm::SlidingWindow`] | no trailing window over its limit; late by at most `per / buckets` | a count per bucket in use |
//! | [`Algorithm::SlidingLog`] | no trailing window over its limit, and nothing late | an entry per charge, so its limit is small |
//! | [`Algorithm::SlidingCounter`] | an estimate: no trailing window over twice its limit, seldom one over its limit | two counts |
//! | [`Algorithm::FixedWindow`] | no calendar window over its limit; up to twice the limit across a boundary | a count per window in use |
//! | [`Algorithm::TokenBucket`] | no interval over `burst + limit / per x its length` | one number and one moment |
//!
//! The same arithmetic stands in `lua/windows.lua`, which answers number for number what this code answers.

use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::units::micros;

mod calendar;
mod offset;
mod part;
mod raw;
mod tally;
mod token_bucket;
mod weighted;
mod zone;

pub use calendar::Calendar;
pub use offset::{Offset, OffsetError};
pub use tally::{Bucket, Tally};
pub use token_bucket::TokenBucket;
pub use weighted::Weighted;
pub use zone::{Change, Timezone, Zone};

use raw::RawWindow;

/// The largest `limit` and `burst`. Products of a limit and a window must stay exact in a Lua number (2^53).
pub const MAX_LIMIT: u32 = 1_000_000_000;
/// The largest `limit` of a sliding log, which keeps an entry for each request: some 80 bytes in Redis.
pub const MAX_LOG_LIMIT: u32 = 100_000;
/// The shortest window. Below a millisecond the way to the store takes longer than the window.
pub const MIN_PER: Duration = Duration::from_millis(1);
/// The longest window: 366 days, a leap year.
pub const MAX_PER: Duration = Duration::from_secs(366 * 86_400);
/// Lua's numbers are doubles: whole numbers are exact up to here.
pub const MAX_EXACT: u64 = 1 << 53;

/// `limit` requests per `per`. Only [`Window::new`] makes one, so every window is within its ranges.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RawWindow", into = "RawWindow")]
pub struct Window {
    limit: NonZeroU32,
    per: Duration,
    algorithm: Algorithm,
}

/// How a window is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// Counts in fine buckets; the oldest counts in full until all of it has passed.
    SlidingWindow,
    /// Each charge by its own moment.
    SlidingLog,
    /// Two counts, the older one weighted: an approximation.
    SlidingCounter,
    /// A calendar quota: windows stand side by side, and each starts afresh.
    FixedWindow {
        /// Whose clocks say when a window begins.
        timezone: Timezone,
    },
    /// GCRA: a bucket of `burst` tokens that refills at `limit / per`.
    TokenBucket {
        /// Tokens in a full bucket.
        burst: NonZeroU32,
    },
}

/// What the numbers of a counter are counted in. When a policy changes a window, its counter still says the
/// truth as long as this is the same: a limit or a burst may change, a span or a token's size may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unit {
    /// Buckets that are a fixed part of this span.
    Bucket {
        /// The window's span.
        per: Duration,
    },
    /// Requests, each with its moment, that are kept for this span.
    Entry {
        /// The window's span.
        per: Duration,
    },
    /// Requests of whole spans since the epoch, to be weighted.
    Weighted {
        /// The window's span.
        per: Duration,
    },
    /// Whole calendar windows of this span.
    Calendar {
        /// The window's span.
        per: Duration,
        /// How far ahead of the epoch's windows these begin; below `per`.
        shift: Duration,
    },
    /// Whole calendar windows of this span in a named zone. Its name is what counts: two who know different rules
    /// of one zone still count together.
    Zoned {
        /// The window's span.
        per: Duration,
        /// Whose clocks say when a window begins.
        zone: Zone,
    },
    /// Debt, as [`Window::token`] has it.
    Debt {
        /// The debt of one token.
        token: u64,
        /// What is repaid of it in a microsecond.
        rate: u64,
    },
}

/// Why these numbers make no window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WindowError {
    /// `limit` is out of range.
    #[error("limit must be from 1 to {MAX_LIMIT}")]
    Limit,
    /// `limit` is out of a sliding log's range.
    #[error(
        "limit must be from 1 to {MAX_LOG_LIMIT} for a sliding_log, which keeps an entry for each request"
    )]
    LogLimit,
    /// `per` is out of range.
    #[error("per must be from 1ms to 366d")]
    Per,
    /// `burst` is out of range.
    #[error("burst must be from 1 to {MAX_LIMIT}")]
    Burst,
    /// The offset from UTC is out of range.
    #[error(transparent)]
    Offset(#[from] OffsetError),
    /// The time zone has no such name.
    #[error("timezone must be a name of the IANA time zone database, such as Europe/Berlin")]
    Zone,
    /// Two things or none say when windows begin.
    #[error("a fixed_window must have either offset_min or timezone")]
    Timezone,
    /// `limit` and `per` of a sliding counter are each in range, and their product cannot be counted exactly.
    #[error("limit x per is too large to be weighted exactly: lower limit or use a shorter per")]
    TooHeavy,
    /// `burst` and `per` are each in range, and their product cannot be counted exactly.
    #[error("burst x per is too large to be counted exactly: lower burst or use a shorter per")]
    TooFine,
}

impl Window {
    /// A window of `limit` requests per `per`.
    pub fn new(limit: u32, per: Duration, algorithm: Algorithm) -> Result<Self, WindowError> {
        let limit = NonZeroU32::new(limit).filter(|l| l.get() <= MAX_LIMIT).ok_or(WindowError::Limit)?;
        if !(MIN_PER..=MAX_PER).contains(&per) || !per.subsec_nanos().is_multiple_of(1_000_000) {
            return Err(WindowError::Per);
        }
        if algorithm == Algorithm::SlidingLog && limit.get() > MAX_LOG_LIMIT {
            return Err(WindowError::LogLimit);
        }
        let weight = u64::from(limit.get()).saturating_mul(micros(per) / 1000);
        if algorithm == Algorithm::SlidingCounter && weight > MAX_EXACT {
            return Err(WindowError::TooHeavy);
        }
        let window = Self { limit, per, algorithm };
        if let Algorithm::TokenBucket { burst } = algorithm {
            if burst.get() > MAX_LIMIT {
                return Err(WindowError::Burst);
            }
            if u64::from(burst.get()).checked_mul(window.token().0).is_none_or(|full| full > MAX_EXACT) {
                return Err(WindowError::TooFine);
            }
        }
        Ok(window)
    }

    /// Requests per [`Self::per`].
    pub fn limit(&self) -> u32 {
        self.limit.get()
    }

    /// The span that [`Self::limit`] counts for. A whole number of milliseconds.
    pub fn per(&self) -> Duration {
        self.per
    }

    /// How the window is kept.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The sliding window of the same limit and span.
    pub fn as_sliding(&self) -> Self {
        Self { algorithm: Algorithm::SlidingWindow, ..self.clone() }
    }

    /// The most that one request may ever cost here: what an empty window admits at once.
    pub fn capacity(&self) -> u32 {
        match self.algorithm {
            Algorithm::TokenBucket { burst } => burst.get(),
            _ => self.limit(),
        }
    }

    /// What its counter's numbers are counted in.
    pub fn unit(&self) -> Unit {
        match self.algorithm {
            Algorithm::SlidingWindow => Unit::Bucket { per: self.per },
            Algorithm::SlidingLog => Unit::Entry { per: self.per },
            Algorithm::SlidingCounter => Unit::Weighted { per: self.per },
            Algorithm::FixedWindow { timezone: Timezone::Offset(offset) } => {
                Unit::Calendar { per: self.per, shift: offset.shift(self.per) }
            }
            Algorithm::FixedWindow { timezone: Timezone::Zone(zone) } => Unit::Zoned { per: self.per, zone },
            Algorithm::TokenBucket { .. } => {
                let (token, rate) = self.token();
                Unit::Debt { token, rate }
            }
        }
    }

    /// For a token bucket, `(debt of one token, debt repaid per microsecond)`: `per / limit` without a
    /// remainder, as the two sides of the reduced fraction.
    pub fn token(&self) -> (u64, u64) {
        let (per, limit) = (micros(self.per), u64::from(self.limit()));
        let divisor = gcd(per, limit);
        (per / divisor, limit / divisor)
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a.max(1) } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn bucket(limit: u32, per: Duration, burst: u32) -> Result<Window, WindowError> {
        Window::new(limit, per, Algorithm::TokenBucket { burst: NonZeroU32::new(burst).unwrap() })
    }

    #[test]
    fn refuses_what_is_out_of_range_by_its_name() {
        let sliding = |limit, per| Window::new(limit, per, Algorithm::SlidingWindow);
        assert_eq!(sliding(0, MIN_PER), Err(WindowError::Limit));
        assert_eq!(sliding(MAX_LIMIT + 1, MIN_PER), Err(WindowError::Limit));
        assert_eq!(sliding(1, Duration::ZERO), Err(WindowError::Per));
        assert_eq!(sliding(1, MAX_PER + MIN_PER), Err(WindowError::Per));
        assert_eq!(sliding(1, Duration::from_micros(1500)), Err(WindowError::Per));
        assert_eq!(bucket(1, MIN_PER, MAX_LIMIT + 1), Err(WindowError::Burst));
        let log = |limit| Window::new(limit, MIN_PER, Algorithm::SlidingLog);
        assert_eq!(log(MAX_LOG_LIMIT + 1), Err(WindowError::LogLimit));
        assert!(log(MAX_LOG_LIMIT).is_ok());
        let counter = |limit| Window::new(limit, MAX_PER, Algorithm::SlidingCounter);
        assert_eq!(counter(284_837), Err(WindowError::TooHeavy));
        assert!(counter(284_836).is_ok());
    }

    #[test]
    fn reduces_a_rate_so_that_a_million_a_day_is_still_exact() {
        let day = Duration::from_secs(86_400);
        assert_eq!(bucket(1_000_000, day, 1_000_000).unwrap().token(), (86_400, 1));
        assert_eq!(bucket(999_983, day, 1_000_000), Err(WindowError::TooFine));
    }

    #[test]
    fn goes_over_the_wire_and_back() {
        let east = Algorithm::FixedWindow { timezone: Offset::from_minutes(480).unwrap().into() };
        let berlin = Algorithm::FixedWindow { timezone: Zone::named("Europe/Berlin").unwrap().into() };
        let windows = [
            (
                bucket(3, Duration::from_secs(1), 5).unwrap(),
                r#"{"algorithm":"token_bucket","limit":3,"per_ms":1000,"burst":5}"#,
            ),
            (
                Window::new(3, Duration::from_secs(1), Algorithm::SlidingLog).unwrap(),
                r#"{"algorithm":"sliding_log","limit":3,"per_ms":1000}"#,
            ),
            (
                Window::new(3, Duration::from_secs(1), Algorithm::SlidingCounter).unwrap(),
                r#"{"algorithm":"sliding_counter","limit":3,"per_ms":1000}"#,
            ),
            (
                Window::new(3, Duration::from_secs(1), east).unwrap(),
                r#"{"algorithm":"fixed_window","limit":3,"per_ms":1000,"offset_min":480}"#,
            ),
            (
                Window::new(3, Duration::from_secs(1), berlin).unwrap(),
                r#"{"algorithm":"fixed_window","limit":3,"per_ms":1000,"timezone":"Europe/Berlin"}"#,
            ),
        ];
        for (window, json) in windows {
            assert_eq!(serde_json::to_string(&window).unwrap(), json);
            assert_eq!(serde_json::from_str::<Window>(json).unwrap(), window);
        }
    }

    #[test]
    fn refuses_a_calendar_on_two_clocks_or_on_none_or_on_an_unknown_one() {
        for (clocks, error) in [
            ("", WindowError::Timezone),
            (r#","offset_min":0,"timezone":"Europe/Berlin""#, WindowError::Timezone),
            (r#","timezone":"Europe/Atlantis""#, WindowError::Zone),
            (r#","timezone":"europe/berlin""#, WindowError::Zone),
            (r#","offset_min":841"#, WindowError::Offset(OffsetError)),
        ] {
            let json = format!(r#"{{"algorithm":"fixed_window","limit":3,"per_ms":1000{clocks}}}"#);
            let refused = serde_json::from_str::<Window>(&json).unwrap_err();
            assert_eq!(refused.to_string(), error.to_string(), "{clocks}");
        }
    }

    #[test]
    fn zones_whose_windows_begin_together_count_in_one_unit() {
        let of = |minutes, per| {
            let offset = Offset::from_minutes(minutes).unwrap();
            Window::new(1, per, Algorithm::FixedWindow { timezone: offset.into() }).unwrap().unit()
        };
        let (hour, day) = (Duration::from_secs(3600), Duration::from_secs(86_400));
        assert_eq!(of(480, hour), of(-60, hour));
        assert_ne!(of(480, day), of(0, day));
        assert_eq!(of(-720, day), of(720, day));
    }
}
