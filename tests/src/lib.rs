//! The harness of the acceptance tests.

pub mod envoy;
#[cfg(feature = "fake-host")]
pub mod host;
pub mod redis;
