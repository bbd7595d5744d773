//! Every decision that Lanekeeper makes.
//!
//! This crate has no clock, no socket, no host call and no randomness: the time, the chance and what the
//! outside said are arguments, so that the same code runs in the plugin on wasm32, natively in the shim and
//! in tests under a clock of their own.
//!
//! In reading order:
//!
//! | module | what it says |
//! | --- | --- |
//! | [`policy`] | what an operator wrote, checked once |
//! | [`headers`], [`lane`] | what a request carries, and the lane that it drives in |
//! | [`path`], [`matcher`], [`subject`] | what it calls, which limits concern it, and who is counted |
//! | [`window`], [`counter`], [`lease`] | how a window is kept, one decision over many of them, and what is charged in advance |
//! | [`wire`] | the questions to the shim and its answers |
//! | [`request`], [`answer`] | the way of a request, and what its client gets to see |
//! | [`refusals`], [`ledger`] | what need not be asked again, and what may be spent without a question |
//! | [`batch`] | questions under way, and who waits for them |
//! | [`local`], [`circuit`], [`outage`] | counting without a store, when to leave a store alone, and what it is told afterwards |
//! | [`breaker`] | keeping calls from an upstream that fails |
//! | [`units`] | moments and spans |

pub mod answer;
pub mod batch;
pub mod breaker;
pub mod circuit;
pub mod counter;
pub mod headers;
pub mod lane;
pub mod lease;
pub mod ledger;
pub mod local;
pub mod matcher;
pub mod outage;
mod packed;
pub mod path;
pub mod policy;
pub mod refusals;
pub mod request;
pub mod subject;
pub mod units;
pub mod window;
pub mod wire;
