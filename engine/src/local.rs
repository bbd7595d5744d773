//! Counting on this node alone: without a store, or while the store is away.
//!
//! The workers of a node share only a map of byte strings that can be compared and swapped, and in which no
//! key is ever freed. So the counters live in a fixed number of slots; a subject's slot is chosen by a hash
//! under a secret of the node, so that nobody can aim for a slot.
//!
//! A slot holds a bounded number of subjects. Dropping one that still counts would hand its client a fresh
//! limit for the price of enumerating keys, and refusing new ones would let that client lock others out. So
//! subjects that find no room are counted together, as the slot's *crowd*: each is held to the limit at least,
//! all of them together to once the limit, and while the crowd counts, newcomers belong to it.
//!
//! A node's clock is monotonic and knows no calendar, so a fixed window is kept as a sliding one of the same span
//! and limit. That is never over: a calendar window is one of the trailing windows that a sliding one bounds, but
//! for the one that is longer than its span where a zone's clocks are put back. A sliding log is kept so too, since a
//! slot has no room for an entry of each request.
//!
//! Several keys are charged slot by slot. When a race is lost in between, what was charged is taken back and
//! the decision is made again; other workers may meanwhile see a charge too many, and none too few.
//!
//! In a store's place a subject's counters begin with what the store said of it last, where the node knows: else
//! whoever had used up a limit would have it once more as an outage begins.

use std::borrow::Cow;
use std::hash::{Hash, Hasher};
use std::num::NonZeroU32;
use std::time::Duration;

use siphasher::sip::SipHasher13;

use crate::counter::{Ask, Charge, Decision, KeyVerdict, SubjectCounters, WindowVerdict, decide};
use crate::units::Timestamp;
use crate::window::{Algorithm, Window};
use crate::wire::{Check, CheckAnswer, KeyCheck, Operation, StoreError};

mod last_answer;
mod memory;
mod slot;

pub use last_answer::LastAnswer;
pub use memory::MemoryCells;

use slot::Slot;

/// How many slots a node has.
pub const SLOTS: u32 = 4096;
/// The layout of a slot's bytes. It belongs into the slot's name, so that two versions of the filter that
/// meet during an upgrade do not read each other's slots.
pub const LAYOUT: u32 = 1;
/// Into how many buckets a node divides a sliding window: fewer than the store, since a slot is copied whole on
/// each charge. A token comes back late by at most 1/64 of the window.
const BUCKETS: u32 = 64;
/// Lost races before a decision gives up. Each one means that another worker got on, so only a host that does
/// not keep its word comes this far.
pub(crate) const ATTEMPTS: usize = 100;

/// The byte strings that the workers of a node share.
pub trait Cells {
    /// The bytes of a slot and their version; no version where nothing was ever written.
    fn read(&self, slot: u32) -> Result<(Vec<u8>, Option<u32>), CellsBroken>;
    /// Writes a slot, if its version is still the one read. `false` when it is not.
    fn write(&self, slot: u32, bytes: &[u8], version: Option<u32>) -> Result<bool, CellsBroken>;
}

/// The host did not do what it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the host's shared data cannot be used")]
pub struct CellsBroken;

/// The counters of this node.
#[derive(Clone, Copy, Debug)]
pub struct LocalCounters {
    secret: (u64, u64),
}

impl LocalCounters {
    /// The counters under this secret, which all workers of the node must share.
    pub fn new(secret: (u64, u64)) -> Self {
        Self { secret }
    }

    /// A number by which this node may be known to others; all workers of the node have the same.
    pub fn node(&self) -> u64 {
        let mut hasher = SipHasher13::new_with_keys(self.secret.0, self.secret.1);
        "node".hash(&mut hasher);
        hasher.finish()
    }

    /// The secret under which the subjects of a store are told apart: those of two stores are never taken for each other.
    pub fn secret_of_store(&self, cluster: &str) -> (u64, u64) {
        let mut hasher = SipHasher13::new_with_keys(self.secret.0, self.secret.1);
        ("store", cluster).hash(&mut hasher);
        let half = hasher.finish();
        (1_u8, half).hash(&mut hasher);
        (half, hasher.finish())
    }

    /// Decides a check at `now`, a moment of the node's monotonic clock, against this node's share of each limit:
    /// one of `nodes`.
    pub fn decide(&self, cells: &dyn Cells, check: &Check, nodes: NonZeroU32, now: Timestamp) -> CheckAnswer {
        self.decide_after(cells, check, nodes, now, &|_, _| None)
    }

    /// The same in the place of a store, after what that said last: `last_answer` is asked for what the node knows of a
    /// key that is newer than a moment, the last one at which these counters were charged.
    pub fn decide_after(
        &self,
        cells: &dyn Cells,
        check: &Check,
        nodes: NonZeroU32,
        now: Timestamp,
        last_answer: &dyn Fn(&KeyCheck, Timestamp) -> Option<LastAnswer>,
    ) -> CheckAnswer {
        let kept = as_kept_here(check);
        for _ in 0..ATTEMPTS {
            match self.attempt(cells, (check, &*kept), nodes, now, last_answer) {
                Ok(Some(answer)) => return answer,
                Ok(None) => {}
                Err(CellsBroken) => break,
            }
        }
        CheckAnswer::Failed { error: StoreError::Refused }
    }

    /// One attempt at a check, as it was asked and as it is kept here; `None` when a race was lost.
    fn attempt(
        &self,
        cells: &dyn Cells,
        (asked, check): (&Check, &Check),
        nodes: NonZeroU32,
        now: Timestamp,
        last_answer: &dyn Fn(&KeyCheck, Timestamp) -> Option<LastAnswer>,
    ) -> Result<Option<CheckAnswer>, CellsBroken> {
        let mut draft = Draft::default();
        let places = check
            .keys
            .iter()
            .map(|key| {
                let ask = as_all_nodes(key, nodes);
                draft.place(cells, self.address(&key.key, &key.windows), &key.windows, ask, now)
            })
            .collect::<Result<Vec<usize>, CellsBroken>>()?;
        for (place, key) in places.iter().zip(&asked.keys) {
            // in a crowd nobody's own is known
            let place = draft.places.get_mut(*place).filter(|place| !place.is_crowd);
            let Some(place) = place else { continue };
            if let Some(said) = last_answer(key, place.counters.seen) {
                said.charge(&key.windows, place.windows, &mut place.counters, now);
            }
        }
        let mut charges: Vec<Charge<'_>> = draft.places.iter_mut().map(Place::charge).collect();
        let decision = decide(&mut charges, BUCKETS, now, Duration::ZERO);
        for (place, verdict) in draft.places.iter_mut().zip(&decision.keys) {
            place.charged = if place.ask.operation == Operation::Take { verdict.granted } else { 0 };
        }
        let charged = draft.places.iter().any(|place| place.charged > 0);
        if charged && !draft.commit(cells, now)? {
            return Ok(None);
        }
        let answer = |(at, key): (usize, &KeyCheck)| {
            let verdict = decision.keys.get(at).cloned().unwrap_or_default();
            as_this_node(verdict, key, nodes)
        };
        let keys = places.into_iter().zip(&check.keys).map(answer).collect();
        Ok(Some(Decision { allowed: decision.allowed, keys }.into()))
    }

    /// Where a subject is counted: its slot, its own number there, and that of its crowd. Windows of other
    /// units are other counters, since the numbers in them would mean something else.
    fn address(&self, key: &str, windows: &[Window]) -> Address {
        let mut shape = SipHasher13::new_with_keys(self.secret.0, self.secret.1);
        for window in windows {
            window.unit().hash(&mut shape);
        }
        let mut subject = shape;
        key.hash(&mut subject);
        let (crowd, id) = (shape.finish(), subject.finish());
        // the low bits name the slot; all of them tell subjects apart within it
        let slot = u32::try_from(id % u64::from(SLOTS)).unwrap_or_default();
        Address { slot, id, crowd }
    }
}

/// The check with each window as a node keeps it.
fn as_kept_here(check: &Check) -> Cow<'_, Check> {
    let windows = || check.keys.iter().flat_map(|key| key.windows.iter());
    if windows().all(|window| is_kept_as_is(window.algorithm())) {
        return Cow::Borrowed(check);
    }
    let mut check = check.clone();
    let kept = |window: &Window| {
        if is_kept_as_is(window.algorithm()) { window.clone() } else { window.as_sliding() }
    };
    for key in &mut check.keys {
        key.windows = key.windows.iter().map(kept).collect();
    }
    Cow::Owned(check)
}

fn is_kept_as_is(algorithm: Algorithm) -> bool {
    match algorithm {
        Algorithm::SlidingWindow | Algorithm::SlidingCounter | Algorithm::TokenBucket { .. } => true,
        Algorithm::SlidingLog | Algorithm::FixedWindow { .. } => false,
    }
}

/// What a key asks if every node is asked the same: each request counts as many times as there are nodes, and at
/// most as the whole window. So a counter's unit stays the same when nodes come and go.
fn as_all_nodes(key: &KeyCheck, nodes: NonZeroU32) -> Ask {
    let ask = key.ask();
    let most = key.windows.iter().map(Window::capacity).min().unwrap_or(1);
    let of_all = |cost: u32| cost.saturating_mul(nodes.get()).min(most.max(cost));
    Ask { cost: of_all(ask.cost), at_least: of_all(ask.at_least), lease: None, ..ask }
}

/// What all nodes' counters say, in this node's share of them.
fn as_this_node(verdict: KeyVerdict, key: &KeyCheck, nodes: NonZeroU32) -> KeyVerdict {
    // what was capped at the window's capacity is still the whole cost
    let ask = key.ask();
    let granted = match verdict.granted / nodes {
        granted if verdict.granted > 0 => granted.clamp(ask.at_least, ask.cost),
        nothing => nothing,
    };
    let share = |window: WindowVerdict| WindowVerdict { remaining: window.remaining / nodes, ..window };
    KeyVerdict { granted, windows: verdict.windows.into_iter().map(share).collect(), ..verdict }
}

#[derive(Clone, Copy)]
struct Address {
    slot: u32,
    id: u64,
    crowd: u64,
}

/// The slots of one decision, as they will be if nobody else writes them meanwhile.
#[derive(Default)]
struct Draft<'a> {
    slots: Vec<DraftSlot>,
    places: Vec<Place<'a>>,
}

struct DraftSlot {
    number: u32,
    version: Option<u32>,
    slot: Slot,
}

/// The counters that one or more keys of the check are charged to; more only in a crowd.
struct Place<'a> {
    slot: usize,
    id: u64,
    is_crowd: bool,
    windows: &'a [Window],
    ask: Ask,
    counters: SubjectCounters,
    /// What the decision charged.
    charged: u32,
}

impl<'a> Place<'a> {
    fn charge(&mut self) -> Charge<'_> {
        Charge { windows: self.windows, ask: self.ask, counters: &mut self.counters }
    }
}

impl<'a> Draft<'a> {
    /// Finds the counters for a subject and returns their index in `places`.
    fn place(
        &mut self,
        cells: &dyn Cells,
        address: Address,
        windows: &'a [Window],
        ask: Ask,
        now: Timestamp,
    ) -> Result<usize, CellsBroken> {
        let at = match self.slots.iter().position(|slot| slot.number == address.slot) {
            Some(at) => at,
            None => {
                let (bytes, version) = cells.read(address.slot)?;
                let slot = Slot::decode(&bytes).live_at(now);
                self.slots.push(DraftSlot { number: address.slot, version, slot });
                self.slots.len() - 1
            }
        };
        let Some(draft) = self.slots.get_mut(at) else { return Err(CellsBroken) };
        let id = draft.slot.seat(address.id, address.crowd);
        if let Some(shared) = self.places.iter().position(|place| place.slot == at && place.id == id) {
            if let Some(place) = self.places.get_mut(shared) {
                place.ask = together(place.ask, ask);
            }
            return Ok(shared);
        }
        let counters = draft.slot.counters(id);
        let is_crowd = id == address.crowd;
        self.places.push(Place { slot: at, id, is_crowd, windows, ask, counters, charged: 0 });
        Ok(self.places.len() - 1)
    }

    /// Writes every slot. `false`, with nothing charged, when another worker wrote one meanwhile.
    fn commit(&mut self, cells: &dyn Cells, now: Timestamp) -> Result<bool, CellsBroken> {
        for place in &self.places {
            let idle_at = place.counters.idle_at(place.windows, BUCKETS);
            if let Some(draft) = self.slots.get_mut(place.slot) {
                draft.slot.put(place.id, idle_at, place.counters.clone());
            }
        }
        for (at, draft) in self.slots.iter().enumerate() {
            let written = cells.write(draft.number, &draft.slot.encode(), draft.version);
            if written != Ok(true) {
                for place in self.places.iter().filter(|place| place.slot < at) {
                    let number = self.slots.get(place.slot).map(|slot| slot.number);
                    take_back(cells, number.unwrap_or_default(), place, now)?;
                }
                return written;
            }
        }
        Ok(true)
    }
}

/// What two keys ask of the counters they share: one that is only looked at is charged with the other, for a crowd
/// may be counted too strictly.
fn together(one: Ask, other: Ask) -> Ask {
    let operation = match (one.operation, other.operation) {
        (Operation::Peek, Operation::Peek) => Operation::Peek,
        (Operation::Take, _) | (_, Operation::Take) => Operation::Take,
    };
    Ask {
        operation,
        cost: one.cost.saturating_add(other.cost),
        at_least: one.at_least.saturating_add(other.at_least),
        lease: None,
    }
}

/// Takes a charge back from a slot that was already written. What cannot be taken back stays charged.
fn take_back(cells: &dyn Cells, number: u32, place: &Place<'_>, now: Timestamp) -> Result<(), CellsBroken> {
    for _ in 0..ATTEMPTS {
        let (bytes, version) = cells.read(number)?;
        let mut slot = Slot::decode(&bytes).live_at(now);
        let mut counters = slot.counters(place.id);
        counters.uncharge(place.windows, BUCKETS, place.charged, place.counters.seen);
        slot.put(place.id, counters.idle_at(place.windows, BUCKETS), counters);
        if cells.write(number, &slot.encode(), version)? {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
