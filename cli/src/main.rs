//! `lanekeeper`, the operator's command line.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod check;
mod lines;
mod source;
mod summary;

/// Tools for Lanekeeper's policies.
#[derive(Parser)]
#[command(name = "lanekeeper", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Checks policies and tells every error at once
    #[command(after_help = CHECK_HELP)]
    Check {
        /// Policies in YAML or JSON; `-` reads standard input
        #[arg(required = true, value_name = "POLICY")]
        files: Vec<PathBuf>,
    },
}

const CHECK_HELP: &str = "\
What is checked is what the plugin checks when Envoy or Istio hands it the policy: a policy with one error is
refused whole, and Envoy keeps the one before. Write the policy as the `configuration` of the filter, or as
`pluginConfig` of an Istio WasmPlugin.

Each error is one line: file, line, path, value, and what is allowed.

    $ lanekeeper check policy.yaml
    policy.yaml:7: rate_limits.ads.windows[0].per: \"1x\": must be a duration from 1ms to 366d: …
    1 error

A policy without errors is summed up: its limits and breakers, and which lanes have versions of their own. What
is likely a slip, such as a breaker for a command that does not exist, is a line that says `warning`.

Exit status:
    0  every policy is good, with or without warnings
    1  a policy has errors
    2  a file cannot be read, or the arguments are wrong";

fn main() -> ExitCode {
    let Command::Check { files } = Arguments::parse().command;
    let (stdout, stderr) = (io::stdout(), io::stderr());
    match check::run(&files, &mut stdout.lock(), &mut stderr.lock()) {
        Ok(outcome) => ExitCode::from(outcome.status()),
        // Nobody is left to read what goes to standard output.
        Err(_) => ExitCode::from(check::Outcome::Unreadable.status()),
    }
}
