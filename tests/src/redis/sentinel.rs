//! A master, its replica, and a real Sentinel that fails over from one to the other.

use std::fs;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use anyhow::Result;
use redis::Value;
use tempfile::TempDir;

use super::{Redis, program};
use crate::clock::Shift;
use crate::port::free_address;
use crate::process::Process;
use crate::wait;

/// The name that the Sentinel knows the master by.
pub const MASTER: &str = "counters";

/// Two servers under a Sentinel.
pub struct Watched {
    /// The master first, until a failover.
    pub servers: [Redis; 2],
    /// Where they listen.
    pub addresses: [SocketAddr; 2],
    address: SocketAddr,
    _folder: TempDir,
    _sentinel: Process,
}

impl Watched {
    /// Starts all three, and waits until the Sentinel knows both servers and the replica is in step.
    pub fn start() -> Result<Self> {
        Self::start_as(None)
    }

    /// The same, with a replica whose clock is not the machine's.
    pub fn start_shifted(replica: Shift) -> Result<Self> {
        Self::start_as(Some(replica))
    }

    fn start_as(clock: Option<Shift>) -> Result<Self> {
        let (address, addresses) = (free_address()?, [free_address()?, free_address()?]);
        let listen = |at: &SocketAddr| {
            ["--bind", "127.0.0.1", "--port", &at.port().to_string()].map(str::to_owned).to_vec()
        };
        let [master, replica] = &addresses;
        let servers = [Redis::start_with(listen(master))?, Redis::start_as(listen(replica), clock)?];
        run(&servers[1], &["REPLICAOF", "127.0.0.1", &master.port().to_string()])?;
        let folder = tempfile::Builder::new().prefix("lanekeeper-sentinel-").tempdir()?;
        let settings = folder.path().join("sentinel.conf");
        let port = master.port();
        fs::write(
            &settings,
            format!(
                "port {}\nbind 127.0.0.1\ndir {}\nsentinel monitor {MASTER} 127.0.0.1 {port} 1\n\
                 sentinel down-after-milliseconds {MASTER} 500\nsentinel failover-timeout {MASTER} 3000\n",
                address.port(),
                folder.path().display(),
            ),
        )?;
        let sentinel = Process::start(
            Command::new(program())
                .arg(&settings)
                .arg("--sentinel")
                .stdin(Stdio::null())
                .stdout(Stdio::null()),
        )?;
        let watched = Self { servers, addresses, address, _folder: folder, _sentinel: sentinel };
        wait::until("a Sentinel that knows the replica", || Ok(watched.is_complete().then_some(())))?;
        Ok(watched)
    }

    /// Its address for the shim.
    pub fn url(&self) -> String {
        format!("redis-sentinel://{}/{MASTER}", self.address)
    }

    /// Has the Sentinel make the replica the master, as an operator does.
    pub fn fail_over(&self) -> Result<()> {
        let mut sentinel = redis::Client::open(format!("redis://{}", self.address))?.get_connection()?;
        Ok(redis::cmd("SENTINEL").arg("FAILOVER").arg(MASTER).exec(&mut sentinel)?)
    }

    /// Waits until the replica has all that the master has.
    pub fn settle(&self) -> Result<()> {
        let [master, _] = &self.servers;
        // Waits for one replica, and at most as many milliseconds.
        let in_step = || Ok((run(master, &["WAIT", "1", "1000"])? == Value::Int(1)).then_some(()));
        wait::until("a replica in step", in_step)
    }

    fn is_complete(&self) -> bool {
        let replicas = redis::Client::open(format!("redis://{}", self.address))
            .and_then(|client| client.get_connection())
            .and_then(|mut sentinel| {
                redis::cmd("SENTINEL").arg("REPLICAS").arg(MASTER).query::<Vec<Value>>(&mut sentinel)
            });
        let is_linked = run(&self.servers[1], &["ROLE"])
            .is_ok_and(|role| matches!(role, Value::Array(words) if words.contains(&word("connected"))));
        let [_, replica] = &self.addresses;
        let is_known = |replica: &Value| format!("{replica:?}").contains("master-link-status");
        let says = replicas.unwrap_or_default();
        is_linked
            && says
                .iter()
                .any(|said| is_known(said) && format!("{said:?}").contains(&replica.port().to_string()))
    }
}

fn word(text: &str) -> Value {
    Value::BulkString(text.into())
}

fn run(redis: &Redis, words: &[&str]) -> Result<Value> {
    let mut command = redis::Cmd::new();
    Ok(command.arg(words).query(&mut redis.connect()?)?)
}
