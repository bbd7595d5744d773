//! What the pages in docs show of the recorded runs: tables between marks, and drawings.
//!
//! They are made from the records and never by hand, and a test makes them again: figures that were measured once and
//! changed since by anything but a run would be a tale.

mod boundary;
mod charts;
mod leases;
mod outages;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::limits::ALGORITHMS;
use crate::record::{Record, Row};
use crate::tables;

/// A record as a table.
type Table = fn(&Record) -> String;

const ALGORITHMS_PAGE: &str = "docs/algorithms.md";
const BEGIN: &str = "<!-- measured: written by `cargo xtask bench … --record` -->";
const END: &str = "<!-- /measured -->";

const PERFORMANCE_PAGE: &str = "docs/performance.md";
/// The runs that docs/performance.md shows, each between marks of its own: what records them, and their tables.
const PERFORMANCE: [(&str, &str, Table); 4] = [
    ("envoy", "bench envoy", tables::recorded::envoy),
    ("work", "bench work", tables::recorded::work),
    ("endurance", "bench endurance", tables::recorded::endurance),
    ("load", "load", tables::recorded::load),
];

/// The repository that this was built in.
pub fn root() -> &'static Path {
    let benches = Path::new(env!("CARGO_MANIFEST_DIR"));
    benches.parent().unwrap_or(benches)
}

/// Where recorded runs are kept.
pub fn recorded() -> PathBuf {
    root().join("benches/recorded")
}

/// Writes and draws everything anew.
pub fn write() -> Result<()> {
    for (path, text) in files()? {
        fs::write(root().join(path), text).with_context(|| format!("cannot write {path}"))?;
    }
    Ok(())
}

/// Each file, as it has to be.
fn files() -> Result<Vec<(&'static str, String)>> {
    let read = |name| Record::read(&recorded(), name);
    let (accuracy, store, memory) = (read("accuracy")?, read("store")?, read("memory")?);
    let mut files = vec![
        (ALGORITHMS_PAGE, algorithms_page(&accuracy, &store, &memory)?),
        (PERFORMANCE_PAGE, performance_page()?),
        ("docs/wrongly.svg", charts::wrongly(&accuracy)?),
        ("docs/memory.svg", charts::memory(&store)?),
        ("docs/boundary.svg", charts::boundary()?),
        ("docs/envoy.svg", charts::envoy(&read("envoy")?)?),
    ];
    files.extend(leases::files()?);
    files.push(outages::file()?);
    Ok(files)
}

fn algorithms_page(accuracy: &Record, store: &Record, memory: &Record) -> Result<String> {
    for algorithm in ALGORITHMS {
        let all = [accuracy, memory].iter().all(|record| record.row(algorithm).is_some())
            && store.row(&format!("{algorithm}/redis")).is_some();
        ensure!(all, "the records lack {algorithm}");
    }
    let shown = [
        shown(accuracy, tables::recorded::accuracy),
        shown(store, tables::recorded::store),
        shown(memory, tables::recorded::memory),
    ];
    between(BEGIN, END, &page(ALGORITHMS_PAGE)?, &shown.concat()).context(ALGORITHMS_PAGE)
}

fn performance_page() -> Result<String> {
    PERFORMANCE.iter().try_fold(page(PERFORMANCE_PAGE)?, |page, (name, command, table)| {
        let begin = format!("<!-- {name}: written by `cargo xtask {command} --record` -->");
        let end = format!("<!-- /{name} -->");
        let record = Record::read(&recorded(), name)?;
        between(&begin, &end, &page, &shown(&record, *table)).context(PERFORMANCE_PAGE)
    })
}

fn page(path: &str) -> Result<String> {
    fs::read_to_string(root().join(path)).with_context(|| format!("cannot read {path}"))
}

/// The page with this between its marks.
fn between(begin: &str, end: &str, page: &str, shown: &str) -> Result<String> {
    let (before, rest) = page.split_once(begin).with_context(|| format!("there is no {begin}"))?;
    let (_, after) = rest.split_once(end).with_context(|| format!("there is no {end}"))?;
    Ok(format!("{before}{begin}\n\n{shown}{end}{after}"))
}

/// A record's table, and where its figures come from.
fn shown(record: &Record, table: Table) -> String {
    format!("{}\n\n{}\n\n", table(record), origin(record))
}

/// Where figures come from.
fn origin(record: &Record) -> String {
    let (machine, name) = (&record.machine, &record.name);
    format!(
        "`benches/recorded/{name}.json`: {}, {} cores, {}, commit {}.",
        machine.cpu, machine.cores, machine.os, record.commit
    )
}

/// A figure of each algorithm, from the row that `case` names.
fn figures(record: &Record, figure: &str, case: impl Fn(&str) -> String) -> Vec<f64> {
    ALGORITHMS
        .iter()
        .map(|name| record.row(&case(name)).map_or(f64::NAN, |row: &Row| row.figure(figure)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documents_show_what_the_recorded_runs_say() {
        for (path, text) in files().unwrap() {
            let found = fs::read_to_string(root().join(path)).unwrap();
            assert!(found == text, "{path} is not of the recorded runs: run `cargo xtask bench documents`");
        }
    }
}
