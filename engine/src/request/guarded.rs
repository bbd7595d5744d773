//! A call that a breaker let in, until it is known what its upstream did.
//!
//! ```text
//!            the answer's headers             a tunnel is open: what follows says nothing of the upstream
//!   Awaited ----------------------> Answered ------------------------------------------------------------> Settled
//! ```
//!
//! Only the upstream's own doing counts, and only what has come to its end: the status of an answer that went through whole,
//! the gRPC status that it told, a connection that was refused or broke, an answer that did not come in time.
//! Envoy's response code details say which it was. What the filter itself, another filter or the proxy
//! answered counts for nothing, and neither does a call whose client has left.

use std::sync::Arc;
use std::time::Duration;

use super::bill::{self, GRPC_STATUS};
use super::{AnswerFacts, EndFacts, Facts, Request, State};
use crate::answer::Refusal;
use crate::breaker::{Entry, Failures, Outcome, Permit, Settings};
use crate::matcher::Target;
use crate::policy::{BreakerVerdict, Lane};
use crate::units::Timestamp;

/// What a breaker is to hear of a call.
#[derive(Debug)]
pub struct EndedCall {
    /// What it was let in with.
    pub permit: Permit,
    /// What came of it.
    pub outcome: Outcome,
    /// It did not end before this moment, and seldom much later.
    pub not_before: Timestamp,
}

/// A call that may go.
#[derive(Debug)]
pub(super) struct Guarded {
    permit: Permit,
    settings: Arc<Settings>,
    since: Timestamp,
    is_tunnel: bool,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Awaited,
    Answered { status: u32, grpc_status: Option<u32>, took: Duration },
    Settled(Outcome),
}

/// What a call's breaker says of it.
pub(super) enum Guarding<'p> {
    Passes(Option<Box<Guarded>>),
    Refuses(Refusal<'p>),
}

/// Asks the breaker of `command`, if there is one.
pub(super) fn guard<'p>(
    (index, lane): (usize, &'p Lane),
    target: &Target<'_>,
    facts: &Facts<'_>,
) -> Guarding<'p> {
    let place = target.command.and_then(|command| lane.breaker(command));
    let Some((place, breaker)) = place.and_then(|place| Some((place, lane.breakers.get(place)?))) else {
        return Guarding::Passes(None);
    };
    let BreakerVerdict::Guard(settings) = &breaker.verdict else {
        return Guarding::Refuses(Refusal::CommandTurnedAway { breaker });
    };
    match (facts.enter)((index, place), &breaker.owner, settings) {
        Entry::Pass(permit) | Entry::WouldRefuse(_, permit) => Guarding::Passes(permit.map(|permit| {
            Box::new(Guarded {
                permit,
                settings: Arc::clone(settings),
                since: facts.now,
                is_tunnel: target.method() == b"CONNECT",
                stage: Stage::Awaited,
            })
        })),
        Entry::Refuse(refusal) => Guarding::Refuses(Refusal::Broken { breaker, lane: &lane.name, refusal }),
    }
}

/// The header in which Envoy tells how many milliseconds the upstream took. An answer has it if the upstream made it.
const SERVICE_TIME: &str = "x-envoy-upstream-service-time";

impl Request {
    /// Whether a breaker waits to hear what comes of it.
    pub fn is_guarded(&self) -> bool {
        self.guarded.is_some()
    }

    /// Its stream is over, or it was refused: what its breaker is to hear, once. `now` is asked for where the answer did not
    /// tell how long it took.
    pub fn call_ended(&mut self, facts: &EndFacts<'_>, now: &dyn Fn() -> Timestamp) -> Option<EndedCall> {
        let Guarded { permit, settings, since, stage, .. } = *self.guarded.take()?;
        let outcome = match stage {
            _ if matches!(self.state, State::Rejected) => Outcome::Ignored,
            Stage::Settled(outcome) => outcome,
            Stage::Awaited => cut_off(&settings.failures, facts, || now().since(since)),
            Stage::Answered { status, grpc_status, took } => match (facts.details)() {
                Some(details) if details == VIA_UPSTREAM => {
                    match whole(&settings.failures, status, grpc_status, took) {
                        // a good answer was begun in time: most are, so nobody asks who ended it
                        good @ Outcome::Success { took } if took <= settings.slow_call.over => good,
                        // a client can leave amid an answer that keeps the upstream's details
                        _ if (facts.client_left)() => Outcome::Ignored,
                        bad => bad,
                    }
                }
                _ => cut_off(&settings.failures, facts, || took),
            },
        };
        let took = match outcome {
            Outcome::Success { took } | Outcome::Failure { took } => took,
            Outcome::Ignored => Duration::ZERO,
        };
        Some(EndedCall { permit, outcome, not_before: since.plus(took) })
    }

    /// The headers of its answer pass.
    pub(super) fn call_answered(&mut self, facts: &AnswerFacts<'_>) {
        let Some(guarded) = &mut self.guarded else { return };
        let status = (facts.header)(":status").and_then(|text| bill::number(&text)).unwrap_or_default();
        let told = (facts.header)(SERVICE_TIME).and_then(|text| bill::number(&text));
        let took = match told {
            Some(ms) => Duration::from_millis(ms.into()),
            None => (facts.now)().since(guarded.since),
        };
        guarded.stage = match status {
            101 => Stage::Settled(Outcome::Success { took }),
            200..=299 if guarded.is_tunnel => Stage::Settled(Outcome::Success { took }),
            _ => {
                let grpc_status = (facts.header)(GRPC_STATUS).map(|text| bill::grpc_status(&text));
                Stage::Answered { status, grpc_status, took }
            }
        };
    }

    /// The trailers of its answer pass.
    pub(super) fn call_trailers(&mut self, trailer: &dyn Fn(&str) -> Option<Vec<u8>>) {
        if let Some(Guarded { stage: Stage::Answered { grpc_status, .. }, .. }) = self.guarded.as_deref_mut()
        {
            *grpc_status = trailer(GRPC_STATUS).map(|text| bill::grpc_status(&text)).or(*grpc_status);
        }
    }
}

/// What Envoy's details say of an answer that is its upstream's, and whole.
pub const VIA_UPSTREAM: &[u8] = b"via_upstream";

fn whole(failures: &Failures, status: u32, grpc_status: Option<u32>, took: Duration) -> Outcome {
    let is_listed = |status: u32| failures.grpc.iter().any(|listed| u32::from(*listed) == status);
    let failed = (failures.server_errors && status >= 500) || grpc_status.is_some_and(is_listed);
    if failed { Outcome::Failure { took } } else { Outcome::Success { took } }
}

/// What kept an answer from coming whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    Connect,
    Reset,
    Timeout,
    /// Nothing that the upstream did.
    Elsewhere,
}

fn cut_off(failures: &Failures, facts: &EndFacts<'_>, took: impl FnOnce() -> Duration) -> Outcome {
    let cut = (facts.details)().map_or(Cut::Elsewhere, |details| Cut::of(&details));
    let counts = match cut {
        Cut::Connect => failures.connect,
        Cut::Reset => failures.reset,
        Cut::Timeout => failures.timeout,
        Cut::Elsewhere => false,
    };
    if counts && !(facts.client_left)() { Outcome::Failure { took: took() } } else { Outcome::Ignored }
}

impl Cut {
    /// By the details that Envoy names in `source/common/stream_info` (StreamInfo::ResponseCodeDetails); behind some of them the reason stands in braces.
    fn of(details: &[u8]) -> Self {
        let details = String::from_utf8_lossy(details);
        let (name, reason) = details.split_once('{').unwrap_or((&details, ""));
        match name {
            "upstream_reset_before_response_started" | "upstream_reset_after_response_started" => {
                if reason.starts_with("overflow") {
                    // Envoy's own cap on connections and requests
                    Cut::Elsewhere
                } else if reason.contains("connection_failure") || reason.starts_with("connection_timeout") {
                    Cut::Connect
                } else {
                    Cut::Reset
                }
            }
            "response_timeout"
            | "upstream_per_try_timeout"
            | "upstream_per_try_idle_timeout"
            | "upstream_max_stream_duration_reached" => Cut::Timeout,
            _ => Cut::Elsewhere,
        }
    }
}
