//! The bytes of one slot: a few subjects and their counters, packed.
//!
//! Bytes that do not fit are no slot of ours (a plugin of another
//! make under the same `vm_id`, say) and read as an empty one.

use std::collections::VecDeque;

use crate::counter::{Counter, SubjectCounters};
use crate::packed::{Packed, write};
use crate::units::Timestamp;
use crate::window::{Bucket, Tally, TokenBucket, Weighted};

/// How many subjects a slot counts one by one. With 4096 slots a node has room for 65,536, and the sixteen
/// of a slot stay within one or two kilobytes.
const SEATS: usize = 16;

/// Subjects and their counters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Slot {
    entries: VecDeque<Entry>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    id: u64,
    /// From then on it counts nothing.
    idle_at: Timestamp,
    counters: SubjectCounters,
}

impl Slot {
    /// The same without what counts nothing at `now`.
    pub(super) fn live_at(mut self, now: Timestamp) -> Self {
        self.entries.retain(|entry| entry.idle_at > now);
        self
    }

    /// Under which number a subject is counted here: its own, or its crowd's.
    pub(super) fn seat(&self, id: u64, crowd: u64) -> u64 {
        let seated = |id| self.entries.iter().any(|entry| entry.id == id);
        if seated(id) || (!seated(crowd) && self.entries.len() < SEATS) { id } else { crowd }
    }

    /// The counters under this number; fresh ones where there are none.
    pub(super) fn counters(&self, id: u64) -> SubjectCounters {
        let entry = self.entries.iter().find(|entry| entry.id == id);
        entry.map(|entry| entry.counters.clone()).unwrap_or_default()
    }

    /// Keeps these counters under this number.
    pub(super) fn put(&mut self, id: u64, idle_at: Timestamp, counters: SubjectCounters) {
        self.entries.retain(|entry| entry.id != id);
        // whoever was charged last is found first
        self.entries.push_front(Entry { id, idle_at, counters });
    }

    /// The slot as bytes.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(32 * self.entries.len());
        for Entry { id, idle_at, counters } in &self.entries {
            out.extend_from_slice(&id.to_le_bytes());
            let seen = counters.seen.as_micros();
            write(&mut out, seen);
            write(&mut out, idle_at.as_micros().saturating_sub(seen));
            write(&mut out, counters.counters.len() as u64);
            for counter in &counters.counters {
                encode_counter(&mut out, counter, seen);
            }
        }
        out
    }

    /// The slot that these bytes hold.
    pub(super) fn decode(bytes: &[u8]) -> Self {
        let mut reader = Reader(Packed(bytes));
        let mut entries = VecDeque::new();
        while !reader.0.0.is_empty() {
            match reader.entry() {
                Some(entry) => entries.push_back(entry),
                None => return Self::default(),
            }
        }
        Self { entries }
    }
}

const TALLY: u64 = 0;
const TOKEN_BUCKET: u64 = 1;
const WEIGHTED: u64 = 2;

fn encode_counter(out: &mut Vec<u8>, counter: &Counter, seen: u64) {
    match counter {
        Counter::Tally(tally) => {
            write(out, TALLY);
            encode_tally(out, tally);
        }
        Counter::Weighted(weighted) => {
            write(out, WEIGHTED);
            encode_tally(out, &weighted.tally);
        }
        Counter::TokenBucket(bucket) => {
            write(out, TOKEN_BUCKET);
            write(out, bucket.debt);
            // repayment starts at the latest charge on a node, and never after it
            write(out, seen.saturating_sub(bucket.repaid_from.as_micros()));
        }
    }
}

fn encode_tally(out: &mut Vec<u8>, tally: &Tally) {
    write(out, tally.buckets().len() as u64);
    let mut last = 0;
    for bucket in tally.buckets() {
        write(out, bucket.index - last);
        write(out, bucket.count);
        last = bucket.index;
    }
}

struct Reader<'a>(Packed<'a>);

impl Reader<'_> {
    fn entry(&mut self) -> Option<Entry> {
        let id = self.0.bytes::<8>()?;
        let seen = self.0.number()?;
        let idle_at = Timestamp::from_micros(seen.checked_add(self.0.number()?)?);
        let count = self.0.number()?;
        let mut counters = Vec::new();
        for _ in 0..count {
            counters.push(self.counter(seen)?);
        }
        let counters = SubjectCounters { seen: Timestamp::from_micros(seen), counters, ..Default::default() };
        Some(Entry { id: u64::from_le_bytes(id), idle_at, counters })
    }

    fn counter(&mut self, seen: u64) -> Option<Counter> {
        match self.0.number()? {
            TALLY => Some(Counter::Tally(self.tally()?)),
            WEIGHTED => Some(Counter::Weighted(Weighted { tally: self.tally()? })),
            TOKEN_BUCKET => {
                let debt = self.0.number()?;
                let repaid_from = Timestamp::from_micros(seen.checked_sub(self.0.number()?)?);
                Some(Counter::TokenBucket(TokenBucket { debt, repaid_from }))
            }
            _ => None,
        }
    }

    fn tally(&mut self) -> Option<Tally> {
        let (count, mut index) = (self.0.number()?, 0_u64);
        let mut buckets = Vec::new();
        for _ in 0..count {
            index = index.checked_add(self.0.number()?)?;
            buckets.push(Bucket { index, count: self.0.number()? });
        }
        Some(Tally::from_buckets(buckets))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn at(micros: u64) -> Timestamp {
        Timestamp::from_micros(micros)
    }

    fn slot() -> Slot {
        let tally = Tally::from_buckets(
            [(3, 1), (900_000_000_000, 70_000)].map(|(index, count)| Bucket { index, count }),
        );
        let bucket = TokenBucket { debt: 1 << 52, repaid_from: at(5) };
        let weighted = Weighted { tally: Tally::from_buckets([Bucket { index: 300, count: 2 }]) };
        let counters = vec![Counter::Tally(tally), Counter::TokenBucket(bucket), Counter::Weighted(weighted)];
        let mut slot = Slot::default();
        slot.put(u64::MAX, at(99), SubjectCounters { seen: at(7), counters, ..Default::default() });
        slot.put(0, at(50), SubjectCounters { seen: at(50), ..Default::default() });
        slot
    }

    #[test]
    fn comes_back_from_its_bytes_as_it_was() {
        assert_eq!(Slot::decode(&slot().encode()), slot());
        assert_eq!(Slot::decode(&[]), Slot::default());
    }

    #[test]
    fn reads_bytes_that_do_not_fit_as_an_empty_slot() {
        let whole = slot().encode();
        let second = Slot::decode(&whole).entries.len();
        assert_eq!(second, 2);
        let mut refused = 0;
        for len in 1..whole.len() {
            refused += usize::from(Slot::decode(&whole[..len]) == Slot::default());
        }
        // only the cut between the two entries leaves a slot that is whole
        assert_eq!(refused, whole.len() - 2);
        assert_eq!(Slot::decode(&[0xff; 40]), Slot::default());
    }

    #[test]
    fn drops_only_what_counts_nothing_any_more() {
        assert_eq!(slot().live_at(at(50)).entries.len(), 1);
        assert_eq!(slot().live_at(at(49)).entries.len(), 2);
    }

    #[test]
    fn seats_sixteen_and_crowds_the_rest_until_the_crowd_is_gone() {
        let (mut slot, crowd) = (Slot::default(), 1000);
        for id in 0..16 {
            assert_eq!(slot.seat(id, crowd), id);
            slot.put(id, at(10 + id), SubjectCounters::default());
        }
        assert_eq!((slot.seat(3, crowd), slot.seat(77, crowd)), (3, crowd));
        slot.put(crowd, at(90), SubjectCounters::default());
        let slot = slot.live_at(at(89));
        assert_eq!((slot.entries.len(), slot.seat(77, crowd)), (1, crowd));
        assert_eq!(slot.live_at(at(90)).seat(77, crowd), 77);
    }
}
