//! How far the servers' clocks are from this machine's, for whoever looks after them.
//!
//! No decision reads it: a script asks the server that it runs on, and nothing else. But a server whose clock is
//! wrong may take over another one's keys one day. Ahead, it lets their windows pass early; behind, it holds time
//! still for them until it has caught up. Neither can be seen in the answers, so it has to be seen before.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use redis::aio::MultiplexedConnection;
use redis::{ConnectionInfo, Value};
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use super::address::Address;
use super::link::{PATIENCE, connect};

/// How often a server is asked for its time. Clocks drift by seconds a day, and those who set one do it rarely.
const ASK_EVERY: Duration = Duration::from_secs(10);

/// What is known of the clocks of all servers.
#[derive(Clone)]
pub(super) struct Clocks {
    offsets: Seconds,
    errors: Seconds,
    warning: Duration,
    /// Of which servers was said that they are off. Those stay here that are gone, since they may come back.
    off: Arc<Mutex<BTreeSet<Node>>>,
}

type Seconds = Family<Node, Gauge<f64, AtomicU64>>;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
pub(super) struct Node {
    node: String,
}

/// One look at a clock.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Reading {
    /// The server's time less ours, in seconds.
    offset: f64,
    /// By how much that may be wrong either way: the server read its clock at some moment of the round trip.
    error: f64,
}

impl Clocks {
    /// Warns of a clock that is off by more than `warning`.
    pub(super) fn new(warning: Duration) -> Self {
        Self { offsets: Family::default(), errors: Family::default(), warning, off: Arc::default() }
    }

    /// Shows them among the metrics.
    pub(super) fn show(&self, registry: &mut Registry) {
        let help = "The clock of a Redis server less the shim's own, in seconds";
        registry.register("redis_clock_offset_seconds", help, self.offsets.clone());
        let help = "By how many seconds the offset may be wrong: half a round trip";
        registry.register("redis_clock_error_seconds", help, self.errors.clone());
    }

    /// Looks every now and then at the clock of the server behind `connection`, which is `server`, and at those of
    /// its replicas, one of which may be the next master. What it shows goes when it is dropped: of a server that is
    /// away nothing is known.
    pub(super) async fn watch(
        &self,
        server: &ConnectionInfo,
        mut connection: MultiplexedConnection,
    ) -> Infallible {
        let mut shown: BTreeMap<Node, Shown> = BTreeMap::new();
        loop {
            let mut readings = BTreeMap::from([(Node::of(server), read(&mut connection).await)]);
            for replica in replicas(server, &mut connection).await {
                let reading = match connect(&replica).await {
                    Ok(mut connection) => read(&mut connection).await,
                    Err(_) => None,
                };
                readings.insert(Node::of(&replica), reading);
            }
            shown.retain(|node, _| matches!(readings.get(node), Some(Some(_))));
            for (node, reading) in readings {
                let Some(reading) = reading else { continue };
                self.judge(&node, reading);
                let shown = shown.entry(node).or_insert_with_key(|node| Shown(self.clone(), node.clone()));
                shown.set(reading);
            }
            sleep(ASK_EVERY).await;
        }
    }

    /// Says once that a clock is off, and once that it is not any more. A reading that is not precise enough to
    /// tell changes nothing. Returns whether it is off.
    fn judge(&self, node: &Node, Reading { offset, error }: Reading) -> bool {
        let warning = self.warning.as_secs_f64();
        let mut off = self.off.lock().unwrap_or_else(PoisonError::into_inner);
        let name = &node.node;
        if offset.abs() - error > warning && off.insert(node.clone()) {
            warn!(
                node = name,
                offset_seconds = offset,
                error_seconds = error,
                "the clock of redis is not the shim's: no decision differs, unless this server takes over from others"
            );
        } else if offset.abs() + error <= warning && off.remove(node) {
            info!(
                node = name,
                offset_seconds = offset,
                error_seconds = error,
                "the clock of redis is right again"
            );
        }
        off.contains(node)
    }
}

impl Node {
    pub(super) fn of(server: &ConnectionInfo) -> Self {
        Self { node: server.addr().to_string() }
    }
}

/// What the metrics show of one server, until it is dropped.
struct Shown(Clocks, Node);

impl Shown {
    fn set(&self, Reading { offset, error }: Reading) {
        let Self(clocks, node) = self;
        clocks.offsets.get_or_create(node).set(offset);
        clocks.errors.get_or_create(node).set(error);
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        let Self(clocks, node) = self;
        clocks.offsets.remove(node);
        clocks.errors.remove(node);
    }
}

/// The replicas of `server`, as it names them; none where it does not.
async fn replicas(server: &ConnectionInfo, connection: &mut MultiplexedConnection) -> Vec<ConnectionInfo> {
    let role = timeout(PATIENCE, connection.send_packed_command(&redis::cmd("ROLE"))).await;
    let named = match role {
        Ok(Ok(Value::Array(role))) => match role.into_iter().nth(2) {
            Some(Value::Array(replicas)) => replicas,
            // a replica names its master's port there
            _ => Vec::new(),
        },
        role => {
            debug!(?role, "redis does not name its replicas");
            Vec::new()
        }
    };
    let address = |replica: &Value| match replica {
        Value::Array(words) => Address::of_words(words),
        _ => None,
    };
    named.iter().filter_map(address).map(|address| address.of(server)).collect()
}

/// Asks a server for its time; `None` when there is no answer to be had.
async fn read(connection: &mut MultiplexedConnection) -> Option<Reading> {
    let (asked_at, began) = (SystemTime::now(), Instant::now());
    let answer = timeout(PATIENCE, connection.send_packed_command(&redis::cmd("TIME"))).await;
    let round_trip = began.elapsed();
    let time = answer.ok()?.and_then(|answer| Ok(redis::from_redis_value::<(u64, u32)>(answer)?));
    let (seconds, micros) = time.inspect_err(|error| debug!(%error, "redis does not tell its time")).ok()?;
    let server = Duration::from_secs(seconds) + Duration::from_micros(micros.into());
    Some(Reading::of(server, asked_at.duration_since(UNIX_EPOCH).ok()?, round_trip))
}

impl Reading {
    /// The server's time, when it was asked for, and how long the answer took. The moments are since 1970.
    fn of(server: Duration, asked_at: Duration, round_trip: Duration) -> Self {
        let error = round_trip / 2;
        let between = asked_at + error;
        let offset = match server.checked_sub(between) {
            Some(ahead) => ahead.as_secs_f64(),
            None => -(between - server).as_secs_f64(),
        };
        Self { offset, error: error.as_secs_f64() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_read_its_clock_in_the_middle_of_the_round_trip_or_half_of_it_away() {
        let seconds = Duration::from_secs;
        let cases = [(1001, 0.0), (1000, -1.0), (1002, 1.0), (29_801, 28_800.0), (0, -1001.0)];
        for (server, offset) in cases {
            let reading = Reading::of(seconds(server), seconds(1000), seconds(2));
            assert_eq!(reading, Reading { offset, error: 1.0 });
        }
    }

    #[test]
    fn only_a_reading_that_is_certain_changes_what_is_said_of_a_clock() {
        let (clocks, node) = (Clocks::new(Duration::from_secs(1)), Node { node: "redis:6379".into() });
        let cases = [
            ((1.0, 0.0), false),
            ((1.5, 0.5), false),
            ((-1.5, 0.25), true),
            ((0.75, 0.5), true),
            ((0.5, 0.5), false),
            ((1.5, 0.25), true),
        ];
        for ((offset, error), is_off) in cases {
            assert_eq!(clocks.judge(&node, Reading { offset, error }), is_off, "{offset} s");
        }
    }
}
