//! When requests come: at random moments, so many a second, whether or not others are answered.

use std::num::NonZeroU64;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use rand::{RngExt, SeedableRng};
use rand_distr::Exp1;
use rand_pcg::Pcg64Mcg;
use rustix::thread::set_current_timer_slack;

/// Tells of each request at the moment at which it comes, counted from `begin`, until they end or nobody listens.
/// `per_sec` says how many come a second at a moment.
pub(crate) fn arrive(
    seed: u64,
    per_sec: impl Fn(Duration) -> f64,
    begin: Instant,
    until: Duration,
    tell: impl Fn(Duration) -> bool,
) -> Result<()> {
    // a sleep is else prolonged by 50 us, which is half an answer
    set_current_timer_slack(NonZeroU64::new(1))?;
    let (mut chance, mut came) = (Pcg64Mcg::seed_from_u64(seed), Duration::ZERO);
    loop {
        let gap: f64 = chance.sample(Exp1);
        came += Duration::from_secs_f64(gap / per_sec(came));
        thread::sleep((begin + came).saturating_duration_since(Instant::now()));
        if came >= until || !tell(came) {
            return Ok(());
        }
    }
}
