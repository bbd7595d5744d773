//! Node and what runs Rust's wasm32 tests under it.
//!
//! wasm-bindgen's runner only takes modules of exactly its own version, so its version is the one in Cargo.lock.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::cargo::cargo;
use crate::step::{Done, call, done};
use crate::tools;
use crate::workspace::Workspace;

const RUNNER: &str = "wasm-bindgen-test-runner";

/// Finds or installs both; the runner's path.
pub(crate) fn find_runner(workspace: &Workspace) -> Result<Done<PathBuf>> {
    let node = tools::find_or_install("node", "nodejs")?;
    let node = tools::version(&node).context("node does not answer --version: install it anew")?;
    let wanted = locked(&workspace.root.join("Cargo.lock"))?;
    let installed = workspace.tools().join("bin").join(RUNNER);
    let known = tools::find(RUNNER).into_iter().chain([installed.clone()]);
    let fitting =
        known.into_iter().find(|runner| tools::version(runner).is_some_and(|says| says.ends_with(&wanted)));
    let runner = match fitting {
        Some(runner) => runner,
        None => install(&wanted, &workspace.tools()).map(|()| installed)?,
    };
    done(runner, format!("Node {node} with wasm-bindgen {wanted}"))
}

fn install(version: &str, root: &Path) -> Result<()> {
    // unoptimized it is built in a quarter of the time and fast enough; without --locked, since what its lock file
    // names may have been yanked since
    call(cargo().args(["install", "--debug", "wasm-bindgen-cli", "--version", version, "--root"]).arg(root))
        .context("the tests on wasm32 need wasm-bindgen's runner")
}

/// The version of wasm-bindgen that Cargo.lock holds.
fn locked(lock: &Path) -> Result<String> {
    let lock = std::fs::read_to_string(lock).with_context(|| format!("cannot read {}", lock.display()))?;
    let mut lines = lock.lines().skip_while(|line| *line != r#"name = "wasm-bindgen""#);
    let version = lines.nth(1).and_then(|line| line.strip_prefix("version = "));
    let version = version.context("Cargo.lock holds no wasm-bindgen: run `cargo generate-lockfile`")?;
    Ok(version.trim_matches('"').to_owned())
}
