//! The real shim as a process that can be stopped, killed, frozen and started again on the same port.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use crate::clock::{self, Leftovers, Shift};
use crate::port::free_address;
use crate::process::Process;
use crate::tools;

/// No test waits for this one to run out, and none is to fail on a busy machine.
const PATIENT: [&str; 2] = ["--store-timeout", "30s"];

/// A shim that runs, or did and will again.
#[derive(Debug)]
pub struct ShimProcess {
    binary: PathBuf,
    store: String,
    arguments: Vec<String>,
    logs_into: Option<PathBuf>,
    address: SocketAddr,
    clock: Option<Shift>,
    log: Arc<Mutex<Vec<String>>>,
    process: Option<Process>,
    leftovers: Option<Leftovers>,
}

impl ShimProcess {
    /// Starts the binary named by `LANEKEEPER_SHIM` on a free port in front of `store`: `memory` or a Redis URL.
    pub fn start(store: &str) -> Result<Self> {
        Self::start_as(store, &PATIENT, None)
    }

    /// The same with these arguments beyond `--listen` and `--store`, so that none makes it as operators have it.
    pub fn start_with(store: &str, arguments: &[&str]) -> Result<Self> {
        Self::start_as(store, arguments, None)
    }

    /// The same, with a clock that is not the machine's.
    pub fn start_shifted(store: &str, clock: Shift) -> Result<Self> {
        Self::start_as(store, &PATIENT, Some(clock))
    }

    fn start_as(store: &str, arguments: &[&str], clock: Option<Shift>) -> Result<Self> {
        let mut shim = Self {
            binary: tools::path("LANEKEEPER_SHIM")?,
            store: store.to_owned(),
            arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
            logs_into: None,
            address: free_address()?,
            clock,
            log: Arc::default(),
            process: None,
            leftovers: None,
        };
        shim.start_again()?;
        Ok(shim)
    }

    /// The warnings that it has logged so far, a line each.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From its next start on it logs into this file, and no more to [`log`](Self::log).
    pub fn log_into(&mut self, file: PathBuf) {
        self.logs_into = Some(file);
    }

    /// Where it listens, also while it is down.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process, while it is up.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    /// Starts it on the port that it had, and returns when it listens.
    pub fn start_again(&mut self) -> Result<()> {
        self.kill();
        let mut command = Command::new(&self.binary);
        command
            .args(["--listen", &self.address.to_string(), "--store", &self.store])
            .args(&self.arguments)
            // what it says about being stopped is no news to a test
            .env("RUST_LOG", "warn")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(match &self.logs_into {
                Some(file) => Stdio::from(File::options().append(true).open(file)?),
                None => Stdio::piped(),
            });
        if let Some(clock) = self.clock {
            clock::shift(&mut command, clock);
        }
        let mut process = Process::start(&mut command)?;
        self.leftovers = self.clock.map(|_| Leftovers::of(process.child()));
        if let Some(stderr) = process.child().stderr.take() {
            let log = Arc::clone(&self.log);
            std::thread::spawn(move || {
                for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                    eprintln!("{line}");
                    log.lock().unwrap_or_else(PoisonError::into_inner).push(line);
                }
            });
        }
        let stdout = process.child().stdout.take().context("the shim has no stdout")?;
        let mut lines = BufReader::new(stdout).lines();
        let awaited = format!("listening on http://{}", self.address);
        for line in lines.by_ref() {
            if line?.contains(&awaited) {
                // what it says later must not fill the pipe and stop it
                std::thread::spawn(move || lines.for_each(drop));
                self.process = Some(process);
                return Ok(());
            }
        }
        bail!("the shim ended ({}) without saying `{awaited}`", process.wait()?)
    }

    /// Asks it to end, as an orchestrator does, and waits until it has.
    pub fn stop(&mut self) -> Result<()> {
        let mut process = self.process.take().context("the shim is down")?;
        process.signal(Signal::TERM)?;
        let status = process.wait()?;
        if !status.success() {
            bail!("the shim ended with {status} when asked to stop");
        }
        Ok(())
    }

    /// Ends it without a word.
    pub fn kill(&mut self) {
        self.process = None;
        self.leftovers = None;
    }

    /// Freezes it: connections stay, answers do not come.
    pub fn freeze(&self) -> Result<()> {
        self.process.as_ref().context("the shim is down")?.signal(Signal::STOP)
    }

    /// Lets it go on.
    pub fn thaw(&self) -> Result<()> {
        self.process.as_ref().context("the shim is down")?.signal(Signal::CONT)
    }
}
