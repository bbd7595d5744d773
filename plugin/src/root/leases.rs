//! Leases: requests that are decided without a question, those that wait for another's, and what is asked behind all of
//! their backs.

use std::rc::Rc;

use lanekeeper_engine::batch::{Call, Freed, Heard, Load};
use lanekeeper_engine::request::{Request, Spending, Step};
use lanekeeper_engine::units::Timestamp;
use lanekeeper_engine::wire::{Check, CheckAnswer};

use super::Active;
use super::answering::{self, Answering};
use crate::cells::{BREAKERS, LEASES};

/// Renewals that go along with one callout: the answer that its streams wait for comes later for each of them.
const MAX_RENEWALS: usize = 64;

impl Active {
    /// The way of a request's checks: what was refused before, what is held, what is being asked, and only then the
    /// store. `None` when it waits.
    pub(crate) fn seek(&mut self, stream: u32, request: &mut Request, now: Timestamp) -> Option<Step> {
        match self.decide_by_what_is_known(request, now) {
            Spending::Decided(step) => Some(step),
            spending => self.wait(stream, request, spending, now, now),
        }
    }

    /// The same for a stream that has waited for another's question.
    pub(super) fn judge_anew(&mut self, request: &mut Request, freed: Freed, now: Timestamp) -> Option<Step> {
        let Freed { stream, since, may_ask } = freed;
        match self.decide_by_what_is_known(request, now) {
            Spending::Decided(step) => Some(step),
            spending if may_ask => self.wait(stream, request, spending, since, now),
            Spending::Awaits(_) | Spending::Unknown => Some(request.store_failed(&self.policy)),
        }
    }

    fn decide_by_what_is_known(&mut self, request: &mut Request, now: Timestamp) -> Spending {
        let policy = Rc::clone(&self.policy);
        let spending = match &mut self.ledger {
            // tokens that are held may be spent though the store has refused to grant more
            Some(ledger) => request.spend(&policy, ledger, &LEASES, &mut self.refusals, now),
            None => Spending::Unknown,
        };
        if self.ledger.as_ref().is_some_and(|ledger| ledger.is_urgent(now)) {
            self.send_due(now);
        }
        if self.store.is_some() && self.timer.is_at_rest() {
            // a chunk of a lease that another worker has asked for is to be returned as well
            self.pace();
        }
        if let Spending::Decided(_) = spending {
            return spending;
        }
        if let Some(step) = request.recall(&policy, &self.refusals, now) {
            return Spending::Decided(step);
        }
        spending
    }

    /// Has a stream wait for an answer, another's or its own. `None` when it does.
    fn wait(
        &mut self,
        stream: u32,
        request: &mut Request,
        spending: Spending,
        since: Timestamp,
        now: Timestamp,
    ) -> Option<Step> {
        if let (Spending::Awaits(subject), Some(store)) = (spending, &mut self.store)
            && store.circuit.is_closed()
        {
            store.followers.follow(subject, stream, since);
            return None;
        }
        let asked = self.ask(stream, request, since, now);
        if asked { None } else { Some(request.store_failed(&self.policy)) }
    }

    /// Has checks that are about to be asked ask for leases along with it.
    pub(super) fn ask_for_leases(&mut self, checks: &mut [Check], now: Timestamp) {
        let Some(ledger) = &mut self.ledger else { return };
        let is_settled =
            |check: &Check| self.outage.as_ref().is_none_or(|outage| !outage.is_unsettled(check));
        for check in checks.iter_mut().filter(|check| is_settled(check)) {
            ledger.ask(&LEASES, check, self.nodes, now);
        }
    }

    /// Notes what a callout has said. `in_time` when its streams can use it.
    pub(super) fn hear(&mut self, call: &Call, heard: &Heard, in_time: bool, now: Timestamp) {
        self.nodes = heard.nodes.unwrap_or(self.nodes);
        self.hear_of_reports(call, heard, now);
        for (check, answer) in call.checks().iter().zip(heard.answers()) {
            self.refusals.remember(check, answer, call.asked_at());
            if let (Some(ledger), Some(store)) = (&mut self.ledger, &mut self.store) {
                let subjects = ledger.hear(&LEASES, check, answer, call.asked_at(), now);
                let may_ask = in_time && !matches!(answer, CheckAnswer::Failed { .. });
                store.followers.free(&subjects, may_ask);
            }
        }
    }

    /// Notes that these checks have no answer: those who follow their subjects have none either, unless they `may_ask`
    /// for themselves.
    pub(super) fn unheard(&mut self, checks: &[Check], may_ask: bool) {
        if let (Some(ledger), Some(store)) = (&mut self.ledger, &mut self.store) {
            for check in checks {
                store.followers.free(&ledger.unheard(check), may_ask);
            }
        }
    }

    /// Judges those anew who wait no more, as many as this callback may answer.
    pub(super) fn judge_freed(&mut self, now: Timestamp, answering: &mut Answering<'_>) {
        while answering.budget > 0
            && let Some(freed) = self.store.as_mut().and_then(|store| store.followers.next_freed())
        {
            answering.tell(self, freed.stream, answering::Heard::Freed(freed), now);
        }
    }

    /// A load, with what leases are due, and what the store is to be told.
    pub(super) fn laden(&mut self, mut load: Load, now: Timestamp) -> Load {
        self.add_reports(&mut load, now);
        load.breakers = self.reports.due(&self.breakers, &BREAKERS, now);
        if let Some(ledger) = &mut self.ledger {
            load.due = ledger.take_due(&LEASES, self.nodes, now, load.room().min(MAX_RENEWALS));
        }
        load
    }

    /// Sends what leases are due, what the store is to be told, and how breakers have changed, if no callout is under way
    /// that would take it along.
    pub(super) fn send_due(&mut self, now: Timestamp) {
        let leases = self.ledger.as_ref().and_then(|ledger| ledger.next_due());
        if self.store.as_ref().is_none_or(|store| store.batches.is_asking()) {
            return;
        }
        let is_due = leases.is_some_and(|at| at <= now) || self.reports.has_news();
        if !is_due && !self.reports_are_due(now) {
            return;
        }
        if !self.may_keep_up(now) {
            self.ledger.iter_mut().for_each(|ledger| ledger.forgo_due(now));
            if !self.reports_may_probe(now) {
                return;
            }
        }
        let load = self.laden(Load::default(), now);
        if !load.is_empty() {
            // no stream is in it that would have to be let go
            let _ = self.send(load, now);
        }
    }
}
