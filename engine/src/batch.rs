//! Questions under way to the store, and the streams that wait for them.
//!
//! A callout costs more than everything else a request does in the plugin, so streams share them: while two are under
//! way, whoever comes waits, and the next callout asks for all of them. Nobody waits for company: with a
//! callout to spare, a question leaves at once. Two, so that one slow answer does not hold up everybody.
//!
//! Charges for answers that succeeded, and what leases are due, are waited for by nobody: they go along with the next
//! question. They make a callout of their own only while none is under way, so that a stream always finds one to
//! spare that they have not taken. Charges stand first in a callout, so that whoever is judged with them is judged
//! after them, and renewals last, so that they take nothing from whoever waits.

use std::collections::{BTreeMap, VecDeque};

use crate::request::Charge;
use crate::units::Timestamp;
use crate::wire::{Check, MAX_CHECKS};

mod call;
mod followers;

pub use call::{Call, Heard, Load};
pub use followers::{Followers, Freed};

/// Callouts under way at once.
const MAX_CALLS: usize = 2;
/// The same to a store that may be failing: each of them is likely lost.
const MAX_CALLS_IN_DOUBT: usize = 1;
/// Streams that one callout asks for, and that one callback answers: each answer to a paused stream may nest
/// in the host's stack on top of the one before.
pub const MAX_STREAMS: usize = 64;
/// Charges that wait at most: four callouts' worth. More only come together while the store is slower than the
/// traffic, and then what waits would not get less.
const MAX_CHARGES: usize = 4 * MAX_CHECKS;
/// Of the checks in a callout, so many are kept for charges, however many streams wait.
const KEPT_FOR_CHARGES: usize = MAX_CHECKS / 4;

/// A stream that waits, and what it wants to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiter {
    /// The stream.
    pub stream: u32,
    /// Its checks.
    pub checks: Vec<Check>,
    /// Since when.
    pub since: Timestamp,
}

/// The questions of one worker.
#[derive(Debug, Default)]
pub struct Batches {
    waiting: VecDeque<Waiter>,
    charges: VecDeque<Charge>,
    calls: BTreeMap<u32, Call>,
}

impl Batches {
    /// Whether a question could leave at once, to a store that may be failing if it `is_in_doubt`.
    pub fn has_room(&self, is_in_doubt: bool) -> bool {
        self.calls.len() < if is_in_doubt { MAX_CALLS_IN_DOUBT } else { MAX_CALLS }
    }

    /// Puts a stream behind those that have waited for longer.
    pub fn wait(&mut self, waiter: Waiter) {
        let at = self.waiting.partition_point(|before| before.since <= waiter.since);
        self.waiting.insert(at, waiter);
    }

    /// Puts a stream back in front of those that wait.
    pub fn wait_on(&mut self, waiter: Waiter) {
        self.waiting.push_front(waiter);
    }

    /// Puts a charge behind those that wait. It comes back when too many do.
    pub fn owe(&mut self, charge: Charge) -> Result<(), Charge> {
        if self.charges.len() >= MAX_CHARGES {
            return Err(charge);
        }
        self.charges.push_back(charge);
        Ok(())
    }

    /// Whether a callout is under way, whose end will call back.
    pub fn is_asking(&self) -> bool {
        !self.calls.is_empty()
    }

    /// Whether somebody waits without any callout under way that will call back.
    pub fn is_stuck(&self) -> bool {
        self.calls.is_empty() && !self.waiting.is_empty()
    }

    /// Whether a stream waits, for a callout or for its answer.
    pub fn is_waited_for(&self) -> bool {
        !self.waiting.is_empty() || self.calls.values().any(Call::has_streams)
    }

    /// Whether a stream has waited since before `moment`, and has not been told that this is too long.
    pub fn is_late(&self, moment: Timestamp) -> bool {
        let is_waiting = self.waiting.front().is_some_and(|waiter| waiter.since < moment);
        is_waiting || self.calls.values().any(|call| call.is_late(moment))
    }

    /// Whether nobody waits and nothing is under way.
    pub fn is_idle(&self) -> bool {
        self.calls.is_empty() && self.waiting.is_empty() && self.charges.is_empty()
    }

    /// What the next callout asks, as much as one question holds; `None` when none is to leave now. A stream that is
    /// not `wanted` is dropped.
    pub fn next(&mut self, mut wanted: impl FnMut(&Waiter) -> bool) -> Option<Load> {
        let room = MAX_CHECKS - self.charges.len().min(KEPT_FOR_CHARGES);
        let (mut streams, mut checks) = (Vec::new(), 0);
        while streams.len() < MAX_STREAMS {
            let Some(waiter) = self.waiting.pop_front() else { break };
            if !wanted(&waiter) {
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
        Some(Load { charges: self.take_charges(checks), streams, ..Load::default() })
    }

    /// A stream, and what goes along with it.
    pub fn with(&mut self, waiter: Waiter) -> Load {
        let charges = self.take_charges(waiter.checks.len());
        Load { charges, streams: vec![waiter], ..Load::default() }
    }

    /// Charges without a stream, if no callout is under way.
    pub fn charges_alone(&mut self) -> Option<Load> {
        let leave = self.calls.is_empty() && !self.charges.is_empty();
        leave.then(|| Load { charges: self.take_charges(0), ..Load::default() })
    }

    /// Streams that have waited since before `moment`: at most `most`.
    pub fn waiting_since_before(&mut self, moment: Timestamp, most: usize) -> Vec<Waiter> {
        let late = self.waiting.iter().take(most).take_while(|waiter| waiter.since < moment).count();
        self.waiting.drain(..late).collect()
    }

    /// Streams that have waited since before `moment`, part of it for a callout that is still under way: at most `most`,
    /// each once. Its answer comes too late for them.
    pub fn outwaited(&mut self, moment: Timestamp, most: usize) -> Vec<u32> {
        self.calls.values_mut().flat_map(|call| call.outwaited(moment)).take(most).collect()
    }

    /// A callout is under way. `number` is what its end will call it.
    pub fn sent(&mut self, number: u32, call: Call) {
        self.calls.insert(number, call);
    }

    /// Takes a callout that has ended.
    pub fn end(&mut self, number: u32) -> Option<Call> {
        self.calls.remove(&number)
    }

    /// Takes a callout that was asked before `moment` and never ended, as no host should let happen.
    pub fn lost_before(&mut self, moment: Timestamp) -> Option<Call> {
        let lost = self.calls.iter().find(|(_, call)| call.asked_at() < moment).map(|(number, _)| *number)?;
        self.calls.remove(&lost)
    }

    /// The charges that fit beside so many checks.
    fn take_charges(&mut self, beside: usize) -> Vec<Charge> {
        let most = MAX_CHECKS.saturating_sub(beside).min(self.charges.len());
        self.charges.drain(..most).collect()
    }
}

#[cfg(test)]
mod tests;
