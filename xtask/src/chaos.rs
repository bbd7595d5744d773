//! `cargo xtask chaos`: what users see of it when the store, the network or a process fails.

use anyhow::{Result, bail};
use clap::Args;

use crate::bench::{self, How, HowBuilt};
use crate::step::step;
use crate::workspace::Workspace;
use crate::{envoy, plugin, redis};

/// What is broken.
#[derive(Args)]
pub(crate) struct Chaos {
    /// Only this case, or these; `cargo xtask chaos --case help` names them.
    #[arg(long)]
    case: Vec<String>,
    #[command(flatten)]
    how: How,
}

pub(crate) fn run(workspace: &Workspace, chaos: &Chaos) -> Result<()> {
    if chaos.how.record && !chaos.case.is_empty() {
        bail!("all cases are recorded together");
    }
    let how_built = HowBuilt::Optimized;
    let mut program = how_built.program(workspace);
    program
        .env("ENVOY", step("envoy", || envoy::find(workspace))?)
        .env("LANEKEEPER_REDIS_SERVER", step("redis", redis::find)?)
        .env("LANEKEEPER_PLUGIN_WASM", step("plugin", || plugin::build(workspace))?)
        .env("LANEKEEPER_TRAP_WASM", step("trap", || plugin::build_trapping(workspace))?)
        .env("LANEKEEPER_SHIM", workspace.target.join("release/lanekeeper-shim"));
    program.arg("chaos").args(chaos.case.iter().flat_map(|name| ["--case", name]));
    chaos.how.tell(&mut program, workspace);
    let mut build = how_built.build();
    build.args(["-p", "lanekeeper-shim", "--bin", "lanekeeper-shim"]);
    bench::build_and_run(&mut build, &mut program)
}
