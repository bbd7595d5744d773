//! What the limits decided, for whoever counts decisions.

use crate::policy::OnFailure;

/// Who decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Judge {
    /// The store.
    Store,
    /// The store, when it was asked before: a refusal that still holds.
    Remembered,
    /// Tokens that the store charged to this node in advance.
    Lease,
    /// This node's counters: there is no store.
    Local,
    /// What stands in for a store that could not decide.
    Fallback(OnFailure),
    /// The policy, without counting.
    Policy,
}

/// What was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// The limit allowed.
    Admitted,
    /// The limit rejected the request.
    Rejected,
    /// The limit would have rejected the request, had it been enforced.
    DryRun,
}

/// One limit's decision, to be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tally {
    /// An index into the limits of the request's lane.
    pub limit: usize,
    /// What was decided.
    pub outcome: Outcome,
    /// By whom.
    pub judge: Judge,
}
