//! Answers that are given only once replicas have what they say: a failover then loses nothing that was answered.
//!
//! Redis replicates after it has answered. So behind its scripts each pipeline asks, on the same connection, how many
//! replicas have what was written before; where they are too few, its scripts count as refused. What they charged
//! stays charged, and is spent by nobody.

use std::time::Duration;

use redis::{Cmd, Value};
use tokio::time::Instant;

/// What a master says by itself that has fewer of them than its `min-replicas-to-write`.
const TOO_FEW: &[u8] = b"-NOREPLICAS Too few replicas have it\r\n";

/// How many replicas an answer waits for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Replicas(pub(super) u32);

impl Replicas {
    /// What ends a pipeline that is to be answered by `deadline`; none where nothing is waited for. It gives up early
    /// enough to be heard.
    pub(super) fn wait(self, deadline: Instant) -> Option<Cmd> {
        let patience = deadline.saturating_duration_since(Instant::now()) * 3 / 4;
        let ms = patience.max(Duration::from_millis(1)).as_millis();
        let mut command = redis::cmd("WAIT");
        command.arg(self.0).arg(u64::try_from(ms).unwrap_or(u64::MAX));
        (self.0 > 0).then_some(command)
    }

    /// What is made of a script's answer, with what was answered to the wait behind it.
    pub(super) fn hold(self, answer: Value, waited: Option<&Value>) -> Value {
        match (answer, waited) {
            // it says what was not run
            (refused @ Value::ServerError(_), _) => refused,
            (answer, Some(Value::Int(have_it))) if *have_it >= i64::from(self.0) => answer,
            (_, Some(refused @ Value::ServerError(_))) => refused.clone(),
            _ => redis::parse_redis_value(TOO_FEW).unwrap_or(Value::Nil),
        }
    }
}
