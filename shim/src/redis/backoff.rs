//! How long to wait before the next attempt to connect.
//!
//! A server that lets everybody in and then does no work (it was made a replica, or it breaks off) would be asked
//! again at once, for ever, if a connection alone were a success. So the pauses begin anew only after one that
//! lasted.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::time::Duration;

/// The pause after a failed attempt; it doubles up to the last and loses up to half by chance, so that many shims do
/// not come back in step. A server that is back is to be in use within two seconds, and the filter takes up to 1.4 s of
/// them: a probe each second, and its recovery.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_millis(250);
/// A connection that was of use for so long was a good one.
const LASTS: Duration = Duration::from_secs(1);

/// The pauses between attempts.
pub(super) struct Backoff {
    next: Duration,
}

impl Backoff {
    pub(super) fn new() -> Self {
        Self { next: FIRST_PAUSE }
    }

    /// The pause after a connection that lasted so long: not at all, if there was none.
    pub(super) fn pause(&mut self, lasted: Duration) -> Duration {
        self.pause_by(lasted, chance())
    }

    fn pause_by(&mut self, lasted: Duration, chance: f64) -> Duration {
        let pause = if lasted < LASTS { self.next } else { FIRST_PAUSE };
        self.next = (pause * 2).min(LAST_PAUSE);
        pause - pause.mul_f64(chance / 2.0)
    }
}

/// A number from 0 to 1, from the seeds the standard library gives its maps.
fn chance() -> f64 {
    f64::from(u32::try_from(RandomState::new().hash_one(0) >> 32).unwrap_or_default()) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_and_lose_up_to_half_by_chance() {
        for (chance, expected) in [
            (0.0, [50, 100, 200, 250, 250, 250]),
            (0.5, [37, 75, 150, 187, 187, 187]),
            (1.0, [25, 50, 100, 125, 125, 125]),
        ] {
            let mut backoff = Backoff::new();
            let pauses = expected.map(|_| backoff.pause_by(Duration::ZERO, chance).as_millis());
            assert_eq!(pauses, expected);
        }
    }

    #[test]
    fn only_a_connection_that_lasted_lets_them_begin_anew() {
        let mut backoff = Backoff::new();
        let lasted = [0, 10, 999, 1000, 0, 60_000].map(Duration::from_millis);
        let pauses = lasted.map(|lasted| backoff.pause_by(lasted, 0.0).as_millis());
        assert_eq!(pauses, [50, 100, 200, 50, 100, 50]);
    }

    #[test]
    fn two_shims_do_not_come_back_in_step() {
        let chances: Vec<f64> = (0..32).map(|_| chance()).collect();
        assert!(chances.iter().all(|chance| (0.0..=1.0).contains(chance)));
        assert!(chances.windows(2).any(|pair| matches!(pair, [one, other] if one != other)), "{chances:?}");
    }
}
