//! A real Redis server for the store's tests, which start their own of it, some of them with another clock.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::step::{Done, done};
use crate::tools;

pub(crate) fn find() -> Result<Done<PathBuf>> {
    let redis = tools::find_or_install("redis-server", "redis-server")?;
    // the tests preload its library, which no PATH leads to
    tools::find_or_install("faketime", "faketime")?;
    let says = tools::version(&redis).context("redis-server does not answer --version: install it anew")?;
    let version = says.split_whitespace().find_map(|word| word.strip_prefix("v="));
    let says = format!(
        "Redis {} at {}, with libfaketime",
        version.unwrap_or("of an unknown version"),
        redis.display()
    );
    done(redis, says)
}
