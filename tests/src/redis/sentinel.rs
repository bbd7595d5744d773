//! A master, its replica, and a real Sentinel that fails over from one to the other.

use std::fs;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use redis::Value;
use tempfile::TempDir;

use super::tls::Ca;
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
    scheme: &'static str,
    address: SocketAddr,
    folder: TempDir,
    _sentinel: Process,
}

/// What is not as usual.
#[derive(Default)]
pub struct Setup<'a> {
    /// The clock of the replica.
    pub replica_clock: Option<Shift>,
    /// Whoever signs the certificates of all three, which then talk nothing but TLS.
    pub ca: Option<&'a Ca>,
    /// What the servers ask for. The Sentinel asks for nothing.
    pub password: Option<&'a str>,
}

impl Watched {
    /// Starts all three, and waits until the Sentinel knows both servers and the replica is in step.
    pub fn start() -> Result<Self> {
        Self::start_as(&Setup::default())
    }

    /// The same, with another setup.
    pub fn start_as(setup: &Setup<'_>) -> Result<Self> {
        let (address, addresses) = (free_address()?, [free_address()?, free_address()?]);
        let [master, replica] = &addresses;
        let servers = [
            Redis::start_with(setup.server(*master)?)?,
            Redis::start_as(setup.server(*replica)?, setup.replica_clock)?,
        ];
        run(&servers[1], &["REPLICAOF", "127.0.0.1", &master.port().to_string()])?;
        let folder = tempfile::Builder::new().prefix("lanekeeper-sentinel-").tempdir()?;
        let settings = folder.path().join("sentinel.conf");
        let port = master.port();
        let auth = setup.password.map(|password| format!("sentinel auth-pass {MASTER} {password}\n"));
        fs::write(
            &settings,
            format!(
                "bind 127.0.0.1\ndir {folder}\nunixsocket {folder}/sentinel.sock\n\
                 sentinel monitor {MASTER} 127.0.0.1 {port} 1\n{auth}\
                 sentinel down-after-milliseconds {MASTER} 500\nsentinel failover-timeout {MASTER} 3000\n",
                folder = folder.path().display(),
                auth = auth.unwrap_or_default(),
            ),
        )?;
        let sentinel = Process::start(
            Command::new(program())
                .arg(&settings)
                .arg("--sentinel")
                .args(setup.listen(address)?)
                .stdin(Stdio::null())
                .stdout(Stdio::null()),
        )?;
        let scheme = if setup.ca.is_some() { "rediss" } else { "redis" };
        let watched = Self { servers, addresses, scheme, address, folder, _sentinel: sentinel };
        wait::until("a Sentinel that knows the replica", || Ok(watched.is_complete().then_some(())))?;
        Ok(watched)
    }

    /// Its address for the shim.
    pub fn url(&self) -> String {
        format!("{}-sentinel://{}/{MASTER}", self.scheme, self.address)
    }

    /// Has the Sentinel make the replica the master, as an operator does.
    pub fn fail_over(&self) -> Result<()> {
        Ok(redis::cmd("SENTINEL").arg("FAILOVER").arg(MASTER).exec(&mut self.sentinel()?)?)
    }

    fn sentinel(&self) -> redis::RedisResult<redis::Connection> {
        let socket = self.folder.path().join("sentinel.sock");
        redis::Client::open(format!("redis+unix://{}", socket.display()))?.get_connection()
    }

    /// Waits until the replica has all that the master has now. Not by WAIT, which waits for what was written on its
    /// own connection.
    pub fn settle(&self) -> Result<()> {
        let written = offset(&run(&self.servers[0], &["ROLE"])?).context("a master has an offset")?;
        let in_step = || Ok((offset(&run(&self.servers[1], &["ROLE"])?) >= Some(written)).then_some(()));
        wait::until("a replica in step", in_step)
    }

    fn is_complete(&self) -> bool {
        let replicas = self.sentinel().and_then(|mut sentinel| {
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

impl Setup<'_> {
    /// The settings of a server.
    fn server(&self, at: SocketAddr) -> Result<Vec<String>> {
        let bind = ["--bind", "127.0.0.1"].map(str::to_owned).to_vec();
        let password = self.password.map(|password| ["--requirepass", password, "--masterauth", password]);
        let password = password.into_iter().flatten().map(str::to_owned).collect();
        Ok([bind, self.listen(at)?, password].concat())
    }

    /// How each of the three listens at `at` and calls the others.
    fn listen(&self, at: SocketAddr) -> Result<Vec<String>> {
        let Some(ca) = self.ca else { return Ok(vec!["--port".to_owned(), at.port().to_string()]) };
        let tls = ["--port", "0", "--tls-replication", "yes"].map(str::to_owned).to_vec();
        Ok([tls, ca.settings("127.0.0.1", at)?].concat())
    }
}

/// How far a server is in what its master has written, as it says to ROLE.
fn offset(role: &Value) -> Option<i64> {
    let Value::Array(words) = role else { return None };
    match (words.get(1), words.get(4)) {
        (Some(Value::Int(of_master)), _) => Some(*of_master),
        (_, Some(Value::Int(of_replica))) => Some(*of_replica),
        _ => None,
    }
}

fn word(text: &str) -> Value {
    Value::BulkString(text.into())
}

fn run(redis: &Redis, words: &[&str]) -> Result<Value> {
    let mut command = redis::Cmd::new();
    Ok(command.arg(words).query(&mut redis.connect()?)?)
}
