//! Questions under way to the store, and the streams that wait for them.
//!
//! A callout costs more than everything else a request does here, so streams share them: while two are under
//! way, whoever comes waits, and the next callout asks for all of them. Nobody waits for company: with a
//! callout to spare, a question leaves at once. Two, so that one slow answer does not hold up everybody.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use lanekeeper_engine::units::Timestamp;
use lanekeeper_engine::wire::{
    Check, CheckAnswer, DECIDE_PATH, DecideRequest, DecideResponse, MAX_CHECKS, VERSION,
};

use crate::host;
use crate::metrics::CallEnd;

/// Callouts under way at once.
const MAX_CALLS: usize = 2;
/// Streams that one callout asks for, and that one callback answers: each answer to a paused stream may nest
/// in the host's stack on top of the one before.
pub(crate) const MAX_STREAMS: usize = 64;

/// A stream that waits, and what it wants to know.
pub(crate) struct Waiter {
    /// The stream.
    pub(crate) stream: u32,
    /// Its checks.
    pub(crate) checks: Vec<Check>,
    /// Since when.
    pub(crate) since: Timestamp,
}

/// A question under way.
pub(crate) struct Call {
    asked: Timestamp,
    question: DecideRequest,
    streams: Vec<Place>,
}

/// A stream's place in a question: it has the next so many checks.
struct Place {
    stream: u32,
    checks: usize,
    since: Timestamp,
}

/// Where and how to ask.
pub(crate) struct Asking {
    /// The cluster of the shim.
    pub(crate) cluster: String,
    /// How long an answer may take.
    pub(crate) timeout: Duration,
    /// The value of the `authorization` header.
    pub(crate) authorization: Option<String>,
}

/// The questions of one root.
#[derive(Default)]
pub(crate) struct Batches {
    waiting: VecDeque<Waiter>,
    calls: BTreeMap<u32, Call>,
}

impl Batches {
    /// Whether a question could leave at once.
    pub(crate) fn has_room(&self) -> bool {
        self.calls.len() < MAX_CALLS
    }

    /// Puts a stream behind those that wait.
    pub(crate) fn wait(&mut self, waiter: Waiter) {
        self.waiting.push_back(waiter);
    }

    /// Whether somebody waits without any callout under way that will call back.
    pub(crate) fn is_stuck(&self) -> bool {
        self.calls.is_empty() && !self.waiting.is_empty()
    }

    /// Whether nobody waits and nothing is under way.
    pub(crate) fn is_idle(&self) -> bool {
        self.calls.is_empty() && self.waiting.is_empty()
    }

    /// The next streams for one callout, as many as one question holds. A stream for which `wanted` is false is
    /// dropped.
    pub(crate) fn next(&mut self, wanted: impl Fn(u32) -> bool) -> Vec<Waiter> {
        let (mut next, mut checks) = (Vec::new(), 0);
        while next.len() < MAX_STREAMS {
            let Some(waiter) = self.waiting.pop_front() else { break };
            if !wanted(waiter.stream) {
                continue;
            }
            checks += waiter.checks.len();
            if checks > MAX_CHECKS && !next.is_empty() {
                self.waiting.push_front(waiter);
                break;
            }
            next.push(waiter);
        }
        next
    }

    /// Streams that have waited since before `moment`: at most `most`.
    pub(crate) fn waiting_since_before(&mut self, moment: Timestamp, most: usize) -> Vec<u32> {
        let late = self.waiting.iter().take(most).take_while(|waiter| waiter.since < moment).count();
        self.waiting.drain(..late).map(|waiter| waiter.stream).collect()
    }

    /// Sends one callout for these streams. When the host will not, they come back.
    pub(crate) fn send(
        &mut self,
        asking: &Asking,
        now: Timestamp,
        waiters: Vec<Waiter>,
    ) -> Result<(), Vec<Waiter>> {
        let place = |waiter: &Waiter| Place {
            stream: waiter.stream,
            checks: waiter.checks.len(),
            since: waiter.since,
        };
        let streams = waiters.iter().map(place).collect();
        let checks = waiters.into_iter().flat_map(|waiter| waiter.checks).collect();
        let spend_within_ms = u32::try_from(asking.timeout.as_millis()).unwrap_or(u32::MAX);
        let question = DecideRequest { version: VERSION, spend_within_ms, checks };
        // a question is made of texts and numbers, which always have a JSON form
        let body = serde_json::to_vec(&question).unwrap_or_default();
        let mut headers = vec![
            (":method", "POST"),
            (":path", DECIDE_PATH),
            (":authority", asking.cluster.as_str()),
            ("content-type", "application/json"),
        ];
        headers.extend(asking.authorization.as_deref().map(|value| ("authorization", value)));
        let sent = host::http_call(&asking.cluster, &headers, &body, asking.timeout);
        let call = Call { asked: now, question, streams };
        match sent {
            Ok(number) => {
                self.calls.insert(number, call);
                Ok(())
            }
            Err(_) => Err(call.into_waiters()),
        }
    }

    /// Puts a stream back in front of those that wait.
    pub(crate) fn wait_on(&mut self, waiter: Waiter) {
        self.waiting.push_front(waiter);
    }

    /// Takes a callout that has ended.
    pub(crate) fn end(&mut self, call: u32) -> Option<Call> {
        self.calls.remove(&call)
    }

    /// Takes a callout that was asked before `moment` and never ended, as no host should let happen.
    pub(crate) fn lost_before(&mut self, moment: Timestamp) -> Option<Call> {
        let lost = self.calls.iter().find(|(_, call)| call.asked < moment).map(|(number, _)| *number)?;
        self.calls.remove(&lost)
    }
}

impl Call {
    /// The streams that it asked for.
    pub(crate) fn streams(&self) -> impl Iterator<Item = u32> {
        self.streams.iter().map(|place| place.stream)
    }

    /// How long ago it was asked.
    pub(crate) fn age(&self, now: Timestamp) -> Duration {
        now.since(self.asked)
    }

    /// What each stream gets to hear, when `status` and `body` are what the shim said.
    pub(crate) fn read(&self, status: &[u8], body: &[u8]) -> Result<Vec<(u32, Vec<CheckAnswer>)>, CallEnd> {
        if status != b"200" {
            return Err(CallEnd::Refused);
        }
        let response: DecideResponse = serde_json::from_slice(body).map_err(|_| CallEnd::Malformed)?;
        if !response.fits(&self.question) {
            return Err(CallEnd::Malformed);
        }
        let mut answers = response.answers.into_iter();
        Ok(self
            .streams
            .iter()
            .map(|place| (place.stream, answers.by_ref().take(place.checks).collect()))
            .collect())
    }

    /// The streams with their checks, as they were before it was made.
    fn into_waiters(self) -> Vec<Waiter> {
        let mut checks = self.question.checks.into_iter();
        let waiter = |Place { stream, checks: count, since }| Waiter {
            stream,
            checks: checks.by_ref().take(count).collect(),
            since,
        };
        self.streams.into_iter().map(waiter).collect()
    }
}
