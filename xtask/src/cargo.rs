//! Calls of cargo.

use std::process::Command;

/// The packages that only link for wasm32 and are no part of a native build.
pub(crate) const WASM_ONLY: [&str; 2] = ["lanekeeper-plugin", "sdk-probe"];

/// The cargo that runs this.
pub(crate) fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Cargo on all native packages.
pub(crate) fn native(subcommand: &str) -> Command {
    let mut command = cargo();
    command.args([subcommand, "--workspace"]);
    for package in WASM_ONLY {
        command.args(["--exclude", package]);
    }
    command
}
