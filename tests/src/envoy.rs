//! A real Envoy with the real plugin.
//!
//! [`Setup`] makes its configuration from what is [`Shipped`] in `envoy/`, so what is tested is what is shipped.
//! [`Envoy`] is the running process on ports of its own. Its listener comes from a watched file, as from a control
//! plane, so a policy can be changed while it runs.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tempfile::TempDir;

use crate::process::Process;
use crate::{tools, wait};

mod admin;
mod setup;
mod shipped;

pub use admin::Admin;
pub use setup::{Edit, Setup};
pub use shipped::Shipped;

/// How many workers each Envoy has, unless told otherwise; each has a VM of its own.
pub const WORKERS: u64 = 2;

/// What became of a configuration that Envoy was given.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// It holds from now on.
    Accepted,
    /// It is refused, and this is what Envoy said about it.
    Refused(String),
}

/// A running Envoy; killed when dropped, with its log shown if the test is failing.
#[derive(Debug)]
pub struct Envoy {
    process: Process,
    folder: Folder,
    setup: Setup,
    admin: Admin,
    front: SocketAddr,
}

impl Envoy {
    fn start(setup: Setup) -> Result<Self> {
        let folder = Folder::new()?;
        let configuration = setup.configuration()?;
        folder.write("bootstrap.json", &configuration.watching(&folder.file(LISTENERS))?)?;
        let filter = setup.is_by_ecds().then(|| folder.file(FILTER));
        if setup.is_by_ecds() {
            folder.write(FILTER, &configuration.filter()?)?;
        }
        folder.write(LISTENERS, &configuration.listeners(filter.as_deref())?)?;
        let mut process = Process::start(
            command(&folder)?
                .args(["--concurrency", &setup.worker_count().to_string()])
                .arg("--admin-address-path")
                .arg(folder.file("admin"))
                // connections of an old policy are closed soon
                .args(["--drain-time-s", "1"]),
        )?;
        match reach(&mut process, &folder.file("admin"), setup.listener()) {
            Ok((admin, front)) => Ok(Self { process, folder, setup, admin, front }),
            Err(error) => Err(error.context(format!("Envoy's log:\n{}", folder.log()))),
        }
    }

    /// The address of a path behind the filter.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.front)
    }

    /// Where requests go in.
    pub fn address(&self) -> SocketAddr {
        self.front
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// What it says about itself.
    pub fn admin(&self) -> &Admin {
        &self.admin
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        self.folder.log()
    }

    /// Whether it still runs.
    pub fn is_alive(&mut self) -> Result<bool> {
        Ok(self.process.ended()?.is_none())
    }

    /// Hands it another policy while it runs, and returns when new connections are judged by it or it is refused.
    pub fn update_policy(&mut self, policy: &Value) -> Result<Verdict> {
        self.update(self.setup.clone().policy(policy.clone()))
    }

    /// The same with other code of the filter.
    pub fn update_code(&mut self, file: PathBuf) -> Result<Verdict> {
        self.update(self.setup.clone().code(file))
    }

    fn update(&mut self, setup: Setup) -> Result<Verdict> {
        let logged = self.log().len();
        let watched = if setup.is_by_ecds() { FILTER_UPDATES } else { LISTENER_UPDATES };
        let count = |name: &str| self.admin.counter(name);
        let (accepted_before, rejected_before) = (count(watched.accepted)?, count(watched.rejected)?);
        let created_before = count(LISTENERS_CREATED)?;

        let configuration = setup.configuration()?;
        if setup.is_by_ecds() {
            self.folder.replace(FILTER, &configuration.filter()?)?;
        } else {
            self.folder.replace(LISTENERS, &configuration.listeners(None)?)?;
        }

        let is_accepted = wait::until("Envoy's verdict on a policy", || {
            let accepted = count(watched.accepted)? > accepted_before;
            let rejected = count(watched.rejected)? > rejected_before;
            Ok((accepted || rejected).then_some(accepted))
        })?;
        if !is_accepted {
            let said = self.log().get(logged..).unwrap_or_default().to_owned();
            return Ok(Verdict::Refused(said));
        }
        if !setup.is_by_ecds() {
            wait::until("the new listener on each worker", || {
                Ok((count(LISTENERS_CREATED)? >= created_before + setup.worker_count()).then_some(()))
            })?;
        }
        self.setup = setup;
        Ok(Verdict::Accepted)
    }
}

/// The counters in which Envoy tells what became of an update.
struct Updates {
    accepted: &'static str,
    rejected: &'static str,
}

const LISTENER_UPDATES: Updates = Updates {
    accepted: "listener_manager.lds.update_success",
    rejected: "listener_manager.lds.update_rejected",
};
const FILTER_UPDATES: Updates = Updates {
    accepted: "extension_config_discovery.http_filter.lanekeeper.update_success",
    rejected: "extension_config_discovery.http_filter.lanekeeper.update_rejected",
};
const LISTENERS_CREATED: &str = "listener_manager.listener_create_success";

/// The watched files.
const LISTENERS: &str = "listeners.json";
const FILTER: &str = "filter.json";

impl Drop for Envoy {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("Envoy's log:\n{}", self.log());
        }
    }
}

/// Runs `envoy --mode validate` on a configuration.
pub fn validate(configuration: &Value) -> Result<Verdict> {
    let folder = Folder::new()?;
    folder.write("bootstrap.json", configuration)?;
    let mut process = Process::start(command(&folder)?.args(["--mode", "validate"]))?;
    if process.wait()?.success() { Ok(Verdict::Accepted) } else { Ok(Verdict::Refused(folder.log())) }
}

fn command(folder: &Folder) -> Result<Command> {
    let log = File::create(folder.file("log"))?;
    let mut command = Command::new(tools::path("ENVOY")?);
    command
        .arg("--config-path")
        .arg(folder.file("bootstrap.json"))
        // several run side by side, and none is ever taken over by a next one
        .arg("--disable-hot-restart")
        .args(["--log-format", "%l %n: %v"])
        // an access log that a test reads comes soon
        .args(["--file-flush-interval-msec", "50"])
        // hides the list of all that this Envoy can do, which is most of a log
        .args(["--component-log-level", "main:warning"])
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    Ok(command)
}

/// Waits until Envoy is ready, and finds the ports that the system gave to it.
fn reach(process: &mut Process, address: &Path, listener: &str) -> Result<(Admin, SocketAddr)> {
    let mut still_runs = || match process.ended()? {
        Some(status) => bail!("Envoy ended at its start: {status}"),
        None => Ok(()),
    };
    let admin = wait::until("Envoy's admin port", || {
        still_runs()?;
        // the file is there before the address is in it
        Ok(fs::read_to_string(address).ok().and_then(|address| address.trim().parse().ok()))
    })?;
    let admin = Admin::at(admin)?;
    wait::until("Envoy to be ready", || {
        still_runs()?;
        Ok(admin.is_ready().then_some(()))
    })?;
    let front = admin.listener(listener)?.context("Envoy has refused its listener")?;
    Ok((admin, front))
}

/// What belongs to one Envoy; gone with it.
#[derive(Debug)]
struct Folder(TempDir);

impl Folder {
    fn new() -> Result<Self> {
        Ok(Self(tempfile::Builder::new().prefix("lanekeeper-envoy-").tempdir()?))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, content: &Value) -> Result<()> {
        let file = self.file(name);
        fs::write(&file, content.to_string()).with_context(|| format!("cannot write {}", file.display()))
    }

    /// Written beside and renamed: Envoy watches for the move and must never read half a file.
    fn replace(&self, name: &str, content: &Value) -> Result<()> {
        let new = format!("{name}.new");
        self.write(&new, content)?;
        fs::rename(self.file(&new), self.file(name)).with_context(|| format!("cannot replace {name}"))
    }

    fn log(&self) -> String {
        fs::read(self.file("log")).map(|log| String::from_utf8_lossy(&log).into_owned()).unwrap_or_default()
    }
}
