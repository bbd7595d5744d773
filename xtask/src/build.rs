//! `cargo xtask build`: what is shipped.

use anyhow::Result;

use crate::cargo::cargo;
use crate::plugin;
use crate::step::{call, done, step};
use crate::workspace::Workspace;

pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    step("plugin", || plugin::build(workspace))?;
    step("programs", || {
        call(cargo().args(["build", "--release", "-p", "lanekeeper-shim", "-p", "lanekeeper"]))?;
        let release = workspace.target.join("release");
        done((), format!("{0}/lanekeeper-shim, {0}/lanekeeper", workspace.short(&release)))
    })
}
