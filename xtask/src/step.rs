//! Steps that say what they did and how long it took.

use std::fmt::Display;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// A step's result and what its line says about it.
pub(crate) struct Done<T> {
    pub(crate) result: T,
    pub(crate) says: String,
}

pub(crate) fn done<T>(result: T, says: impl Display) -> Result<Done<T>> {
    Ok(Done { result, says: says.to_string() })
}

/// Does a step and says it in one line.
pub(crate) fn step<T>(name: &str, work: impl FnOnce() -> Result<Done<T>>) -> Result<T> {
    let start = Instant::now();
    let done = work()?;
    println!("{name:>8}  {} ({})", done.says, seconds(start.elapsed()));
    Ok(done.result)
}

/// Runs a command, its output shown, to its successful end.
pub(crate) fn call(command: &mut Command) -> Result<()> {
    let line = written(command);
    let status = command.status().with_context(|| format!("cannot run `{line}`"))?;
    if !status.success() {
        bail!("what stands above is to be mended; to see it again, run `{line}`");
    }
    Ok(())
}

/// A command as a person would type it.
pub(crate) fn written(command: &Command) -> String {
    let program = std::path::Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let words = std::iter::once(program).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

pub(crate) fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}
