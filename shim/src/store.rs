//! What a store is: a place that answers a whole batch of checks.

use std::pin::Pin;
use std::time::Duration;

use lanekeeper_engine::lease;
use lanekeeper_engine::wire::{
    self, Check, CheckAnswer, KeyReturn, KeySpent, Recorded, Returned, StoreError,
};
use prometheus_client::registry::Registry;

/// How long after a decision anything that it charged may be spent: a lease lives longer than a request waits.
pub(crate) const SPENT_WITHIN: Duration = lease::MAX_LIFE;
const _: () = assert!(SPENT_WITHIN.as_millis() >= wire::MAX_SPEND_WITHIN.as_millis());

/// What a store is asked for, once it has it.
pub type Answering<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A place that counts.
///
/// Each check is all or nothing. A store answers in its own time limit and never panics: what goes wrong with
/// one check is that check's [`CheckAnswer::Failed`].
pub trait Store: Send + Sync + 'static {
    /// Decides over a validated batch: one answer for each check, in their order. What is charged may be spent
    /// for `spend_within` after the decision; unless that is zero, an answer after it is of no use to anybody.
    fn decide<'a>(&'a self, checks: &'a [Check], spend_within: Duration) -> Answering<'a, Vec<CheckAnswer>>;

    /// Counts what was spent without asking: one answer for each report, in their order. A report that comes twice counts
    /// once.
    fn record<'a>(&'a self, reports: &'a [KeySpent]) -> Answering<'a, Vec<Recorded>>;

    /// Gives back what was charged and not spent: one answer for each return, in their order.
    fn give_back<'a>(&'a self, returns: &'a [KeyReturn]) -> Answering<'a, Vec<Returned>>;

    /// Forgets all that these store keys count, as if they had never been asked for. Not all at once: what is asked
    /// for meanwhile may still meet some of them.
    fn reset<'a>(&'a self, keys: &'a [String]) -> Answering<'a, Result<(), StoreError>>;

    /// How many nodes ask this store: `nodes`, which this shim has heard, and those that others have told of within
    /// `life`. A store that no other process shares knows no others.
    fn count_nodes<'a>(&'a self, nodes: &'a [u64], life: Duration) -> Answering<'a, Result<u32, StoreError>> {
        let _ = life;
        Box::pin(std::future::ready(Ok(u32::try_from(nodes.len()).unwrap_or(u32::MAX))))
    }

    /// Whether the store would answer now.
    fn ready(&self) -> Answering<'_, Result<(), NotReady>>;

    /// Whether no server of the store would even be asked now, as none of them answers.
    fn is_away(&self) -> bool {
        false
    }

    /// Adds what it knows of itself to the metrics.
    fn show(&self, _registry: &mut Registry) {}
}

/// Why a store would not answer now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct NotReady {
    /// What a check would be told.
    pub error: StoreError,
    /// What an operator is told, and no secret.
    pub reason: String,
    /// What the store itself calls it, if it refused. One of few, for metrics.
    pub code: Option<&'static str>,
}

impl NotReady {
    pub(crate) fn because(error: StoreError, reason: impl Into<String>) -> Self {
        Self { error, reason: reason.into(), code: None }
    }
}

impl From<StoreError> for NotReady {
    fn from(error: StoreError) -> Self {
        Self::because(error, error.to_string())
    }
}
