//! What breaks, and how it is mended.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use lanekeeper_tests::redis::cluster::Node;
use lanekeeper_tests::wait;

use super::site::{Kind, Site};
use super::wire::Weather;

/// One thing that goes wrong.
#[derive(Clone, Copy)]
pub struct Fault {
    /// As the figures on file have it.
    pub name: &'static str,
    /// What happens, in words.
    pub says: &'static str,
    pub(super) kind: Kind,
    /// Whether the store can be asked nothing meanwhile, by none of the requests.
    pub(super) is_outage: bool,
    /// Whether requests go with what fails, so that nobody is left to answer them.
    pub(super) takes_requests: bool,
    /// Whether it is over as soon as it can be, and not when its time is.
    pub(super) ends_by_itself: bool,
    pub(super) breaks: fn(&mut Site) -> Result<()>,
    /// Returns as soon as what was broken is as before, or never will be.
    pub(super) mends: fn(&mut Site) -> Result<()>,
}

impl Fault {
    /// Whether there is another shim that answers.
    pub(super) fn has_another_shim(&self) -> bool {
        self.kind == Kind::TwoShims
    }
}

type Act = fn(&mut Site) -> Result<()>;

const fn outage(name: &'static str, says: &'static str, breaks: Act, mends: Act) -> Fault {
    Fault {
        name,
        says,
        kind: Kind::Plain,
        is_outage: true,
        takes_requests: false,
        ends_by_itself: false,
        breaks,
        mends,
    }
}

const fn nuisance(kind: Kind, name: &'static str, says: &'static str, breaks: Act, mends: Act) -> Fault {
    Fault { name, says, kind, is_outage: false, takes_requests: false, ends_by_itself: false, breaks, mends }
}

/// A password that nobody told the shim.
const PASSWORD: &str = "changed";
/// To Redis and back in 50 ms, where the shim waits 15 for an answer.
const SLOW: Weather = Weather::Slow(Duration::from_millis(25));
/// How many slots change their masters.
const MOVED_SLOTS: usize = 3;
/// All of them, in the order of the table.
pub const FAULTS: [Fault; 26] = [
    outage("redis_stopped", "Redis is killed and started again empty", kill_redis, |site| {
        site.redis()?.0.start_again()
    }),
    outage(
        "redis_paused",
        "Redis is stopped by SIGSTOP",
        |site| site.redis()?.0.freeze(),
        |site| site.redis()?.0.thaw(),
    ),
    outage("redis_slow", "Redis takes 50 ms for an answer", |site| to_redis(site, SLOW), clear),
    nuisance(
        Kind::Plain,
        "redis_drops_packets",
        "one segment in ten to and from Redis is lost, and sent again after 200 ms",
        |site| to_redis(site, Weather::Lossy),
        clear,
    ),
    outage(
        "redis_oom",
        "Redis has no memory left",
        |site| site.command(&["CONFIG", "SET", "maxmemory", "1"], None),
        |site| site.command(&["CONFIG", "SET", "maxmemory", "0"], None),
    ),
    outage(
        "redis_readonly",
        "Redis has become a replica",
        |site| site.command(&["REPLICAOF", "127.0.0.1", "1"], None),
        |site| site.command(&["REPLICAOF", "NO", "ONE"], None),
    ),
    outage(
        "redis_password_changed",
        "Redis asks for another password, and closes its connections",
        |site| {
            site.command(&["CONFIG", "SET", "requirepass", PASSWORD], None)?;
            site.command(&["CLIENT", "KILL", "TYPE", "normal"], Some(PASSWORD))
        },
        |site| site.command(&["CONFIG", "SET", "requirepass", ""], Some(PASSWORD)),
    ),
    nuisance(
        Kind::Plain,
        "redis_flushall",
        "Redis forgets all",
        |site| site.command(&["FLUSHALL"], None),
        leave,
    ),
    nuisance(
        Kind::Plain,
        "redis_script_flush",
        "Redis forgets the scripts",
        |site| site.command(&["SCRIPT", "FLUSH"], None),
        leave,
    ),
    outage(
        "cut_envoy_shim",
        "nothing passes between Envoy and the shim",
        |site| to_shim(site, Weather::Cut),
        clear,
    ),
    outage(
        "cut_shim_redis",
        "nothing passes between the shim and Redis",
        |site| to_redis(site, Weather::Cut),
        clear,
    ),
    outage(
        "cut_shim_redis_there",
        "nothing passes from the shim to Redis; answers would",
        |site| to_redis(site, Weather::CutThere),
        clear,
    ),
    outage(
        "cut_shim_redis_back",
        "nothing passes from Redis to the shim; questions do",
        |site| to_redis(site, Weather::CutBack),
        clear,
    ),
    outage(
        "cut_one_way_there",
        "nothing passes from Envoy to the shim; answers would",
        |site| to_shim(site, Weather::CutThere),
        clear,
    ),
    outage(
        "cut_one_way_back",
        "nothing passes from the shim to Envoy; questions do",
        |site| to_shim(site, Weather::CutBack),
        clear,
    ),
    outage("shim_killed", "the shim is killed and started again", kill_shim, |site| site.shim.start_again()),
    outage(
        "shim_paused",
        "the shim is stopped by SIGSTOP",
        |site| site.shim.freeze(),
        |site| site.shim.thaw(),
    ),
    nuisance(
        Kind::TwoShims,
        "one_of_two_shims_killed",
        "one of two shims is killed and started again",
        |site| {
            site.second_shim()?.kill();
            Ok(())
        },
        |site| site.second_shim()?.start_again(),
    ),
    nuisance(
        Kind::TwoShims,
        "one_of_two_shims_paused",
        "one of two shims is stopped by SIGSTOP",
        |site| site.second_shim()?.freeze(),
        |site| site.second_shim()?.thaw(),
    ),
    nuisance(
        Kind::Plain,
        "shim_restarted",
        "another shim takes over from the one that runs",
        |site| site.shim.replace(),
        leave,
    ),
    outage("shim_garbage", "the shim's answers are nonsense", |site| to_shim(site, Weather::Garbled), clear),
    Fault {
        takes_requests: true,
        ..nuisance(
            Kind::Trap,
            "vm_trap",
            "a request traps a worker's VM, and later another one does",
            Site::trap,
            Site::trap,
        )
    },
    nuisance(
        Kind::Clock,
        "clock_jumps",
        "the clock of Redis jumps an hour ahead, and back",
        |site| site.redis()?.0.move_clock("+1h"),
        |site| site.redis()?.0.move_clock("+0"),
    ),
    Fault {
        ends_by_itself: true,
        ..nuisance(
            Kind::Cluster,
            "cluster_master_killed",
            "a master of a Redis Cluster is killed, and its replica takes over",
            |site| {
                let master = site.cluster()?.nodes.first_mut().context("a cluster has nodes")?;
                master.redis.kill();
                Ok(())
            },
            |site| {
                let replica = site.cluster()?.replicas.first().context("each node has a replica")?;
                wait::until("a replica that takes over", || Ok(replica.is_master()?.then_some(())))
            },
        )
    },
    nuisance(
        Kind::Cluster,
        "cluster_slot_moved",
        "slots of a Redis Cluster move to another master",
        move_slots,
        leave,
    ),
    Fault {
        kind: Kind::FullDisk,
        ..outage(
            "log_disk_full",
            "Redis is killed and started again empty, and neither Envoy nor the shim can write a log",
            kill_redis,
            |site| site.redis()?.0.start_again(),
        )
    },
];

fn kill_redis(site: &mut Site) -> Result<()> {
    site.redis()?.0.kill();
    Ok(())
}

fn kill_shim(site: &mut Site) -> Result<()> {
    site.shim.kill();
    Ok(())
}

fn to_redis(site: &mut Site, weather: Weather) -> Result<()> {
    site.redis()?.1.set(weather);
    Ok(())
}

fn to_shim(site: &mut Site, weather: Weather) -> Result<()> {
    site.to_shim.set(weather);
    Ok(())
}

fn clear(site: &mut Site) -> Result<()> {
    to_shim(site, Weather::Fine)?;
    to_redis(site, Weather::Fine)
}

/// There is nothing to mend.
fn leave(_: &mut Site) -> Result<()> {
    Ok(())
}

/// Moves slots of the first master to the second one, with the keys in them.
fn move_slots(site: &mut Site) -> Result<()> {
    let cluster = site.cluster()?;
    let (from, to) = cluster.nodes.first().zip(cluster.nodes.get(1)).context("a cluster has nodes")?;
    for slot in slots(from)?.into_iter().take(MOVED_SLOTS) {
        cluster.begin_move(slot, from, to)?;
        // so that requests come while it is under way
        thread::sleep(Duration::from_millis(100));
        cluster.end_move(slot, from, to)?;
    }
    Ok(())
}

/// Slots of this node that have keys.
fn slots(node: &Node) -> Result<Vec<u16>> {
    let keys: Vec<String> = node.run(&["KEYS", "*"])?;
    let mut slots =
        keys.iter().map(|key| node.run(&["CLUSTER", "KEYSLOT", key])).collect::<Result<Vec<u16>>>()?;
    slots.sort_unstable();
    slots.dedup();
    Ok(slots)
}
