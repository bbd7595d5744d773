//! The harness of the acceptance tests.

pub mod client;
pub mod clock;
pub mod demo;
pub mod envoy;
pub mod failing;
#[cfg(feature = "fake-host")]
pub mod fake_shim;
#[cfg(feature = "fake-host")]
pub mod host;
mod port;
mod process;
pub mod redis;
pub mod scenario;
pub mod shim_process;
mod tools;
pub mod upstream;
pub mod wait;
