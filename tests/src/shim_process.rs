//! The real shim as a process that can be stopped, killed, frozen, replaced and started again in the same place.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use crate::clock::{self, Leftovers, Shift};
use crate::port::free_address;
use crate::process::Process;
use crate::tools;

/// A shim that runs, or did and will again.
#[derive(Debug)]
pub struct ShimProcess {
    binary: PathBuf,
    store: String,
    address: SocketAddr,
    /// The socket that it is passed, as systemd does.
    socket: Option<TcpListener>,
    clock: Option<Shift>,
    log: Arc<Mutex<Vec<String>>>,
    process: Option<Process>,
    leftovers: Option<Leftovers>,
}

impl ShimProcess {
    /// Starts the binary named by `LANEKEEPER_SHIM` on a free port in front of `store`: `memory` or a Redis URL.
    pub fn start(store: &str) -> Result<Self> {
        Self::start_as(store, free_address()?, None, None)
    }

    /// The same, with a clock that is not the machine's.
    pub fn start_shifted(store: &str, clock: Shift) -> Result<Self> {
        Self::start_as(store, free_address()?, None, Some(clock))
    }

    /// The same, on a socket that stays here while no shim runs, as systemd's do.
    pub fn start_on(store: &str, socket: TcpListener) -> Result<Self> {
        Self::start_as(store, socket.local_addr()?, Some(socket), None)
    }

    fn start_as(
        store: &str,
        address: SocketAddr,
        socket: Option<TcpListener>,
        clock: Option<Shift>,
    ) -> Result<Self> {
        let mut shim = Self {
            binary: tools::path("LANEKEEPER_SHIM")?,
            store: store.to_owned(),
            address,
            socket,
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

    /// Where it listens, also while it is down.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process, while it is up.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    /// Starts it in the place that it had, and returns when it listens.
    pub fn start_again(&mut self) -> Result<()> {
        self.kill();
        self.process = Some(self.spawn(&[])?);
        Ok(())
    }

    /// Starts another one beside it that takes over, and then asks this one to end, as who replaces it without a gap
    /// does. Returns when it has ended.
    pub fn replace(&mut self) -> Result<()> {
        let successor = self.spawn(&["--take-over"])?;
        let old = self.process.replace(successor).context("the shim is down")?;
        end(old)
    }

    /// One more process, which listens.
    fn spawn(&mut self, arguments: &[&str]) -> Result<Process> {
        let (mut command, listen) = match &self.socket {
            None => (Command::new(&self.binary), self.address.to_string()),
            Some(_) => {
                // It is to be told the number of its own process, which nobody knows before.
                let mut command = Command::new("/bin/sh");
                let passes = "LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" \"$@\" 3<&0 </dev/null";
                command.args(["-c", passes]).arg(&self.binary);
                (command, "systemd".to_owned())
            }
        };
        let stdin = match &self.socket {
            None => Stdio::null(),
            Some(socket) => OwnedFd::from(socket.try_clone()?).into(),
        };
        command
            .args(["--listen", &listen, "--store", &self.store])
            .args(arguments)
            .stdin(stdin)
            // no test waits for this one to run out, and none is to fail on a busy machine
            .args(["--store-timeout", "30s"])
            // what it says about being stopped is no news to a test
            .env("RUST_LOG", "warn")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if let Some(clock) = self.clock {
            clock::shift(&mut command, clock);
        }
        let mut process = Process::start(&mut command)?;
        self.leftovers = self.clock.map(|_| Leftovers::of(process.child()));
        let stderr = process.child().stderr.take().context("the shim has no stderr")?;
        let log = Arc::clone(&self.log);
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                eprintln!("{line}");
                log.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        });
        let stdout = process.child().stdout.take().context("the shim has no stdout")?;
        let mut lines = BufReader::new(stdout).lines();
        for line in lines.by_ref() {
            if line?.starts_with("listening on ") {
                // what it says later must not fill the pipe and stop it
                std::thread::spawn(move || lines.for_each(drop));
                return Ok(process);
            }
        }
        bail!("the shim ended ({}) without saying `listening on`", process.wait()?)
    }

    /// Asks it to end, as an orchestrator does, and waits until it has.
    pub fn stop(&mut self) -> Result<()> {
        end(self.process.take().context("the shim is down")?)
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

/// Asks it to end, and waits until it has.
fn end(mut process: Process) -> Result<()> {
    process.signal(Signal::TERM)?;
    let status = process.wait()?;
    if !status.success() {
        bail!("the shim ended with {status} when asked to stop");
    }
    Ok(())
}
