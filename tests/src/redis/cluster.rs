//! A real Redis Cluster of three masters, whose slots can be moved, and whose replicas can take over.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use redis::{FromRedisValue, Value};

use super::Redis;
use super::tls::Ca;
use crate::port::free_address;
use crate::wait;

/// How many slots there are.
pub const SLOTS: usize = 16_384;

/// Three masters, each with a third of the slots.
pub struct Cluster {
    /// The nodes.
    pub nodes: Vec<Node>,
    /// The replicas, in the order in which they were added.
    pub replicas: Vec<Node>,
    scheme: &'static str,
}

/// A node of a cluster.
pub struct Node {
    /// The server.
    pub redis: Redis,
    /// Where it listens.
    pub address: SocketAddr,
    id: String,
}

impl Cluster {
    /// Starts an empty one, and waits until all of its nodes agree.
    pub fn start() -> Result<Self> {
        Self::start_as(None)
    }

    /// Starts one whose nodes talk TLS, among themselves too, with certificates that `ca` signs.
    pub fn start_tls(ca: &Ca) -> Result<Self> {
        Self::start_as(Some(ca))
    }

    /// Starts one whose masters have a replica each, which takes over within a second or two. Meanwhile the others go
    /// on, as large clusters are set.
    pub fn start_replicated() -> Result<Self> {
        let mut cluster = Self::start()?;
        for at in 0..cluster.nodes.len() {
            cluster.add_replica(at)?;
        }
        for node in cluster.nodes.iter().chain(&cluster.replicas) {
            for (name, value) in [
                ("cluster-node-timeout", "500"),
                // However long it has not heard of its master: it takes over.
                ("cluster-replica-validity-factor", "0"),
                ("cluster-require-full-coverage", "no"),
            ] {
                node.run::<()>(&["CONFIG", "SET", name, value])?;
            }
        }
        wait::until("nodes that know all replicas", || {
            for node in cluster.nodes.iter().chain(&cluster.replicas) {
                let nodes: String = node.run(&["CLUSTER", "NODES"])?;
                let replicas =
                    nodes.lines().filter(|line| line.contains("slave") && line.contains(" connected"));
                if replicas.count() != cluster.nodes.len() {
                    return Ok(None);
                }
            }
            Ok(Some(()))
        })?;
        Ok(cluster)
    }

    /// Waits until the replica at `at` has all that its master has now.
    pub fn settle(&self, at: usize) -> Result<()> {
        let (master, replica) =
            (self.nodes.get(at).context("no such node")?, self.replicas.get(at).context("no such replica")?);
        let written = master.offset()?;
        wait::until("a replica in step", || Ok((replica.offset()? >= written).then_some(())))
    }

    fn start_as(ca: Option<&Ca>) -> Result<Self> {
        let nodes = (0..3).map(|_| Node::start(ca)).collect::<Result<Vec<_>>>()?;
        let first = nodes.first().context("a cluster has nodes")?;
        for (at, node) in nodes.iter().enumerate() {
            let (from, to) = (at * SLOTS / nodes.len(), (at + 1) * SLOTS / nodes.len() - 1);
            node.run::<()>(&["CLUSTER", "SET-CONFIG-EPOCH", &(at + 1).to_string()])?;
            node.run::<()>(&["CLUSTER", "ADDSLOTSRANGE", &from.to_string(), &to.to_string()])?;
        }
        for node in nodes.iter().skip(1) {
            let (port, bus) = (node.address.port().to_string(), node.bus()?);
            first.run::<()>(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus])?;
        }
        let cluster =
            Self { nodes, replicas: Vec::new(), scheme: if ca.is_some() { "rediss" } else { "redis" } };
        wait::until("a cluster whose nodes agree", || Ok(cluster.agrees()?.then_some(())))?;
        Ok(cluster)
    }

    /// Gives the node at `at` a replica, and waits until it follows. For a cluster without TLS.
    pub fn add_replica(&mut self, at: usize) -> Result<()> {
        let (master, replica) = (self.nodes.get(at).context("no such node")?, Node::start(None)?);
        let (port, bus) = (replica.address.port().to_string(), replica.bus()?);
        master.run::<()>(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus])?;
        // It refuses until it has heard of its master.
        wait::until("a replica", || Ok(replica.run::<()>(&["CLUSTER", "REPLICATE", &master.id]).ok()))?;
        wait::until("a replica that follows", || {
            let info: String = master.run(&["INFO", "replication"])?;
            Ok(info.contains("state=online").then_some(()))
        })?;
        self.replicas.push(replica);
        Ok(())
    }

    /// Its address for the shim: two of its nodes.
    pub fn url(&self) -> String {
        let hosts: Vec<String> = self.nodes.iter().take(2).map(|node| node.address.to_string()).collect();
        format!("{}-cluster://{}", self.scheme, hosts.join(","))
    }

    /// The processes of all that are up, masters first.
    pub fn pids(&self) -> impl Iterator<Item = u32> {
        self.nodes.iter().chain(&self.replicas).filter_map(|node| node.redis.pid())
    }

    /// Which node has `slot`.
    pub fn owner(&self, slot: u16) -> Result<usize> {
        for (at, node) in self.nodes.iter().enumerate() {
            if node.redis_says_mine(slot)? {
                return Ok(at);
            }
        }
        anyhow::bail!("nobody has slot {slot}")
    }

    /// Opens the move of `slot` from one node to another: from now on keys may be at either.
    pub fn begin_move(&self, slot: u16, from: &Node, to: &Node) -> Result<()> {
        to.run::<()>(&["CLUSTER", "SETSLOT", &slot.to_string(), "IMPORTING", &from.id])?;
        from.run::<()>(&["CLUSTER", "SETSLOT", &slot.to_string(), "MIGRATING", &to.id])
    }

    /// Moves one key.
    pub fn move_key(&self, key: &str, from: &Node, to: &Node) -> Result<()> {
        let port = to.address.port().to_string();
        from.run::<Value>(&["MIGRATE", "127.0.0.1", &port, key, "0", "5000"]).map(drop)
    }

    /// Moves the keys of `slot` that are left, and closes the move.
    pub fn end_move(&self, slot: u16, from: &Node, to: &Node) -> Result<()> {
        let slot = slot.to_string();
        for key in from.run::<Vec<String>>(&["CLUSTER", "GETKEYSINSLOT", &slot, "1000"])? {
            self.move_key(&key, from, to)?;
        }
        to.run::<()>(&["CLUSTER", "SETSLOT", &slot, "NODE", &to.id])?;
        from.run::<()>(&["CLUSTER", "SETSLOT", &slot, "NODE", &to.id])?;
        // A node that has not heard of this move would lose the slot again after the next one.
        wait::until("nodes that have heard of a move", || {
            let views = self.nodes.iter().map(Node::view).collect::<Result<Vec<_>>>()?;
            Ok(views.windows(2).all(|pair| matches!(pair, [one, other] if one == other)).then_some(()))
        })
    }

    fn agrees(&self) -> Result<bool> {
        for node in &self.nodes {
            let info: String = node.run(&["CLUSTER", "INFO"])?;
            let says = |line: &str| info.lines().any(|said| said == line);
            if !(says("cluster_state:ok") && says("cluster_slots_ok:16384") && says("cluster_known_nodes:3"))
            {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl Node {
    fn start(ca: Option<&Ca>) -> Result<Self> {
        let (address, bus) = (free_address()?, free_address()?);
        let settings = [
            ("--bind", "127.0.0.1".to_owned()),
            ("--cluster-port", bus.port().to_string()),
            ("--cluster-enabled", "yes".to_owned()),
            ("--cluster-node-timeout", "2000".to_owned()),
            // a replica follows at once, and not five seconds later
            ("--repl-diskless-sync-delay", "0".to_owned()),
            if ca.is_some() {
                ("--tls-cluster", "yes".to_owned())
            } else {
                ("--port", address.port().to_string())
            },
        ];
        let mut settings: Vec<String> =
            settings.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect();
        if let Some(ca) = ca {
            settings.extend(ca.settings("127.0.0.1", address)?);
        }
        let redis = Redis::start_with(settings)?;
        let mut node = Self { redis, address, id: String::new() };
        node.id = node.run(&["CLUSTER", "MYID"])?;
        Ok(node)
    }

    /// Runs a command here, whoever its keys belong to.
    pub fn run<T: FromRedisValue>(&self, words: &[&str]) -> Result<T> {
        let (name, rest) = words.split_first().context("a command has a name")?;
        Ok(redis::cmd(name).arg(rest).query(&mut self.redis.connect()?)?)
    }

    /// Whether it is a master.
    pub fn is_master(&self) -> Result<bool> {
        let role: Vec<Value> = self.run(&["ROLE"])?;
        Ok(role.first() == Some(&Value::BulkString(b"master".to_vec())))
    }

    /// How far it is in what its master, or itself, has written.
    fn offset(&self) -> Result<u64> {
        let info: String = self.run(&["INFO", "replication"])?;
        let field = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        field("slave_repl_offset:").or_else(|| field("master_repl_offset:")).context("no offset")
    }

    /// Each node, its epoch and its slots, as this one sees them.
    fn view(&self) -> Result<Vec<String>> {
        let nodes: String = self.run(&["CLUSTER", "NODES"])?;
        let seen = |line: &str| {
            let words: Vec<&str> = line.split(' ').collect();
            let slots = words.iter().skip(8).filter(|slots| !slots.starts_with('['));
            words.first().into_iter().chain(words.get(6)).chain(slots).copied().collect::<Vec<_>>().join(" ")
        };
        let mut nodes: Vec<String> = nodes.lines().map(seen).collect();
        nodes.sort();
        Ok(nodes)
    }

    fn bus(&self) -> Result<String> {
        let (_, port): (String, String) = self.run(&["CONFIG", "GET", "cluster-port"])?;
        Ok(port)
    }

    fn redis_says_mine(&self, slot: u16) -> Result<bool> {
        let nodes: String = self.run(&["CLUSTER", "NODES"])?;
        let own = nodes.lines().find(|line| line.contains("myself")).context("a node knows itself")?;
        let is_within = |range: &str| {
            let (from, to) = range.split_once('-').unwrap_or((range, range));
            matches!((from.parse::<u16>(), to.parse::<u16>()), (Ok(from), Ok(to)) if from <= slot && slot <= to)
        };
        Ok(own.split(' ').skip(8).any(is_within))
    }
}
