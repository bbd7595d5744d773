//! One case, running: an Envoy, and for some cases the shim and the Redis behind it.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lanekeeper_tests::envoy::{Envoy, Setup};
use lanekeeper_tests::redis::Redis;
use lanekeeper_tests::shim_process::ShimProcess;
use rustix::thread::Pid;
use tempfile::TempDir;

use super::case::{self, Case};
use crate::cores::{Cores, on_core};
use crate::cpu;
use crate::upstream::Upstream;

const EMPTY: &str = include_str!("empty.wat");

/// Envoy has a core of its own. All others share the second one.
pub(super) struct Site {
    pub(super) envoy: Envoy,
    store: Option<Store>,
    // the module must be there for as long as Envoy may load it
    _module: Option<TempDir>,
}

struct Store {
    redis: Redis,
    shim: ShimProcess,
}

/// What has been used so far, by everybody.
pub(super) struct Used {
    pub(super) envoy: Duration,
    pub(super) shim: Duration,
    pub(super) redis: Duration,
    pub(super) upstream: Duration,
    pub(super) load: Duration,
    /// Scripts that Redis was asked to run.
    pub(super) commands: u64,
}

impl Site {
    pub(super) fn start(case: Case, cores: Cores, upstream: &Upstream) -> Result<Self> {
        let (mut store, mut module) = (None, None);
        let mut setup = Setup::new(upstream.address).workers(1);
        match case {
            Case::None => setup = setup.unfiltered(),
            Case::LocalRatelimit => setup = setup.with_filter_instead(case::local_ratelimit()),
            Case::EmptyWasm => {
                let folder = tempfile::tempdir()?;
                let file = folder.path().join("empty.wasm");
                fs::write(&file, wat::parse_str(EMPTY)?)?;
                setup = setup.with_filter_instead(case::wasm(&file));
                module = Some(folder);
            }
            Case::Standalone => {}
            Case::Leased | Case::Strict => {
                let started = on_core(cores.second, Store::start)?;
                setup = setup.store(started.shim.address());
                store = Some(started);
            }
        }
        if let Some(policy) = case.policy() {
            setup = setup.policy(policy);
        }
        let envoy = on_core(cores.first, || setup.start())?;
        Ok(Self { envoy, store, _module: module })
    }

    /// What has been used, while `load` asks.
    pub(super) fn used(&self, upstream: &Upstream, load: Pid) -> Result<Used> {
        let of_store =
            |of: fn(&Store) -> Result<Duration>| self.store.as_ref().map_or(Ok(Duration::ZERO), of);
        Ok(Used {
            envoy: cpu::of_process(self.envoy.pid())?,
            shim: of_store(|store| cpu::of_process(store.shim.pid().context("the shim is down")?))?,
            redis: of_store(|store| cpu::of_process(store.redis.pid().context("redis is down")?))?,
            upstream: cpu::of_thread(upstream.thread)?,
            load: cpu::of_thread(load)?,
            commands: self.store.as_ref().map_or(Ok(0), |store| scripts(&store.redis))?,
        })
    }

    /// An error where our filter has let requests pass without the judge of this case.
    pub(super) fn is_judged(&self, case: Case) -> Result<()> {
        let admitted = |labels: &[(&str, &str)]| {
            let admitted = [&[("outcome", "admitted")], labels].concat();
            self.envoy.admin().metric("lanekeeper_decisions_total", &admitted)
        };
        let (all, here) = (admitted(&[])?, admitted(&[("source", "local")])?);
        match case {
            Case::None | Case::EmptyWasm | Case::LocalRatelimit => ensure!(all == 0, "ours has judged"),
            Case::Standalone => ensure!(here == all && all > 0, "{here} of {all} were counted on this node"),
            Case::Leased => ensure!(here == 0 && all > 0, "{here} of {all} were counted on this node"),
            Case::Strict => {
                let asked = admitted(&[("source", "store")])?;
                ensure!(asked == all && all > 0, "{asked} of {all} were asked of the store");
            }
        }
        Ok(())
    }
}

impl Store {
    fn start() -> Result<Self> {
        let redis = Redis::start()?;
        let shim = ShimProcess::start(&redis.url())?;
        Ok(Self { redis, shim })
    }
}

/// How many scripts Redis has been sent. What a script calls in its turn is not sent by anybody.
fn scripts(redis: &Redis) -> Result<u64> {
    let info: String = redis::cmd("INFO").arg("commandstats").query(&mut redis.connect()?)?;
    let of = |line: &str| -> Option<u64> {
        let rest = line.strip_prefix("cmdstat_eval")?;
        rest.split_once("calls=")?.1.split(',').next()?.parse().ok()
    };
    Ok(info.lines().filter_map(of).sum())
}
