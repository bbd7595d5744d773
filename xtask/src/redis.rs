//! A real Redis server for the store's tests, which start their own of it.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::step::{Done, done};
use crate::tools;

pub(crate) fn find() -> Result<Done<PathBuf>> {
    let redis = tools::find_or_install("redis-server", "redis-server")?;
    let says = tools::version(&redis).context("redis-server does not answer --version: install it anew")?;
    let version = says.split_whitespace().find_map(|word| word.strip_prefix("v="));
    let says = format!("Redis {} at {}", version.unwrap_or("of an unknown version"), redis.display());
    done(redis, says)
}
