//! What `cargo xtask bench` runs, built optimized.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, bail};
use clap::{Args, Parser, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use lanekeeper_benches::accuracy::{self, Accuracy, Size};
use lanekeeper_benches::record::Record;
use lanekeeper_benches::tables;

/// Measures Lanekeeper. `cargo xtask bench` builds all that it needs and runs it.
#[derive(Parser)]
struct Bench {
    #[command(subcommand)]
    question: Question,
}

#[derive(Subcommand)]
enum Question {
    /// How often does each algorithm judge wrongly?
    Accuracy(How),
}

#[derive(Args)]
struct How {
    /// Less of everything.
    #[arg(long)]
    short: bool,
    /// The folder that the figures go to.
    #[arg(long)]
    into: PathBuf,
}

fn main() -> ExitCode {
    let outcome = match Bench::parse().question {
        Question::Accuracy(how) => measure_accuracy(&how),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure_accuracy(how: &How) -> Result<()> {
    let size = if how.short { Size::SHORT } else { Size::FULL };
    let began = Instant::now();
    let bar = progress(size.decisions());
    let measured = accuracy::measure(&size, &|decisions| bar.inc(decisions))?;
    bar.finish_and_clear();
    println!("{}", tables::accuracy(&measured));
    finish("accuracy", measured.iter().map(Accuracy::row).collect(), how, began)?;
    held(measured.iter().flat_map(Accuracy::broken_promises))
}

/// On a terminal; elsewhere nothing is drawn.
fn progress(steps: u64) -> ProgressBar {
    let bar = ProgressBar::new(steps);
    let style = ProgressStyle::with_template("{wide_bar} {percent} %, {eta} left");
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn finish(name: &str, rows: Vec<lanekeeper_benches::record::Row>, how: &How, began: Instant) -> Result<()> {
    let record = Record::of_now(name, rows);
    let path = record.write(&how.into)?;
    println!("{} ({:.0} s)", path.display(), began.elapsed().as_secs_f64());
    Ok(())
}

fn held(broken: impl Iterator<Item = String>) -> Result<()> {
    let broken: Vec<String> = broken.collect();
    if !broken.is_empty() {
        bail!("a promise does not hold: {}", broken.join("; "));
    }
    Ok(())
}
