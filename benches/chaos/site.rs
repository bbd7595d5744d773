//! Everything that a case runs on, all of its own: a service, Envoy, the shim and Redis, and a wire between any two that
//! a network would be between.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use lanekeeper_tests::client::{Client, TRUSTED};
use lanekeeper_tests::envoy::{Envoy, Setup};
use lanekeeper_tests::redis::Redis;
use lanekeeper_tests::redis::cluster::Cluster;
use lanekeeper_tests::shim_process::ShimProcess;
use serde_json::{Value, json};

use super::traffic;
use super::wire::{Server, Wire};
use crate::upstream::Upstream;

/// What is special about a case's site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nothing: one Redis.
    Plain,
    /// A Redis whose clock can be moved.
    Clock,
    /// A Redis Cluster, each of whose masters has a replica.
    Cluster,
    /// A filter that traps on demand.
    Trap,
    /// The disk that Envoy and the shim log to is full.
    FullDisk,
    /// A second shim beside the first, both for Envoy to choose from.
    TwoShims,
}

/// A path on a disk that is always full.
const FULL: &str = "/dev/full";

/// What runs.
pub(super) struct Site {
    pub(super) envoy: Envoy,
    pub(super) shim: ShimProcess,
    /// From Envoy to the shim.
    pub(super) to_shim: Wire,
    /// The second one. Envoy reaches it without a wire, which would still accept connections to a shim that is gone.
    second: Option<ShimProcess>,
    pub(super) store: Store,
}

/// What the shim counts in.
pub(super) enum Store {
    /// One Redis, at the end of a wire from the shim.
    One { redis: Redis, wire: Wire },
    /// Its nodes talk to each other and to the shim without a wire: they tell their addresses themselves.
    Cluster(Cluster),
}

impl Site {
    /// Starts it all. The filter waits for the shim so long, and the shim for Redis three quarters of it, as both do by
    /// default.
    pub(super) fn start(kind: Kind, timeout: Duration) -> Result<Self> {
        let store = Store::start(kind)?;
        let of_store = format!("{}ms", (timeout * 3 / 4).as_millis());
        let start_shim = || ShimProcess::start_with(&store.url(), &["--store-timeout", &of_store]);
        let mut shim = start_shim()?;
        if kind == Kind::FullDisk {
            shim.log_into(PathBuf::from(FULL));
            shim.start_again()?;
        }
        let to_shim = Wire::to(Server::Tcp(shim.address()))?;
        let second = (kind == Kind::TwoShims).then(start_shim).transpose()?;
        let shims = std::iter::once(to_shim.address()).chain(second.as_ref().map(ShimProcess::address));
        let upstream = Upstream::start()?;
        let setup =
            Setup::new(upstream.address).policy(traffic::policy(timeout)).shims(shims.collect::<Vec<_>>());
        let setup = match kind {
            Kind::Trap => setup.trapping(),
            Kind::FullDisk => setup.edited(with_full_access_log),
            Kind::Plain | Kind::Clock | Kind::Cluster | Kind::TwoShims => setup,
        };
        Ok(Self { envoy: setup.start()?, shim, to_shim, second, store })
    }

    /// The second shim.
    pub(super) fn second_shim(&mut self) -> Result<&mut ShimProcess> {
        self.second.as_mut().context("this case has one shim")
    }

    /// The one Redis and its wire.
    pub(super) fn redis(&mut self) -> Result<(&mut Redis, &Wire)> {
        match &mut self.store {
            Store::One { redis, wire } => Ok((redis, wire)),
            Store::Cluster(_) => bail!("this case has a cluster"),
        }
    }

    /// The cluster.
    pub(super) fn cluster(&mut self) -> Result<&mut Cluster> {
        match &mut self.store {
            Store::Cluster(cluster) => Ok(cluster),
            Store::One { .. } => bail!("this case has no cluster"),
        }
    }

    /// Has Redis do this, as one who knows its password.
    pub(super) fn command(&mut self, words: &[&str], password: Option<&str>) -> Result<()> {
        let password = password.map_or_else(String::new, |password| format!("?pass={password}"));
        let url = format!("redis+unix://{}{password}", self.redis()?.0.socket().display());
        let (name, rest) = words.split_first().context("a command has a name")?;
        let mut connection = redis::Client::open(url)?.get_connection()?;
        Ok(redis::cmd(name).arg(rest).exec(&mut connection)?)
    }

    /// Sends a request that traps a worker's VM, over a connection of its own. It is not in the account.
    pub(super) fn trap(&mut self) -> Result<()> {
        let client = Client::unkept(TRUSTED)?;
        let answer = client.get(&self.envoy.url("/free"), &[("x-lanekeeper-trap", b"now")])?;
        ensure!(answer.status == 503, "a request that was to trap was answered {}", answer.status);
        Ok(())
    }
}

impl Store {
    fn start(kind: Kind) -> Result<Self> {
        let redis = match kind {
            Kind::Cluster => return Ok(Self::Cluster(Cluster::start_replicated()?)),
            Kind::Clock => Redis::start_movable()?,
            Kind::Plain | Kind::Trap | Kind::FullDisk | Kind::TwoShims => Redis::start()?,
        };
        let wire = Wire::to(Server::Unix(redis.socket()))?;
        Ok(Self::One { redis, wire })
    }

    /// As the shim is told it.
    fn url(&self) -> String {
        match self {
            Self::One { wire, .. } => format!("redis://{}", wire.address()),
            Self::Cluster(cluster) => cluster.url(),
        }
    }
}

fn with_full_access_log(_: &mut Value, listener: &mut Value) {
    let log = json!({
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": FULL,
        },
    });
    if let Some(Value::Object(manager)) = listener.pointer_mut("/filter_chains/0/filters/0/typed_config") {
        manager.insert("access_log".to_owned(), json!([log]));
    }
}
