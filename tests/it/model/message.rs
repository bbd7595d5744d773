//! What goes between nodes and the store.

use std::fmt;

use lanekeeper_engine::units::Timestamp;

use crate::protocol::Ticks;

/// A worker of a node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Place {
    pub(crate) node: usize,
    pub(crate) worker: usize,
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.node, self.worker)
    }
}

/// A message on its way. It may arrive at any later time or never; some arrive twice.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Message {
    /// So many requests, one or none, want a token each, and the node wants a lease.
    Ask { from: Place, id: u8, cost: u32 },
    /// What the store says to it.
    Answer { to: Place, id: u8, allowed: bool, lease: Option<Leased> },
    /// Tokens that nobody will spend, of a charge that was dated so.
    Return { id: u64, tokens: u32, dated: Timestamp },
}

/// What was charged in advance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Leased {
    pub(crate) tokens: u32,
    pub(crate) life: Ticks,
    /// When it is dated, by the store's clock.
    pub(crate) dated: Timestamp,
}
