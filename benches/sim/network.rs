//! What lies between the nodes and the store: messages are late, lost, doubled, and so overtake each other.

use rand::RngExt;
use rand_pcg::Pcg64Mcg;

/// How messages travel, one way.
#[derive(Clone, Copy, Debug)]
pub struct Network {
    /// Most take from so many microseconds …
    pub least_us: u64,
    /// … to so many.
    pub most_us: u64,
    /// The share that takes ten to thirty milliseconds.
    pub slow: f64,
    /// The share that is lost.
    pub lost: f64,
    /// The share that comes twice.
    pub doubled: f64,
}

impl Network {
    /// One that works: there and back in 0.3 to 3 ms, and one message in a thousand is stuck for a while.
    pub const GOOD: Self = Self { least_us: 150, most_us: 1500, slow: 0.001, lost: 0.0, doubled: 0.0 };
    /// One that does all that a network can do.
    pub const BAD: Self = Self { slow: 0.02, lost: 0.02, doubled: 0.02, ..Self::GOOD };

    /// After how many microseconds each copy of a message arrives.
    pub(super) fn carry(&self, chance: &mut Pcg64Mcg) -> impl Iterator<Item = u64> {
        let copies =
            if chance.random_bool(self.lost) { 0 } else { 1 + usize::from(chance.random_bool(self.doubled)) };
        let mut delay = || {
            if chance.random_bool(self.slow) {
                chance.random_range(10_000..30_000)
            } else {
                chance.random_range(self.least_us..=self.most_us)
            }
        };
        let delays = [delay(), delay()];
        delays.into_iter().take(copies)
    }
}
