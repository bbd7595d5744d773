//! Distrust of a server that has just taken over from another one.
//!
//! Redis replicates after it has answered, so a new master may not know the last charges, and an old one that was
//! only cut off may go on for a while for whoever still reaches it. For a time that operators choose, a server that took
//! over therefore decides nothing: its checks fail, nodes count for themselves, and what was lost grows old. It takes
//! what is given back and what nodes report meanwhile.

use std::time::Duration;

use redis::Value;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::warn;

use super::replicas::Replicas;

/// What it says instead of a decision.
const LEARNING: &[u8] = b"-LEARNING It has just taken over\r\n";

/// What is done about what a failover can lose.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caution {
    pub(super) replicas: Replicas,
    /// How long a server that took over decides nothing.
    pub(super) learning_period: Duration,
}

/// Whether one server decides.
pub(super) struct Learning {
    period: Duration,
    until: watch::Sender<Option<Instant>>,
}

impl Learning {
    /// A server that has not taken over from anybody.
    pub(super) fn new(period: Duration) -> Self {
        Self { period, until: watch::Sender::new(None) }
    }

    /// The server called `name` has taken over.
    pub(super) fn begin(&self, name: &str) {
        if self.period.is_zero() {
            return;
        }
        warn!(name, period = ?self.period, "redis has failed over: the new server decides nothing for a while");
        self.until.send_replace(Some(Instant::now() + self.period));
    }

    /// Whether it decides nothing yet.
    pub(super) fn is_on(&self) -> bool {
        self.until.borrow().is_some_and(|until| Instant::now() < until)
    }
}

/// What is answered in its place.
pub(super) fn refusal() -> Value {
    redis::parse_redis_value(LEARNING).unwrap_or(Value::Nil)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_server_that_took_over_decides_nothing_for_exactly_so_long() {
        let period = Duration::from_secs(3);
        let learning = Learning::new(period);
        assert!(!learning.is_on());
        learning.begin("r");
        tokio::time::sleep(period - Duration::from_millis(1)).await;
        assert!(learning.is_on());
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(!learning.is_on());
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_period_it_is_believed_at_once() {
        let learning = Learning::new(Duration::ZERO);
        learning.begin("r");
        assert!(!learning.is_on());
    }
}
