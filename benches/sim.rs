//! What do leases cost, and do they keep the promise?
//!
//! Nodes of several workers run the engine's own ledger, refusals and questions; the store is the shim's embedded one. Between
//! them is a network that is slow, loses, doubles and reorders, and everything may crash. One clock drives it all and one
//! seed decides it, so a run can be played again to the microsecond.
//!
//! At every admission an exact log is asked: no trailing window of any subject may hold more than its limit, over all nodes.
//! Beside it an oracle, an exact limiter on one machine without delay, judges the same requests and says what was
//! refused for no reason.
//!
//! A request that the store cannot decide fails here: what a node admits by itself then (`on_failure`) is no matter of leases.

mod agenda;
mod cells;
mod clock;
mod demand;
mod figures;
mod log;
mod network;
mod scenario;
mod store;
pub mod sweep;
mod trace;
mod watch;
mod worker;
mod world;

use std::time::Instant;

use anyhow::{Result, bail};

pub use figures::{Figures, MOST_UNDER_ADMISSION};
pub use network::Network;
pub use scenario::{Failover, Goals, Phase, Population, Scenario, Size, Troubles, all};

use demand::Demand;
use trace::Trace;
use watch::Violation;
use world::{Ended, World};

/// Runs a simulation. It ends with an error at the first window over its limit, with the seed and what happened last.
/// `progress` hears how many requests came since it last heard.
pub fn run(scenario: &Scenario, seed: u64, progress: &dyn Fn(u64)) -> Result<Figures> {
    let began = Instant::now();
    let mut world = World::new(scenario, seed, Trace::default());
    let ended = world.run(Demand::of(scenario, seed), progress)?;
    let violation = match ended {
        Ended::Broken(violation) => Some(violation),
        Ended::Well => world.watch.beyond_what_was_lost(),
    };
    match violation {
        Some(violation) => bail!(explained(scenario, seed, &violation)?),
        None => Ok(Figures::of(scenario, &world.tally, &world.watch, began.elapsed())),
    }
}

/// Which promise is broken, and, from a replay, how.
fn explained(scenario: &Scenario, seed: u64, violation: &Violation) -> Result<String> {
    let Violation { subject, window } = violation;
    let mut replay = World::new(scenario, seed, Trace::of(*subject));
    replay.run(Demand::of(scenario, seed), &|_| {})?;
    let name = &scenario.name;
    let short = if scenario.size == Size::Short { " --short" } else { "" };
    Ok(format!(
        "over-admission: window {window} of subject {subject} holds more than its limit. The last events around it:\n\n{}\n\
         Seed {seed}; play it again with `cargo xtask sim --scenario {name} --seed {seed}{short}`",
        replay.trace.text()
    ))
}

#[cfg(test)]
mod tests;
