//! Cells in memory, for whoever has no host: tests and benches, which may also break them.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use super::{Cells, CellsBroken};

/// What the workers of a node share, within one thread.
#[derive(Clone, Debug, Default)]
pub struct MemoryCells {
    /// The bytes and the version of each slot that was written.
    pub slots: RefCell<BTreeMap<u32, (Vec<u8>, u32)>>,
    /// Whether they cannot be used.
    pub broken: Cell<bool>,
    /// So many writes from now on are lost to another worker.
    pub races: Cell<u32>,
    /// How often they were read,
    pub reads: Cell<u32>,
    /// and written, or found written by another.
    pub writes: Cell<u32>,
}

impl MemoryCells {
    /// How often they were read or written.
    pub fn calls(&self) -> u32 {
        self.reads.get() + self.writes.get()
    }
}

impl Cells for MemoryCells {
    fn read(&self, slot: u32) -> Result<(Vec<u8>, Option<u32>), CellsBroken> {
        self.reads.set(self.reads.get() + 1);
        if self.broken.get() {
            return Err(CellsBroken);
        }
        let cell = self.slots.borrow().get(&slot).cloned();
        Ok(cell.map_or((Vec::new(), None), |(bytes, version)| (bytes, Some(version))))
    }

    fn write(&self, slot: u32, bytes: &[u8], version: Option<u32>) -> Result<bool, CellsBroken> {
        self.writes.set(self.writes.get() + 1);
        if self.broken.get() {
            return Err(CellsBroken);
        }
        if let Some(left) = self.races.get().checked_sub(1) {
            self.races.set(left);
            return Ok(false);
        }
        let mut slots = self.slots.borrow_mut();
        if slots.get(&slot).map(|(_, version)| *version) != version {
            return Ok(false);
        }
        slots.insert(slot, (bytes.to_vec(), version.unwrap_or(0) + 1));
        Ok(true)
    }
}
