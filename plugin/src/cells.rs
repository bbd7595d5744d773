//! What the workers of a node share.

use lanekeeper_engine::local::{Cells, CellsBroken, LAYOUT};
use lanekeeper_engine::{breaker, circuit, ledger};

use crate::host;

/// The slots of this node's counters.
pub(crate) const COUNTERS: SharedCells = SharedCells { layout: LAYOUT, kind: "slot" };
/// The slots of its leases.
pub(crate) const LEASES: SharedCells = SharedCells { layout: ledger::LAYOUT, kind: "lease" };
/// The slots of its breakers.
pub(crate) const BREAKERS: SharedCells = SharedCells { layout: breaker::LAYOUT, kind: "breaker" };
/// Its circuits to stores.
pub(crate) const CIRCUITS: SharedCells = SharedCells { layout: circuit::LAYOUT, kind: "circuit" };

/// Numbered slots in shared data. Their names bear the layout's version, since an old and a new
/// filter share them during an upgrade, and a prefix, since in Istio all plugins share one name space.
pub(crate) struct SharedCells {
    layout: u32,
    kind: &'static str,
}

impl SharedCells {
    fn key(&self, slot: u32) -> String {
        format!("lanekeeper/{}/{}/{slot}", self.layout, self.kind)
    }
}

impl Cells for SharedCells {
    fn read(&self, slot: u32) -> Result<(Vec<u8>, Option<u32>), CellsBroken> {
        host::shared_data(&self.key(slot)).map_err(|_| CellsBroken)
    }

    fn write(&self, slot: u32, bytes: &[u8], version: Option<u32>) -> Result<bool, CellsBroken> {
        host::set_shared_data(&self.key(slot), bytes, version).map_err(|_| CellsBroken)
    }
}

/// Where the node's secret is.
pub(crate) fn secret_key() -> String {
    SharedCells { layout: LAYOUT, kind: "secret" }.key(0)
}
