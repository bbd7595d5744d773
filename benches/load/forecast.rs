//! What ten machines would ask of the store, each with the load of this one and the same users: simulated.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use lanekeeper_engine::window::{Algorithm, Window, WindowError};

use super::Size;
use super::traffic::{self, BUSY, BUSY_SHARE, NORMAL, OTHERS, SHADOW, SHADOW_SHARE};
use crate::sim::{self, Figures, Network, Phase, Population, Scenario, Troubles};

const MACHINES: u32 = 10;
/// The two Envoys of a machine here, with two workers each, are as one node there.
const WORKERS: u32 = 4;
/// A longer load is no other.
const LONGEST: Duration = Duration::from_secs(120);

/// The simulation: the same users send ten times as many requests, and each user's come to all machines.
pub fn scenario(size: &Size) -> Result<Scenario, WindowError> {
    let lasts = size.lasts.min(LONGEST);
    let all = f64::from(MACHINES) * size.per_sec;
    let mut populations = Vec::new();
    for (lane_share, limits) in [(1.0 - SHADOW_SHARE, NORMAL), (SHADOW_SHARE, SHADOW)] {
        let windows = windows(limits)?;
        for (users, share) in [(BUSY, BUSY_SHARE), (OTHERS, 1.0 - BUSY_SHARE)] {
            let phase =
                |(from, times): (Duration, f64)| Phase { from, per_sec: times * share * lane_share * all };
            populations.push(Population {
                clients: users,
                phases: traffic::phases(lasts).map(phase).to_vec(),
                windows: Arc::clone(&windows),
                judged: false,
            });
        }
    }
    Ok(Scenario {
        name: "load".to_owned(),
        size: sim::Size::Full,
        says: format!(
            "ten machines with the load of `cargo xtask load`: {all:.0} requests/s, three times as many in a spike"
        ),
        nodes: MACHINES,
        workers: WORKERS,
        lasts,
        populations,
        shared: None,
        network: Network::GOOD,
        troubles: Troubles::default(),
        goals: None,
    })
}

/// Runs it. Each run is the same.
pub(super) fn simulate(size: &Size) -> Result<Figures> {
    sim::run(&scenario(size)?, 1, &|_| ())
}

fn windows((minute, hour): (u32, u32)) -> Result<Arc<[Window]>, WindowError> {
    let of = |limit, secs| Window::new(limit, Duration::from_secs(secs), Algorithm::SlidingWindow);
    Ok(Arc::new([of(minute, 60)?, of(hour, 3600)?]))
}
