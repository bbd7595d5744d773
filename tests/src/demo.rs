//! The demo: what Lanekeeper promises, shown on a real Envoy in a few seconds.
//!
//! Each step checks what it shows, so the demo fails when a promise is broken; the acceptance tests run the same steps.

use std::io::Write;

use anyhow::{Result, bail};
use serde_json::Value;

use crate::envoy::{Envoy, Setup, Shipped, WORKERS};
use crate::shim_process::ShimProcess;
use crate::upstream::Upstream;

mod steps;

pub use steps::{
    a_flood_stays_in_its_lane, a_forged_flag_counts_as_normal, a_typo_is_refused, a_user_is_limited,
    the_node_counts_without_the_store, the_store_decides_again,
};

/// What a step has to show: figures for its line, and what stands below it.
#[derive(Clone, Debug)]
pub struct Shown {
    /// The figures, short.
    pub figures: String,
    /// Lines that belong below; mostly none.
    pub below: Vec<String>,
}

/// Told how many of how many requests are done, as often as one is.
pub type Progress = fn(done: usize, of: usize);

/// A step of the demo. It needs nothing that an earlier one has done.
pub type Step = fn(&mut Stage) -> Result<Shown>;

/// The steps in their order, each under its title.
pub const STEPS: [(&str, Step); 6] = [
    ("alice, 10 a minute", a_user_is_limited),
    ("a stress test floods the shadow lane", a_flood_stays_in_its_lane),
    ("a flag forged by an untrusted client", a_forged_flag_counts_as_normal),
    ("the shim is killed", the_node_counts_without_the_store),
    ("the shim is started again", the_store_decides_again),
    ("a policy with a typo", a_typo_is_refused),
];

/// What the demo runs on.
#[derive(Debug)]
pub struct Stage {
    envoy: Envoy,
    upstream: Upstream,
    shim: ShimProcess,
    progress: Progress,
}

impl Stage {
    /// Starts Envoy with the shipped demo configuration, an upstream, and the shim with its embedded store.
    pub fn start(progress: Progress) -> Result<Self> {
        let upstream = Upstream::start()?;
        let shim = ShimProcess::start("memory")?;
        let envoy = Setup::new(upstream.address()).store(shim.address()).start()?;
        Ok(Self { envoy, upstream, shim, progress })
    }
}

/// The policy of `envoy/demo/policy.yaml`.
pub fn policy() -> Result<Value> {
    Shipped::Demo.policy()
}

/// Runs all steps and shows each in a line; an error if one does not hold.
pub fn run(out: &mut impl Write, progress: Progress) -> Result<()> {
    let mut stage = Stage::start(progress)?;
    let version = stage.envoy.admin().version()?;
    writeln!(
        out,
        "Envoy {version} with {WORKERS} workers, one service behind it, and the shim with its embedded store."
    )?;
    writeln!(out, "The policy is envoy/demo/policy.yaml.\n")?;
    let mut broken = 0;
    for (title, step) in STEPS {
        match step(&mut stage) {
            Ok(shown) => {
                writeln!(out, "✓ {title:<37} {}", shown.figures)?;
                shown.below.iter().try_for_each(|line| writeln!(out, "    {line}"))?;
            }
            Err(error) => {
                broken += 1;
                writeln!(out, "✗ {title:<37} {error:#}")?;
            }
        }
        out.flush()?;
    }
    if broken > 0 {
        writeln!(out, "\nEnvoy's log:\n{}", stage.envoy.log())?;
        bail!("{broken} of {} steps did not hold", STEPS.len());
    }
    writeln!(out, "\nAll {} steps hold.", STEPS.len())?;
    Ok(())
}
