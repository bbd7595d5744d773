//! What carries the load, on loopback: two Envoys, a shim for each, and a Redis Cluster of three masters with a replica
//! each.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use lanekeeper_tests::envoy::{Envoy, Setup};
use lanekeeper_tests::redis::cluster::Cluster;
use lanekeeper_tests::shim_process::ShimProcess;
use rustix::param::page_size;

use super::traffic;
use crate::cpu;
use crate::upstream::Upstream;

const ENVOYS: usize = 2;
const MASTERS: usize = 3;

/// All processes.
pub(super) struct Site {
    envoys: Vec<Envoy>,
    store: Option<Store>,
    _upstream: Upstream,
}

/// The shims end first, as they would warn of a cluster that is gone.
struct Store {
    shims: Vec<ShimProcess>,
    cluster: Cluster,
}

/// A process, by a name for people.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Named {
    pub(super) name: String,
    pid: u32,
}

impl Site {
    /// With our filter, and so with a store; or with neither, to compare.
    pub(super) fn start(is_filtered: bool) -> Result<Self> {
        let upstream = Upstream::start()?;
        let store = is_filtered.then(Store::start).transpose()?;
        let setup = |at: usize| {
            let setup = Setup::new(upstream.address);
            let shim = store.as_ref().and_then(|store| store.shims.get(at));
            let setup = match shim {
                Some(shim) => setup.store(shim.address()).policy(traffic::policy()),
                None => setup.unfiltered(),
            };
            setup.start()
        };
        let envoys = (0..ENVOYS).map(setup).collect::<Result<_>>()?;
        Ok(Self { envoys, store, _upstream: upstream })
    }

    /// Whom to ask.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.envoys.iter().map(Envoy::address).collect()
    }

    /// All of them, with the one that asks and has the upstream in it.
    pub(super) fn processes(&self) -> Vec<Named> {
        let named = |kind: &'static str, pids: Vec<u32>| {
            (1..).zip(pids).map(move |(at, pid)| Named { name: format!("{kind} {at}"), pid })
        };
        let mut all = vec![Named { name: "the load".to_owned(), pid: std::process::id() }];
        all.extend(named("Envoy", self.envoys.iter().map(Envoy::pid).collect()));
        if let Some(Store { cluster, shims }) = &self.store {
            all.extend(named("shim", shims.iter().filter_map(ShimProcess::pid).collect()));
            all.extend(named("Redis", cluster.pids().collect()));
        }
        all
    }

    /// The processor time that the servers of Redis have used.
    pub(super) fn store_cpu(&self) -> Result<Duration> {
        self.store.iter().flat_map(|store| store.cluster.pids()).map(cpu::of_process).sum()
    }
}

impl Store {
    fn start() -> Result<Self> {
        let mut cluster = Cluster::start()?;
        (0..MASTERS).try_for_each(|at| cluster.add_replica(at))?;
        let url = cluster.url();
        let shims = (0..ENVOYS).map(|_| ShimProcess::start(&url)).collect::<Result<_>>()?;
        Ok(Self { shims, cluster })
    }
}

impl Named {
    /// What it holds of the machine's memory, KiB.
    pub(super) fn resident_kib(&self) -> Result<f64> {
        let path = format!("/proc/{}/statm", self.pid);
        let text = fs::read_to_string(&path).with_context(|| format!("{} has ended", self.name))?;
        let pages: f64 = text.split_whitespace().nth(1).context("an empty statm")?.parse()?;
        Ok(pages * page_size() as f64 / 1024.0)
    }
}
