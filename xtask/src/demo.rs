//! `cargo xtask demo`: the promises, shown on a real Envoy.

use std::process::Command;

use anyhow::{Result, bail};

use crate::cargo::cargo;
use crate::step::{call, done, step};
use crate::workspace::Workspace;
use crate::{envoy, plugin};

pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let envoy = step("envoy", || envoy::find(workspace))?;
    let plugin = step("plugin", || plugin::build(workspace))?;
    let programs = workspace.target.join("debug");
    step("programs", || {
        // one call for both, so that what they share is built once; without the fake host, which takes minutes
        call(
            cargo()
                .args(["build", "-p", "lanekeeper-shim", "-p", "lanekeeper-tests", "--no-default-features"])
                .args(["--bin", "lanekeeper-shim", "--bin", "demo"]),
        )?;
        done((), "the shim and the demo")
    })?;
    println!();
    let status = Command::new(programs.join("demo"))
        .env("ENVOY", envoy)
        .env("LANEKEEPER_PLUGIN_WASM", plugin)
        .env("LANEKEEPER_SHIM", programs.join("lanekeeper-shim"))
        .status()?;
    if !status.success() {
        bail!("the demo does not hold: its steps are tests too, `cargo xtask test demo` says more");
    }
    Ok(())
}
