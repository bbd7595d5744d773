//! What docs/leases.md shows of the recorded simulations.

use anyhow::{Context, Result};

use super::{between, charts, page, recorded, shown};
use crate::record::Record;
use crate::sim::sweep::Axis;
use crate::tables;

const PAGE: &str = "docs/leases.md";
const BEGIN: &str = "<!-- simulated: written by `cargo xtask sim --record` -->";
const END: &str = "<!-- /simulated -->";

/// Each file, as it has to be.
pub(super) fn files() -> Result<Vec<(&'static str, String)>> {
    let (sim, sweep) = (Record::read(&recorded(), "sim")?, Record::read(&recorded(), "sweep")?);
    let text = between(BEGIN, END, &page(PAGE)?, &shown(&sim, tables::recorded::sim)).context(PAGE)?;
    Ok(vec![
        (PAGE, text),
        ("docs/leases-nodes.svg", charts::sweep(&sweep, Axis::Nodes)?),
        ("docs/leases-workers.svg", charts::sweep(&sweep, Axis::Workers)?),
        ("docs/leases-subjects.svg", charts::sweep(&sweep, Axis::Subjects)?),
    ])
}
