//! The configurations that are explored, each small enough to be explored in full.
//!
//! A window is full after two to four requests, and lasts as long as a life or two. Timeouts and lives of two and
//! three ticks are the shortest that can be cut by one and still leave time to be late in.

use crate::protocol::Configuration;

/// A node of one worker, and no trouble but messages that are lost, late or overtaken.
pub(crate) const ONE_NODE: Configuration = Configuration {
    nodes: 1,
    workers: 1,
    limit: 2,
    per: 3,
    within: 2,
    lease: 1,
    chunk: 1,
    life: 3,
    lasts: 8,
    requests: 4,
    renewals: 0,
    returns: 0,
    copies: 0,
    lags: 0,
    crashes: 0,
    failovers: 0,
    setbacks: 0,
    leaps: 0,
};

/// Two nodes share the limit.
pub(crate) const TWO_NODES: Configuration = Configuration { nodes: 2, lasts: 5, ..ONE_NODE };

/// Two workers share a pool.
pub(crate) const TWO_WORKERS: Configuration =
    Configuration { workers: 2, limit: 3, lease: 2, lasts: 4, ..ONE_NODE };

/// They take more than they need at once, and keep it.
pub(crate) const CHUNKS: Configuration = Configuration { chunk: 2, lasts: 5, ..TWO_WORKERS };

/// A lease is renewed while it lives.
pub(crate) const RENEWALS: Configuration = Configuration { limit: 4, renewals: 2, lasts: 6, ..ONE_NODE };

/// The node's clock misses a tick.
pub(crate) const SLOW_CLOCK: Configuration = Configuration { lags: 1, ..ONE_NODE };

/// A message arrives twice.
pub(crate) const COPIES: Configuration = Configuration { copies: 1, ..ONE_NODE };

/// Unspent tokens go back, and a message arrives twice.
pub(crate) const RETURNS: Configuration =
    Configuration { limit: 3, lease: 2, returns: 1, copies: 1, lasts: 5, ..ONE_NODE };

/// One of two nodes crashes, and a message arrives twice.
pub(crate) const CRASHES: Configuration =
    Configuration { requests: 3, copies: 1, crashes: 1, lasts: 3, ..TWO_NODES };

/// The replica takes over, with all that it lacks.
pub(crate) const FAILOVERS: Configuration =
    Configuration { failovers: 1, setbacks: 1, returns: 1, lasts: 5, requests: 3, ..ONE_NODE };

/// The store's clock is set back, and what was given back is given back again.
pub(crate) const SETBACKS: Configuration =
    Configuration { limit: 3, life: 2, returns: 2, copies: 1, setbacks: 1, lasts: 3, ..ONE_NODE };

/// The store's clock leaps ahead.
pub(crate) const LEAPS: Configuration = Configuration { leaps: 2, ..ONE_NODE };

/// Store and nodes fail together.
pub(crate) const CRASHES_AND_FAILOVERS: Configuration =
    Configuration { requests: 3, returns: 1, crashes: 1, failovers: 1, lasts: 2, ..TWO_NODES };
