//! GCRA, the token bucket that needs no timer (ITU-T I.371, annex A), in whole numbers.
//!
//! The usual form keeps a "theoretical arrival time". Here that moment is split into a `debt` and the moment
//! from which the debt is repaid, for two reasons: the debt is exact where a moment would have to be rounded,
//! and a charge that may be spent later than it was made can hold back the repayment without taking tokens
//! from the burst. With `s` the moment at which a token is spent and `g <= s <= g + a` that of its grant:
//! every later grant sees a repayment that began no earlier than `s` allows, so that no interval of spends
//! holds more than `burst + rate x length` of them.

use std::time::Duration;

use super::Window;
use crate::units::{Timestamp, micros};

/// The counter of one subject in one token bucket. A fresh one is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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

    /// Puts `cost` tokens back.
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
