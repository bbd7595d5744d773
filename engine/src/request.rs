//! One request from its headers to its decision: events in, steps out.
//!
//! ```text
//!                     no limit applies
//!   arrive ------------------------------------------------> Admitted
//!     |                                                        ^   |
//!     |  Ask (the store) / Count (this node)                   |   | answer_headers
//!     +------------------> Pending ------- every check allows -+   v
//!     |                     |   ^  \------ one rejects -----> Rejected
//!     |     the store fails |   |
//!     |                     +---+ on_failure: local
//!     +-- turned away by the policy itself -----------------> Rejected
//! ```
//!
//! A breaker is asked first: a call that it turns away costs no limit anything. Limits that are enforced form one check,
//! all or nothing. A limit in dry run has a check of its own, so that its refusal neither rejects the request nor keeps
//! the others from being charged. The keys of limits with `consume: on_success` are only looked at; what they are owed
//! once the answer has succeeded stands on the request's bill.

use crate::answer::{self, AnswerHeader, Refusal, Reply, Shown, ShownWindow};
use crate::lane::{self, HeaderEdit};
use crate::policy::{Limit, OnFailure, Policy};
use crate::refusals::Refusals;
use crate::wire::{Check, CheckAnswer};

mod asking;
mod bill;
mod facts;
mod fallback;
mod guarded;
mod known;
mod limit;
mod question;
mod tally;

use bill::Bill;
pub use bill::{Account, Charge, ChargeEnd, Counters, End};
pub use facts::{AnswerFacts, EndFacts, Enter, Facts};
use guarded::Guarded;
pub use guarded::{EndedCall, VIA_UPSTREAM};
pub use known::Spending;
use question::Question;
pub use tally::{Judge, Outcome, Tally};

/// What to do next with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Let it go on.
    Continue,
    /// Ask the store the request's [`checks`](Request::checks), and come back with `answered` or `store_failed`.
    Ask,
    /// Count the request's [`checks`](Request::checks) on this node, and come back with `answered`.
    Count,
    /// Answer it.
    Reply(Reply),
}

/// What the headers of a request lead to.
#[derive(Debug)]
pub struct Arrival {
    /// What must change in its headers.
    pub edits: Vec<HeaderEdit>,
    /// Lanes whose flag came from somebody who may not set it, as indices into [`Policy::lanes`].
    pub forged: Vec<usize>,
    /// What to do next.
    pub step: Step,
}

/// A request.
#[derive(Debug)]
pub struct Request {
    lane: usize,
    grpc: bool,
    state: State,
    bill: Bill,
    /// Few requests have it, and all are moved about.
    guarded: Option<Box<Guarded>>,
    tallies: Vec<Tally>,
}

#[derive(Debug)]
enum State {
    /// Its checks wait for an answer.
    Pending { questions: Vec<Question>, fallback: bool },
    /// It goes on; these headers belong into its answer.
    Admitted { headers: Vec<AnswerHeader> },
    /// It was answered here.
    Rejected,
}

impl Request {
    /// A request has arrived.
    pub fn arrive(policy: &Policy, facts: &Facts<'_>) -> (Self, Arrival) {
        let sorting = lane::sort(policy, facts.headers, facts.client);
        let content_type = facts.headers.first("content-type").unwrap_or_default();
        let mut request = Self {
            lane: sorting.lane,
            grpc: bill::is_grpc(content_type),
            state: State::Admitted { headers: Vec::new() },
            bill: Bill::default(),
            guarded: None,
            tallies: Vec::new(),
        };
        let step = if sorting.turned_away {
            request.reject(policy, &Refusal::Untrusted)
        } else {
            request.ask(policy, facts)
        };
        (request, Arrival { edits: sorting.edits, forged: sorting.forged, step })
    }

    /// Its lane, as an index into [`Policy::lanes`].
    pub fn lane(&self) -> usize {
        self.lane
    }

    /// What waits for an answer.
    pub fn checks(&self) -> impl Iterator<Item = &Check> {
        let questions = match &self.state {
            State::Pending { questions, .. } => questions.as_slice(),
            State::Admitted { .. } | State::Rejected => &[],
        };
        questions.iter().map(|question| &question.check)
    }

    /// Whether it waits for an answer: its body must wait as well.
    pub fn is_pending(&self) -> bool {
        matches!(self.state, State::Pending { .. })
    }

    /// `judge` has answered every check, in their order: the store, or what is known of its answers. What it could not
    /// decide takes the road of `on_failure`.
    pub fn answered(&mut self, policy: &Policy, judge: Judge, answers: Vec<CheckAnswer>) -> Step {
        self.decided(policy, judge, answers.into_iter().map(|answer| (judge, answer)))
    }

    /// This node's counters have answered every check, in their order.
    pub fn counted(&mut self, policy: &Policy, answers: Vec<CheckAnswer>) -> Step {
        let judge = match self.state {
            State::Pending { fallback: true, .. } => Judge::Fallback(OnFailure::Local),
            _ => Judge::Local,
        };
        self.answered(policy, judge, answers)
    }

    /// The same, with answers of several judges. `judge` is that of what could not be decided.
    fn decided(
        &mut self,
        policy: &Policy,
        judge: Judge,
        mut answers: impl Iterator<Item = (Judge, CheckAnswer)>,
    ) -> Step {
        let Some((questions, fallback)) = self.take_pending() else {
            return Step::Continue;
        };
        let mut undecided = Vec::new();
        let mut shown = Vec::new();
        for question in questions {
            match (answers.next(), question.dry_run) {
                (Some((judge, CheckAnswer::Allowed { keys })), dry_run) => {
                    self.tally_all(&question, judge);
                    if !dry_run {
                        shown = question.windows(&keys);
                    }
                    self.owe(policy, judge, question);
                }
                (Some((judge, CheckAnswer::Rejected { keys })), true) => {
                    let hit = ShownWindow::last_to_free(&question.windows(&keys));
                    self.tallies.extend(hit.map(|h| Tally {
                        limit: h.limit,
                        outcome: Outcome::DryRun,
                        judge,
                    }));
                }
                (Some((judge, CheckAnswer::Rejected { keys })), false) => {
                    let windows = question.windows(&keys);
                    return self.reject_over_limit(policy, judge, fallback, windows);
                }
                (Some((_, CheckAnswer::Failed { .. })) | None, _) => undecided.push(question),
            }
        }
        match (undecided.is_empty(), judge) {
            (true, _) => self.admit(policy, fallback.then_some(OnFailure::Local), shown),
            (false, Judge::Store) => self.fall_back(policy, undecided, shown),
            // counters that cannot be read admit nobody whom the policy does not admit without them
            (false, _) if undecided.iter().all(|q| q.dry_run) => {
                self.admit(policy, fallback.then_some(OnFailure::Local), shown)
            }
            (false, _) => {
                self.tally_rejection(&undecided, judge);
                self.reject(policy, &Refusal::Unavailable)
            }
        }
    }

    /// What belongs into the headers of its answer. `upstream_remaining` is asked for the upstream's own
    /// [`answer::LEGACY_REMAINING`] header, and only where the policy writes such headers.
    pub fn answer_headers(
        &self,
        upstream_remaining: &dyn Fn() -> Option<Vec<u8>>,
    ) -> impl Iterator<Item = &AnswerHeader> {
        let headers = match &self.state {
            State::Admitted { headers } => headers.as_slice(),
            State::Pending { .. } | State::Rejected => &[],
        };
        let upstream_is_stricter = answer::upstream_is_stricter(headers, upstream_remaining);
        headers.iter().filter(move |header| !(header.replaces && upstream_is_stricter))
    }

    /// The headers of its answer pass. Gives what is to be charged for it now, which is seldom anything.
    pub fn answer_began(&mut self, facts: &AnswerFacts<'_>) -> Vec<Charge> {
        self.call_answered(facts);
        self.bill.answer_began(facts)
    }

    /// The trailers of its answer pass; `trailer` gives the first value of one, and is asked only where it matters.
    pub fn answer_trailers(&mut self, trailer: &dyn Fn(&str) -> Option<Vec<u8>>) {
        self.call_trailers(trailer);
        self.bill.answer_trailers(trailer);
    }

    /// Its stream is over; how, is asked only where it matters. Gives what is to be charged, each charge once.
    pub fn ended(&mut self, end: &dyn Fn() -> End) -> Vec<Charge> {
        self.bill.ended(end)
    }

    /// The limits' decisions since the last call.
    pub fn take_tallies(&mut self) -> Vec<Tally> {
        std::mem::take(&mut self.tallies)
    }

    /// What it waits for, when it does; an answer that nobody waits for changes nothing.
    fn take_pending(&mut self) -> Option<(Vec<Question>, bool)> {
        let State::Pending { questions, fallback } = &mut self.state else { return None };
        Some((std::mem::take(questions), *fallback))
    }

    fn wait(&mut self, questions: Vec<Question>, fallback: bool, step: Step) -> Step {
        self.state = State::Pending { questions, fallback };
        step
    }

    /// Notes what `question`, which was allowed, leaves to be charged when the answer has succeeded.
    fn owe(&mut self, policy: &Policy, judge: Judge, question: Question) {
        let lane = self.lane;
        for (limit, key) in question.into_owed() {
            let on_failure = self.limit(policy, limit).map_or(OnFailure::Closed, Limit::on_failure);
            let counters = match judge {
                Judge::Store => Counters::Store { on_failure },
                Judge::Fallback(_) => Counters::Fallback,
                Judge::Local | Judge::Lease | Judge::Remembered | Judge::Policy => Counters::Local,
            };
            let account = Account { lane, limit, counters };
            self.bill.add(Charge { account, check: Check { keys: vec![key] } });
        }
    }

    fn admit(&mut self, policy: &Policy, fallback: Option<OnFailure>, shown: Vec<ShownWindow>) -> Step {
        let headers =
            self.shown(policy, shown).map(|shown| answer::headers(&policy.responses, &shown, fallback));
        self.state = State::Admitted { headers: headers.unwrap_or_default() };
        Step::Continue
    }

    fn reject_over_limit(
        &mut self,
        policy: &Policy,
        judge: Judge,
        fallback: bool,
        windows: Vec<ShownWindow>,
    ) -> Step {
        let hit = ShownWindow::last_to_free(&windows);
        let fallback = fallback.then_some(OnFailure::Local);
        self.turn_away();
        let (Some(hit), Some(shown)) = (hit, self.shown(policy, windows)) else {
            return self.reject(policy, &Refusal::Unavailable);
        };
        self.tallies.push(Tally { limit: hit.limit, outcome: Outcome::Rejected, judge });
        Step::Reply(answer::over_limit(&policy.responses, &shown, hit, fallback, self.grpc))
    }

    fn reject(&mut self, policy: &Policy, refusal: &Refusal<'_>) -> Step {
        self.turn_away();
        Step::Reply(answer::refusal(&policy.responses, refusal, self.grpc))
    }

    fn turn_away(&mut self) {
        self.state = State::Rejected;
        self.bill = Bill::default();
    }

    fn shown<'p>(&self, policy: &'p Policy, windows: Vec<ShownWindow>) -> Option<Shown<'p>> {
        policy.lanes.get(self.lane).map(|lane| Shown { limits: &lane.limits, windows })
    }

    fn limit<'p>(&self, policy: &'p Policy, limit: usize) -> Option<&'p Limit> {
        policy.lanes.get(self.lane)?.limits.get(limit)
    }

    fn tally_all(&mut self, question: &Question, judge: Judge) {
        let tally = |limit| Tally { limit, outcome: Outcome::Admitted, judge };
        self.tallies.extend(question.limits().map(tally));
    }

    fn tally_rejection(&mut self, questions: &[Question], judge: Judge) {
        let first = questions.iter().filter(|q| !q.dry_run).flat_map(Question::limits).next();
        self.tallies.extend(first.map(|limit| Tally { limit, outcome: Outcome::Rejected, judge }));
    }
}

#[cfg(test)]
mod tests;
