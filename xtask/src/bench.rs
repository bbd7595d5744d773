//! `cargo xtask bench`: figures, with the machine and the commit they are of.

use std::process::Command;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};

use crate::cargo::cargo;
use crate::step::{call, done, step};
use crate::workspace::Workspace;

/// What is measured.
#[derive(Subcommand)]
pub(crate) enum Question {
    /// How often does each algorithm judge wrongly?
    ///
    /// Ten million requests of 100,000 sources go through the engine's own counters, beside an exact log of what those
    /// admitted; then one source asks for ten times its limit and more, in five ways. Ends with an error where a
    /// promise does not hold: more admitted than the limit (of the three algorithms that promise it), or more than
    /// 1 % refused of what an exact log admits. Takes a minute.
    Accuracy(How),
}

/// How it is measured.
#[derive(Args)]
pub(crate) struct How {
    /// Less of everything, for a quick look.
    #[arg(long)]
    short: bool,
}

pub(crate) fn run(workspace: &Workspace, question: &Question) -> Result<()> {
    let (name, how) = match question {
        Question::Accuracy(how) => ("accuracy", how),
    };
    step("bench", || {
        call(cargo().args(["build", "--release", "-p", "lanekeeper-benches", "--bin", "lanekeeper-bench"]))?;
        done((), "built, optimized")
    })?;
    println!();
    let mut bench = Command::new(workspace.target.join("release/lanekeeper-bench"));
    bench.arg(name).arg("--into").arg(workspace.target.join("bench"));
    if how.short {
        bench.arg("--short");
    }
    if !bench.status()?.success() {
        bail!("what is missed stands above");
    }
    Ok(())
}
