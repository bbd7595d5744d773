//! What this worker admits in the store's place, and how the store is told once it is back.

use std::time::Duration;

use lanekeeper_engine::batch::{Call, Heard, Load};
use lanekeeper_engine::circuit::Phase;
use lanekeeper_engine::units::{Timestamp, micros};
use lanekeeper_engine::wire::{Check, CheckAnswer, KeyCheck, Operation};

use super::Active;
use crate::asking;
use crate::cells::CIRCUITS;
use crate::host::{self, Level};

/// How often the timer looks whether the store can be told, while it is well.
const TELL_EVERY: Duration = Duration::from_millis(20);
/// The same while it is left alone.
const SELDOM: Duration = Duration::from_millis(500);
/// A store that is left alone is probed by requests. Only where none has done it for so long, a report does.
const PROBES_AFTER: Duration = Duration::from_secs(1);

impl Active {
    /// This node's counters have answered `check` in the store's place.
    pub(super) fn note_admitted(&mut self, check: &Check, answer: &CheckAnswer, now: Timestamp) {
        let (Some(outage), CheckAnswer::Allowed { keys }) = (&mut self.outage, answer) else { return };
        let keys = check.keys.iter().zip(keys);
        for (key, answer) in keys.filter(|(key, _)| key.operation == Operation::Take) {
            outage.note(key, answer.granted, now);
        }
        self.metrics.outage_dropped(outage.take_dropped());
    }

    /// Adds what the store is to be told along with a load: of those whom it asks for first. A probe that requests wait
    /// for takes nothing along: it is to find out how fast the store is.
    pub(super) fn add_reports(&mut self, load: &mut Load, now: Timestamp) {
        let (Some(outage), Some(store)) = (&mut self.outage, &self.store) else { return };
        let goes_alone = load.streams.is_empty() && load.charges.is_empty();
        if outage.is_empty() || (store.circuit.phase() == Phase::Probing && !goes_alone) {
            return;
        }
        let charged = load.charges.iter().map(|charge| &charge.check);
        let checks = charged.chain(load.streams.iter().flat_map(|waiter| &waiter.checks));
        let asked: Vec<&KeyCheck> = checks.flat_map(|check| &check.keys).collect();
        load.spent = outage.take_due(asked, now);
    }

    /// The store has answered `checks`. While it may not know yet of all that this node has admitted of one of them, the
    /// node's counters have to allow as well what it allows.
    pub(super) fn confirm(&self, checks: &[Check], answers: &mut [CheckAnswer], now: Timestamp) {
        let Some(outage) = self.outage.as_ref().filter(|outage| !outage.is_empty()) else { return };
        for (check, answer) in checks.iter().zip(answers) {
            if matches!(answer, CheckAnswer::Allowed { .. })
                && outage.is_unsettled(check)
                && let refused @ CheckAnswer::Rejected { .. } = self.count_here(check, now)
            {
                *answer = refused;
            }
        }
    }

    /// Whether something waits to be told, and has for long enough.
    fn has_reports(&self, now: Timestamp) -> bool {
        self.outage.as_ref().and_then(|outage| outage.next_due()).is_some_and(|due| due <= now)
    }

    /// Whether reports are to leave by themselves at `now`, if the circuit lets them.
    pub(super) fn reports_are_due(&mut self, now: Timestamp) -> bool {
        if !self.has_reports(now) {
            return false;
        }
        let (Some(outage), Some(store)) = (&mut self.outage, &mut self.store) else { return false };
        let recovers = store.circuit.phase_at(&CIRCUITS, now) == Phase::Recovering;
        !outage.gives_way(recovers, now)
    }

    /// Whether it has waited for so long that no request can have found out whether the store is back: then it is told as a
    /// probe. Where none comes any more, nothing else would.
    pub(super) fn reports_may_probe(&mut self, now: Timestamp) -> bool {
        let since = Timestamp::from_micros(now.as_micros().saturating_sub(micros(PROBES_AFTER)));
        self.has_reports(since) && self.may_probe(now)
    }

    /// Notes what a callout has said of its reports.
    pub(super) fn hear_of_reports(&mut self, call: &Call, heard: &Heard, now: Timestamp) {
        let Some(outage) = &mut self.outage else { return };
        let tokens = outage.heard(call.spent(), &heard.spent, now);
        let is_decided = |answer: &CheckAnswer| !matches!(answer, CheckAnswer::Failed { .. });
        if heard.answers().any(is_decided) || tokens > 0 {
            outage.store_answered(now);
        } else {
            outage.store_failed(now);
        }
        self.metrics.outage_reported(tokens);
    }

    /// The reports of this callout may count, or not: they are told again. A shim that cannot read them is told no more:
    /// it would refuse the questions beside them as well.
    pub(super) fn reports_unheard(&mut self, call: &Call, has_answer: bool, now: Timestamp) {
        let Some(outage) = &mut self.outage else { return };
        outage.unheard(call.spent(), now);
        if has_answer && !call.spent().is_empty() && asking::was_not_understood() {
            self.outage = None;
            let why = "this shim does not know them";
            host::log(Level::Warn, &format!("lanekeeper: outages are not reported to the store: {why}"));
        }
    }

    /// How often the timer is to look after reports.
    pub(super) fn reports_period(&self) -> Option<Duration> {
        self.outage.as_ref()?.next_due()?;
        let phase = self.store.as_ref()?.circuit.phase();
        Some(if matches!(phase, Phase::Closed | Phase::Recovering) { TELL_EVERY } else { SELDOM })
    }
}
