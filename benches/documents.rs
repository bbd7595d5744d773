//! What docs/algorithms.md shows of the recorded runs: three tables between marks, and drawings.
//!
//! They are made from the records and never by hand, and a test makes them again: figures that were measured once and
//! changed since by anything but a run would be a tale.

mod boundary;
mod charts;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::limits::ALGORITHMS;
use crate::record::{Record, Row};
use crate::tables;

const DOCUMENT: &str = "docs/algorithms.md";
const BEGIN: &str = "<!-- measured: written by `cargo xtask bench … --record` -->";
const END: &str = "<!-- /measured -->";

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
    let document = fs::read_to_string(root().join(DOCUMENT))?;
    Ok(vec![
        (DOCUMENT, with_tables(&document, &accuracy, &store, &memory)?),
        ("docs/wrongly.svg", charts::wrongly(&accuracy)?),
        ("docs/memory.svg", charts::memory(&store)?),
        ("docs/boundary.svg", charts::boundary()?),
    ])
}

fn with_tables(document: &str, accuracy: &Record, store: &Record, memory: &Record) -> Result<String> {
    let (before, rest) = document.split_once(BEGIN).with_context(|| format!("{DOCUMENT} lacks {BEGIN}"))?;
    let (_, after) = rest.split_once(END).with_context(|| format!("{DOCUMENT} lacks {END}"))?;
    for algorithm in ALGORITHMS {
        let all = [accuracy, memory].iter().all(|record| record.row(algorithm).is_some())
            && store.row(&format!("{algorithm}/redis")).is_some();
        ensure!(all, "the records lack {algorithm}");
    }
    let shown = [
        (tables::recorded_accuracy(accuracy), accuracy),
        (tables::recorded_store(store), store),
        (tables::recorded_memory(memory), memory),
    ];
    let shown: String =
        shown.iter().map(|(table, record)| format!("{table}\n\n{}\n\n", origin(record))).collect();
    Ok(format!("{before}{BEGIN}\n\n{shown}{END}{after}"))
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
