//! The small service between the filter and the store.
//!
//! Envoy cannot speak to Redis from a filter, so the filter asks this service over HTTP, a batch at a time. It
//! keeps nothing of its own that decides: every decision is made in the store, and a store that cannot decide is said so at
//! once, because the filter has an answer of its own for that and a paused request has none.
//!
//! | module | knows |
//! | --- | --- |
//! | [`app`] | HTTP: the routes and the bearer token |
//! | `body` | what a body must be |
//! | `shed` | how many requests may be under way |
//! | `limits` | the policy's limits, asked for by their names |
//! | [`policy`] | the policy's file, and what becomes of it when it changes |
//! | `breakers` | what nodes say of their breakers |
//! | [`store`] | what a store is |
//! | [`memory`] | the embedded store |
//! | `nodes` | how many nodes ask the store |
//! | [`shards`] | hot keys, spread over several store keys |
//! | [`redis`] | Redis, and no other file does |
//! | [`metrics`] | what is counted about the service itself |
//! | [`listen`] | where to listen, and how to stop without losing an answer |
//! | `socket` | what is listened on, and how it is taken over |
//! | `connections` | how many connections may be open |
//! | `drain` | how the shim leaves while others ask it |
//! | [`args`] | the command line |

pub mod app;
pub mod args;
mod body;
mod breakers;
mod connections;
mod drain;
mod limits;
pub mod listen;
pub mod memory;
pub mod metrics;
mod nodes;
pub mod policy;
mod problem;
pub mod redis;
pub mod shards;
mod shed;
mod socket;
pub mod store;
