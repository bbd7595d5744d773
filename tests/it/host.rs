//! The built plugin on the fake host, and the fake host itself.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "clippy.toml allows these in test functions, and this crate has helpers around them"
)]

mod host {
    mod fake_host;
}
