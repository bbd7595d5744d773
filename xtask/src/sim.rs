//! `cargo xtask sim`: what leases cost, and whether they keep the promise, on a virtual clock.

use anyhow::{Result, bail};
use clap::Args;

use crate::bench::{self, How, HowBuilt};
use crate::workspace::Workspace;

/// What is simulated.
#[derive(Args)]
pub(crate) struct Sim {
    /// Only this scenario; `cargo xtask sim --scenario help` names them.
    #[arg(long)]
    scenario: Option<String>,
    /// Another run of the same kind. The same seed is the same run, to the microsecond.
    #[arg(long)]
    seed: Option<u64>,
    /// Instead: what leases cost with other numbers of nodes, workers and subjects.
    #[arg(long, conflicts_with_all = ["scenario", "short"])]
    sweep: bool,
    #[command(flatten)]
    how: How,
}

pub(crate) fn run(workspace: &Workspace, sim: &Sim) -> Result<()> {
    if sim.how.record && (sim.scenario.is_some() || sim.seed.is_some()) {
        bail!("all scenarios are recorded together, with the seed that everybody has");
    }
    let mut program = HowBuilt::Optimized.program(workspace);
    program.arg("sim");
    program.args(sim.scenario.iter().flat_map(|name| ["--scenario", name]));
    program.args(sim.seed.map(|seed| format!("--seed={seed}")));
    program.args(sim.sweep.then_some("--sweep"));
    sim.how.tell(&mut program, workspace);
    bench::build_and_run(&mut HowBuilt::Optimized.build(), &mut program)
}
