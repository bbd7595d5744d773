//! What the workers of a node share.

use lanekeeper_engine::local::{Cells, CellsBroken, LAYOUT};

use crate::host;

/// The slots of this node's counters, in shared data. The names bear the layout's version, since an old and a new
/// filter share them during an upgrade, and a prefix, since in Istio all plugins share one name space.
pub(crate) struct SharedCells;

impl Cells for SharedCells {
    fn read(&self, slot: u32) -> Result<(Vec<u8>, Option<u32>), CellsBroken> {
        host::shared_data(&shared_key("slot", slot)).map_err(|_| CellsBroken)
    }

    fn write(&self, slot: u32, bytes: &[u8], version: Option<u32>) -> Result<bool, CellsBroken> {
        host::set_shared_data(&shared_key("slot", slot), bytes, version).map_err(|_| CellsBroken)
    }
}

/// The name of an entry in shared data.
pub(crate) fn shared_key(kind: &str, number: u32) -> String {
    format!("lanekeeper/{LAYOUT}/{kind}/{number}")
}
