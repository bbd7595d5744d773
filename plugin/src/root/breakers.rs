//! Breakers: whether a call may go, what came of it, and who hears of a breaker that has changed its state.

use std::sync::Arc;
use std::time::Duration;

use lanekeeper_engine::breaker::{Cause, Entry, Outcome, Settings, State, Transition};
use lanekeeper_engine::policy::{Policy, written};
use lanekeeper_engine::request::{EndFacts, EndedCall, Request};
use lanekeeper_engine::units::Timestamp;

use super::Active;
use crate::cells::BREAKERS;
use crate::host::{self, Level};

/// So far beyond the last moment that is known, an answer's own word is taken for when it ended. Where Envoy is told to
/// suppress its headers, that word is the upstream's.
const NEAR: Duration = Duration::from_secs(1);

impl Active {
    /// Asks a breaker, by its lane and its place there, whether a call may go.
    pub(crate) fn enter(
        &mut self,
        at: (usize, usize),
        owner: &str,
        settings: &Arc<Settings>,
        now: Timestamp,
    ) -> Entry {
        self.last_seen = now;
        let entry = self.breakers.enter(&BREAKERS, owner, settings, now, &chance);
        if let Entry::Refuse(refusal) | Entry::WouldRefuse(refusal, _) = &entry {
            let is_enforced = matches!(entry, Entry::Refuse(_));
            self.metrics.turned_away(&self.policy, at, refusal.why, is_enforced);
        }
        self.metrics.first_asked(&self.policy, at, self.breakers.state(owner));
        self.tell_transitions();
        self.pace_breakers();
        entry
    }

    /// Tells a request's breaker what came of the call, if it has one. The clock is read only where the moment matters: a
    /// success changes the state of none but a half-open breaker, so for that the last moment that is known will do.
    pub(crate) fn leave(&mut self, request: &mut Request, facts: &EndFacts<'_>) {
        let Some(EndedCall { permit, outcome, not_before }) = request.call_ended(facts, &host::now) else {
            return;
        };
        let is_near = not_before <= self.last_seen.plus(NEAR);
        let now = match outcome {
            Outcome::Success { .. } | Outcome::Ignored if is_near && !permit.is_probe() => {
                self.last_seen.max(not_before)
            }
            _ => host::now(),
        };
        self.breakers.leave(&BREAKERS, permit, outcome, now, &chance);
        self.tell_transitions();
        self.pace_breakers();
    }

    /// Looks after what the other workers have not been told, and after places that nobody uses.
    pub(super) fn look_after_breakers(&mut self, now: Timestamp) {
        self.last_seen = now;
        self.breakers.tick(&BREAKERS, now, &chance);
        self.tell_transitions();
    }

    /// No request comes any more: nothing is kept from the other workers, and from the policy that follows.
    pub(super) fn retire_breakers(&mut self) {
        self.breakers.retire(&BREAKERS, host::now(), &chance);
        self.tell_transitions();
    }

    /// Each change is one worker's to tell: that which made it.
    fn tell_transitions(&mut self) {
        for transition in self.breakers.take_transitions() {
            let level = if transition.to == State::Open { Level::Warn } else { Level::Info };
            host::log(level, &line(&transition));
            for at in places(&self.policy, &transition.owner) {
                self.metrics.transition(&self.policy, at, transition.to);
            }
            self.reports.hurry();
        }
    }
}

/// Where breakers stand whose state is `owner`'s: in several lanes, when they share it.
fn places(policy: &Policy, owner: &str) -> Vec<(usize, usize)> {
    let lanes = policy.lanes.iter().enumerate();
    let places = lanes.flat_map(|(lane, in_it)| {
        let breakers = in_it.breakers.iter().enumerate();
        breakers.filter(|(_, breaker)| breaker.owner == owner).map(move |(breaker, _)| (lane, breaker))
    });
    places.collect()
}

/// Draws evenly; without chance a part that is enforced is enforced whole, and no jitter spreads the probes.
fn chance() -> u32 {
    getrandom::u32().unwrap_or(0)
}

fn line(transition: &Transition) -> String {
    let Transition { owner, from, to, cause, open_for } = transition;
    let cause = match cause {
        Cause::FailureRate { failures, calls } => format!("{failures} of {calls} calls failed"),
        Cause::SlowRate { slow, calls } => format!("{slow} of {calls} calls were slow"),
        Cause::ConsecutiveFailures { failures } => format!("{failures} calls in a row failed"),
        Cause::Waited => "its time is over".to_owned(),
        Cause::ProbesFailed => "its probes failed".to_owned(),
        Cause::ProbesSlow => "its probes were slow".to_owned(),
        Cause::ProbesUnanswered => "its probes were never answered".to_owned(),
        Cause::ProbesSucceeded => "its probes succeeded".to_owned(),
        Cause::Forced => "its operator wants it so".to_owned(),
    };
    let open_for = open_for.map(|span| format!("; open for {}", written(span))).unwrap_or_default();
    format!("lanekeeper: breaker {owner} was {}, and is {}: {cause}{open_for}", from.name(), to.name())
}
