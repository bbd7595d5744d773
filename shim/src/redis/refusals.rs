//! What Redis refuses, by the word that its errors begin with.
//!
//! To a caller a refusal is a refusal. Whoever looks after Redis needs to tell one that is full from one that is a
//! replica, and needs it in one line, not in one for each request.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use redis::{ErrorKind, RedisError};
use tracing::warn;

/// Those that have a series of their own. What else there is, scripts may make up.
const CODES: [&str; 15] = [
    "BUSY",
    "CLUSTERDOWN",
    "ERR",
    "LEARNING",
    "LOADING",
    "MASTERDOWN",
    "MISCONF",
    "NOAUTH",
    "NOPERM",
    "NOREPLICAS",
    "NOSCRIPT",
    "OOM",
    "READONLY",
    "WRONGPASS",
    "WRONGTYPE",
];
const OTHER: &str = "other";

/// How often the same code is logged.
const SAY_EVERY: Duration = Duration::from_secs(1);

/// What was refused so far.
#[derive(Clone, Default)]
pub(super) struct Refusals {
    counted: Family<Refused, Counter>,
    said: Arc<Mutex<BTreeMap<&'static str, Said>>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Refused {
    code: &'static str,
}

/// When a code was logged last, and how many came since.
struct Said {
    at: Instant,
    since: u64,
}

impl Refusals {
    /// Shows them among the metrics.
    pub(super) fn show(&self, registry: &mut Registry) {
        for code in CODES.into_iter().chain([OTHER]) {
            self.counted.get_or_create(&Refused { code }).inc_by(0);
        }
        let help = "What Redis refused, checks and attempts to connect, by the code of its error";
        registry.register("redis_refusals", help, self.counted.clone());
    }

    /// Counts one.
    pub(super) fn count(&self, code: &'static str) {
        self.counted.get_or_create(&Refused { code }).inc();
    }

    /// Counts a call that was refused, and logs it if its code was not logged just now.
    pub(super) fn note(&self, error: &RedisError) {
        let code = code(error);
        self.count(code);
        if let Some(refused) = self.is_due(code, Instant::now()) {
            warn!(code, %error, refused, "redis refuses");
        }
    }

    /// How many of `code` have come since it was logged, if it is to be logged now.
    fn is_due(&self, code: &'static str, now: Instant) -> Option<u64> {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(said) = said.get_mut(code) else {
            said.insert(code, Said { at: now, since: 0 });
            return Some(1);
        };
        said.since += 1;
        if now.duration_since(said.at) < SAY_EVERY {
            return None;
        }
        said.at = now;
        Some(std::mem::take(&mut said.since))
    }
}

/// What an error is called here.
pub(super) fn code(error: &RedisError) -> &'static str {
    let is_within_script = |detail: &str| detail.starts_with("The user executing the script can't run");
    let code = match error.kind() {
        // what the library makes of each error to AUTH
        ErrorKind::AuthenticationFailed => Some("WRONGPASS"),
        // what Redis before 7.2 says to a script
        _ if error.detail().is_some_and(is_within_script) => Some("NOPERM"),
        _ => error.code(),
    };
    CODES.into_iter().find(|known| Some(*known) == code).unwrap_or(OTHER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_logged_at_once_and_then_once_a_second_with_how_many_came() {
        let (refusals, began) = (Refusals::default(), Instant::now());
        let cases = [
            ("OOM", 0, Some(1)),
            ("OOM", 1, None),
            ("BUSY", 2, Some(1)),
            ("OOM", 999, None),
            ("OOM", 1000, Some(3)),
            ("OOM", 1001, None),
            ("OOM", 9000, Some(2)),
        ];
        for (code, ms, due) in cases {
            assert_eq!(refusals.is_due(code, began + Duration::from_millis(ms)), due, "{code} at {ms}");
        }
    }
}
