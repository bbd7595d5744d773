//! The root's timer: how often it is to call, for whoever wants it soonest.

use std::time::Duration;

use lanekeeper_engine::units::micros;

use super::Active;
use crate::host;

/// How late breakers may be looked after. What one worker has seen, the others learn by then.
const LOOK_AFTER_BREAKERS_EVERY: Duration = Duration::from_millis(50);
/// How late, when it is not for soon.
const SELDOM: Duration = Duration::from_millis(500);
/// What is due later than this is not for soon: a seldom look comes in time.
const SOON: Duration = Duration::from_millis(600);

/// The host's timer.
#[derive(Debug, Default)]
pub(super) struct Timer {
    period: Option<Duration>,
}

impl Timer {
    /// Whether it stands still.
    pub(super) fn is_at_rest(&self) -> bool {
        self.period.is_none()
    }

    /// It stays as it is where something slower would do.
    fn hasten(&mut self, wanted: Option<Duration>) {
        self.set([self.period, wanted].into_iter().flatten().min());
    }

    fn set(&mut self, period: Option<Duration>) {
        if period != self.period && host::set_tick_period(period).is_ok() {
            self.period = period;
        }
    }
}

impl Active {
    /// Lets the timer watch over what is under way, what leases are due, and what the store and breakers are to be told. It is stopped
    /// by itself alone ([`Self::rest`]), so that a busy root does not set it anew with every callout.
    pub(super) fn pace(&mut self) {
        self.timer.hasten(self.wanted_period());
    }

    /// The same where only a breaker may want it sooner, as it may with each request: nothing else is looked at.
    pub(super) fn pace_breakers(&mut self) {
        self.timer.hasten(self.breakers_period());
    }

    /// Slows the timer down, and stops it when it has nothing left to watch over.
    pub(super) fn rest(&mut self) {
        let wanted = self.wanted_period();
        self.timer.set(wanted);
    }

    fn wanted_period(&self) -> Option<Duration> {
        let leases = self.ledger.as_ref().and_then(|ledger| ledger.next_due());
        let store = self.store.as_ref().and_then(|store| store.period(leases.is_some()));
        [store, self.reports_period(), self.breakers_period()].into_iter().flatten().min()
    }

    fn breakers_period(&self) -> Option<Duration> {
        if self.reports.has_news() && self.store.as_ref().is_some_and(|store| store.circuit.is_closed()) {
            return Some(LOOK_AFTER_BREAKERS_EVERY);
        }
        let until = micros(self.breakers.next_due()?.since(self.last_seen));
        let is_soon = until < micros(SOON);
        Some(if is_soon { LOOK_AFTER_BREAKERS_EVERY } else { SELDOM })
    }
}
