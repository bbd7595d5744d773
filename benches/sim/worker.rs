//! A worker of a node: the engine's ledger, refusals and questions under way, driven as the filter drives them.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::rc::Rc;

use anyhow::{Context as _, Result};
use lanekeeper_engine::batch::{self, Batches, Load};
use lanekeeper_engine::ledger::{Due, Ledger, Spent};
use lanekeeper_engine::local::Cells;
use lanekeeper_engine::refusals::Refusals;
use lanekeeper_engine::units::{Timestamp, micros};
use lanekeeper_engine::wire::{Check, CheckAnswer, DecideRequest, DecideResponse};

use super::scenario::{DRIFT, TIMEOUT};

/// A request that waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiter {
    pub(super) client: u32,
    /// Since when, by the clock of the simulation.
    pub(super) since_us: u64,
    /// Since when, by the node's.
    pub(super) since: Timestamp,
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Admitted,
    Rejected,
    /// The store could not say, or not in time.
    Failed,
}

/// What requests that waited came to.
pub(super) type Verdicts = Vec<(Waiter, Verdict)>;

/// What a worker sees around it.
pub(super) struct Here<'a> {
    pub(super) cells: &'a dyn Cells,
    pub(super) now: Timestamp,
    pub(super) nodes: NonZeroU32,
    /// What each client asks.
    pub(super) checks: &'a [Check],
}

/// A worker's VM.
pub(super) struct Worker {
    ledger: Ledger,
    refusals: Refusals,
    batches: Batches,
    /// Who has asked, by the numbers that questions know them by.
    askers: BTreeMap<u32, Waiter>,
    asked: u32,
    /// Who waits for the answer about a subject that another has asked for.
    followers: BTreeMap<u128, Vec<Waiter>>,
}

impl Worker {
    pub(super) fn new(secret: (u64, u64), number: u64) -> Self {
        Self {
            ledger: Ledger::new(secret, number, DRIFT),
            refusals: Refusals::new(secret),
            batches: Batches::default(),
            askers: BTreeMap::new(),
            asked: 0,
            followers: BTreeMap::new(),
        }
    }

    /// How many requests wait.
    pub(super) fn waiting(&self) -> u64 {
        (self.askers.len() + self.followers.values().map(Vec::len).sum::<usize>()) as u64
    }

    /// Judges a request; `None` when it waits.
    pub(super) fn judge(&mut self, here: &Here<'_>, waiter: Waiter) -> Option<Verdict> {
        let Some(check) = here.checks.get(waiter.client as usize) else { return Some(Verdict::Failed) };
        match self.ledger.spend(here.cells, &mut self.refusals, &[check], here.now) {
            Spent::Allowed(_) => Some(Verdict::Admitted),
            Spent::Refused => Some(Verdict::Rejected),
            Spent::Awaits(subject) => {
                self.followers.entry(subject).or_default().push(waiter);
                None
            }
            Spent::Unknown => {
                let mut check = check.clone();
                self.ledger.ask(here.cells, &mut check, here.nodes, here.now);
                self.asked = self.asked.wrapping_add(1);
                self.askers.insert(self.asked, waiter);
                self.batches.wait(batch::Waiter { stream: self.asked, checks: vec![check], since: here.now });
                None
            }
        }
    }

    /// The next question, when one is to leave now; the answer to it is known by this number.
    pub(super) fn next_question(&mut self, here: &Here<'_>, number: u32) -> Option<Rc<DecideRequest>> {
        // it has no circuit
        if !self.batches.has_room(false) {
            return None;
        }
        let mut load = self.batches.next(|_| true).unwrap_or_default();
        // leases make a question of their own only while none is under way
        if !load.streams.is_empty() || !self.batches.is_asking() {
            load.due = self.take_due(here, load.room());
        }
        if load == Load::default() {
            return None;
        }
        let call = load.into_call(0, TIMEOUT, here.now);
        let question = Rc::new(call.question().clone());
        self.batches.sent(number, call);
        Some(question)
    }

    fn take_due(&mut self, here: &Here<'_>, most: usize) -> Due {
        match self.ledger.next_due() {
            Some(due) if due <= here.now => self.ledger.take_due(here.cells, here.nodes, here.now, most),
            _ => Due::default(),
        }
    }

    /// An answer has come. Those to questions that are over, or of a VM that is gone, are nobody's.
    pub(super) fn hear(
        &mut self,
        here: &Here<'_>,
        number: u32,
        response: &DecideResponse,
        verdicts: &mut Verdicts,
    ) -> Result<()> {
        let Some(call) = self.batches.end(number) else { return Ok(()) };
        let heard = call.read(response.clone()).context("an answer does not fit its question")?;
        let mut woken = Vec::new();
        for (check, answer) in call.checks().iter().zip(heard.answers()) {
            self.refusals.remember(check, answer, call.asked_at());
            woken.extend(self.ledger.hear(here.cells, check, answer, call.asked_at(), here.now));
        }
        for (stream, answers) in heard.streams {
            let verdict = answers.first().map_or(Verdict::Failed, verdict);
            verdicts.extend(self.askers.remove(&stream).map(|waiter| (waiter, verdict)));
        }
        self.wake(here, woken, verdicts);
        Ok(())
    }

    /// Nothing was heard in time.
    pub(super) fn give_up(&mut self, here: &Here<'_>, number: u32, verdicts: &mut Verdicts) {
        let Some(call) = self.batches.end(number) else { return };
        let streams: Vec<u32> = call.streams().collect();
        self.forget(here, call.checks(), &streams, verdicts);
    }

    /// Gives up those that have waited for a question to leave for too long.
    pub(super) fn tick(&mut self, here: &Here<'_>, verdicts: &mut Verdicts) {
        let oldest = Timestamp::from_micros(here.now.as_micros().saturating_sub(micros(TIMEOUT)));
        for late in self.batches.waiting_since_before(oldest, usize::MAX) {
            self.forget(here, &late.checks, &[late.stream], verdicts);
        }
    }

    fn forget(&mut self, here: &Here<'_>, checks: &[Check], streams: &[u32], verdicts: &mut Verdicts) {
        let woken = checks.iter().flat_map(|check| self.ledger.unheard(check)).collect();
        for stream in streams {
            verdicts.extend(self.askers.remove(stream).map(|waiter| (waiter, Verdict::Failed)));
        }
        self.wake(here, woken, verdicts);
    }

    /// Those who waited for somebody else's answer try again, once each.
    fn wake(&mut self, here: &Here<'_>, subjects: Vec<u128>, verdicts: &mut Verdicts) {
        for subject in subjects {
            for waiter in self.followers.remove(&subject).unwrap_or_default() {
                let is_late = here.now.since(waiter.since) > TIMEOUT;
                let verdict = if is_late { Some(Verdict::Failed) } else { self.judge(here, waiter) };
                verdicts.extend(verdict.map(|verdict| (waiter, verdict)));
            }
        }
    }
}

fn verdict(answer: &CheckAnswer) -> Verdict {
    match answer {
        CheckAnswer::Allowed { .. } => Verdict::Admitted,
        CheckAnswer::Rejected { .. } => Verdict::Rejected,
        CheckAnswer::Failed { .. } => Verdict::Failed,
    }
}
