//! Every decision that Lanekeeper makes.
//!
//! This crate has no clock, no socket, no host call and no randomness: the time, the chance and what the
//! outside said are arguments, so that the same code runs in the plugin on wasm32, natively in the shim and
//! in tests under a clock of their own.

pub mod answer;
pub mod circuit;
pub mod counter;
pub mod headers;
pub mod lane;
pub mod local;
pub mod matcher;
pub mod path;
pub mod policy;
pub mod request;
pub mod subject;
pub mod units;
pub mod window;
pub mod wire;
