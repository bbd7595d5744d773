//! From a request's headers to what is asked about it: which limits concern it, under which keys, and at what cost.

use super::bill::Bill;
use super::guarded::{self, Guarding};
use super::{Facts, Judge, Outcome, Question, Request, Step, Tally};
use crate::answer::Refusal;
use crate::matcher::Target;
use crate::policy::{LimitVerdict, OnMissingKey, Policy, Share};
use crate::subject::store_keys;
use crate::wire::{MAX_CHECKS, MAX_KEYS};

impl Request {
    /// Asks its breaker, and then what its limits want to know.
    pub(super) fn ask(&mut self, policy: &Policy, facts: &Facts<'_>) -> Step {
        let Some(lane) = policy.lanes.get(self.lane) else { return Step::Continue };
        if lane.limits.is_empty() && lane.breakers.is_empty() {
            return Step::Continue;
        }
        let target = Target::new(facts.headers, &policy.commands);
        match guarded::guard((self.lane, lane), &target, facts) {
            Guarding::Passes(guarded) => self.guarded = guarded,
            Guarding::Refuses(refusal) => return self.reject(policy, &refusal),
        }
        let mut enforced = Question::empty(false);
        let mut questions = Vec::new();
        for (index, limit) in lane.limits.iter().enumerate().filter(|(_, limit)| limit.applies_to(&target)) {
            let LimitVerdict::Count(count) = &limit.verdict else {
                self.tallies.push(Tally { limit: index, outcome: Outcome::Rejected, judge: Judge::Policy });
                return self.reject(policy, &Refusal::TurnedAway { limit });
            };
            let keys = store_keys(&limit.key_prefix, count, &target, facts.client);
            let is_enforced = match count.enforce {
                Share::ALL => true,
                share => share.holds((facts.chance)()),
            };
            if let (Some(missing), OnMissingKey::Reject, true) =
                (keys.missing, count.on_missing_key, is_enforced)
            {
                self.tallies.push(Tally { limit: index, outcome: Outcome::Rejected, judge: Judge::Policy });
                let key = count.keys.get(missing).map(|key| key.name.as_str()).unwrap_or_default();
                return self.reject(policy, &Refusal::MissingKey { limit, key });
            }
            let mut own = Question::empty(true);
            let question = if is_enforced { &mut enforced } else { &mut own };
            question.add(index, count, keys.present, count.cost.of(facts.headers));
            questions.extend((!own.origins.is_empty()).then_some(own));
        }
        if !enforced.origins.is_empty() {
            questions.push(enforced);
        }
        if questions.len() > MAX_CHECKS || questions.iter().any(|q| q.origins.len() > MAX_KEYS) {
            // no store would take such a question, and a part of it is no decision
            self.tally_rejection(&questions, Judge::Policy);
            return self.reject(policy, &Refusal::Unavailable);
        }
        if questions.iter().any(Question::leaves_something_owed) {
            self.bill = Bill::of(facts.headers, self.grpc);
        }
        match (questions.is_empty(), &policy.store) {
            (true, _) => Step::Continue,
            (false, Some(_)) => self.wait(questions, false, Step::Ask),
            (false, None) => self.wait(questions, false, Step::Count),
        }
    }
}
