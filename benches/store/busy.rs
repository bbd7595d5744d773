//! What a subject takes in Redis that uses its limit up, its requests spread over the window.
//!
//! A fresh subject looks alike under every algorithm. One in full use has a bucket for each part of the window that
//! saw a request, or an entry for each request, and that is where they differ. The store's clock cannot be turned, so
//! the window is a short one; what is kept for it does not depend on its span.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use lanekeeper_tests::redis::Redis;
use lanekeeper_tests::shim_process::ShimProcess;

use super::asker::Asker;
use super::question::{MOST_CHECKS, Question, digits_of, key};
use crate::limits;

/// How many requests each subject makes, of as many that it may.
pub const REQUESTS: u32 = 1000;
const PER: Duration = Duration::from_secs(2);
/// Over a little less than the window, so that none has left when it is looked at.
const SPREAD: Duration = Duration::from_millis(1800);
const SUBJECTS: u64 = 10;
/// A moment in each of the store's buckets, as far as the spread reaches.
const MOMENTS: u32 = 250;

pub(super) fn bytes(algorithm: &str, shim: &ShimProcess, redis: &Redis) -> Result<f64> {
    // room for more than is asked, since a sliding counter may refuse the last ones of a full limit
    let question = Question::of(&[limits::window(algorithm, 2 * REQUESTS, PER)?])?;
    let mut asker = Asker::connect(shim.address())?;
    let at_once: Vec<u64> = (0..REQUESTS / MOMENTS).flat_map(|_| 0..SUBJECTS).collect();
    let begin = Instant::now();
    for moment in 0..MOMENTS {
        thread::sleep((begin + SPREAD * moment / MOMENTS).saturating_duration_since(Instant::now()));
        for batch in at_once.chunks(MOST_CHECKS) {
            asker.ask(&question, batch)?;
        }
    }
    let mut connection = redis.connect()?;
    let mut sum = 0;
    for subject in 0..SUBJECTS {
        let key = key(&digits_of(subject));
        let bytes: Option<u64> =
            redis::cmd("MEMORY").arg("USAGE").arg(&key).arg("SAMPLES").arg(0).query(&mut connection)?;
        sum += bytes.with_context(|| format!("{key} is gone already: the machine is too slow"))?;
    }
    Ok(sum as f64 / SUBJECTS as f64)
}
