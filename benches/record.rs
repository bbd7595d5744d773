//! What a run leaves behind, for people and for programs: its figures, with the machine and the commit they are of.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// The figures of one run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Which bench: the file's name without its ending.
    pub name: String,
    /// What was measured; it ends in `-dirty` when the tree had changes of its own.
    pub commit: String,
    /// Where.
    pub machine: Machine,
    /// One for each case, in the bench's order.
    pub rows: Vec<Row>,
}

/// What a number depends on besides the code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// The processor, as it calls itself.
    pub cpu: String,
    /// How many cores this process could use.
    pub cores: usize,
    /// The system and its kernel.
    pub os: String,
}

/// The figures of one case. Shares are from 0 to 1; the name of a time ends in its unit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The case.
    pub case: String,
    /// Its figures by their names.
    #[serde(flatten)]
    pub figures: BTreeMap<String, f64>,
}

impl Row {
    /// A case with its figures.
    pub fn new<'a>(case: impl Into<String>, figures: impl IntoIterator<Item = (&'a str, f64)>) -> Self {
        let figures = figures.into_iter().map(|(name, figure)| (name.to_owned(), figure)).collect();
        Self { case: case.into(), figures }
    }

    /// A figure by its name; not a number where there is none.
    pub fn figure(&self, name: &str) -> f64 {
        self.figures.get(name).copied().unwrap_or(f64::NAN)
    }
}

impl Record {
    /// The figures of a run that just ended, on this machine.
    pub fn of_now(name: &str, rows: Vec<Row>) -> Self {
        Self { name: name.to_owned(), commit: commit(), machine: Machine::this(), rows }
    }

    /// Reads `<name>.json` in `folder`.
    pub fn read(folder: &Path, name: &str) -> Result<Self> {
        let path = folder.join(name).with_extension("json");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{} is no record of a run", path.display()))
    }

    /// Writes `<name>.json` into `folder`, which is made where it is missing.
    pub fn write(&self, folder: &Path) -> Result<PathBuf> {
        let path = folder.join(&self.name).with_extension("json");
        let text = serde_json::to_string_pretty(self)? + "\n";
        fs::create_dir_all(folder)
            .and_then(|()| fs::write(&path, text))
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    /// The row of this case.
    pub fn row(&self, case: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.case == case)
    }
}

impl Machine {
    fn this() -> Self {
        let cpu = field("/proc/cpuinfo", "model name", ':');
        let (os, kernel) = (field("/etc/os-release", "PRETTY_NAME", '='), line("/proc/sys/kernel/osrelease"));
        Self {
            cpu,
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            os: format!("{os}, {kernel}"),
        }
    }
}

fn commit() -> String {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let describe = ["-C", root, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"];
    let output = Command::new("git").args(describe).output().ok().filter(|output| output.status.success());
    output.map_or_else(unknown, |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn unknown() -> String {
    "unknown".to_owned()
}

fn line(file: &str) -> String {
    fs::read_to_string(file).map_or_else(|_| unknown(), |text| text.trim().to_owned())
}

/// The value of the first line of `file` that begins with `key`.
fn field(file: &str, key: &str, separator: char) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(key));
    let value =
        line.and_then(|line| line.split_once(separator)).map(|(_, value)| value.trim().trim_matches('"'));
    value.map_or_else(unknown, str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_written_as_others_read_it_and_read_again() {
        let machine = Machine { cpu: "fast".into(), cores: 2, os: "good".into() };
        let rows = vec![Row::new("sliding_window", [("under_admission", 0.004)])];
        let record = Record { name: "accuracy".into(), commit: "c0ffee".into(), machine, rows };
        let folder = tempfile::tempdir().unwrap();
        let path = record.write(&folder.path().join("bench")).unwrap();
        let text: String = fs::read_to_string(path).unwrap().split_whitespace().collect();
        let expected = r#"{"name":"accuracy","commit":"c0ffee","machine":{"cpu":"fast","cores":2,"os":"good"},"rows":[{"case":"sliding_window","under_admission":0.004}]}"#;
        assert_eq!(text, expected);
        assert_eq!(Record::read(&folder.path().join("bench"), "accuracy").unwrap(), record);
    }

    #[test]
    fn names_its_machine_and_commit() {
        let record = Record::of_now("accuracy", Vec::new());
        assert!(record.machine.cores > 0);
        let commit = record.commit.trim_end_matches("-dirty");
        assert!(commit == "unknown" || commit.len() == 40, "{commit}");
    }
}
