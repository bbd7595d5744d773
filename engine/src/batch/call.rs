//! One callout: what it asks, for whom, and who gets to hear what.

use std::num::NonZeroU32;
use std::time::Duration;

use super::Waiter;
use crate::ledger::Due;
use crate::request::{Account, Charge};
use crate::units::Timestamp;
use crate::wire::{
    BreakerReport, Check, CheckAnswer, DecideRequest, DecideResponse, KeySpent, MAX_CHECKS, MAX_REPORTS,
    MAX_RETURNS, MAX_SPENT, Recorded,
};

/// What one callout asks: first the charges, then for the streams, then what leases are due. What it tells of an outage
/// and says of breakers goes along.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Charges for answers that succeeded.
    pub charges: Vec<Charge>,
    /// Streams that wait.
    pub streams: Vec<Waiter>,
    /// What goes along for the leases' sake: no more renewals than there is [`room`](Self::room) for.
    pub due: Due,
    /// What was admitted while the store was away: it counts before anything is asked.
    pub spent: Vec<KeySpent>,
    /// What the node says of its breakers.
    pub breakers: Vec<BreakerReport>,
}

/// A question under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    asked_at: Timestamp,
    question: DecideRequest,
    /// Whose the first checks are, each one charge.
    accounts: Vec<Account>,
    /// Whose the next are. Those behind them are renewals.
    streams: Vec<Place>,
}

/// A stream's place in a question: it has the next so many checks.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    stream: u32,
    checks: usize,
    since: Timestamp,
    /// Whether it has been told that it waited for too long.
    is_told: bool,
}

/// What the store said to one callout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// To each of its charges.
    pub charges: Vec<CheckAnswer>,
    /// To each of its streams.
    pub streams: Vec<(u32, Vec<CheckAnswer>)>,
    /// To each of its renewals.
    pub renewals: Vec<CheckAnswer>,
    /// To each of its reports of what was spent.
    pub spent: Vec<Recorded>,
    /// How many nodes there are, if it knows.
    pub nodes: Option<NonZeroU32>,
    /// Whether none of its servers would have answered, whatever was asked.
    pub away: bool,
}

impl Load {
    /// How many more checks fit.
    pub fn room(&self) -> usize {
        let streams: usize = self.streams.iter().map(|waiter| waiter.checks.len()).sum();
        MAX_CHECKS.saturating_sub(self.charges.len() + streams + self.due.renewals.len())
    }

    /// Whether there is nothing to ask or to say.
    pub fn is_empty(&self) -> bool {
        self.room() == MAX_CHECKS
            && self.due.returns.is_empty()
            && self.spent.is_empty()
            && self.breakers.is_empty()
    }

    /// The question that `node` asks at `now`, whose answer it waits `timeout` for.
    pub fn into_call(self, node: u64, timeout: Duration, now: Timestamp) -> Call {
        let place = |waiter: &Waiter| Place {
            stream: waiter.stream,
            checks: waiter.checks.len(),
            since: waiter.since,
            is_told: false,
        };
        let streams = self.streams.iter().map(place).collect();
        let accounts = self.charges.iter().map(|charge| charge.account).collect();
        let charged = self.charges.into_iter().map(|charge| charge.check);
        let asked = self.streams.into_iter().flat_map(|waiter| waiter.checks);
        let checks = charged.chain(asked).chain(self.due.renewals).collect();
        let spend_within_ms = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
        // more than a message holds stay charged
        let returns = self.due.returns.into_iter().take(MAX_RETURNS).collect();
        let breakers = self.breakers.into_iter().take(MAX_REPORTS).collect();
        let spent = self.spent.into_iter().take(MAX_SPENT).collect();
        let bare = DecideRequest::new(spend_within_ms, checks);
        let question = DecideRequest { node: Some(node), spent, returns, breakers, ..bare };
        Call { asked_at: now, question, accounts, streams }
    }
}

impl Call {
    /// What the store is asked.
    pub fn question(&self) -> &DecideRequest {
        &self.question
    }

    /// When it was asked.
    pub fn asked_at(&self) -> Timestamp {
        self.asked_at
    }

    /// The streams that it asked for.
    pub fn streams(&self) -> impl Iterator<Item = u32> {
        self.streams.iter().map(|place| place.stream)
    }

    /// Whether it asked for any.
    pub(super) fn has_streams(&self) -> bool {
        !self.streams.is_empty()
    }

    /// Whether one of them has waited since before `moment`, and was not told.
    pub(super) fn is_late(&self, moment: Timestamp) -> bool {
        self.streams.iter().any(|place| place.since < moment && !place.is_told)
    }

    /// The streams that have waited since before `moment`, each once.
    pub(super) fn outwaited(&mut self, moment: Timestamp) -> impl Iterator<Item = u32> {
        let late = self.streams.iter_mut().filter(move |place| place.since < moment && !place.is_told);
        late.map(|place| {
            place.is_told = true;
            place.stream
        })
    }

    /// What it tells of an outage.
    pub fn spent(&self) -> &[KeySpent] {
        &self.question.spent
    }

    /// The renewals among its checks.
    pub fn renewals(&self) -> &[Check] {
        let others = self.accounts.len() + self.streams.iter().map(|place| place.checks).sum::<usize>();
        self.question.checks.get(others..).unwrap_or_default()
    }

    /// What it asked for each of its streams, in the order of [`Heard::streams`].
    pub fn checks_of_streams(&self) -> impl Iterator<Item = &[Check]> {
        let mut at = self.accounts.len();
        self.streams.iter().map(move |place| {
            let begin = at;
            at += place.checks;
            self.question.checks.get(begin..at).unwrap_or_default()
        })
    }

    /// All that it asked, in the order of [`Heard::answers`].
    pub fn checks(&self) -> &[Check] {
        &self.question.checks
    }

    /// What `response` says to each; `None` when it does not fit the question.
    pub fn read(&self, response: DecideResponse) -> Option<Heard> {
        if !response.fits(&self.question) {
            return None;
        }
        let nodes = response.nodes.and_then(NonZeroU32::new);
        let away = response.away;
        let mut answers = response.answers.into_iter();
        let charges = answers.by_ref().take(self.accounts.len()).collect();
        let to_stream = |place: &Place| (place.stream, answers.by_ref().take(place.checks).collect());
        let streams = self.streams.iter().map(to_stream).collect();
        Some(Heard { charges, streams, renewals: answers.collect(), spent: response.spent, nodes, away })
    }

    /// What it asked, as it was before it was made, but for tokens on their way back, which are gone, and what it told of an
    /// outage and of breakers, which is made again.
    pub fn into_load(self) -> Load {
        let mut checks = self.question.checks.into_iter();
        let charge = |(account, check)| Charge { account, check };
        // the accounts run out first, so that no check is taken in vain
        let charges = self.accounts.into_iter().zip(checks.by_ref()).map(charge).collect();
        let waiter = |Place { stream, checks: count, since, .. }| Waiter {
            stream,
            checks: checks.by_ref().take(count).collect(),
            since,
        };
        let streams = self.streams.into_iter().map(waiter).collect();
        let due = Due { renewals: checks.collect(), returns: Vec::new() };
        Load { charges, streams, due, ..Load::default() }
    }
}

impl Heard {
    /// All answers, in the order of [`Call::checks`].
    pub fn answers(&self) -> impl Iterator<Item = &CheckAnswer> {
        let to_streams = self.streams.iter().flat_map(|(_, answers)| answers);
        self.charges.iter().chain(to_streams).chain(&self.renewals)
    }
}
