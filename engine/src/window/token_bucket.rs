//! GCRA, the token bucket that needs no timer (ITU-T I.371, annex A), in whole numbers.
//!
//! The usual form keeps a "theoretical arrival time". Here that moment is split into a `debt` and the moment
//! from which the debt is repaid, for two reasons: the debt is exact where a moment would have to be rounded,
//! and a charge that may be spent later than it was made can hold back the repayment without taking tokens
//! from the burst. With `s` the moment at which a token is spent and `g <= s <= g + a` that of its grant:
//! every later grant sees a repayment that began no earlier than `s` allows, so that no interval of spends
//! holds more than `burst + rate x length` of them.
//!
//! A charge holds back the repayment only as far as the debt before it does not reach: it leans on that debt. When
//! tokens of it come back, what leaned on them may be spent after the rest is repaid; which charges did is not
//! known. So what comes back is there at once, and its repayment is waited for all the same: from then on the debt
//! is what it would have been without the return. Until then it is as high as if all that may be spent had been, and
//! no spends make it higher. That is never worse than not to give back, and no wait is longer than the longest span
//! in which a charge may be spent: after that nothing leans any more.

use std::time::Duration;

use super::Window;
use crate::lease::MAX_LIFE;
use crate::units::{Timestamp, micros};
use crate::wire::MAX_SPEND_WITHIN;

/// The longest span in which a charge may be spent.
const LONGEST: Duration =
    if MAX_LIFE.as_millis() > MAX_SPEND_WITHIN.as_millis() { MAX_LIFE } else { MAX_SPEND_WITHIN };

/// The counter of one subject in one token bucket. A fresh one is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TokenBucket {
    /// Tokens taken and not yet repaid, in the units of [`Window::token`].
    pub debt: u64,
    /// From here on the debt is repaid.
    pub repaid_from: Timestamp,
}

impl TokenBucket {
    /// Repays what `now` allows.
    pub fn settle(&mut self, window: &Window, now: Timestamp) {
        let elapsed = micros(now.since(self.repaid_from));
        let (_, rate) = window.token();
        self.debt = if elapsed > self.debt / rate { 0 } else { self.debt - elapsed * rate };
        self.repaid_from = self.repaid_from.max(now);
    }

    /// Whole tokens in the bucket.
    pub fn remaining(&self, window: &Window) -> u32 {
        let (token, _) = window.token();
        let free = (u64::from(window.capacity()) * token).saturating_sub(self.debt);
        u32::try_from(free / token).unwrap_or(u32::MAX)
    }

    /// How long until `cost` tokens are in the bucket: zero when they are.
    pub fn wait(&self, window: &Window, now: Timestamp, cost: u32) -> Duration {
        let (token, _) = window.token();
        let most = u64::from(window.capacity().saturating_sub(cost)) * token;
        self.until_debt_is(window, now, most)
    }

    /// How long until one more token is in the bucket than now: zero when it is full.
    pub fn reset(&self, window: &Window, now: Timestamp) -> Duration {
        if self.debt == 0 { Duration::ZERO } else { self.wait(window, now, self.remaining(window) + 1) }
    }

    /// Takes `cost` tokens at `now`, to be spent by `dated` at the latest.
    pub fn charge(&mut self, window: &Window, dated: Timestamp, cost: u32) {
        let (token, rate) = window.token();
        let held = Timestamp::from_micros(dated.as_micros().saturating_sub(self.debt / rate));
        self.repaid_from = self.repaid_from.max(held);
        self.debt += u64::from(cost) * token;
    }

    /// Takes what was spent without asking, dated and the oldest first, from a bucket that was not settled since: between
    /// two dates it is repaid, and it is never more than empty. Returns until when that is to be known, so that what others
    /// tell of the same time is not repaid once more.
    pub fn record(&mut self, window: &Window, spent: &[(Timestamp, u32)], now: Timestamp) -> Timestamp {
        let (token, rate) = window.token();
        let empty = u64::from(window.capacity()) * token;
        for (dated, tokens) in spent {
            self.settle(window, *dated);
            let taken = u64::from(window.capacity().min(*tokens)) * token;
            self.debt = self.debt.saturating_add(taken).min(empty.max(self.debt));
        }
        self.settle(window, now);
        now.plus(Duration::from_micros(empty.div_ceil(rate)))
    }

    /// Puts `cost` tokens back that were granted, and that later charges may lean on.
    pub fn give_back(&mut self, window: &Window, now: Timestamp, cost: u32) {
        let (token, rate) = window.token();
        let given = (u64::from(cost) * token).min(self.debt);
        self.debt -= given;
        // where no debt is left, nothing leans
        if self.debt > 0 {
            let waited_for = self.repaid_from.plus(Duration::from_micros(given.div_ceil(rate)));
            self.repaid_from = self.repaid_from.max(waited_for.min(now.plus(LONGEST)));
        }
    }

    /// Puts `cost` tokens back that nobody was granted: their charge is undone.
    pub fn uncharge(&mut self, window: &Window, cost: u32) {
        let (token, _) = window.token();
        self.debt = self.debt.saturating_sub(u64::from(cost) * token);
    }

    fn until_debt_is(&self, window: &Window, now: Timestamp, most: u64) -> Duration {
        let over = self.debt.saturating_sub(most);
        if over == 0 {
            return Duration::ZERO;
        }
        let (_, rate) = window.token();
        self.repaid_from.since(now) + Duration::from_micros(over.div_ceil(rate))
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::window::{Algorithm, MAX_EXACT, MAX_LIMIT, MAX_PER};
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn window(limit: u32, per: Duration, burst: u32) -> Window {
        Window::new(limit, per, Algorithm::TokenBucket { burst: NonZeroU32::new(burst).unwrap() }).unwrap()
    }

    /// A burst of five, and a token every 333 333 1/3 us.
    fn three_a_second() -> Window {
        window(3, Duration::from_secs(1), 5)
    }

    fn at(us: u64) -> Timestamp {
        Timestamp::from_micros(us)
    }

    fn charged(window: &Window, now: u64, dated: u64, cost: u32) -> TokenBucket {
        let mut bucket = TokenBucket::default();
        bucket.settle(window, at(now));
        bucket.charge(window, at(dated), cost);
        bucket
    }

    #[test]
    fn refuses_the_sixth_in_a_burst_of_five() {
        let window = three_a_second();
        assert_eq!(TokenBucket::default().wait(&window, at(0), 5), Duration::ZERO);
        let bucket = charged(&window, 0, 0, 5);
        assert_eq!(bucket.remaining(&window), 0);
        assert_eq!(micros(bucket.wait(&window, at(0), 1)), 333_334);
        assert_eq!(micros(bucket.wait(&window, at(0), 3)), 1_000_000);
    }

    #[test]
    fn has_a_token_again_exactly_when_it_said() {
        let window = three_a_second();
        let mut bucket = charged(&window, 0, 0, 5);
        bucket.settle(&window, at(333_333));
        assert_eq!((bucket.remaining(&window), micros(bucket.wait(&window, at(333_333), 1))), (0, 1));
        bucket.settle(&window, at(333_334));
        assert_eq!((bucket.remaining(&window), micros(bucket.wait(&window, at(333_334), 1))), (1, 0));
        // Rounding up one wait makes none of the following longer.
        bucket.settle(&window, at(1_000_000));
        assert_eq!(bucket.remaining(&window), 3);
    }

    #[test]
    fn resets_when_one_more_token_is_there_than_now() {
        let window = three_a_second();
        let mut bucket = charged(&window, 0, 0, 3);
        bucket.settle(&window, at(400_000));
        assert_eq!(bucket.remaining(&window), 3);
        assert_eq!(micros(bucket.reset(&window, at(400_000))), 266_667);
        bucket.settle(&window, at(1_000_000));
        assert_eq!(bucket.reset(&window, at(1_000_000)), Duration::ZERO);
    }

    #[test]
    fn repays_a_token_no_sooner_than_it_may_have_been_spent() {
        let window = three_a_second();
        let mut bucket = charged(&window, 0, 2_000_000, 5);
        bucket.settle(&window, at(2_000_000));
        assert_eq!(bucket.remaining(&window), 0);
        assert_eq!(micros(bucket.wait(&window, at(1_000_000), 1)), 1_333_334);
        bucket.settle(&window, at(2_333_334));
        assert_eq!(bucket.remaining(&window), 1);
    }

    #[test]
    fn holds_back_repayment_only_as_far_as_the_debt_does_not_reach() {
        let window = three_a_second();
        let mut bucket = charged(&window, 0, 0, 3);
        // The debt is repaid until a second from now: a token spent half a second from now adds its own alone.
        bucket.charge(&window, at(500_000), 1);
        assert_eq!(micros(bucket.wait(&window, at(0), 5)), 1_333_334);
    }

    #[test]
    fn puts_back_no_more_than_was_taken() {
        let window = three_a_second();
        let mut bucket = charged(&window, 0, 0, 4);
        bucket.uncharge(&window, 3);
        assert_eq!(bucket.remaining(&window), 4);
        bucket.uncharge(&window, 3);
        assert_eq!((bucket.remaining(&window), bucket.debt), (5, 0));
    }

    #[test]
    fn stays_exact_at_the_ends_of_its_ranges() {
        let most = u32::try_from(MAX_EXACT / micros(MAX_PER)).unwrap();
        let slow = window(1, MAX_PER, most);
        let bucket = charged(&slow, 0, 0, most);
        assert_eq!(bucket.wait(&slow, at(0), most), MAX_PER * most);
        let fast = window(MAX_LIMIT, Duration::from_millis(1), MAX_LIMIT);
        let bucket = charged(&fast, 0, 0, MAX_LIMIT);
        assert_eq!(micros(bucket.wait(&fast, at(0), 1)), 1);
        assert_eq!(micros(bucket.wait(&fast, at(0), MAX_LIMIT)), 1000);
    }
}
