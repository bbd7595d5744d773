//! How many nodes ask the store, over all shims.
//!
//! Each question names its node. A shim tells the store now and then whom it has heard, and passes on how many the
//! store knows of: a node that loses the store then holds its clients to its share of the limits.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::store::Store;

/// A node that has not asked for so long does not count. Longer than a lease lives, and than a refusal is remembered, so
/// that a node still counts which has not had to ask for any of its clients.
pub(crate) const NODE_LIFE: Duration = Duration::from_secs(150);
/// How often the store is told.
const TOLD_EVERY: Duration = Duration::from_secs(1);
/// The most nodes that one shim tells of: more than ask one.
const MOST_NODES: usize = 10_000;

/// The nodes that one shim has heard of.
#[derive(Default)]
pub(crate) struct Nodes {
    heard: Mutex<Heard>,
}

#[derive(Default)]
struct Heard {
    at: BTreeMap<u64, Instant>,
    told_at: Option<Instant>,
    /// What the store said last.
    count: Option<u32>,
}

impl Nodes {
    /// A node has asked. Returns how many there are, once that is known.
    pub(crate) fn hear(self: &Arc<Self>, node: u64, store: &Arc<impl Store>) -> Option<u32> {
        let now = Instant::now();
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.note(node, now);
        if heard.is_due(now) {
            let nodes: Vec<u64> = heard.at.keys().copied().collect();
            let (this, store) = (Arc::clone(self), Arc::clone(store));
            tokio::spawn(async move {
                // a store that does not answer leaves the count as it is, which is what it is for
                if let Ok(count) = store.count_nodes(&nodes, NODE_LIFE).await {
                    this.heard.lock().unwrap_or_else(PoisonError::into_inner).count = Some(count);
                }
            });
        }
        heard.count
    }
}

impl Heard {
    fn note(&mut self, node: u64, now: Instant) {
        if self.at.len() < MOST_NODES || self.at.contains_key(&node) {
            self.at.insert(node, now);
        }
    }

    /// Whether the store is to be told now; those that are gone are forgotten then.
    fn is_due(&mut self, now: Instant) -> bool {
        let due = self.told_at.is_none_or(|told| now.duration_since(told) >= TOLD_EVERY);
        if due {
            self.told_at = Some(now);
            self.at.retain(|_, heard| now.duration_since(*heard) < NODE_LIFE);
        }
        due
    }
}
