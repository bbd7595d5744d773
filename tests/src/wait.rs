//! Waiting for what another process does.
//!
//! Envoy and the shim offer no event to wait for, so their state is asked for again and again, with a limit far above
//! what a busy machine needs: a wait that runs out is a failure, never a slow success.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

const LIMIT: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(5);

/// Asks until `question` has an answer; `what` names it for whoever reads the failure.
pub fn until<T>(what: &str, mut question: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(answer) = question()? {
            return Ok(answer);
        }
        if start.elapsed() > LIMIT {
            bail!("waited {} s in vain for {what}", LIMIT.as_secs());
        }
        sleep(PAUSE);
    }
}
