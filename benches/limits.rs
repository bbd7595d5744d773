//! The limit that is measured, kept by each algorithm in turn.

use std::num::NonZeroU32;
use std::time::Duration;

use lanekeeper_engine::window::{Algorithm, Offset, Window, WindowError};

/// The names of the algorithms, as a policy has them.
pub const ALGORITHMS: [&str; 5] =
    ["sliding_window", "sliding_log", "sliding_counter", "token_bucket", "fixed_window"];

/// The limit of ordinary size: 100 a minute and 1000 an hour.
pub fn ordinary(algorithm: &str) -> Result<[Window; 2], WindowError> {
    Ok([
        window(algorithm, 100, Duration::from_secs(60))?,
        window(algorithm, 1000, Duration::from_secs(3600))?,
    ])
}

/// `limit` requests per `per`, kept by the algorithm of this name; a token bucket holds as many as refill in `per`.
pub fn window(algorithm: &str, limit: u32, per: Duration) -> Result<Window, WindowError> {
    let algorithm = match algorithm {
        "sliding_log" => Algorithm::SlidingLog,
        "sliding_counter" => Algorithm::SlidingCounter,
        "token_bucket" => Algorithm::TokenBucket { burst: NonZeroU32::new(limit).ok_or(WindowError::Burst)? },
        "fixed_window" => Algorithm::FixedWindow { timezone: Offset::from_minutes(0)?.into() },
        _ => Algorithm::SlidingWindow,
    };
    Window::new(limit, per, algorithm)
}
