//! The real shim as a process that can be stopped, killed, frozen and started again on the same port.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use crate::port::free_address;
use crate::process::Process;
use crate::tools;

/// A shim that runs, or did and will again.
#[derive(Debug)]
pub struct ShimProcess {
    binary: PathBuf,
    store: String,
    settings: Vec<String>,
    address: SocketAddr,
    process: Option<Process>,
}

impl ShimProcess {
    /// Starts the binary named by `LANEKEEPER_SHIM` on a free port in front of `store`: `memory` or a Redis URL.
    pub fn start(store: &str) -> Result<Self> {
        Self::start_with(store, &[])
    }

    /// Starts one with settings beyond the usual, as on its command line.
    pub fn start_with(store: &str, settings: &[&str]) -> Result<Self> {
        let binary = tools::path("LANEKEEPER_SHIM")?;
        let (store, settings) = (store.to_owned(), settings.iter().map(|&word| word.to_owned()).collect());
        let mut shim = Self { binary, store, settings, address: free_address()?, process: None };
        shim.start_again()?;
        Ok(shim)
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
        self.process = None;
        let mut process = Process::start(
            Command::new(&self.binary)
                .args(["--listen", &self.address.to_string(), "--store", &self.store])
                .args(&self.settings)
                // what it says about being stopped is no news to a test
                .env("RUST_LOG", "warn")
                .stdin(Stdio::null())
                .stdout(Stdio::piped()),
        )?;
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
