//! Whether a server has room for subjects that it has not seen.
//!
//! A Redis whose memory is used up refuses every write, or evicts keys, which gives whoever is evicted a fresh limit.
//! So there is an end before that one: past it a server goes on for those it counts already, and new subjects are
//! refused with a reason of their own. Keys expire, so room comes back by itself.

use std::convert::Infallible;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use redis::ConnectionInfo;
use redis::aio::MultiplexedConnection;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::clock::Node;
use super::link::PATIENCE;

/// How often a server is asked. The fifth of its memory that is left then takes far longer to fill.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// From how much of its memory on a server takes nobody new, and below how much it does again, in percent. What lies
/// between keeps it from changing its mind with every key.
const FULL_FROM: u64 = 80;
const ROOM_BELOW: u64 = 75;

/// Whom a server counts.
///
/// ```text
///        80 % used
///   All ------------> Known
///       <------------
///        less than 75 %, or no limit
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Admits {
    /// Everybody.
    #[default]
    All,
    /// Those whom it has seen.
    Known,
}

/// How much memory a server uses, and may use, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Memory {
    used: u64,
    /// Never 0.
    most: u64,
}

/// What `INFO memory` says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Said {
    /// None where the server knows no limit.
    memory: Option<Memory>,
    /// What it does when the memory is used up.
    policy: String,
}

impl Admits {
    fn after(self, memory: Option<Memory>) -> Self {
        let Some(Memory { used, most }) = memory else { return Self::All };
        let percent = u128::from(used) * 100;
        let is_from = |share: u64| percent >= u128::from(most) * u128::from(share);
        match self {
            Self::All if is_from(FULL_FROM) => Self::Known,
            Self::Known if !is_from(ROOM_BELOW) => Self::All,
            same => same,
        }
    }
}

/// How full each server is, for operators.
#[derive(Clone, Default)]
pub(super) struct Shares(Family<Node, Gauge<f64, AtomicU64>>);

impl Shares {
    /// Shows them among the metrics.
    pub(super) fn show(&self, registry: &mut Registry) {
        let help =
            "What a Redis server uses of the memory that it may use, 0 to 1; nothing where it has no limit";
        registry.register("redis_memory_ratio", help, self.0.clone());
    }

    /// Looks every now and then at the memory of the server behind `connection`, which is `server`, and tells whom it
    /// admits. What it shows goes when it is dropped.
    pub(super) async fn watch(
        &self,
        server: &ConnectionInfo,
        mut connection: MultiplexedConnection,
        admits: &watch::Sender<Admits>,
    ) -> Infallible {
        let shown = Shown { shares: self, node: Node::of(server) };
        let name = server.addr().to_string();
        let (mut is_blind, mut evicts) = (false, String::new());
        loop {
            match ask(&mut connection).await {
                Answer::Says(said) => {
                    is_blind = false;
                    shown.set(said.memory);
                    tell(&name, admits, said.memory);
                    let policy = said.evicting_policy().unwrap_or_default();
                    if evicts != policy && !policy.is_empty() {
                        warn!(
                            name,
                            policy,
                            "redis evicts counters when its memory is used up, and who is evicted starts afresh: set maxmemory-policy noeviction"
                        );
                    }
                    policy.clone_into(&mut evicts);
                }
                Answer::Refuses(reason) => {
                    if !std::mem::replace(&mut is_blind, true) {
                        warn!(name, reason, "redis does not say how full it is: new subjects are admitted");
                    }
                    shown.set(None);
                    tell(&name, admits, None);
                }
                // It has much to do, or is gone: it is as full as it was.
                Answer::Waits => {}
            }
            sleep(ASK_EVERY).await;
        }
    }
}

/// Says it once when that changes whom the server admits.
fn tell(name: &str, admits: &watch::Sender<Admits>, memory: Option<Memory>) {
    let changed = admits.send_if_modified(|admits| {
        let before = std::mem::replace(admits, admits.after(memory));
        before != *admits
    });
    if !changed {
        return;
    }
    let (used, most) = memory.map(|memory| (memory.used, memory.most)).unwrap_or_default();
    match *admits.borrow() {
        Admits::Known => {
            warn!(name, used, most, "redis is nearly full: subjects that it has not seen are refused")
        }
        Admits::All => info!(name, used, most, "redis has room for new subjects again"),
    }
}

/// What the metrics show of one server, until it is dropped.
struct Shown<'a> {
    shares: &'a Shares,
    node: Node,
}

impl Shown<'_> {
    fn set(&self, memory: Option<Memory>) {
        match memory {
            Some(Memory { used, most }) => {
                self.shares.0.get_or_create(&self.node).set(used as f64 / most as f64);
            }
            None => {
                self.shares.0.remove(&self.node);
            }
        }
    }
}

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        self.shares.0.remove(&self.node);
    }
}

/// What comes of a question for the memory.
enum Answer {
    Says(Said),
    /// It will not say, and why.
    Refuses(String),
    /// There is no answer now.
    Waits,
}

async fn ask(connection: &mut MultiplexedConnection) -> Answer {
    let mut command = redis::cmd("INFO");
    command.arg("memory");
    let answer = timeout(PATIENCE, connection.send_packed_command(&command)).await;
    let Ok(Ok(answer)) = answer else { return Answer::Waits };
    match redis::from_redis_value::<String>(answer) {
        Ok(text) => Said::read(&text)
            .map_or_else(|| Answer::Refuses("its answer has no numbers".to_owned()), Answer::Says),
        Err(error) => Answer::Refuses(error.to_string()),
    }
}

impl Said {
    fn read(info: &str) -> Option<Self> {
        let field = |name: &str| {
            info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
        };
        let number = |name: &str| field(name)?.parse::<u64>().ok();
        // What waits for replicas and for the log on disk is not held against keys, as Redis itself does not.
        let used = number("used_memory")?.saturating_sub(number("mem_not_counted_for_evict").unwrap_or(0));
        let memory = Some(number("maxmemory")?).filter(|most| *most > 0).map(|most| Memory { used, most });
        Some(Self { memory, policy: field("maxmemory_policy").unwrap_or("noeviction").to_owned() })
    }

    /// The policy by which it would evict counters: every one but `noeviction`, since all of them carry an expiry.
    fn evicting_policy(&self) -> Option<&str> {
        self.memory.is_some().then_some(self.policy.as_str()).filter(|policy| *policy != "noeviction")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_new_subjects_from_80_percent_on_until_less_than_75_are_used() {
        let mut admits = Admits::default();
        let cases = [
            (799, Admits::All),
            (800, Admits::Known),
            (799, Admits::Known),
            (750, Admits::Known),
            (749, Admits::All),
            (799, Admits::All),
            (2000, Admits::Known),
            (0, Admits::All),
        ];
        for (used, then) in cases {
            admits = admits.after(Some(Memory { used, most: 1000 }));
            assert_eq!(admits, then, "{used}");
        }
    }

    #[test]
    fn a_server_that_knows_no_limit_has_room() {
        for admits in [Admits::All, Admits::Known] {
            assert_eq!(admits.after(None), Admits::All);
        }
        let said = Said::read("used_memory:7\r\nmaxmemory:0\r\nmaxmemory_policy:allkeys-lru\r\n").unwrap();
        assert_eq!((said.memory, said.evicting_policy()), (None, None));
    }

    #[test]
    fn does_not_hold_against_keys_what_waits_for_replicas() {
        let info = "# Memory\r\nused_memory:90\r\nmaxmemory:100\r\nmem_not_counted_for_evict:20\r\n";
        assert_eq!(Said::read(info).unwrap().memory, Some(Memory { used: 70, most: 100 }));
    }

    #[test]
    fn every_policy_but_noeviction_evicts_counters() {
        for (policy, evicting) in [
            ("noeviction", None),
            ("allkeys-lru", Some("allkeys-lru")),
            ("volatile-ttl", Some("volatile-ttl")),
        ] {
            let info = format!("used_memory:1\r\nmaxmemory:100\r\nmaxmemory_policy:{policy}\r\n");
            assert_eq!(Said::read(&info).unwrap().evicting_policy(), evicting);
        }
    }

    #[test]
    fn an_answer_without_numbers_says_nothing() {
        assert_eq!(Said::read("used_memory:many\r\nmaxmemory:100"), None);
        assert_eq!(Said::read(""), None);
    }
}
