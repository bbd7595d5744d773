//! Compiled plugins. Compiling takes a second or so and starting a VM next to nothing, so each file is compiled
//! once in a test process, however many hosts run it.

use std::collections::HashMap;
use std::env;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use wasmtime::{Config, Engine, InstancePre, Module, OptLevel};

use super::abi;
use super::vm::Guest;

/// A plugin that can be started in any number of VMs.
#[derive(Clone)]
pub(super) struct Plugin {
    pub(super) engine: Engine,
    pub(super) instances: InstancePre<Guest>,
    /// Whether the work of its callbacks is counted.
    pub(super) metered: bool,
}

type Compiled = Arc<OnceLock<Plugin>>;

static COMPILED: OnceLock<Mutex<HashMap<(PathBuf, bool), Compiled>>> = OnceLock::new();

/// Where the plugin under test lies: `LANEKEEPER_PLUGIN_WASM`, or where the build puts it.
///
/// # Panics
///
/// When it has not been built, so that no test mistakes that for a refusal.
pub fn built_plugin() -> PathBuf {
    let built = built_module("LANEKEEPER_PLUGIN_WASM", "lanekeeper_plugin.wasm", &["release"]);
    built.unwrap_or_else(|| panic!("no built plugin: run `cargo xtask build`"))
}

/// The file that the environment variable `variable` names, else `file` in the target directory for wasm32 under
/// the first of `profiles` that has it.
pub fn built_module(variable: &str, file: &str, profiles: &[&str]) -> Option<PathBuf> {
    if let Some(named) = env::var_os(variable) {
        return Some(PathBuf::from(named)).filter(|path| path.is_file());
    }
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace.join("target"), PathBuf::from);
    let paths = profiles.iter().map(|profile| target.join("wasm32-wasip1").join(profile).join(file));
    paths.into_iter().find(|path| path.is_file())
}

impl Plugin {
    /// The plugin in the file `path`, compiled now unless it has been before.
    pub(super) fn load(path: &Path, metered: bool) -> Self {
        let compiled = {
            let table = COMPILED.get_or_init(Mutex::default);
            let mut table = table.lock().unwrap_or_else(PoisonError::into_inner);
            table.entry((path.to_owned(), metered)).or_default().clone()
        };
        let plugin = compiled.get_or_init(|| {
            Self::compile(path, metered).unwrap_or_else(|error| panic!("{}: {error:#}", path.display()))
        });
        plugin.clone()
    }

    fn compile(path: &Path, metered: bool) -> wasmtime::Result<Self> {
        let mut config = Config::new();
        // tests run few requests, and wait for the compiler longest; an optimized host is there for millions of them
        let level = if cfg!(debug_assertions) { OptLevel::None } else { OptLevel::Speed };
        config.consume_fuel(metered).cranelift_opt_level(level);
        let engine = Engine::new(&config)?;
        let module = Module::from_file(&engine, path)?;
        let instances = abi::linker(&engine)?.instantiate_pre(&module)?;
        Ok(Self { engine, instances, metered })
    }
}
