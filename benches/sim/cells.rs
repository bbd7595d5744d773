//! What the workers of a node share: byte strings that are compared and swapped.

use std::cell::RefCell;

use lanekeeper_engine::local::{Cells, CellsBroken};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

/// The shared data of one node.
pub(super) struct SharedData {
    held: RefCell<Held>,
    /// The share of writes that find that another worker was faster. Here workers take turns, so chance decides it.
    lost_races: f64,
}

struct Held {
    /// The bytes of each slot and their version, 0 where nothing was written.
    slots: Vec<(Vec<u8>, u32)>,
    chance: Pcg64Mcg,
}

impl SharedData {
    /// Nothing was written yet.
    pub(super) fn new(lost_races: f64, seed: u64) -> Self {
        let held = Held { slots: Vec::new(), chance: Pcg64Mcg::seed_from_u64(seed) };
        Self { held: RefCell::new(held), lost_races }
    }
}

impl Cells for SharedData {
    fn read(&self, slot: u32) -> Result<(Vec<u8>, Option<u32>), CellsBroken> {
        let held = self.held.borrow();
        let found = held.slots.get(slot as usize).filter(|(_, version)| *version > 0);
        Ok(found.map_or((Vec::new(), None), |(bytes, version)| (bytes.clone(), Some(*version))))
    }

    fn write(&self, slot: u32, bytes: &[u8], version: Option<u32>) -> Result<bool, CellsBroken> {
        let held = &mut *self.held.borrow_mut();
        let at = slot as usize;
        if held.slots.len() <= at {
            held.slots.resize_with(at + 1, Default::default);
        }
        let Some((kept, current)) = held.slots.get_mut(at) else { return Err(CellsBroken) };
        if version.unwrap_or(0) != *current || held.chance.random_bool(self.lost_races) {
            return Ok(false);
        }
        kept.clear();
        kept.extend_from_slice(bytes);
        *current += 1;
        Ok(true)
    }
}
