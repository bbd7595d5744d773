//! What leases need behind the requests' backs: to be renewed ahead of their end, and to be returned shortly before it.

use std::hash::{Hash, Hasher};
use std::mem;
use std::num::NonZeroU32;

use siphasher::sip::SipHasher13;

use super::holding::{Holding, NEVER};
use super::record::Portion;
use super::{LOOK_EVERY, Ledger, RENEWAL, pool};
use crate::local::Cells;
use crate::units::Timestamp;
use crate::wire::{Check, KeyReturn};

/// A lease is renewed at its end if so many of its tokens were spent; else its subject is hardly in use.
const IN_USE: u32 = 2;

/// Of how many subjects one look forgoes what is due: a millisecond's work.
const MOST_FORGONE: usize = 4096;

/// What is to be asked without a request that waits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Due {
    /// Leases to be renewed: a check each, whose answer is to be heard like any other.
    pub renewals: Vec<Check>,
    /// Tokens that go back. They are in the ledger no more, whatever becomes of them.
    pub returns: Vec<KeyReturn>,
}

impl Ledger {
    /// What is due at `now`: at most `most` renewals, and returns for as many subjects.
    pub fn take_due(&mut self, cells: &dyn Cells, nodes: NonZeroU32, now: Timestamp, most: usize) -> Due {
        let mut due = Due { renewals: Vec::new(), returns: mem::take(&mut self.leaving) };
        while due.renewals.len() < most
            && let Some(subject) = self.low.pop()
        {
            due.renewals.extend(self.renewal(cells, subject, nodes));
        }
        if self.low.is_empty() {
            self.due_at = NEVER;
        }
        for _ in due.renewals.len()..most {
            let Some(subject) = self.holdings.next_due_by(now) else { break };
            self.look(cells, subject, nodes, now, &mut due);
        }
        due
    }

    /// The store is away, or just back: what is due at `now` is let be. It would all be asked at once else, in the store's
    /// first moment. Whoever is in use is asked for with its next request.
    pub fn forgo_due(&mut self, now: Timestamp) {
        self.low.clear();
        self.leaving.clear();
        self.due_at = NEVER;
        for _ in 0..MOST_FORGONE {
            let Some(subject) = self.holdings.next_due_by(now) else { break };
            self.holdings.change_held(subject, |holding| holding.take_due(now));
        }
    }

    /// When something is due next.
    pub fn next_due(&self) -> Option<Timestamp> {
        let held = self.holdings.next_due().unwrap_or(NEVER);
        Some(held.min(self.due_at)).filter(|at| *at != NEVER)
    }

    /// Whether tokens will have run out before [`LOOK_EVERY`] has passed twice: then what is due should not wait for
    /// the next look.
    pub fn is_urgent(&self, now: Timestamp) -> bool {
        self.due_at <= now
    }

    /// A holding's moment has come: to renew its lease, or to return what is left.
    fn look(&mut self, cells: &dyn Cells, subject: u128, nodes: NonZeroU32, now: Timestamp, due: &mut Due) {
        let look = |holding: &mut Holding| (holding.take_due(now), holding.lease_ends);
        let Some(((renews, returns), ends)) = self.holdings.change_held(subject, look) else { return };
        if renews && self.is_to_renew(cells, subject, ends, now) {
            due.renewals.extend(self.renewal(cells, subject, nodes));
        }
        if returns {
            self.return_ending(cells, subject, now, due);
        }
    }

    /// Whether the lease that ends at `ends` is to be renewed, and nobody else is about to.
    fn is_to_renew(&self, cells: &dyn Cells, subject: u128, ends: Timestamp, now: Timestamp) -> bool {
        let is_to_renew = pool::update(cells, subject, now, |record| {
            let is_renewed = record.portions.iter().any(|portion| portion.ends > ends);
            if is_renewed || record.spent < IN_USE || !record.may_be_renewed(now) {
                return (false, false);
            }
            record.renewing_until = now.plus(RENEWAL);
            (true, true)
        });
        is_to_renew.unwrap_or(false)
    }

    fn renewal(&mut self, cells: &dyn Cells, subject: u128, nodes: NonZeroU32) -> Option<Check> {
        let mut key = self.holdings.get(subject)?.renewal();
        if self.counted.as_ref().is_some_and(|counted| !counted.holds(&key)) {
            return None;
        }
        self.ask_for(&mut key, subject, pool::read(cells, subject), nodes);
        Some(Check { keys: vec![key] })
    }

    /// Takes out what ends soon, to be returned if it would be missed.
    fn return_ending(&mut self, cells: &dyn Cells, subject: u128, now: Timestamp, due: &mut Due) {
        let soon = now.plus(2 * LOOK_EVERY);
        let Some(holding) = self.holdings.get(subject) else { return };
        let outcome = pool::update(cells, subject, now, |record| {
            let is_missed = record.is_missed(holding.windows());
            let ending = if is_missed { record.take_ending(soon) } else { Vec::new() };
            let next = record.portions.iter().map(|portion| portion.ends).find(|ends| *ends > soon);
            let is_changed = !ending.is_empty();
            ((is_missed, ending, next), is_changed)
        });
        let (is_missed, pooled, next) = outcome.unwrap_or_default();
        let own = self.holdings.change_held(subject, |holding| {
            let held = holding.rest(now).map(|portion| portion.ends);
            let later = held.into_iter().chain(next).filter(|ends| *ends > soon);
            later.for_each(|ends| holding.return_before(ends, now));
            if is_missed && held.is_some_and(|ends| ends <= soon) { holding.take_rest() } else { None }
        });
        for portion in own.flatten().into_iter().chain(pooled) {
            if portion.tokens > 0 && portion.ends > now {
                due.returns.extend(self.give_back(subject, portion));
            }
        }
    }

    pub(super) fn give_back(&mut self, subject: u128, portion: Portion) -> Option<KeyReturn> {
        let mut id = SipHasher13::new_with_keys(self.secret.0, self.secret.1);
        (self.worker, self.returns).hash(&mut id);
        self.returns += 1;
        let holding = self.holdings.get(subject)?;
        Some(holding.give_back(portion, id.finish()))
    }
}
