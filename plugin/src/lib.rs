//! The filter as a proxy-wasm module: host callbacks become events for the engine, its steps become host calls.
//!
//! Reading order: [`exports`] (what the host calls), [`vm`] (which context is meant), [`stream`] (a request),
//! [`root`] (a configuration and its questions to the store), [`asking`] (their way there and back), [`metrics`],
//! [`cells`] (what the workers share), [`host`] (what the host offers), [`heap`] (where memory comes from).
//!
//! Nothing here may panic: a panic traps the VM, every request of the worker fails with it, and the paused
//! ones hang. So nothing indexes, unwraps or trusts what the host says.

mod asking;
mod cells;
mod exports;
mod heap;
mod host;
mod metrics;
mod root;
mod stream;
#[cfg(feature = "trap")]
mod trap;
mod vm;
