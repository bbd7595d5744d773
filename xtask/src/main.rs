//! The one door to this repository.
//!
//! A fresh machine with Rust needs nothing else: what a command lacks, it gets or says how to get.

mod bench;
mod build;
mod cargo;
mod chaos;
mod demo;
mod envoy;
mod lint;
mod load;
mod node;
mod plugin;
mod redis;
mod sim;
mod step;
mod test;
mod tools;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::workspace::Workspace;

/// Builds, tests and shows Lanekeeper.
///
/// New here? `cargo xtask demo` shows in a few seconds what it does, on a real Envoy.
/// Before you send a change: `cargo xtask lint` and `cargo xtask test`; CI runs the same.
///
/// What is missing is fetched: Envoy into target/tools (or name yours: ENVOY=/path/to/envoy), Redis, libfaketime and
/// Node from the system's packages.
#[derive(Parser)]
#[command(bin_name = "cargo xtask", verbatim_doc_comment)]
struct Door {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build what is shipped: the plugin for Envoy, the shim and the command line, all optimized.
    Build,
    /// Run every test: natively, with a real Redis and a real Envoy, and the engine once more on wasm32 under Node.
    Test {
        /// Only tests whose name contains this.
        name: Option<String>,
    },
    /// Check format, lints and, where cargo-deny is installed, licences and advisories.
    Lint,
    /// Measure, print it for people, and write it to target/bench/<name>.json for programs.
    Bench {
        #[command(subcommand)]
        question: bench::Question,
    },
    /// Simulate what leases cost, and whether they keep the promise: many nodes, one virtual clock, and all that can go
    /// wrong.
    ///
    /// Every scenario in turn, beside an exact log of who was admitted. Ends with an error where any trailing window ever
    /// holds more than its limit, with the seed that plays it again and what happened last; a goal that is missed is said,
    /// and is no error. Prints a table, and writes target/bench/sim.json. All in full take some minutes.
    Sim(sim::Sim),
    /// Carry the production load on this machine, with the filter and without it.
    ///
    /// Two Envoys of two workers, each with a shim of its own, and a Redis Cluster of three masters and three replicas.
    /// 2,000 requests a second come, whether or not others are answered, and three times as many in the middle tenth of
    /// the time: four of five from a fifth of 100 users, each fourth in the shadow lane. Says how fast they are
    /// answered, what Redis has to do, and by how much each process grows; then what ten such machines would ask of the
    /// store, simulated. An error of a request, or memory that grows, is said and is no error of the run.
    ///
    /// Takes twice the time that it is for. The measuring itself needs the same memory after a minute and after a day:
    ///
    ///     cargo xtask load --for 24h
    ///
    /// Writes target/bench/load.json.
    #[command(verbatim_doc_comment)]
    Load(load::Load),
    /// Break the store, the network and the processes around a real Envoy, one after the other, under constant load.
    ///
    /// Every request is in an account. Ends with an error where one is lost, hangs for five seconds, or is answered with a
    /// failure of ours; a goal that is missed (how soon nobody waits for a dead store any more, how long anybody waits,
    /// how soon the store is back) is said, and is no error. Prints a table, and writes target/bench/chaos.json. All in
    /// full take five minutes, and two cores of their own: on a machine that does something else too, give them
    /// precedence with `sudo chrt --fifo 1 cargo xtask chaos`.
    Chaos(chaos::Chaos),
    /// Show on a real Envoy what Lanekeeper promises; ends with an error if a promise does not hold.
    Demo,
}

fn main() -> ExitCode {
    let command = Door::parse().command;
    let outcome = Workspace::find().and_then(|workspace| match command {
        Command::Build => build::run(&workspace),
        Command::Test { name } => test::run(&workspace, name.as_deref()),
        Command::Lint => lint::run(&workspace),
        Command::Bench { question } => bench::run(&workspace, &question),
        Command::Sim(sim) => sim::run(&workspace, &sim),
        Command::Load(load) => load::run(&workspace, &load),
        Command::Chaos(chaos) => chaos::run(&workspace, &chaos),
        Command::Demo => demo::run(&workspace),
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
