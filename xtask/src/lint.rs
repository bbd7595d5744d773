//! `cargo xtask lint`: what a reviewer need not look for.

use anyhow::Result;

use crate::cargo::{WASM_ONLY, cargo, native};
use crate::step::{call, done, step};
use crate::workspace::Workspace;
use crate::{plugin, tools};

const WASM: &str = "wasm32-wasip1";

pub(crate) fn run(_: &Workspace) -> Result<()> {
    step("format", || {
        call(cargo().args(["fmt", "--all", "--check"]))?;
        done((), "as rustfmt has it")
    })?;
    step("clippy", || {
        call(native("clippy").args(["--all-targets", "--", "-D", "warnings"]))?;
        done((), "native packages")
    })?;
    step("clippy", || {
        plugin::ensure_target(WASM)?;
        let packages = WASM_ONLY.iter().flat_map(|package| ["-p", package]);
        call(cargo().arg("clippy").args(packages).args(["--target", WASM, "--", "-D", "warnings"]))?;
        done((), format!("plugin and probe on {WASM}"))
    })?;
    step("deny", || {
        if tools::find("cargo-deny").is_none() {
            return done((), "skipped: get it with `cargo install --locked cargo-deny`");
        }
        call(cargo().args(["deny", "check", "bans", "licenses", "sources"]))?;
        // the advisories are a database of their own, which a machine without the net cannot get
        if tools::output(cargo().args(["deny", "fetch", "db"])).is_err() {
            return done(
                (),
                "licences, sources; advisories skipped: `cargo deny fetch db` cannot get their database",
            );
        }
        call(cargo().args(["deny", "check", "advisories"]))?;
        done((), "licences, sources, advisories")
    })
}
