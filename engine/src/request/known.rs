//! What decides a request without a question: a refusal that is remembered, or tokens that are held.
//!
//! Either decides all of its checks or none. But a dry run that is known to refuse is no obstacle to the others: while a
//! limit is tried out on its busiest clients, their other limits would cost a question each else.

use super::{Judge, Policy, Question, Refusals, Request, State, Step};
use crate::ledger::{Ledger, Spent};
use crate::local::Cells;
use crate::units::Timestamp;
use crate::wire::{Check, CheckAnswer, StoreError};

/// What a ledger makes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Spending {
    /// It is decided.
    Decided(Step),
    /// A question about this subject is under way: wait for its answer, and spend again then.
    Awaits(u128),
    /// Nothing is known. The store is to be asked.
    Unknown,
}

impl Request {
    /// What `refusals` alone decide at `now`: that it is rejected, or of a request whose limits are all dry runs that each
    /// would have rejected it. Else nothing changes, and the store is to be asked.
    pub fn recall(&mut self, policy: &Policy, refusals: &Refusals, now: Timestamp) -> Option<Step> {
        let State::Pending { questions, .. } = &self.state else { return None };
        if refusals.is_empty() {
            return None;
        }
        let refuses = |question: &Question| refusals.know(&question.check, now);
        let mut enforced = questions.iter().filter(|question| !question.dry_run);
        if !(enforced.any(refuses) || questions.iter().all(refuses)) {
            return None;
        }
        // a dry run beside a rejection is not asked: enforced, it would not have been charged either
        let failed = CheckAnswer::Failed { error: StoreError::Unreachable };
        let recall = |question: &Question| refusals.recall(&question.check, now);
        let answers = questions.iter().map(|question| recall(question).unwrap_or_else(|| failed.clone()));
        let answers = answers.collect();
        Some(self.answered(policy, Judge::Remembered, answers))
    }

    /// What `ledger` decides at `now` with tokens that it holds, or what another worker has heard. Where it decides
    /// nothing, nothing is spent.
    pub fn spend(
        &mut self,
        policy: &Policy,
        ledger: &mut Ledger,
        cells: &dyn Cells,
        refusals: &mut Refusals,
        now: Timestamp,
    ) -> Spending {
        let State::Pending { questions, .. } = &self.state else { return Spending::Unknown };
        let spent = match questions.as_slice() {
            [only] => ledger.spend(cells, refusals, &[&only.check], now),
            all => {
                let checks: Vec<&Check> = all.iter().map(|question| &question.check).collect();
                ledger.spend(cells, refusals, &checks, now)
            }
        };
        match spent {
            Spent::Allowed(answers) => Spending::Decided(self.answered(policy, Judge::Lease, answers)),
            Spent::Awaits(subject) => Spending::Awaits(subject),
            Spent::Unknown => Spending::Unknown,
            Spent::Refused => match self.recall(policy, refusals, now) {
                Some(step) => Spending::Decided(step),
                None => self.spend_beside_refused(policy, ledger, cells, refusals, now),
            },
        }
    }

    /// Spends for the limits beside dry runs that are known to refuse.
    fn spend_beside_refused(
        &mut self,
        policy: &Policy,
        ledger: &mut Ledger,
        cells: &dyn Cells,
        refusals: &mut Refusals,
        now: Timestamp,
    ) -> Spending {
        let State::Pending { questions, .. } = &self.state else { return Spending::Unknown };
        let recalled: Vec<Option<CheckAnswer>> =
            questions.iter().map(|question| refusals.recall(&question.check, now)).collect();
        let others = questions.iter().zip(&recalled).filter(|(_, answer)| answer.is_none());
        let checks: Vec<&Check> = others.map(|(question, _)| &question.check).collect();
        let mut answers = match ledger.spend(cells, refusals, &checks, now) {
            Spent::Allowed(answers) => answers.into_iter(),
            Spent::Awaits(subject) => return Spending::Awaits(subject),
            Spent::Refused | Spent::Unknown => return Spending::Unknown,
        };
        let answers = recalled.into_iter().filter_map(|recalled| match recalled {
            Some(answer) => Some((Judge::Remembered, answer)),
            None => answers.next().map(|answer| (Judge::Lease, answer)),
        });
        Spending::Decided(self.decided(policy, Judge::Lease, answers))
    }
}
