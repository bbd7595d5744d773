//! The real shim as a process that can be stopped, killed, frozen, replaced and started again in the same place.

use std::fs::File;
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
        Self::at(free_address()?, store)?.started()
    }

    /// The same with these arguments beyond `--listen` and `--store`, so that none makes it as operators have it.
    pub fn start_with(store: &str, arguments: &[&str]) -> Result<Self> {
        Self { arguments: owned(arguments), ..Self::at(free_address()?, store)? }.started()
    }

    /// The same, with a clock that is not the machine's.
    pub fn start_shifted(store: &str, clock: Shift) -> Result<Self> {
        Self { clock: Some(clock), ..Self::at(free_address()?, store)? }.started()
    }

    /// The same, on a socket that stays here while no shim runs, as systemd's do.
    pub fn start_on(store: &str, socket: TcpListener) -> Result<Self> {
        Self { socket: Some(socket.try_clone()?), ..Self::at(socket.local_addr()?, store)? }.started()
    }

    /// One that is down.
    fn at(address: SocketAddr, store: &str) -> Result<Self> {
        Ok(Self {
            binary: tools::path("LANEKEEPER_SHIM")?,
            store: store.to_owned(),
            arguments: owned(&PATIENT),
            logs_into: None,
            address,
            socket: None,
            clock: None,
            log: Arc::default(),
            process: None,
            leftovers: None,
        })
    }

    fn started(mut self) -> Result<Self> {
        self.start_again()?;
        Ok(self)
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
            .args(&self.arguments)
            .args(arguments)
            .stdin(stdin)
            // what it says about being stopped is no news to a test
            .env("RUST_LOG", "warn")
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

fn owned(arguments: &[&str]) -> Vec<String> {
    arguments.iter().map(|argument| (*argument).to_owned()).collect()
}
