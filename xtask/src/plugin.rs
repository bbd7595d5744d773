//! The plugin as Envoy loads it, and the probe that shows what the SDK does with the same requests.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::cargo::cargo;
use crate::step::{Done, call, done};
use crate::tools;
use crate::workspace::Workspace;

const TARGET: &str = "wasm32-wasip1";

/// Builds the plugin.
pub(crate) fn build(workspace: &Workspace) -> Result<Done<PathBuf>> {
    build_package(workspace, &workspace.target, "lanekeeper-plugin", &[])
}

/// Builds a plugin that traps when it is asked to, which only tests use. In a folder of its own: both have one name.
pub(crate) fn build_trapping(workspace: &Workspace) -> Result<Done<PathBuf>> {
    build_package(workspace, &workspace.target.join("trap"), "lanekeeper-plugin", &["--features", "trap"])
}

/// Builds the probe, which only tests use.
pub(crate) fn build_probe(workspace: &Workspace) -> Result<Done<PathBuf>> {
    build_package(workspace, &workspace.target, "sdk-probe", &[])
}

fn build_package(
    workspace: &Workspace,
    into: &Path,
    package: &str,
    features: &[&str],
) -> Result<Done<PathBuf>> {
    ensure_target(TARGET)?;
    let mut build = cargo();
    build.args(["build", "-p", package, "--target", TARGET, "--release"]).args(features);
    call(build.arg("--target-dir").arg(into))?;
    let wasm = into.join(TARGET).join("release").join(package.replace('-', "_")).with_extension("wasm");
    let size = std::fs::metadata(&wasm).with_context(|| format!("cargo made no {}", wasm.display()))?.len();
    let says = format!("{}, {} KiB", workspace.short(&wasm), size.div_ceil(1024));
    done(wasm, says)
}

/// Adds the target's standard library if it is missing.
pub(crate) fn ensure_target(target: &str) -> Result<()> {
    let library =
        tools::output(Command::new("rustc").args(["--print", "target-libdir", "--target", target]))?;
    if PathBuf::from(library).is_dir() {
        return Ok(());
    }
    call(Command::new("rustup").args(["target", "add", target])).with_context(|| {
        format!(
            "Rust's target {target} is missing: run `rustup target add {target}`, or, for a Rust without rustup, \
             install your system's package of its standard library (Debian: libstd-rust-dev-wasm32)"
        )
    })
}
