//! What a worker may spend without a question: its chunks of the node's leases.
use std::num::NonZeroU32;
use crate::local::Cells;
use crate::refusals::Refusals;
use crate::units::Timestamp;
use crate::wire::{Check, CheckAnswer, KeyReturn};

/// What the ledger makes of a request's checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Spent {
    /// All are allowed, and their tokens spent: an answer for each check, in their order.
    Allowed(Vec<CheckAnswer>),
    /// Another worker of the node has heard a refusal, which `refusals` now remembers: recall it.
    Refused,
    /// A question about this subject is under way from this worker: wait for its answer, and spend again then.
    Awaits(u128),
    /// The store is to be asked.
    Unknown,
}

/// What is to be asked without a request that waits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Due {
    /// Leases to be renewed: a check each, whose answer is to be heard like any other.
    pub renewals: Vec<Check>,
    /// Tokens that go back. They are in the ledger no more, whatever becomes of them.
    pub returns: Vec<KeyReturn>,
}

/// The leases of one worker.
pub struct Ledger {
    _secret: (u64, u64),
    _drift: NonZeroU32,
}

impl Ledger {
    /// None yet. Subjects are told apart by a hash under `secret`, which all workers of the node share; `worker` is a number of this worker's
    /// own, from an even draw. `drift` is the policy's `max_drift` in millionths.
    pub fn new(secret: (u64, u64), worker: u64, drift: NonZeroU32) -> Self {
        let _ = worker;
        Self { _secret: secret, _drift: drift }
    }

    /// Spends for all of `checks` at `now`, or nothing.
    pub fn spend(&mut self, _cells: &dyn Cells, _refusals: &mut Refusals, _checks: &[&Check], _now: Timestamp) -> Spent {
        Spent::Unknown
    }

    /// A check is about to be asked: adds what is to be leased along with it. `nodes` is how many there are. From now on
    /// until it is heard or unheard of, others wait for its answer.
    pub fn ask(&mut self, _cells: &dyn Cells, _check: &mut Check, _nodes: NonZeroU32, _now: Timestamp) {}

    /// One more request waits for the answer about this subject.
    pub fn follow(&mut self, _subject: u128) {}

    /// The store has answered `check`, which was asked at `asked_at`.
    /// Returns the subjects whose answers others wait for.
    pub fn hear(&mut self, _cells: &dyn Cells, _check: &Check, _answer: &CheckAnswer, _asked_at: Timestamp, _now: Timestamp) -> Vec<u128> { Vec::new() }

    /// Nothing was heard of `check`, or nothing that can be used.
    /// Returns the subjects whose answers others wait for.
    pub fn unheard(&mut self, _check: &Check) -> Vec<u128> { Vec::new() }

    /// What is due at `now`: at most `most` renewals and as many returns.
    pub fn take_due(&mut self, _cells: &dyn Cells, _nodes: NonZeroU32, _now: Timestamp, _most: usize) -> Due {
        Due::default()
    }

    /// When something is due next.
    pub fn next_due(&self) -> Option<Timestamp> {
        None
    }
}
