//! The shim and its stores, over HTTP: one suite on every backend, and what is special to each.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test says by a panic what is wrong"
)]

mod behaviour;
mod breakers;
mod deadlines;
mod differential;
mod endless;
mod hash;
mod http;
mod leases;
mod limits;
mod memory;
mod nodes;
mod openapi;
mod peers;
mod race;
mod redis_access;
mod redis_answers;
mod redis_away;
mod redis_clock;
mod redis_cluster;
mod redis_cluster_failover;
mod redis_failover;
mod redis_guard;
mod redis_memory;
mod redis_refusals;
mod redis_replicas;
mod redis_sentinel;
mod redis_store;
mod resets;
mod restarts;
mod shards;
mod shedding;
mod spent;
mod stopping;
mod support;
