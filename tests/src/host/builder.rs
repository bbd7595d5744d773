//! What can be settled before a host starts.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use super::log::Level;
use super::module::{Plugin, built_plugin};
use super::process::{Process, Settings};
use super::watch::Times;
use super::{Host, Refused};

/// A host to be. By default: the built plugin, one worker, the cluster `lanekeeper`, an empty vm_id.
#[derive(Clone, Debug)]
pub struct Builder {
    plugin: Option<PathBuf>,
    metered: bool,
    clusters: BTreeSet<String>,
    settings: Settings,
    faults: Vec<(String, u32)>,
}

impl Default for Builder {
    fn default() -> Self {
        let settings = Settings {
            workers: 1,
            environment: BTreeMap::new(),
            vm_id: Vec::new(),
            vm_configuration: Vec::new(),
            allow_on_headers_stop_iteration: false,
            log_level: Level::Info,
            seed: 1,
            stagger: Duration::ZERO,
        };
        let clusters = BTreeSet::from(["lanekeeper".to_owned()]);
        Self { plugin: None, metered: false, clusters, settings, faults: Vec::new() }
    }
}

impl Builder {
    /// Runs another module than the built plugin.
    #[must_use]
    pub fn plugin(mut self, path: impl Into<PathBuf>) -> Self {
        self.plugin = Some(path.into());
        self
    }

    /// How many workers there are.
    #[must_use]
    pub fn workers(mut self, workers: usize) -> Self {
        self.settings.workers = workers;
        self
    }

    /// Counts the wasm instructions of each callback: see [`Host::work`]. Callbacks take longer so.
    #[must_use]
    pub fn metered(mut self) -> Self {
        self.metered = true;
        self
    }

    /// One more cluster that callouts can be sent to.
    #[must_use]
    pub fn cluster(mut self, name: &str) -> Self {
        self.clusters.insert(name.to_owned());
        self
    }

    /// One more environment variable for the VMs.
    #[must_use]
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.settings.environment.insert(name.to_owned(), value.to_owned());
        self
    }

    /// The namespace of shared data and queues.
    #[must_use]
    pub fn vm_id(mut self, vm_id: &str) -> Self {
        self.settings.vm_id = vm_id.into();
        self
    }

    /// The configuration of the VM, as against the plugin's.
    #[must_use]
    pub fn vm_configuration(mut self, configuration: &str) -> Self {
        self.settings.vm_configuration = configuration.into();
        self
    }

    /// Sets Envoy's switch of this name, which is off by default: body callbacks come while headers are paused, and
    /// a Continue from one of them lets the headers go.
    #[must_use]
    pub fn allow_on_headers_stop_iteration(mut self) -> Self {
        self.settings.allow_on_headers_stop_iteration = true;
        self
    }

    /// The least grave level that is logged.
    #[must_use]
    pub fn log_level(mut self, level: Level) -> Self {
        self.settings.log_level = level;
        self
    }

    /// From where chance starts. Every VM has its own.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.settings.seed = seed;
        self
    }

    /// How much later than the VM before it each VM ticks for the first time. By default all tick at once.
    #[must_use]
    pub fn stagger(mut self, span: Duration) -> Self {
        self.settings.stagger = span;
        self
    }

    /// The host call `call` never works, from the first callback on, and gives `status`: as a capability restriction
    /// does it.
    #[must_use]
    pub fn without(mut self, call: &str, status: impl Into<u32>) -> Self {
        self.faults.push((call.to_owned(), status.into()));
        self
    }

    /// Starts the process: the canary, then the main thread and the workers.
    ///
    /// # Errors
    ///
    /// When the plugin refuses the configuration.
    ///
    /// # Panics
    ///
    /// When there is no plugin, or it is none.
    pub fn start(self, configuration: &str) -> Result<Host, Refused> {
        let path = self.plugin.unwrap_or_else(built_plugin);
        let process = Process::new(Plugin::load(&path, self.metered), self.settings, self.clusters);
        for (call, status) in self.faults {
            process.watch.borrow_mut().set_fault(&call, status, Times::Always);
        }
        process.in_turn(|| {
            process.try_in_canary(configuration.as_bytes())?;
            process.start_vms(configuration.as_bytes());
            Ok(())
        })?;
        Ok(Host(process))
    }
}
