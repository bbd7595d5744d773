//! What a store is: a place that answers a whole batch of checks.

use std::pin::Pin;
use std::time::Duration;

use lanekeeper_engine::window::{Algorithm, Window};
use lanekeeper_engine::wire::{Check, CheckAnswer, StoreError};

/// What a store is asked for, once it has it.
pub type Answering<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A place that counts.
///
/// Each check is all or nothing. A store answers in its own time limit and never panics: what goes wrong with
/// one check is that check's [`CheckAnswer::Failed`].
pub trait Store: Send + Sync + 'static {
    /// Decides over a validated batch: one answer for each check, in their order. What is charged may be spent
    /// for `spend_within` after the decision.
    fn decide<'a>(&'a self, checks: &'a [Check], spend_within: Duration) -> Answering<'a, Vec<CheckAnswer>>;

    /// Whether the store would answer now.
    fn ready(&self) -> Answering<'_, Result<(), StoreError>>;
}

/// What the numbers of a counter are counted in. When a policy changes a window, its counter still says the
/// truth as long as this is the same: a limit or a burst may change, a span or a token's size may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Buckets that are a fixed part of this span.
    Bucket { per: Duration },
    /// The debt of one token, and what is repaid of it in a microsecond.
    Debt { token: u64, rate: u64 },
}

impl Unit {
    pub(crate) fn of(window: &Window) -> Self {
        match window.algorithm() {
            Algorithm::SlidingWindow => Unit::Bucket { per: window.per() },
            Algorithm::TokenBucket { .. } => {
                let (token, rate) = window.token();
                Unit::Debt { token, rate }
            }
        }
    }
}
