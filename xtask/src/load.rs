//! `cargo xtask load`: the production load, on real processes, for as long as one likes.

use anyhow::Result;
use clap::Args;

use crate::bench::{self, How, HowBuilt};
use crate::step::step;
use crate::workspace::Workspace;
use crate::{envoy, plugin, redis};

/// How long, and how it is measured.
#[derive(Args)]
pub(crate) struct Load {
    /// For how long, once with the filter and once without it: 30s, 2m (what it is by default), 24h.
    #[arg(long = "for", value_name = "DURATION", conflicts_with = "short")]
    lasts: Option<humantime::Duration>,
    #[command(flatten)]
    how: How,
}

pub(crate) fn run(workspace: &Workspace, load: &Load) -> Result<()> {
    let built = HowBuilt::Optimized;
    let mut build = built.build();
    build.args(["-p", "lanekeeper-shim", "--bin", "lanekeeper-shim"]);
    let mut program = built.program(workspace);
    program
        .env("ENVOY", step("envoy", || envoy::find(workspace))?)
        .env("LANEKEEPER_PLUGIN_WASM", step("plugin", || plugin::build(workspace))?)
        .env("LANEKEEPER_SHIM", workspace.target.join("release/lanekeeper-shim"))
        .env("LANEKEEPER_REDIS_SERVER", step("redis", redis::find)?)
        .arg("load")
        .args(load.lasts.map(|lasts| format!("--for={lasts}")));
    load.how.tell(&mut program, workspace);
    bench::build_and_run(&mut build, &mut program)
}
