//! Questions under way to the store, and the streams that wait for them.
//!
//! A callout costs more than everything else a request does here, so streams share them: while two are under
//! way, whoever comes waits, and the next callout asks for all of them. Nobody waits for company: with a
//! callout to spare, a question leaves at once. Two, so that one slow answer does not hold up everybody.
//!
//! Charges for answers that succeeded, for which nobody waits, go along with the next question. They make a callout
//! of their own only while none is under way, so that a stream always finds one to spare that they have not taken;
//! and they stand first in it, so that whoever is judged with them is judged after them.

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroU32;
use std::time::Duration;

use lanekeeper_engine::refusals::Refusals;
use lanekeeper_engine::request::{Account, Charge};
use lanekeeper_engine::units::Timestamp;
use lanekeeper_engine::wire::{Check, CheckAnswer, DECIDE_PATH, DecideRequest, DecideResponse, MAX_CHECKS};

use crate::host;
use crate::metrics::CallEnd;

/// Callouts under way at once.
const MAX_CALLS: usize = 2;
/// Streams that one callout asks for, and that one callback answers: each answer to a paused stream may nest
/// in the host's stack on top of the one before.
pub(crate) const MAX_STREAMS: usize = 64;
/// Charges that wait at most: four callouts' worth. More only come together while the store is slower than the
/// traffic, and then what waits would not get less.
const MAX_CHARGES: usize = 4 * MAX_CHECKS;
/// Of the checks in a callout, so many are kept for charges, however many streams wait.
const KEPT_FOR_CHARGES: usize = MAX_CHECKS / 4;

/// A stream that waits, and what it wants to know.
pub(crate) struct Waiter {
    /// The stream.
    pub(crate) stream: u32,
    /// Its checks.
    pub(crate) checks: Vec<Check>,
    /// Since when.
    pub(crate) since: Timestamp,
}

/// What one callout asks: first the charges, then for the streams.
pub(crate) struct Load {
    pub(crate) charges: Vec<Charge>,
    pub(crate) streams: Vec<Waiter>,
}

/// A question under way.
pub(crate) struct Call {
    asked: Timestamp,
    question: DecideRequest,
    /// Whose the first checks are, each one charge.
    accounts: Vec<Account>,
    streams: Vec<Place>,
}

/// What the store said to one callout.
pub(crate) struct Heard {
    /// To each of its charges.
    pub(crate) charges: Vec<CheckAnswer>,
    /// To each of its streams.
    pub(crate) streams: Vec<(u32, Vec<CheckAnswer>)>,
    /// How many nodes there are, if it knows.
    pub(crate) nodes: Option<NonZeroU32>,
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
    /// The number of this node.
    pub(crate) node: u64,
}

/// The questions of one root.
#[derive(Default)]
pub(crate) struct Batches {
    waiting: VecDeque<Waiter>,
    charges: VecDeque<Charge>,
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

    /// Puts a charge behind those that wait. It comes back when too many do.
    pub(crate) fn owe(&mut self, charge: Charge) -> Result<(), Charge> {
        if self.charges.len() >= MAX_CHARGES {
            return Err(charge);
        }
        self.charges.push_back(charge);
        Ok(())
    }

    /// Whether somebody waits without any callout under way that will call back.
    pub(crate) fn is_stuck(&self) -> bool {
        self.calls.is_empty() && !self.waiting.is_empty()
    }

    /// Whether nobody waits and nothing is under way.
    pub(crate) fn is_idle(&self) -> bool {
        self.calls.is_empty() && self.waiting.is_empty() && self.charges.is_empty()
    }

    /// What the next callout asks, as much as one question holds; `None` when none is to leave now. A stream for
    /// which `wanted` is false is dropped.
    pub(crate) fn next(&mut self, wanted: impl Fn(u32) -> bool) -> Option<Load> {
        let room = MAX_CHECKS - self.charges.len().min(KEPT_FOR_CHARGES);
        let (mut streams, mut checks) = (Vec::new(), 0);
        while streams.len() < MAX_STREAMS {
            let Some(waiter) = self.waiting.pop_front() else { break };
            if !wanted(waiter.stream) {
                continue;
            }
            let more = waiter.checks.len();
            if checks + more > room && !streams.is_empty() {
                self.waiting.push_front(waiter);
                break;
            }
            checks += more;
            streams.push(waiter);
        }
        if streams.is_empty() {
            return self.charges_alone();
        }
        Some(Load { charges: self.take_charges(checks), streams })
    }

    /// A stream, and what goes along with it.
    pub(crate) fn with(&mut self, waiter: Waiter) -> Load {
        Load { charges: self.take_charges(waiter.checks.len()), streams: vec![waiter] }
    }

    /// Charges without a stream, if no callout is under way.
    pub(crate) fn charges_alone(&mut self) -> Option<Load> {
        let leave = self.calls.is_empty() && !self.charges.is_empty();
        leave.then(|| Load { charges: self.take_charges(0), streams: Vec::new() })
    }

    /// The charges that fit beside so many checks.
    fn take_charges(&mut self, beside: usize) -> Vec<Charge> {
        let most = MAX_CHECKS.saturating_sub(beside).min(self.charges.len());
        self.charges.drain(..most).collect()
    }

    /// Streams that have waited since before `moment`: at most `most`.
    pub(crate) fn waiting_since_before(&mut self, moment: Timestamp, most: usize) -> Vec<u32> {
        let late = self.waiting.iter().take(most).take_while(|waiter| waiter.since < moment).count();
        self.waiting.drain(..late).map(|waiter| waiter.stream).collect()
    }

    /// Sends one callout. When the host will not, what it was to ask comes back.
    pub(crate) fn send(&mut self, asking: &Asking, now: Timestamp, load: Load) -> Result<(), Load> {
        let place = |waiter: &Waiter| Place {
            stream: waiter.stream,
            checks: waiter.checks.len(),
            since: waiter.since,
        };
        let streams = load.streams.iter().map(place).collect();
        let accounts = load.charges.iter().map(|charge| charge.account).collect();
        let charged = load.charges.into_iter().map(|charge| charge.check);
        let checks = charged.chain(load.streams.into_iter().flat_map(|waiter| waiter.checks)).collect();
        let spend_within_ms = u32::try_from(asking.timeout.as_millis()).unwrap_or(u32::MAX);
        let question =
            DecideRequest { node: Some(asking.node), ..DecideRequest::new(spend_within_ms, checks) };
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
        let call = Call { asked: now, question, accounts, streams };
        match sent {
            Ok(number) => {
                self.calls.insert(number, call);
                Ok(())
            }
            Err(_) => Err(call.into_load()),
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

    /// What each charge and each stream gets to hear, when `status` and `body` are what the shim said.
    pub(crate) fn read(&self, status: &[u8], body: &[u8]) -> Result<Heard, CallEnd> {
        if status != b"200" {
            return Err(CallEnd::Refused);
        }
        let response: DecideResponse = serde_json::from_slice(body).map_err(|_| CallEnd::Malformed)?;
        if !response.fits(&self.question) {
            return Err(CallEnd::Malformed);
        }
        let nodes = response.nodes.and_then(NonZeroU32::new);
        let mut answers = response.answers.into_iter();
        let charges = answers.by_ref().take(self.accounts.len()).collect();
        let to_stream = |place: &Place| (place.stream, answers.by_ref().take(place.checks).collect());
        Ok(Heard { charges, streams: self.streams.iter().map(to_stream).collect(), nodes })
    }

    /// Keeps the refusals among what was heard.
    pub(crate) fn remember(&self, heard: &Heard, refusals: &mut Refusals) {
        let answers = heard.charges.iter().chain(heard.streams.iter().flat_map(|(_, answers)| answers));
        for (check, answer) in self.question.checks.iter().zip(answers) {
            refusals.remember(check, answer, self.asked);
        }
    }

    /// What it asked, as it was before it was made.
    pub(crate) fn into_load(self) -> Load {
        let mut checks = self.question.checks.into_iter();
        let charge = |(account, check)| Charge { account, check };
        let charges = self.accounts.into_iter().zip(checks.by_ref()).map(charge).collect();
        let waiter = |Place { stream, checks: count, since }| Waiter {
            stream,
            checks: checks.by_ref().take(count).collect(),
            since,
        };
        let streams = self.streams.into_iter().map(waiter).collect();
        Load { charges, streams }
    }
}
