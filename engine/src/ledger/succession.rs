//! What becomes of a worker's leases when another policy follows, or no request comes any more.

use std::mem;

use super::holding::NEVER;
use super::{Counted, Ledger};
use crate::local::Cells;
use crate::units::Timestamp;

/// The subjects whose chunks [`Ledger::retire`] puts back at most: some ten milliseconds' work.
pub const MOST_PUT_BACK: usize = 4096;

impl Ledger {
    /// Takes over what the ledger of the policy before holds for the same store, and what is due of it. Of that only what
    /// `counted` still counts is renewed. What that ledger has asked for, it hears itself.
    pub fn take_over(&mut self, before: &mut Self, counted: Counted) {
        mem::swap(&mut self.holdings, &mut before.holdings);
        mem::swap(&mut self.low, &mut before.low);
        mem::swap(&mut self.leaving, &mut before.leaving);
        mem::swap(&mut self.due_at, &mut before.due_at);
        self.answered_at = before.answered_at;
        self.counted = Some(counted);
    }

    /// No request comes any more: the chunks go back into the pool, of at most [`MOST_PUT_BACK`] subjects, those first that
    /// were in use last. The others stay charged.
    pub fn retire(&mut self, cells: &dyn Cells, now: Timestamp) {
        let holdings = mem::take(&mut self.holdings);
        let rests = holdings.latest_first().filter_map(|(subject, held)| Some((subject, held.rest(now)?)));
        for (subject, rest) in rests.take(MOST_PUT_BACK) {
            self.put_back(cells, subject, rest, now);
        }
        self.low.clear();
        self.leaving.clear();
        self.due_at = NEVER;
    }
}
