//! `lanekeeper check`: every error of every policy, or what a good one says and what is likely a slip in it.

use std::io::{self, Write};
use std::path::PathBuf;

use crate::source::{Finding, Good, Source};
use crate::summary::{self, counted};

/// How checking ended, from best to worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Outcome {
    /// Every policy is good.
    Good,
    /// A policy has errors.
    Refused,
    /// A file cannot be read.
    Unreadable,
}

impl Outcome {
    /// The exit status of the process.
    pub(crate) fn status(self) -> u8 {
        match self {
            Outcome::Good => 0,
            Outcome::Refused => 1,
            Outcome::Unreadable => 2,
        }
    }
}

/// Checks all `files`; findings go to `out`, what keeps from finding to `err`.
pub(crate) fn run(files: &[PathBuf], out: &mut impl Write, err: &mut impl Write) -> io::Result<Outcome> {
    let mut outcome = Outcome::Good;
    let (mut errors, mut warnings) = (0, 0);
    for file in files {
        let source = match Source::read(file) {
            Ok(source) => source,
            Err(unreadable) => {
                writeln!(err, "{unreadable}")?;
                outcome = Outcome::Unreadable;
                continue;
            }
        };
        match source.judge() {
            Ok(Good { document, policy, warnings: slips }) => {
                summary::write(&source.name, &document, &policy, out)?;
                warnings += slips.len();
                tell(&source, "warning: ", &slips, out)?;
            }
            Err(findings) => {
                outcome = outcome.max(Outcome::Refused);
                errors += findings.len();
                tell(&source, "", &findings, out)?;
            }
        }
    }
    let counts = [(errors, "error"), (warnings, "warning")];
    let counts: Vec<String> = counts
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, noun)| counted(count, noun))
        .collect();
    if !counts.is_empty() {
        writeln!(out, "{}", counts.join(", "))?;
    }
    Ok(outcome)
}

/// A line for each finding.
fn tell(source: &Source, kind: &str, findings: &[Finding], out: &mut impl Write) -> io::Result<()> {
    for Finding { line, error } in findings {
        let line = line.map_or_else(String::new, |line| format!(":{line}"));
        writeln!(out, "{}{line}: {kind}{error}", source.name)?;
    }
    Ok(())
}
