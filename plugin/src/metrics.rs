//! What Envoy's stats count. Names come from the policy and from this file, never from a request.
//!
//! The host has no labels: `<tag>.<value>` pairs stand in the name, and the `stats_tags` in `envoy/` take them
//! out again, so that Prometheus shows `lanekeeper_decisions_total{lane=…,limit=…,outcome=…,source=…}`.
//! A counter is defined when it first counts, since each definition takes a lock of the whole proxy.

use std::cell::RefCell;
use std::collections::BTreeMap;

use lanekeeper_engine::batch::Call;
use lanekeeper_engine::breaker::{State, Why};
use lanekeeper_engine::circuit::{Phase, Turn};
use lanekeeper_engine::lane::NORMAL_LANE;
use lanekeeper_engine::policy::{OnFailure, Policy};
use lanekeeper_engine::request::{Account, ChargeEnd, Judge, Outcome, Tally};

use crate::host::{self, HostError};

thread_local! {
    /// What this VM has defined. The host gives a metric another number each time, and keeps all of them.
    static DEFINED: RefCell<BTreeMap<String, u32>> = RefCell::default();
}

/// How a question to the store ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum CallEnd {
    /// With an answer that was used.
    Answered,
    /// With an answer later than the timeout; it is not used.
    Late,
    /// The shim answered with an error.
    Refused,
    /// The shim says that no server of its store would have answered.
    Away,
    /// The answer does not fit the question.
    Malformed,
    /// No answer in time.
    TimedOut,
    /// No connection, or it broke.
    Unreachable,
    /// The host would not send it (no such cluster, no healthy host, too many pending).
    NotSent,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Decision { lane: usize, tally: (usize, Outcome, Judge) },
    Charge { lane: usize, limit: usize, charge: (ChargeEnd, Judge) },
    Forged { lane: usize },
    Call(CallEnd),
    Renewals,
    ReturnedTokens,
    ReportedTokens,
    UnreportedSubjects,
    TurnedAway { lane: usize, breaker: usize, why: Why, is_enforced: bool },
    Transition { lane: usize, breaker: usize, to: State },
    Turn { to: Phase },
}

/// The counters of one root, and the gauges of its breakers and of its circuit to the store.
#[derive(Default)]
pub(crate) struct Metrics {
    defined: BTreeMap<Event, Option<u32>>,
    /// By the lane and the breaker.
    states: BTreeMap<(usize, usize), Option<u32>>,
    circuit: Option<Option<u32>>,
}

impl Metrics {
    /// A limit has decided.
    pub(crate) fn decision(&mut self, policy: &Policy, lane: usize, tally: Tally) {
        let Tally { limit, outcome, judge } = tally;
        self.count(Event::Decision { lane, tally: (limit, outcome, judge) }, || {
            let lane = policy.lanes.get(lane)?;
            let limit = &lane.limits.get(limit)?.title;
            let (outcome, judge) = (outcome_name(outcome), judge_name(judge));
            let lane = &lane.name;
            Some(format!(
                "lanekeeper.decisions_total.lane.{lane}.limit.{limit}.outcome.{outcome}.source.{judge}"
            ))
        });
    }

    /// A charge for an answer that succeeded has ended. One is counted for each key.
    pub(crate) fn charge(&mut self, policy: &Policy, account: Account, end: ChargeEnd) {
        let (Account { lane, limit, .. }, judge) = (account, account.judge());
        self.count(Event::Charge { lane, limit, charge: (end, judge) }, || {
            let lane = policy.lanes.get(lane)?;
            let limit = &lane.limits.get(limit)?.title;
            let (outcome, judge) = (charge_end_name(end), judge_name(judge));
            let lane = &lane.name;
            Some(format!(
                "lanekeeper.charges_total.lane.{lane}.limit.{limit}.outcome.{outcome}.source.{judge}"
            ))
        });
    }

    /// Somebody who may not set a lane's flag has set it.
    pub(crate) fn forged(&mut self, policy: &Policy, lane: usize) {
        self.count(Event::Forged { lane }, || {
            let lane = &policy.lanes.get(lane).filter(|_| lane != NORMAL_LANE)?.name;
            Some(format!("lanekeeper.untrusted_flags_total.lane.{lane}"))
        });
    }

    /// A question to the store has ended.
    pub(crate) fn call(&mut self, end: CallEnd) {
        let name = || Some(format!("lanekeeper.store_calls_total.outcome.{}", call_end_name(end)));
        self.count(Event::Call(end), name);
    }

    /// What leases are due has left with this call.
    pub(crate) fn leases(&mut self, call: &Call) {
        let renewals = u32::try_from(call.renewals().len()).unwrap_or(u32::MAX);
        self.add(Event::Renewals, renewals, || Some("lanekeeper.lease_renewals_total".to_owned()));
        let returns = call.question().returns.iter();
        let returned = returns.fold(0, |sum: u32, returned| sum.saturating_add(returned.tokens));
        let name = || Some("lanekeeper.lease_returned_tokens_total".to_owned());
        self.add(Event::ReturnedTokens, returned, name);
    }

    /// The store counts so many tokens more that were admitted in its place.
    pub(crate) fn outage_reported(&mut self, tokens: u32) {
        self.add(Event::ReportedTokens, tokens, || {
            Some("lanekeeper.outage_reported_tokens_total".to_owned())
        });
    }

    /// The store will not hear what so many subjects were admitted in its place: there were too many.
    pub(crate) fn outage_dropped(&mut self, subjects: u32) {
        let name = || Some("lanekeeper.outage_unreported_subjects_total".to_owned());
        self.add(Event::UnreportedSubjects, subjects, name);
    }

    /// A breaker has turned a call away, or would have.
    pub(crate) fn turned_away(&mut self, policy: &Policy, at: (usize, usize), why: Why, is_enforced: bool) {
        let (lane, breaker) = at;
        self.count(Event::TurnedAway { lane, breaker, why, is_enforced }, || {
            let outcome = if is_enforced { "rejected" } else { "dry_run" };
            let (place, why) = (place(policy, at)?, why_name(why));
            Some(format!("lanekeeper.breaker_refusals_total.{place}.outcome.{outcome}.reason.{why}"))
        });
    }

    /// A breaker has been asked for the first time, and this is its state.
    pub(crate) fn first_asked(&mut self, policy: &Policy, at: (usize, usize), state: State) {
        if !self.states.contains_key(&at) {
            self.set_state(policy, at, state);
        }
    }

    /// A breaker has changed its state, on behalf of all workers.
    pub(crate) fn transition(&mut self, policy: &Policy, at: (usize, usize), to: State) {
        let (lane, breaker) = at;
        self.count(Event::Transition { lane, breaker, to }, || {
            let (place, to) = (place(policy, at)?, to.name());
            Some(format!("lanekeeper.breaker_transitions_total.{place}.to.{to}"))
        });
        self.set_state(policy, at, to);
    }

    /// The store is to be asked for the first time, and this is where its circuit stands.
    pub(crate) fn store_first_asked(&mut self, phase: Phase) {
        if self.circuit.is_none() {
            self.store_stands(phase);
        }
    }

    /// The circuit to the store has changed, on behalf of all workers.
    pub(crate) fn store_turn(&mut self, Turn { to, .. }: Turn) {
        let name = || Some(format!("lanekeeper.store_circuit_transitions_total.to.{}", to.name()));
        self.count(Event::Turn { to }, name);
    }

    /// Where the circuit to the store stands.
    pub(crate) fn store_stands(&mut self, phase: Phase) {
        let define = || define("lanekeeper.store_circuit_state", host::define_gauge);
        if let Some(gauge) = self.circuit.get_or_insert_with(define) {
            let number = match phase {
                Phase::Closed => 0,
                Phase::Probing | Phase::Recovering => 1,
                Phase::Open => 2,
            };
            // a gauge that cannot be set must not keep a request from its decision
            let _ = host::record(*gauge, number);
        }
    }

    fn set_state(&mut self, policy: &Policy, at: (usize, usize), state: State) {
        let define =
            || define(&format!("lanekeeper.breaker_state.{}", place(policy, at)?), host::define_gauge);
        if let Some(gauge) = self.states.entry(at).or_insert_with(define) {
            let number = match state {
                State::Closed => 0,
                State::HalfOpen => 1,
                State::Open => 2,
            };
            // a gauge that cannot be set must not keep a request from its decision
            let _ = host::record(*gauge, number);
        }
    }

    fn count(&mut self, event: Event, name: impl FnOnce() -> Option<String>) {
        self.add(event, 1, name);
    }

    fn add(&mut self, event: Event, more: u32, name: impl FnOnce() -> Option<String>) {
        if more == 0 {
            return;
        }
        let define = || define(&name()?, host::define_counter);
        if let Some(counter) = self.defined.entry(event).or_insert_with(define) {
            // a counter that cannot count must not keep a request from its decision
            let _ = host::increment(*counter, more);
        }
    }
}

/// The number of a metric; none where the host will not have it.
fn define(name: &str, define: impl FnOnce(&str) -> Result<u32, HostError>) -> Option<u32> {
    DEFINED.with_borrow_mut(|defined| match defined.get(name) {
        Some(number) => Some(*number),
        None => {
            let number = define(name).ok()?;
            defined.insert(name.to_owned(), number);
            Some(number)
        }
    })
}

fn place(policy: &Policy, (lane, breaker): (usize, usize)) -> Option<String> {
    let lane = policy.lanes.get(lane)?;
    Some(format!("lane.{}.command.{}", lane.name, lane.breakers.get(breaker)?.command))
}

fn why_name(why: Why) -> &'static str {
    match why {
        Why::Open => "open",
        Why::HalfOpen => "half_open",
        Why::Full => "full",
        Why::Forced => "forced",
    }
}

fn outcome_name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Admitted => "admitted",
        Outcome::Rejected => "rejected",
        Outcome::DryRun => "dry_run",
    }
}

fn charge_end_name(end: ChargeEnd) -> &'static str {
    match end {
        ChargeEnd::Charged => "charged",
        ChargeEnd::Full => "full",
        ChargeEnd::Failed => "failed",
        ChargeEnd::Dropped => "dropped",
    }
}

fn judge_name(judge: Judge) -> &'static str {
    match judge {
        Judge::Store => "store",
        Judge::Remembered => "remembered",
        Judge::Lease => "lease",
        Judge::Local => "local",
        Judge::Fallback(OnFailure::Local) => "fallback.on_failure.local",
        Judge::Fallback(OnFailure::Open) => "fallback.on_failure.open",
        Judge::Fallback(OnFailure::Closed) => "fallback.on_failure.closed",
        Judge::Policy => "policy",
    }
}

fn call_end_name(end: CallEnd) -> &'static str {
    match end {
        CallEnd::Answered => "answered",
        CallEnd::Late => "late",
        CallEnd::Refused => "refused",
        CallEnd::Away => "away",
        CallEnd::Malformed => "malformed",
        CallEnd::TimedOut => "timeout",
        CallEnd::Unreachable => "unreachable",
        CallEnd::NotSent => "dispatch_failed",
    }
}
