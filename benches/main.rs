//! What `cargo xtask bench` runs, built optimized.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use lanekeeper_benches::accuracy::{self, Accuracy, Size};
use lanekeeper_benches::chaos::{self, FAULTS, Outcome};
use lanekeeper_benches::documents;
#[cfg(feature = "fake-host")]
use lanekeeper_benches::endurance::{self, Endurance};
use lanekeeper_benches::envoy;
use lanekeeper_benches::limits::ALGORITHMS;
use lanekeeper_benches::load;
use lanekeeper_benches::memory::{self, Memory};
use lanekeeper_benches::record::{Record, Row};
use lanekeeper_benches::sim::{self, Figures};
use lanekeeper_benches::store::{self, Speed};
use lanekeeper_benches::tables;
#[cfg(feature = "fake-host")]
use lanekeeper_benches::work::{self, Case, Work};

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
    /// How many decisions a second does the shim give, how fast, and at what memory?
    Store(How),
    /// What do a million subjects take of Redis?
    Memory(How),
    /// What does a request cost in host calls and wasm instructions?
    #[cfg(feature = "fake-host")]
    Work(How),
    /// Do millions of requests among faults all end, and leave memory as it was?
    #[cfg(feature = "fake-host")]
    Endurance(Seeded),
    /// What does the filter cost in a real Envoy?
    Envoy(How),
    /// Is the production load carried for as long as one likes?
    Load(Loaded),
    /// What do leases cost, and do they keep the promise?
    Sim(Simulated),
    /// What do users see of it when the store, the network or a process fails?
    Chaos(Broken),
    /// What do the recorded runs say? Written and drawn anew in the documents.
    Documents,
}

#[derive(Args)]
struct How {
    /// Less of everything.
    #[arg(long)]
    short: bool,
    /// Keep the figures, and show them in the documents.
    #[arg(long)]
    record: bool,
    /// The folder that the figures go to.
    #[arg(long)]
    into: PathBuf,
}

#[cfg(feature = "fake-host")]
#[derive(Args)]
struct Seeded {
    /// Another run of the same kind.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    how: How,
}

#[derive(Args)]
struct Loaded {
    /// For how long, with the filter and without it.
    #[arg(long = "for", value_parser = humantime::parse_duration)]
    lasts: Option<Duration>,
    #[command(flatten)]
    how: How,
}

#[derive(Args)]
struct Broken {
    /// Only these cases.
    #[arg(long)]
    case: Vec<String>,
    #[command(flatten)]
    how: How,
}

#[derive(Args)]
struct Simulated {
    /// Only this scenario.
    #[arg(long)]
    scenario: Option<String>,
    /// Another run of the same kind.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Instead: what leases cost with other numbers of nodes, workers and subjects.
    #[arg(long)]
    sweep: bool,
    #[command(flatten)]
    how: How,
}

fn main() -> ExitCode {
    let outcome = match Bench::parse().question {
        Question::Accuracy(how) => measure_accuracy(&how),
        Question::Store(how) => measure_store(&how),
        Question::Memory(how) => measure_memory(&how),
        #[cfg(feature = "fake-host")]
        Question::Work(how) => measure_work(&how),
        #[cfg(feature = "fake-host")]
        Question::Endurance(seeded) => endure(&seeded),
        Question::Envoy(how) => measure_envoy(&how),
        Question::Load(loaded) => carry(&loaded),
        Question::Sim(simulated) if simulated.sweep => sweep(&simulated),
        Question::Sim(simulated) => simulate(&simulated),
        Question::Chaos(broken) => break_things(&broken),
        Question::Documents => documents::write(),
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

fn measure_store(how: &How) -> Result<()> {
    let size = if how.short { store::Size::SHORT } else { store::Size::FULL };
    let began = Instant::now();
    let bar = progress(size.steps());
    let measured = store::measure(&size, &|| bar.inc(1))?;
    bar.finish_and_clear();
    println!("{}", tables::store(&measured));
    for missed in measured.iter().flat_map(Speed::missed_goals) {
        println!("missed: {missed}");
    }
    finish("store", measured.iter().map(Speed::row).collect(), how, began)
}

fn measure_memory(how: &How) -> Result<()> {
    let size = if how.short { memory::Size::SHORT } else { memory::Size::FULL };
    let began = Instant::now();
    let bar = progress(size.requests());
    let mut measured = Vec::new();
    for algorithm in ALGORITHMS {
        let subjects = size.subjects(algorithm);
        bar.suspend(|| eprintln!("{algorithm}: {subjects} subjects ask"));
        measured.push(Memory::of(algorithm, subjects, &|requests| bar.inc(requests))?);
    }
    bar.finish_and_clear();
    println!("{}", tables::memory(&measured));
    finish("memory", measured.iter().map(Memory::row).collect(), how, began)?;
    held(measured.iter().filter_map(Memory::broken_promise))
}

#[cfg(feature = "fake-host")]
fn measure_work(how: &How) -> Result<()> {
    let size = if how.short { work::Size::SHORT } else { work::Size::FULL };
    let began = Instant::now();
    let cases = Case::all();
    let bar = progress(cases.len() as u64);
    let measure = |case: Case| case.measure(size).inspect(|_| bar.inc(1));
    let measured = cases.into_iter().map(measure).collect::<Result<Vec<_>>>()?;
    bar.finish_and_clear();
    println!("{}\n", tables::work(&measured));
    let rows: Vec<Row> = measured.iter().map(Work::row).collect();
    finish("work", rows.clone(), how, began)?;
    let recorded = Record::read(&documents::recorded(), "work")?;
    work::grown(&recorded, &rows).iter().for_each(|grown| println!("grown: {grown}"));
    Ok(())
}

#[cfg(feature = "fake-host")]
fn endure(Seeded { seed, how }: &Seeded) -> Result<()> {
    let size = if how.short { endurance::Size::SHORT } else { endurance::Size::FULL };
    let began = Instant::now();
    let bar = progress(size.steps());
    let measured = endurance::measure(&size, *seed, &|| bar.inc(1))?;
    bar.finish_and_clear();
    println!("{}\n", tables::endurance(&measured));
    finish("endurance", vec![measured.row()], how, began)?;
    held([measured].iter().filter_map(Endurance::broken_promise))
}

fn measure_envoy(how: &How) -> Result<()> {
    let size = if how.short { envoy::Size::SHORT } else { envoy::Size::FULL };
    let began = Instant::now();
    let bar = progress(size.steps());
    let rows = envoy::measure(&size, &|| bar.inc(1))?;
    bar.finish_and_clear();
    println!("{}", tables::envoy(&rows));
    for missed in envoy::missed_goals(&rows) {
        println!("missed: {missed}");
    }
    finish("envoy", rows, how, began)
}

fn carry(Loaded { lasts, how }: &Loaded) -> Result<()> {
    let size = match lasts {
        Some(lasts) => load::Size::lasting(*lasts)?,
        None if how.short => load::Size::SHORT,
        None => load::Size::FULL,
    };
    let began = Instant::now();
    let bar = progress(size.steps());
    let carried = load::measure(&size, &|| bar.inc(1))?;
    bar.finish_and_clear();
    println!("{}", tables::load(&carried.rows));
    for missed in &carried.missed {
        println!("missed: {missed}");
    }
    finish("load", carried.rows, how, began)
}

fn simulate(Simulated { scenario, seed, how, .. }: &Simulated) -> Result<()> {
    let size = if how.short { sim::Size::Short } else { sim::Size::Full };
    let began = Instant::now();
    let mut all = sim::all(size)?;
    if scenario.is_some() {
        // the sweep's and the load's are there for whoever asks for one of them
        all.extend(sim::sweep::points()?.into_iter().map(|point| point.scenario));
        all.push(load::scenario(&load::Size::FULL)?);
    }
    let wanted: Vec<_> =
        all.iter().filter(|one| scenario.as_ref().is_none_or(|name| *name == one.name)).collect();
    if wanted.is_empty() {
        let names: Vec<&str> = all.iter().map(|one| one.name.as_str()).collect();
        bail!("there is no such scenario; there are {}", names.join(", "));
    }
    let bar = progress(wanted.iter().map(|scenario| scenario.requests()).sum());
    let mut simulated = Vec::new();
    for scenario in wanted {
        bar.suspend(|| eprintln!("{}: {}", scenario.name, scenario.says));
        simulated.push(sim::run(scenario, *seed, &|requests| bar.inc(requests))?);
    }
    bar.finish_and_clear();
    println!("{}", tables::sim(&simulated));
    for missed in simulated.iter().flat_map(Figures::missed_goals) {
        println!("missed: {missed}");
    }
    finish("sim", simulated.iter().map(Figures::row).collect(), how, began)
}

fn sweep(Simulated { seed, how, .. }: &Simulated) -> Result<()> {
    let began = Instant::now();
    let points = sim::sweep::points()?;
    let bar = progress(points.iter().map(|point| point.scenario.requests()).sum());
    let mut simulated = Vec::new();
    for point in &points {
        simulated.push(sim::run(&point.scenario, *seed, &|requests| bar.inc(requests))?);
    }
    bar.finish_and_clear();
    println!("{}", tables::sim(&simulated));
    let rows = points.iter().zip(&simulated).map(|(point, figures)| point.row(figures.row())).collect();
    finish("sweep", rows, how, began)
}

fn break_things(Broken { case, how }: &Broken) -> Result<()> {
    let size = if how.short { chaos::Size::SHORT } else { chaos::Size::FULL };
    let began = Instant::now();
    let is_wanted = |name: &str| case.is_empty() || case.iter().any(|case| case == name);
    let wanted: Vec<_> = FAULTS.iter().filter(|fault| is_wanted(fault.name)).collect();
    if wanted.len() < case.len().max(1) {
        let names: Vec<&str> = FAULTS.iter().map(|fault| fault.name).collect();
        bail!("there is no such case; there are {}", names.join(", "));
    }
    let bar = progress(wanted.len() as u64);
    let mut outcomes = Vec::new();
    for fault in wanted {
        bar.suspend(|| eprintln!("{}: {}", fault.name, fault.says));
        outcomes.push(chaos::run(fault, &size).with_context(|| fault.name)?);
        bar.inc(1);
    }
    bar.finish_and_clear();
    let rows: Vec<Row> = outcomes.iter().map(Outcome::row).collect();
    println!("{}", tables::chaos(&rows));
    for missed in outcomes.iter().flat_map(Outcome::missed_goals) {
        println!("missed: {missed}");
    }
    finish("chaos", rows, how, began)?;
    held(outcomes.iter().flat_map(Outcome::broken_promises))
}

/// On a terminal; elsewhere nothing is drawn.
fn progress(steps: u64) -> ProgressBar {
    let bar = ProgressBar::new(steps);
    let style = ProgressStyle::with_template("{wide_bar} {percent} %, {eta} left");
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn finish(name: &str, rows: Vec<Row>, how: &How, began: Instant) -> Result<()> {
    let record = Record::of_now(name, rows);
    let path = record.write(&how.into)?;
    println!("{} ({:.0} s)", path.display(), began.elapsed().as_secs_f64());
    if how.record {
        record.write(&documents::recorded())?;
        documents::write()?;
        println!("recorded, and shown in docs");
    }
    Ok(())
}

fn held(broken: impl Iterator<Item = String>) -> Result<()> {
    let broken: Vec<String> = broken.collect();
    if !broken.is_empty() {
        bail!("a promise does not hold: {}", broken.join("; "));
    }
    Ok(())
}
