//! `cargo xtask test`: every test, with everything real that it needs.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::cargo::{cargo, native};
use crate::step::{call, done, seconds, step, written};
use crate::workspace::Workspace;
use crate::{envoy, node, plugin, redis};

const WASM: &str = "wasm32-unknown-unknown";

pub(crate) fn run(workspace: &Workspace, name: Option<&str>) -> Result<()> {
    let start = Instant::now();
    // first what may be missing: who lacks something learns it before the long builds
    let envoy = step("envoy", || envoy::find(workspace))?;
    let redis = step("redis", redis::find)?;
    let valkey = step("valkey", || redis::find_valkey(workspace))?;
    let runner = step("node", || {
        plugin::ensure_target(WASM)?;
        node::find_runner(workspace)
    })?;
    let wasm = step("plugin", || plugin::build(workspace))?;
    let trapping = step("trap", || plugin::build_trapping(workspace))?;
    let probe = step("probe", || plugin::build_probe(workspace))?;
    step("programs", || {
        // what `cargo test` below builds, and the programs: in one call, so that what they share is built once
        call(native("build").args(["--bins", "--tests"]))?;
        done((), "the shim, the command line, the tests")
    })?;

    let mut natively = native("test");
    natively
        .env("ENVOY", envoy)
        .env("LANEKEEPER_REDIS_SERVER", redis)
        .envs(valkey.map(|valkey| ("LANEKEEPER_VALKEY_SERVER", valkey)))
        .env("LANEKEEPER_PLUGIN_WASM", wasm)
        .env("LANEKEEPER_TRAP_WASM", trapping)
        .env("LANEKEEPER_SDK_PROBE_WASM", probe)
        .env("LANEKEEPER_SHIM", workspace.target.join("debug/lanekeeper-shim"));
    let natively = step("native", || tests(&mut natively, name))?;
    let on_wasm = step("wasm32", || tests(&mut engine_on_wasm(&runner), name))?;

    let (passed, failed) = (natively.passed + on_wasm.passed, natively.failed + on_wasm.failed);
    println!("\n{} in all\n{passed} passed, {failed} failed", seconds(start.elapsed()));
    if failed > 0 || !(natively.succeeded && on_wasm.succeeded) {
        bail!("what failed stands above; run one alone with `cargo xtask test <name>`");
    }
    // without a name, a run without a test is a run that could not fail
    if name.is_none() && (natively.passed == 0 || on_wasm.passed == 0) {
        bail!("no test ran natively or on wasm32; see what the runner says above");
    }
    Ok(())
}

fn engine_on_wasm(runner: &Path) -> Command {
    let mut command = cargo();
    command
        .args(["test", "-p", "lanekeeper-engine", "--target", WASM])
        .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUNNER", runner);
    command
}

/// What a run of tests came to.
struct Tally {
    passed: u64,
    failed: u64,
    succeeded: bool,
}

/// Runs tests to the end, whatever fails, and counts them.
fn tests(command: &mut Command, name: Option<&str>) -> Result<crate::step::Done<Tally>> {
    command.arg("--no-fail-fast").args(name).stdout(Stdio::piped());
    let mut process = command.spawn().with_context(|| format!("cannot run `{}`", written(command)))?;
    let stdout = process.stdout.take().context("cargo has no output")?;
    let (mut passed, mut failed) = (0, 0);
    for line in BufReader::new(stdout).lines() {
        let line = line?;
        println!("{line}");
        if line.starts_with("test result:") {
            passed += count(&line, "passed");
            failed += count(&line, "failed");
        }
    }
    let succeeded = process.wait()?.success();
    done(Tally { passed, failed, succeeded }, format!("{passed} passed, {failed} failed"))
}

/// The number before a word in `test result: ok. 3 passed; 0 failed; …`.
fn count(line: &str, word: &str) -> u64 {
    let words: Vec<&str> = line.split([' ', ';']).filter(|word| !word.is_empty()).collect();
    let number = words.windows(2).find_map(|pair| match pair {
        [number, found] if *found == word => number.parse().ok(),
        _ => None,
    });
    number.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::count;

    #[test]
    fn counts_what_a_runner_says() {
        let line = "test result: FAILED. 12 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.10s";
        assert_eq!((count(line, "passed"), count(line, "failed")), (12, 3));
    }

    #[test]
    fn counts_nothing_where_nothing_is_said() {
        assert_eq!(count("test result: no tests to run!", "passed"), 0);
    }
}
