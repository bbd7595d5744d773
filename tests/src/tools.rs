//! What `cargo xtask` builds or finds, and hands over in the environment.

use std::path::PathBuf;

use anyhow::{Context, Result};

/// The path that this variable holds.
pub(crate) fn path(variable: &str) -> Result<PathBuf> {
    std::env::var_os(variable)
        .map(PathBuf::from)
        .with_context(|| format!("{variable} is not set: run `cargo xtask test` or `cargo xtask demo`"))
}
