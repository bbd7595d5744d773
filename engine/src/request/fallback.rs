//! The roads of `on_failure`, for a request that the store could not decide.

use super::{Judge, OnFailure, Outcome, Policy, Question, Request, Step, Tally};
use crate::answer::{Refusal, ShownWindow};
use crate::policy::Limit;

impl Request {
    /// The store was not asked, or gave no answer that could be used.
    pub fn store_failed(&mut self, policy: &Policy) -> Step {
        match self.take_pending() {
            Some((questions, _)) => self.fall_back(policy, questions, Vec::new()),
            None => Step::Continue,
        }
    }

    /// What becomes of it when these questions could not be decided: one limit that fails closed rejects it, those that
    /// count on this node are asked there, and the others let it pass. `shown` is what was decided beside them.
    pub(super) fn fall_back(
        &mut self,
        policy: &Policy,
        undecided: Vec<Question>,
        shown: Vec<ShownWindow>,
    ) -> Step {
        let mode = |limit| self.limit(policy, limit).map_or(OnFailure::Closed, Limit::on_failure);
        let closed = |question: &Question| {
            let mut limits = question.origins.iter().map(|(limit, _)| *limit);
            limits.find(|limit| !question.dry_run && mode(*limit) == OnFailure::Closed)
        };
        if let Some(limit) = undecided.iter().find_map(closed) {
            self.tallies.push(Tally {
                limit,
                outcome: Outcome::Rejected,
                judge: Judge::Fallback(OnFailure::Closed),
            });
            return self.reject(policy, &Refusal::FailedClosed);
        }
        let (mut local, mut open) = (Vec::new(), Vec::new());
        for question in undecided {
            let (kept, dropped) = question.split(|limit| mode(limit) == OnFailure::Local);
            local.extend((!kept.origins.is_empty()).then_some(kept));
            open.extend((!dropped.origins.is_empty()).then_some(dropped));
        }
        for question in &open {
            self.tally_all(question, Judge::Fallback(OnFailure::Open));
        }
        if local.is_empty() {
            return self.admit(policy, Some(OnFailure::Open), shown);
        }
        self.wait(local, true, Step::Count)
    }
}
