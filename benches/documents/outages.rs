//! What docs/outages.md shows of the recorded faults.

use anyhow::{Context, Result};

use super::{between, page, recorded, shown};
use crate::record::Record;
use crate::tables;

const PAGE: &str = "docs/outages.md";
const BEGIN: &str = "<!-- broken: written by `cargo xtask chaos --record` -->";
const END: &str = "<!-- /broken -->";

/// The file, as it has to be.
pub(super) fn file() -> Result<(&'static str, String)> {
    let chaos = Record::read(&recorded(), "chaos")?;
    Ok((PAGE, between(BEGIN, END, &page(PAGE)?, &shown(&chaos, tables::recorded::chaos)).context(PAGE)?))
}
