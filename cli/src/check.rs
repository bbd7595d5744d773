//! `lanekeeper check`: every error of every policy, or what a good one says.

use std::io::{self, Write};
use std::path::PathBuf;

use crate::source::{Finding, Source};
use crate::summary;

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
    let mut errors = 0;
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
            Ok((document, policy)) => summary::write(&source.name, &document, &policy, out)?,
            Err(findings) => {
                outcome = outcome.max(Outcome::Refused);
                errors += findings.len();
                for Finding { line, error } in findings {
                    let line = line.map_or_else(String::new, |line| format!(":{line}"));
                    writeln!(out, "{}{line}: {error}", source.name)?;
                }
            }
        }
    }
    if errors > 0 {
        writeln!(out, "{}", summary::counted(errors, "error"))?;
    }
    Ok(outcome)
}
