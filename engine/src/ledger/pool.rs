//! The leases of a node, which its workers share.
//!
//! What workers share is a map whose entries are never freed, so the pool has a fixed number of slots, chosen by the
//! subjects' hashes, and a slot has a fixed number of seats. A subject that finds none takes that of the one that would leave
//! soonest. Tokens that go with it stay charged: nobody spends them.

use crate::local::{ATTEMPTS, Cells, CellsBroken};
use crate::units::Timestamp;

use super::record::Record;

/// How many slots a node has.
pub(super) const SLOTS: u32 = 16_384;
/// How many subjects a slot holds: 131,072 in all.
const SEATS: usize = 8;

/// A subject's bytes begin with its hash, and the moment from which they say nothing.
const HASH_BYTES: usize = 16;
const HEAD_BYTES: usize = HASH_BYTES + 8 + 2;

/// What is known of `subject`; nothing where the cells cannot be read.
pub(super) fn read(cells: &dyn Cells, subject: u128) -> Option<Record> {
    let (bytes, _) = cells.read(slot(subject)).ok()?;
    seats(&bytes).find(|seat| seat.subject == subject).and_then(|seat| Record::decode(seat.record))
}

/// Changes what is known of `subject`: nothing at first, and nothing in front of a worker that lost a race. `change`
/// says what comes of it, and whether there is anything to write.
pub(super) fn update<T>(
    cells: &dyn Cells,
    subject: u128,
    now: Timestamp,
    mut change: impl FnMut(&mut Record) -> (T, bool),
) -> Result<T, CellsBroken> {
    for _ in 0..ATTEMPTS {
        let (bytes, version) = cells.read(slot(subject))?;
        let own = seats(&bytes).find(|seat| seat.subject == subject);
        let mut record = own.and_then(|own| Record::decode(own.record)).unwrap_or_default();
        let (outcome, is_changed) = change(&mut record);
        if !is_changed || cells.write(slot(subject), &with(&bytes, subject, &record, now), version)? {
            return Ok(outcome);
        }
    }
    Err(CellsBroken)
}

fn slot(subject: u128) -> u32 {
    // the low bits name the slot; all of them tell subjects apart within it
    u32::try_from(subject % u128::from(SLOTS)).unwrap_or_default()
}

/// A subject in a slot.
#[derive(Clone, Copy)]
struct Seat<'a> {
    subject: u128,
    until: Timestamp,
    /// All of its bytes, and those of its record.
    bytes: &'a [u8],
    record: &'a [u8],
}

/// The subjects in a slot, as far as its bytes are ours.
fn seats(mut bytes: &[u8]) -> impl Iterator<Item = Seat<'_>> {
    std::iter::from_fn(move || {
        let (subject, rest) = bytes.split_first_chunk::<HASH_BYTES>()?;
        let (until, rest) = rest.split_first_chunk::<8>()?;
        let (length, rest) = rest.split_first_chunk::<2>()?;
        let (record, rest) = rest.split_at_checked(u16::from_le_bytes(*length).into())?;
        let seat = Seat {
            subject: u128::from_le_bytes(*subject),
            until: Timestamp::from_micros(u64::from_le_bytes(*until)),
            bytes: bytes.get(..HEAD_BYTES + record.len())?,
            record,
        };
        bytes = rest;
        Some(seat)
    })
}

/// The slot with this record of `subject`, without what says nothing at `now`, and without those for whom there is no
/// seat.
fn with(bytes: &[u8], subject: u128, record: &Record, now: Timestamp) -> Vec<u8> {
    let mut others: Vec<Seat<'_>> =
        seats(bytes).filter(|seat| seat.subject != subject && seat.until > now).collect();
    while others.len() >= SEATS {
        let first = others.iter().enumerate().min_by_key(|(_, seat)| seat.until).map(|(at, _)| at);
        others.swap_remove(first.unwrap_or_default());
    }
    let mut out = Vec::with_capacity(bytes.len() + 2 * HEAD_BYTES + 128);
    out.extend(subject.to_le_bytes());
    out.extend(record.says_something_until().as_micros().to_le_bytes());
    let length_at = out.len();
    out.extend([0, 0]);
    record.encode(&mut out);
    let length = u16::try_from(out.len() - HEAD_BYTES).unwrap_or_default().to_le_bytes();
    if let Some(place) = out.get_mut(length_at..HEAD_BYTES) {
        place.copy_from_slice(&length);
    }
    // whoever was asked for last is found first
    for other in others {
        out.extend_from_slice(other.bytes);
    }
    out
}
