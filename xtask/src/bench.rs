//! `cargo xtask bench`: figures, with the machine and the commit they are of.

use std::process::Command;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};

use crate::cargo::cargo;
use crate::step::{call, done, step};
use crate::workspace::Workspace;
use crate::{envoy, plugin, redis, tools};

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
    /// How many decisions a second does the shim give, how fast, and at what memory?
    ///
    /// The shim runs on one core and a Redis on another. Each algorithm is asked for all that it can, in batches as the
    /// filter sends them, beside what `redis-benchmark` gets from that Redis with the same script and arguments; then
    /// for half of it, as requests come at random moments. The goals are 0.7 of Redis alone, and a p99 below 2 ms at
    /// half load; a miss is said, and is no error. Takes three minutes, and two cores of its own: on a machine that does
    /// something else too, give it precedence with `sudo chrt --fifo 1 cargo xtask bench store`.
    Store(How),
    /// What do a million subjects take of Redis?
    ///
    /// A million quiet users of one limit of two windows, 100 a minute and 1000 an hour, ask a Redis through the
    /// shim's store, one to three times each, and what its `used_memory` grew by is taken; then 125,000 of them under
    /// each of the other algorithms. Ends with an error where a million subjects of `sliding_window` take 250 MB or
    /// more. Takes two to three minutes, and half a gigabyte of memory.
    Memory(How),
    /// What does a request cost in host calls and wasm instructions?
    ///
    /// The built plugin runs on the fake host, and what its requests take is counted: of those that are allowed under
    /// a lease or by the store, refused from memory or counted on the node; under one and two limits of one and two windows, with the
    /// answer's headers, and with a breaker before them. The figures are the same in every run and on every machine. What has grown by more than 10 %
    /// over benches/recorded/work.json is said, and fails `cargo xtask test`: mend it, or `--record` it with the change
    /// that is worth it. Takes some seconds.
    Work(How),
    /// Do millions of requests among faults all end, and leave memory as it was?
    ///
    /// The built plugin runs on the fake host, in three workers, and ten million requests go through them: the store
    /// answers late, wrongly or not at all, streams are reset at any point, host calls fail, policies are exchanged. Ends
    /// with an error where a request is stuck, a VM fails, or the VMs' memory grows after the first tenth by more than
    /// 64 KiB with a million requests. The seed of a failed run plays it again. Takes ten minutes, and one core.
    Endurance(Endurance),
    /// What does the filter cost in a real Envoy?
    ///
    /// No filter, an empty one, Envoy's own local limiter, and ours without a store, with leases, and strict, each in an
    /// Envoy of its own with one worker, asked one after the other in seven rounds: throughput, times, processor time of
    /// each process, and what Redis is asked. The goals are ratios to the empty filter; a miss is said, and is no error.
    /// Takes five minutes, and two cores of its own.
    Envoy(How),
    /// Write and draw anew what the pages in docs show, from the runs in benches/recorded.
    ///
    /// After a change of how they are shown; `--record` does it by itself.
    Documents,
}

/// Which run it is, and how it is measured.
#[derive(Args)]
pub(crate) struct Endurance {
    /// Another run of the same kind. The same seed is the same run.
    #[arg(long, conflicts_with = "record")]
    seed: Option<u64>,
    #[command(flatten)]
    how: How,
}

/// How it is measured.
#[derive(Args)]
pub(crate) struct How {
    /// Less of everything, for a quick look.
    #[arg(long)]
    short: bool,
    /// Keep the figures in benches/recorded, and write and draw anew what the pages in docs show of them.
    #[arg(long, conflicts_with = "short")]
    pub(crate) record: bool,
}

pub(crate) fn run(workspace: &Workspace, question: &Question) -> Result<()> {
    let how_built = HowBuilt::of(question);
    let built = workspace.target.join(how_built.folder());
    let mut bench = how_built.program(workspace);
    let mut build = how_built.build();
    match question {
        Question::Accuracy(how) => how.tell(bench.arg("accuracy"), workspace),
        Question::Store(how) => {
            build.args(["-p", "lanekeeper-shim", "--bin", "lanekeeper-shim"]);
            let benchmark = tools::find_or_install("redis-benchmark", "redis-tools")?;
            bench
                .env("LANEKEEPER_SHIM", built.join("lanekeeper-shim"))
                .env("LANEKEEPER_REDIS_SERVER", step("redis", redis::find)?)
                .env("LANEKEEPER_REDIS_BENCHMARK", benchmark);
            how.tell(bench.arg("store"), workspace);
        }
        Question::Memory(how) => {
            bench.env("LANEKEEPER_REDIS_SERVER", step("redis", redis::find)?);
            how.tell(bench.arg("memory"), workspace);
        }
        Question::Work(how) => {
            bench.env("LANEKEEPER_PLUGIN_WASM", step("plugin", || plugin::build(workspace))?);
            how.tell(bench.arg("work"), workspace);
        }
        Question::Endurance(Endurance { seed, how }) => {
            bench
                .env("LANEKEEPER_PLUGIN_WASM", step("plugin", || plugin::build(workspace))?)
                .arg("endurance");
            bench.args(seed.map(|seed| format!("--seed={seed}")));
            how.tell(&mut bench, workspace);
        }
        Question::Envoy(how) => {
            build.args(["-p", "lanekeeper-shim", "--bin", "lanekeeper-shim"]);
            bench
                .env("ENVOY", step("envoy", || envoy::find(workspace))?)
                .env("LANEKEEPER_PLUGIN_WASM", step("plugin", || plugin::build(workspace))?)
                .env("LANEKEEPER_SHIM", built.join("lanekeeper-shim"))
                .env("LANEKEEPER_REDIS_SERVER", step("redis", redis::find)?);
            how.tell(bench.arg("envoy"), workspace);
        }
        Question::Documents => {
            bench.arg("documents");
        }
    }
    build_and_run(&mut build, &mut bench)
}

pub(crate) fn build_and_run(build: &mut Command, bench: &mut Command) -> Result<()> {
    step("programs", || {
        call(build)?;
        done((), "built")
    })?;
    println!();
    if !bench.status()?.success() {
        bail!("what is missed stands above");
    }
    Ok(())
}

/// How the program that measures is built.
pub(crate) enum HowBuilt {
    /// For time and memory, and for millions of simulated requests.
    Optimized,
    /// For millions of requests on the fake host.
    OptimizedHost,
    /// For counts, which are the same however it is built: as quickly as it can be, with the fake host.
    Quickly,
}

impl HowBuilt {
    fn of(question: &Question) -> Self {
        match question {
            Question::Work(_) => Self::Quickly,
            Question::Endurance(_) => Self::OptimizedHost,
            _ => Self::Optimized,
        }
    }

    /// What builds it.
    pub(crate) fn build(&self) -> Command {
        let mut build = cargo();
        build.args(["build", "-p", "lanekeeper-benches", "--bin", "lanekeeper-bench"]).args(self.arguments());
        build
    }

    /// What runs it.
    pub(crate) fn program(&self, workspace: &Workspace) -> Command {
        Command::new(workspace.target.join(self.folder()).join("lanekeeper-bench"))
    }

    fn folder(&self) -> &'static str {
        match self {
            Self::Optimized | Self::OptimizedHost => "release",
            Self::Quickly => "debug",
        }
    }

    fn arguments(&self) -> &'static [&'static str] {
        match self {
            Self::Optimized => &["--release", "--no-default-features"],
            Self::OptimizedHost => &["--release"],
            Self::Quickly => &[],
        }
    }
}

impl How {
    pub(crate) fn tell(&self, bench: &mut Command, workspace: &Workspace) {
        bench.arg("--into").arg(workspace.target.join("bench"));
        bench.args(self.short.then_some("--short")).args(self.record.then_some("--record"));
    }
}
