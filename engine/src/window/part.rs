//! A window's part on one of several store keys that a hot key is spread over.

use std::num::NonZeroU32;

use super::{Algorithm, Window, WindowError};

impl Window {
    /// The part of this window that shard `shard` of `shards` holds. The limits of all parts together are the
    /// window's own, and no two differ by more than one; so do the bursts of a token bucket. An error where
    /// there are more shards than requests to hold, or the part cannot be counted exactly.
    pub fn part(&self, shards: u16, shard: u16) -> Result<Self, WindowError> {
        let part = |whole: u32| {
            let (shards, shard) = (u32::from(shards), u32::from(shard));
            let one_more = u32::from(shard < whole.checked_rem(shards).unwrap_or_default());
            whole.checked_div(shards).unwrap_or_default() + one_more
        };
        let algorithm = match self.algorithm {
            Algorithm::TokenBucket { burst } => Algorithm::TokenBucket {
                burst: NonZeroU32::new(part(burst.get())).ok_or(WindowError::Burst)?,
            },
            whole => whole,
        };
        Self::new(part(self.limit()), self.per, algorithm)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn the_parts_are_the_whole() {
        let bucket = Algorithm::TokenBucket { burst: NonZeroU32::new(23).unwrap() };
        for algorithm in [Algorithm::SlidingWindow, Algorithm::SlidingLog, bucket] {
            let whole = Window::new(100, Duration::from_secs(1), algorithm).unwrap();
            for shards in [1, 7, 16, 23] {
                let parts: Vec<_> = (0..shards).map(|shard| whole.part(shards, shard).unwrap()).collect();
                assert_eq!(parts.iter().map(Window::limit).sum::<u32>(), 100);
                assert_eq!(parts.iter().map(Window::capacity).sum::<u32>(), whole.capacity());
                let limits = || parts.iter().map(Window::capacity);
                assert!(limits().max().unwrap() - limits().min().unwrap() <= 1);
            }
        }
    }

    #[test]
    fn a_part_holds_at_least_one() {
        let whole = Window::new(3, Duration::from_secs(1), Algorithm::SlidingWindow).unwrap();
        assert_eq!(whole.part(4, 3), Err(WindowError::Limit));
        assert_eq!(whole.part(0, 0), Err(WindowError::Limit));
        let bucket = Algorithm::TokenBucket { burst: NonZeroU32::MIN };
        let whole = Window::new(100, Duration::from_secs(1), bucket).unwrap();
        assert_eq!(whole.part(2, 1), Err(WindowError::Burst));
    }
}
