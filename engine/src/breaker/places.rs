//! How many calls may be under way at once, over the whole node: its bulkhead.
//!
//! A count of the calls under way would leak with every VM that goes without a word. So each worker *reserves* places
//! in the record, and lets calls in only while it has more places than calls under way; the reservations together
//! never exceed the maximum. A reservation has to be renewed each second. One that was not for five is gone, and its places
//! with it: nothing has to be cleaned up for that. Only a worker that lives and yet did nothing for five seconds has calls
//! under way without a place; it lets nobody in until it has places for them again.
//!
//! A worker reserves ahead while much is free, so that most calls cost nothing, and gives back what it does not use as
//! the node fills up; near the maximum it takes and gives back one place at a time.

use std::time::Duration;

use crate::packed::{Packed, write};
use crate::units::Timestamp;

/// A worker renews its reservation this often.
const BEAT_EVERY: Duration = Duration::from_secs(1);
/// A reservation that was not renewed for longer than this is gone.
const GONE_AFTER: Duration = Duration::from_secs(5);
/// A worker reserves ahead one part in so many of what is free.
const AHEAD: u32 = 8;
/// It gives back what it does not use beyond one part in so many of what is free. Twice what it reserves ahead, so that
/// calls that come and go do not make it reserve and give back in turns.
const SPARE: u32 = 4;

/// The reservations of a node's workers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Places(Vec<Reservation>);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Reservation {
    worker: u64,
    places: u32,
    renewed_at: Timestamp,
}

impl Reservation {
    fn is_live(&self, now: Timestamp) -> bool {
        now.since(self.renewed_at) <= GONE_AFTER
    }
}

impl Places {
    /// How many places this worker has.
    pub(super) fn of(&self, worker: u64) -> u32 {
        self.own(worker).map_or(0, |own| own.places)
    }

    /// When this worker is to renew its reservation, if it has one.
    pub(super) fn renewal(&self, worker: u64) -> Option<Timestamp> {
        self.own(worker).map(|own| own.renewed_at.plus(BEAT_EVERY))
    }

    /// How many of `most` nobody has reserved.
    pub(super) fn free(&self, most: u32, now: Timestamp) -> u32 {
        let live = self.0.iter().filter(|reservation| reservation.is_live(now));
        live.fold(most, |free, reservation| free.saturating_sub(reservation.places))
    }

    /// Whether a worker with so many calls under way can do without so many of its places that it should.
    pub(super) fn is_spare(&self, worker: u64, under_way: u32, most: u32, now: Timestamp) -> bool {
        self.of(worker).saturating_sub(under_way) > self.free(most, now) / SPARE
    }

    /// Has a place for one more call than are under way in this worker, if there is one, and perhaps some ahead.
    pub(super) fn reserve(&mut self, worker: u64, under_way: u32, most: u32, now: Timestamp) -> bool {
        self.forget_the_gone(now);
        let own = self.of(worker);
        if own > under_way {
            return true;
        }
        let free = self.free(most, now);
        let missing = (under_way - own).saturating_add(1);
        let reserved = own.saturating_add(missing.max(free / AHEAD).min(free));
        self.set(worker, reserved, now);
        reserved > under_way
    }

    /// Gives back what this worker can do without; everything, when it is `idle`. Places for calls under way that were
    /// taken for gone are reserved again.
    pub(super) fn settle(&mut self, worker: u64, under_way: u32, idle: bool, most: u32, now: Timestamp) {
        self.forget_the_gone(now);
        let (own, free) = (self.of(worker), self.free(most, now));
        let needed = if idle { under_way } else { under_way.saturating_add(free / AHEAD) };
        if own < under_way {
            self.set(worker, own.saturating_add((under_way - own).min(free)), now);
        } else if idle || self.is_spare(worker, under_way, most, now) {
            self.set(worker, own.min(needed), now);
        }
    }

    /// Renews the reservation of this worker.
    pub(super) fn renew(&mut self, worker: u64, now: Timestamp) {
        let own = self.0.iter_mut().find(|reservation| reservation.worker == worker);
        own.into_iter().for_each(|own| own.renewed_at = now);
    }

    fn own(&self, worker: u64) -> Option<&Reservation> {
        self.0.iter().find(|reservation| reservation.worker == worker)
    }

    fn set(&mut self, worker: u64, places: u32, now: Timestamp) {
        if places == self.of(worker) {
            return;
        }
        self.0.retain(|reservation| reservation.worker != worker);
        if places > 0 {
            self.0.push(Reservation { worker, places, renewed_at: now });
        }
    }

    fn forget_the_gone(&mut self, now: Timestamp) {
        self.0.retain(|reservation| reservation.is_live(now));
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        write(out, self.0.len() as u64);
        for reservation in &self.0 {
            write(out, reservation.worker);
            write(out, reservation.places.into());
            write(out, reservation.renewed_at.as_micros());
        }
    }

    pub(super) fn decode(packed: &mut Packed<'_>) -> Option<Self> {
        let mut reservations = Vec::new();
        for _ in 0..packed.number()? {
            let (worker, places) = (packed.number()?, packed.small()?);
            let renewed_at = Timestamp::from_micros(packed.number()?);
            reservations.push(Reservation { worker, places, renewed_at });
        }
        Some(Self(reservations))
    }
}
