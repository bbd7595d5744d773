//! The breakers of a node, which its workers share.
//!
//! What workers share is a map whose entries are never freed, so there is a fixed number of slots with a fixed number
//! of seats. A breaker that finds none takes that of the one written longest ago, which begins anew as Closed. With as
//! many breakers as a policy may have (2,048) that happens on one node of ten million. Bytes of another make read as an
//! empty slot.

use std::hash::{Hash, Hasher};

use siphasher::sip::SipHasher13;

use super::record::Record;
use crate::local::{ATTEMPTS, Cells, CellsBroken};

/// How many slots a node has.
const SLOTS: u32 = 1024;
/// How many breakers a slot holds: few have more than one or two.
const SEATS: usize = 16;

/// Where a breaker is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Address {
    slot: u32,
    /// Tells it from the others in its slot.
    pub(super) id: u64,
}

impl Address {
    /// The place of `owner`, under the node's secret.
    pub(super) fn of(owner: &str, secret: (u64, u64)) -> Self {
        let mut hasher = SipHasher13::new_with_keys(secret.0, secret.1);
        ("breaker", owner).hash(&mut hasher);
        let id = hasher.finish();
        // the low bits name the slot; all of them tell breakers apart within it
        Self { slot: u32::try_from(id % u64::from(SLOTS)).unwrap_or_default(), id }
    }
}

/// What is known of a breaker; that of a new one where nothing is.
pub(super) fn read(cells: &dyn Cells, address: Address) -> Result<Record, CellsBroken> {
    let (bytes, _) = cells.read(address.slot)?;
    Ok(find(&bytes, address.id))
}

/// Changes a breaker's record, in front of nobody else. `change` says what comes of it, and whether there is anything
/// to write.
pub(super) fn update<T>(
    cells: &dyn Cells,
    address: Address,
    mut change: impl FnMut(&mut Record) -> (T, bool),
) -> Result<(T, Record), CellsBroken> {
    for _ in 0..ATTEMPTS {
        let (bytes, version) = cells.read(address.slot)?;
        let mut record = find(&bytes, address.id);
        let (outcome, is_changed) = change(&mut record);
        if !is_changed || cells.write(address.slot, &with(&bytes, address.id, &record), version)? {
            return Ok((outcome, record));
        }
    }
    Err(CellsBroken)
}

fn find(bytes: &[u8], id: u64) -> Record {
    let own = seats(bytes).find(|seat| seat.id == id);
    own.and_then(|own| Record::decode(own.record)).unwrap_or_default()
}

/// A breaker in a slot.
#[derive(Clone, Copy)]
struct Seat<'a> {
    id: u64,
    record: &'a [u8],
}

/// The breakers in a slot, as far as its bytes are ours.
fn seats(mut bytes: &[u8]) -> impl Iterator<Item = Seat<'_>> {
    std::iter::from_fn(move || {
        let (id, rest) = bytes.split_first_chunk::<8>()?;
        let (length, rest) = rest.split_first_chunk::<2>()?;
        let (record, rest) = rest.split_at_checked(u16::from_le_bytes(*length).into())?;
        bytes = rest;
        Some(Seat { id: u64::from_le_bytes(*id), record })
    })
}

/// The slot with this record, and without the breaker for which there is no seat: the one written last is first.
fn with(bytes: &[u8], id: u64, record: &Record) -> Vec<u8> {
    let mut own = Vec::with_capacity(128);
    record.encode(&mut own);
    let mut out = Vec::with_capacity(bytes.len() + own.len() + 16);
    let others = seats(bytes).filter(|seat| seat.id != id).take(SEATS - 1);
    for seat in std::iter::once(Seat { id, record: &own }).chain(others) {
        let Ok(length) = u16::try_from(seat.record.len()) else { continue };
        out.extend(seat.id.to_le_bytes());
        out.extend(length.to_le_bytes());
        out.extend_from_slice(seat.record);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn the_breaker_written_longest_ago_makes_way() {
        let ids = |bytes: &[u8]| seats(bytes).map(|seat| seat.id).collect::<Vec<_>>();
        let fill = |bytes: Vec<u8>, id: u64| with(&bytes, id, &Record::default());
        let full = (0..16).fold(Vec::new(), fill);
        assert_eq!(ids(&full), [15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0]);
        let used = fill(full, 0);
        assert_eq!(ids(&fill(used, 16)), [16, 0, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2]);
    }

    #[test]
    fn bytes_of_another_make_are_an_empty_slot() {
        for bytes in
            [&[][..], &[0xff; 3], &[0xff; 40], &[0; 200], b"a slot of somebody else's, of some length"]
        {
            seats(bytes).for_each(|seat| assert_eq!(find(bytes, seat.id), find(&[], seat.id)));
        }
    }
}
