//! Charges for answers that succeeded: brought to the store with what else it is asked, and to this node's counters
//! where the store cannot be charged.

use lanekeeper_engine::batch::Call;
use lanekeeper_engine::request::{Account, Charge, ChargeEnd, Counters};
use lanekeeper_engine::units::Timestamp;
use lanekeeper_engine::wire::{Check, CheckAnswer};

use super::Active;

impl Active {
    /// Brings charges on their way. No stream waits for them.
    pub(crate) fn charge(&mut self, charges: Vec<Charge>, now: Timestamp) {
        let is_the_stores = |charge: &Charge| matches!(charge.account.counters, Counters::Store { .. });
        let asks = charges.iter().any(is_the_stores)
            && self.store.as_mut().is_some_and(|store| store.circuit.lets_through(now));
        for charge in charges {
            match (charge.account.counters, &mut self.store) {
                (Counters::Store { .. }, Some(store)) if asks => {
                    if let Err(charge) = store.batches.owe(charge) {
                        self.charge_ended(charge.account, ChargeEnd::Dropped);
                    }
                }
                (Counters::Store { .. }, _) => self.charge_elsewhere(charge.account, &charge.check, now),
                (Counters::Fallback | Counters::Local, _) => {
                    self.charge_node(charge.account, &charge.check, now)
                }
            }
        }
        if asks {
            self.send_charges(now);
        }
    }

    /// What a callout says of its charges; nothing when it failed.
    pub(super) fn settle(&mut self, call: Call, answers: Vec<CheckAnswer>, now: Timestamp) {
        let mut answers = answers.into_iter();
        for charge in call.into_load().charges {
            match answers.next().as_ref().map(ChargeEnd::from) {
                Some(ChargeEnd::Failed) | None => self.charge_elsewhere(charge.account, &charge.check, now),
                Some(end) => self.charge_ended(charge.account, end),
            }
        }
    }

    /// The store could not be charged.
    pub(super) fn charge_elsewhere(&mut self, account: Account, check: &Check, now: Timestamp) {
        match account.fallback() {
            Some(account) => self.charge_node(account, check, now),
            None => self.charge_ended(account, ChargeEnd::Failed),
        }
    }

    /// Sends what waits, if no callout is under way: whoever is then asked takes it along.
    fn send_charges(&mut self, now: Timestamp) {
        let Some(store) = &mut self.store else { return };
        if let Some(load) = store.batches.charges_alone() {
            let load = self.laden(load, now);
            // no stream is in it that would have to be let go
            let _ = self.send(load, now);
        }
        self.pace();
    }

    fn charge_node(&mut self, account: Account, check: &Check, now: Timestamp) {
        let answer = self.decide_here(check, now);
        self.charge_ended(account, ChargeEnd::from(&answer));
    }

    fn charge_ended(&mut self, account: Account, end: ChargeEnd) {
        self.metrics.charge(&self.policy, account, end);
    }
}
