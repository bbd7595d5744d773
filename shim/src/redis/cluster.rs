//! The nodes of a Redis Cluster, and which of them has a slot.
//!
//! One task asks the cluster for its slots, every second, and sooner when a node has sent somebody elsewhere or is
//! away, so that whoever takes over from it is found at once. A slot that moved is known at once to whoever was told.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lanekeeper_engine::wire::StoreError;
use redis::{ConnectionInfo, Value};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tracing::{debug, info};

use super::Signs;
use super::address::Address;
use super::learning::Caution;
use super::link::{Link, PATIENCE};
use super::room::Admits;
use super::sentinel::Server;
use crate::store::NotReady;

const SLOTS: u16 = 16_384;
/// How often the cluster is asked for its slots.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// The least time between two such questions, however many callers are sent elsewhere.
const ASK_AFTER: Duration = Duration::from_millis(50);
/// The same while a node is away, which may last: far within the two seconds in which its replica is to be found.
const ASK_AWAY_AFTER: Duration = Duration::from_millis(200);

/// A cluster's nodes.
pub(super) struct Cluster {
    board: Arc<Board>,
    keeper: JoinHandle<()>,
}

struct Board {
    /// How every node is spoken to: user, password, TLS.
    manner: ConnectionInfo,
    /// The addresses that were given; they are never forgotten.
    seeds: Vec<Address>,
    caution: Caution,
    signs: Signs,
    links: Mutex<HashMap<Address, Arc<Link>>>,
    /// The node of each slot; none until the cluster was asked for the first time, with whatever result.
    owners: watch::Sender<Option<Vec<Option<Arc<Link>>>>>,
    stale: Notify,
}

/// The slot of `key`: of its hash tag, if it has one.
pub(super) fn slot(key: &str) -> u16 {
    let tag = key.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map(|(tag, _)| tag);
    let hashed = tag.filter(|tag| !tag.is_empty()).unwrap_or(key);
    crc16::State::<crc16::XMODEM>::calculate(hashed.as_bytes()) % SLOTS
}

impl Cluster {
    /// Finds the nodes in the background, starting from any of `seeds`. Needs a running tokio runtime.
    pub(super) fn open(manner: ConnectionInfo, seeds: Vec<Address>, caution: Caution, signs: &Signs) -> Self {
        let board = Arc::new(Board {
            manner,
            seeds,
            caution,
            signs: signs.clone(),
            links: Mutex::default(),
            owners: watch::Sender::new(None),
            stale: Notify::new(),
        });
        for seed in &board.seeds {
            board.link(seed);
        }
        let keeper = tokio::spawn(Arc::clone(&board).keep());
        Self { board, keeper }
    }

    /// The node that has `slot`, as far as is known. Waits for the first answer of the cluster.
    pub(super) async fn owner(&self, slot: u16) -> Result<Arc<Link>, StoreError> {
        let mut owners = self.board.owners.subscribe();
        let owners = owners.wait_for(Option::is_some).await.map_err(|_| StoreError::Unreachable)?;
        let owner = owners.as_ref().and_then(|owners| owners.get(usize::from(slot)).cloned().flatten());
        if owner.as_ref().is_none_or(|owner| owner.is_away()) {
            // Another one may have taken over already.
            self.board.stale.notify_one();
        }
        owner.ok_or(StoreError::Unreachable)
    }

    /// Whom the node that has `slot` counts.
    pub(super) fn admits(&self, slot: u16) -> Admits {
        let owners = self.board.owners.borrow();
        let owner = owners.as_ref().and_then(|owners| owners.get(usize::from(slot))?.as_ref());
        owner.map(|owner| owner.admits()).unwrap_or_default()
    }

    /// The node at `address`, as the node behind `told_by` names it.
    pub(super) fn link_to(&self, address: &str, told_by: &Arc<Link>) -> Option<Arc<Link>> {
        let mut address = Address::read(address)?;
        if address.host.is_empty() {
            address.host = self.board.address_of(told_by)?.host;
        }
        Some(self.board.link(&address))
    }

    /// Notes that `slot` is now at `owner`.
    pub(super) fn moved(&self, slot: u16, owner: &Arc<Link>) {
        self.board.owners.send_modify(|owners| {
            let owners = owners.as_mut().and_then(|owners| owners.get_mut(usize::from(slot)));
            if let Some(place) = owners {
                *place = Some(Arc::clone(owner));
            }
        });
        self.board.stale.notify_one();
    }

    /// Whether no node would even be asked now.
    pub(super) fn is_away(&self) -> bool {
        self.board.links().values().all(|link| link.is_away())
    }

    /// Whether every slot has a node that would answer now.
    pub(super) async fn ready(&self) -> Result<(), NotReady> {
        for node in self.board.nodes().await? {
            node.ready().await?;
        }
        if self.board.owners.borrow().iter().flatten().all(Option::is_some) {
            return Ok(());
        }
        Err(NotReady::because(StoreError::Unreachable, "the cluster has slots that no node serves"))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

impl Board {
    async fn keep(self: Arc<Self>) {
        let mut known = Vec::new();
        loop {
            if let Some(slots) = self.ask().await.filter(|slots| !slots.is_empty()) {
                self.adopt(&slots, &known);
                known = slots;
            } else {
                self.adopt_none();
            }
            let misses_one = self.links().values().any(|link| link.is_away());
            sleep(if misses_one { ASK_AWAY_AFTER } else { ASK_AFTER }).await;
            // Asked early or late, it is asked.
            let _ = timeout(ASK_EVERY, self.stale.notified()).await;
        }
    }

    /// The slots, as the first node says that answers.
    async fn ask(&self) -> Option<Vec<Served>> {
        let mut links: Vec<_> =
            self.links().iter().map(|(address, link)| (address.clone(), Arc::clone(link))).collect();
        links.sort_by_key(|(_, link)| link.is_away());
        let mut command = redis::cmd("CLUSTER");
        command.arg("SLOTS");
        for (address, link) in links {
            let answers = timeout(PATIENCE, link.send(&[&command])).await;
            match answers.as_ref().map(|answers| answers.as_ref().map(|values| values.first())) {
                Ok(Ok(Some(Value::Array(ranges)))) => {
                    return Some(ranges.iter().filter_map(|range| Served::read(range, &address)).collect());
                }
                answer => debug!(?answer, ?address, "a node does not tell the slots"),
            }
        }
        None
    }

    /// Takes the slots for what they are said to be, after what was `known` before.
    fn adopt(&self, slots: &[Served], known: &[Served]) {
        let mut owners = vec![None; usize::from(SLOTS)];
        for served in slots {
            let link = self.link(&served.by);
            if served.took_over(known, slots) {
                link.took_over(&format!("{}:{}", served.by.host, served.by.port));
            }
            if let Some(places) = owners.get_mut(served.from..=served.to) {
                places.fill(Some(link));
            }
        }
        self.owners.send_replace(Some(owners));
        self.links().retain(|address, _| {
            self.seeds.contains(address) || slots.iter().any(|served| served.by == *address)
        });
    }

    /// Nobody told the slots: what was known stays, and who waited for the first answer knows that there is none.
    fn adopt_none(&self) {
        self.owners.send_if_modified(|known| {
            let is_first = known.is_none();
            known.get_or_insert_with(|| vec![None; usize::from(SLOTS)]);
            is_first
        });
    }

    /// The nodes that have slots; before any is known, those that were named.
    async fn nodes(&self) -> Result<Vec<Arc<Link>>, StoreError> {
        let mut owners = self.owners.subscribe();
        let owners = owners.wait_for(Option::is_some).await.map_err(|_| StoreError::Unreachable)?;
        let mut nodes: Vec<Arc<Link>> = Vec::new();
        for owner in owners.iter().flatten().flatten() {
            if !nodes.iter().any(|node| Arc::ptr_eq(node, owner)) {
                nodes.push(Arc::clone(owner));
            }
        }
        Ok(if nodes.is_empty() { self.links().values().cloned().collect() } else { nodes })
    }

    /// The link to the node at `address`, an old one or a new one.
    fn link(&self, address: &Address) -> Arc<Link> {
        let mut links = self.links();
        let link = links.entry(address.clone()).or_insert_with(|| {
            info!(host = address.host, port = address.port, "a node of the cluster");
            Arc::new(Link::open(Server::Known(address.of(&self.manner)), self.caution, &self.signs))
        });
        Arc::clone(link)
    }

    fn address_of(&self, link: &Arc<Link>) -> Option<Address> {
        self.links().iter().find(|(_, known)| Arc::ptr_eq(known, link)).map(|(address, _)| address.clone())
    }

    fn links(&self) -> MutexGuard<'_, HashMap<Address, Arc<Link>>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Slots, both ends included, and the node that has them.
struct Served {
    from: usize,
    to: usize,
    by: Address,
}

impl Served {
    /// Reads one range as `CLUSTER SLOTS` gives it. A node that does not know its own name is where it was asked.
    fn read(range: &Value, asked: &Address) -> Option<Self> {
        let Value::Array(range) = range else { return None };
        let [Value::Int(from), Value::Int(to), Value::Array(master), ..] = range.as_slice() else {
            return None;
        };
        let mut by = Address::of_words(master)?;
        if by.host.is_empty() {
            by.host.clone_from(&asked.host);
        }
        Some(Self { from: usize::try_from(*from).ok()?, to: usize::try_from(*to).ok()?, by })
    }

    /// Whether its node has taken over: it had no slots before, and has some now of one that has none any more. Slots
    /// that move leave their old node one by one.
    fn took_over(&self, before: &[Self], now: &[Self]) -> bool {
        let has_slots = |served: &[Self], node: &Address| served.iter().any(|served| served.by == *node);
        let was_here = |old: &&Self| old.from <= self.to && self.from <= old.to;
        !has_slots(before, &self.by) && before.iter().filter(was_here).any(|old| !has_slots(now, &old.by))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served(ranges: &[(usize, usize, &str)]) -> Vec<Served> {
        let read =
            |&(from, to, by): &(usize, usize, &str)| Served { from, to, by: Address::read(by).unwrap() };
        ranges.iter().map(read).collect()
    }

    /// Who took over between two answers.
    fn took_over(before: &[(usize, usize, &str)], now: &[(usize, usize, &str)]) -> Vec<u16> {
        let (before, now) = (served(before), served(now));
        now.iter().filter(|served| served.took_over(&before, &now)).map(|served| served.by.port).collect()
    }

    const WHOLE: [(usize, usize, &str); 2] = [(0, 99, "a:1"), (100, 199, "b:2")];

    #[test]
    fn a_replica_that_has_the_slots_of_a_master_that_has_none_took_over() {
        assert_eq!(took_over(&WHOLE, &[(0, 99, "a:1"), (100, 199, "r:3")]), [3]);
        let split = [(0, 99, "a:1"), (100, 149, "b:2"), (150, 159, "a:1"), (160, 199, "b:2")];
        let failed_over = [(0, 99, "a:1"), (100, 149, "r:3"), (150, 159, "a:1"), (160, 199, "r:3")];
        assert_eq!(took_over(&split, &failed_over), [3, 3]);
    }

    #[test]
    fn who_is_moved_slots_to_did_not_take_over() {
        for now in [
            &[(0, 109, "a:1"), (110, 199, "b:2")][..],
            &[(0, 99, "a:1"), (100, 109, "new:3"), (110, 199, "b:2")],
            // all of them, to one that is no replica
            &[(0, 199, "a:1")],
        ] {
            assert!(took_over(&WHOLE, now).is_empty(), "{now:?}");
        }
    }

    #[test]
    fn the_first_answer_says_nothing_of_who_was_there_before() {
        assert!(took_over(&[], &WHOLE).is_empty());
        assert!(took_over(&WHOLE, &WHOLE).is_empty());
    }
}
