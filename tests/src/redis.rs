//! A private Redis or Valkey: a real server of a test's own, in a folder of its own.
//!
//! It listens on a Unix socket, so that no port is taken, it keeps its address over a restart, and nothing
//! outside of the folder can reach it. It ends with the test, whatever becomes of the test.
//!
//! [`tls`] has it listen with certificates too, [`cluster`] makes several one, [`sentinel`]
//! watches over a master and its replica.

pub mod cluster;
pub mod sentinel;
pub mod tls;

use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::clock::{self, Leftovers, Shift};

/// The server to run, if not the one on the path.
pub const SERVER_ENV: &str = "LANEKEEPER_REDIS_SERVER";

/// The Valkey to run, if not the one on the path.
pub const VALKEY_ENV: &str = "LANEKEEPER_VALKEY_SERVER";

/// How long a server may take to start. Far longer than it does, so that a busy machine fails no test.
const STARTS_WITHIN: Duration = Duration::from_secs(30);

/// A server that is not there.
#[derive(Debug, thiserror::Error)]
#[error("no {}: run `cargo xtask test`, which fetches it", .program.display())]
struct Missing {
    program: OsString,
}

/// A clock that is not the machine's.
#[derive(Clone, Copy, Debug)]
enum Clock {
    Shifted(Shift),
    /// By what stands in its file.
    Moved,
}

/// A running Redis or Valkey.
pub struct Redis {
    program: OsString,
    folder: TempDir,
    settings: Vec<String>,
    clock: Option<Clock>,
    server: Option<Child>,
    leftovers: Option<Leftovers>,
}

impl Redis {
    /// Starts an empty one, and waits until it answers.
    pub fn start() -> anyhow::Result<Self> {
        Self::start_with(Vec::new())
    }

    /// Starts an empty one whose clock is not the machine's, and waits until it answers.
    pub fn start_shifted(clock: Shift) -> anyhow::Result<Self> {
        Self::start_as(Vec::new(), Some(clock))
    }

    /// Starts an empty one whose clock is the machine's until it is [moved](Self::move_clock), and waits until it answers.
    pub fn start_movable() -> anyhow::Result<Self> {
        Self::start_program(program(), Vec::new(), Some(Clock::Moved))
    }

    /// Starts an empty Valkey, and waits until it answers. None where no [`VALKEY_ENV`] is set and none is on the
    /// path, since not every machine can have one; whoever asked then leaves its test out.
    pub fn start_valkey() -> anyhow::Result<Option<Self>> {
        let named = env::var_os(VALKEY_ENV);
        let is_named = named.is_some();
        match Self::start_program(named.unwrap_or_else(|| "valkey-server".into()), Vec::new(), None) {
            Ok(valkey) => Ok(Some(valkey)),
            Err(error) if error.is::<Missing>() && !is_named => {
                // Past the capture of a test's output: a test that did not run must not look as if it had.
                writeln!(io::stderr(), "skipped: {error}, or set {VALKEY_ENV}")?;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Starts an empty one with settings beyond the usual, as on its command line.
    fn start_with(settings: Vec<String>) -> anyhow::Result<Self> {
        Self::start_as(settings, None)
    }

    fn start_as(settings: Vec<String>, clock: Option<Shift>) -> anyhow::Result<Self> {
        Self::start_program(program(), settings, clock.map(Clock::Shifted))
    }

    fn start_program(program: OsString, settings: Vec<String>, clock: Option<Clock>) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("lanekeeper-redis-").tempdir()?;
        let mut redis = Self { program, folder, settings, clock, server: None, leftovers: None };
        redis.start_again()?;
        Ok(redis)
    }

    /// Its address, with the password that it asks for, if any.
    pub fn url(&self) -> String {
        let asks = self.settings.iter().position(|setting| setting == "--requirepass");
        let password =
            asks.and_then(|at| self.settings.get(at + 1)).map(|password| format!("?pass={password}"));
        format!("redis+unix://{}{}", self.socket().display(), password.unwrap_or_default())
    }

    /// Its process, while it is up.
    pub fn pid(&self) -> Option<u32> {
        self.server.as_ref().map(Child::id)
    }

    /// A connection, to look at what is stored.
    pub fn connect(&self) -> redis::RedisResult<redis::Connection> {
        redis::Client::open(self.url())?.get_connection()
    }

    /// Kills it. What it held is gone: nothing is ever saved.
    pub fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            // It may have ended by itself; either way there is nothing left to do about it.
            let _ = server.kill();
            let _ = server.wait();
        }
        self.leftovers = None;
    }

    /// Starts it at its address again, empty.
    pub fn start_again(&mut self) -> anyhow::Result<()> {
        self.kill();
        let mut command = Command::new(&self.program);
        command
            .args(["--port", "0", "--save", "", "--appendonly", "no", "--daemonize", "no"])
            .arg("--unixsocket")
            .arg(self.socket())
            .arg("--dir")
            .arg(self.folder.path())
            .args(&self.settings)
            .stdin(Stdio::null())
            .stdout(File::create(self.log())?);
        match self.clock {
            None => {}
            Some(Clock::Shifted(by)) => clock::shift(&mut command, by),
            Some(Clock::Moved) => {
                self.move_clock("+0")?;
                clock::follow(&mut command, &self.clock_file());
            }
        }
        match command.spawn() {
            Ok(server) => {
                self.leftovers = self.clock.map(|_| Leftovers::of(&server));
                self.server = Some(server);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Missing { program: self.program.clone() }.into());
            }
            Err(error) => {
                return Err(error).with_context(|| format!("cannot run {}", self.program.display()));
            }
        }
        self.wait_until_it_answers()?;
        if matches!(self.clock, Some(Clock::Shifted(_))) { self.has_another_clock() } else { Ok(()) }
    }

    /// Moves the clock of one that was [started so](Self::start_movable), by this much from the machine's.
    pub fn move_clock(&self, by: Shift) -> anyhow::Result<()> {
        // beside it and renamed: the server reads it at any moment
        let new = self.folder.path().join("clock.new");
        fs::write(&new, by)?;
        fs::rename(new, self.clock_file())?;
        let is_moved = self.server.is_some() && by != "+0";
        if is_moved { self.has_another_clock() } else { Ok(()) }
    }

    fn has_another_clock(&self) -> anyhow::Result<()> {
        let (seconds, _): (u64, u64) = redis::cmd("TIME").query(&mut self.connect()?)?;
        if SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs().abs_diff(seconds) < 60 {
            bail!("the clock of redis was not moved: run `cargo xtask test`, which installs libfaketime");
        }
        Ok(())
    }

    /// Freezes it: connections stay, and nothing answers.
    pub fn freeze(&self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets a frozen one go on.
    pub fn thaw(&self) -> anyhow::Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let server = self.server.as_ref().context("redis is not running")?;
        Ok(kill_process(Pid::from_child(server), signal)?)
    }

    fn wait_until_it_answers(&mut self) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            let answer = self.connect().and_then(|mut connection| redis::cmd("PING").exec(&mut connection));
            let Err(error) = answer else { return Ok(()) };
            if let Some(status) = self.server.as_mut().map(Child::try_wait).transpose()?.flatten() {
                let log = fs::read_to_string(self.log()).unwrap_or_default();
                bail!("{} ended: {status}\n{log}", self.program.display());
            }
            if began.elapsed() > STARTS_WITHIN {
                return Err(error).with_context(|| format!("{} does not answer", self.program.display()));
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// What it says, which is of interest only when it does not start.
    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    fn clock_file(&self) -> PathBuf {
        self.folder.path().join("clock")
    }

    /// The socket that it listens on.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("redis.sock")
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

fn program() -> OsString {
    env::var_os(SERVER_ENV).unwrap_or_else(|| OsString::from("redis-server"))
}
