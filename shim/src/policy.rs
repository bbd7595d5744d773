//! The operator's policy, for those who ask for a limit by its name, and what becomes of it when its file changes.
//!
//! The file is read once a second and compared with what was read before. Notifications of the file system and
//! modification times are cheaper and wrong: Kubernetes swaps a symbolic link two folders above, and a file can
//! be written twice within the same tick of its clock. A policy that is refused changes nothing: the one before
//! goes on, and every error is logged. What is only likely a slip is logged too, and the policy holds.
//!
//! `lanekeeper check` reads files the same way. The few lines for YAML stand here again, because the two programs
//! must not know each other and the engine, which is built into the plugin, has no YAML.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use lanekeeper_engine::policy::{MAX_BYTES, Policy};
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use serde_json::Value;
use serde_saphyr::UserMessageFormatter;
use serde_saphyr::options::DuplicateKeyPolicy;
use tracing::{error, info, warn};

/// The longest file, in bytes. The policy itself is bounded as JSON; YAML has comments and indentation too.
const MAX_FILE: u64 = 4 * MAX_BYTES as u64;
/// The most values in a document: as JSON each takes two bytes at least.
const MAX_VALUES: usize = MAX_BYTES / 2;
/// How often the file is read.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Why a file holds no policy: every error, a line each.
#[derive(Debug, thiserror::Error)]
#[error("{}", lines.join("\n"))]
pub struct PolicyFileError {
    lines: Vec<String>,
}

/// What became of a file that changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[expect(non_camel_case_types, reason = "the names stand in the metrics as they stand here")]
pub enum Reload {
    /// Its policy holds from now on.
    loaded,
    /// It is none; the one before goes on.
    refused,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Reloaded {
    outcome: Reload,
}

/// A file and the last good policy that was in it.
#[derive(Debug)]
pub struct PolicyFile {
    path: PathBuf,
    policy: RwLock<Arc<Policy>>,
    /// What was read last: the text, or why there is none.
    seen: Mutex<Result<String, String>>,
    pub(crate) reloads: Family<Reloaded, Counter>,
}

impl PolicyFile {
    /// Reads a policy in YAML, or in JSON when the name ends so.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, PolicyFileError> {
        let path = path.into();
        let seen = read(&path);
        let policy = judge(&path, &seen)?;
        warn_of_slips(&path, &policy);
        let reloads = Family::default();
        for outcome in [Reload::loaded, Reload::refused] {
            let _: &Counter = &reloads.get_or_create(&Reloaded { outcome });
        }
        Ok(Self { path, policy: RwLock::new(Arc::new(policy)), seen: Mutex::new(seen), reloads })
    }

    /// The last good policy.
    pub fn policy(&self) -> Arc<Policy> {
        Arc::clone(&self.policy.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the file again; `None` when it says what it said before.
    pub fn look(&self) -> Option<Reload> {
        let now = read(&self.path);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if *seen == now {
            return None;
        }
        let outcome = match judge(&self.path, &now) {
            Ok(policy) => {
                info!(file = %self.path.display(), "the policy has changed");
                warn_of_slips(&self.path, &policy);
                *self.policy.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(policy);
                Reload::loaded
            }
            Err(refusal) => {
                for line in &refusal.lines {
                    error!("the policy is refused and the one before goes on: {line}");
                }
                Reload::refused
            }
        };
        *seen = now;
        self.reloads.get_or_create(&Reloaded { outcome }).inc();
        Some(outcome)
    }

    /// Looks at the file for as long as anybody else has this. Needs a tokio runtime.
    pub fn watch(self: &Arc<Self>) {
        let file = Arc::downgrade(self);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(LOOK_EVERY).await;
                let Some(file) = file.upgrade() else { return };
                // a large policy takes its time, which the requests' threads do not have; should it ever panic,
                // the next look is as good
                let _ = tokio::task::spawn_blocking(move || file.look()).await;
            }
        });
    }
}

fn read(path: &Path) -> Result<String, String> {
    let mut text = String::new();
    match File::open(path).and_then(|file| file.take(MAX_FILE + 1).read_to_string(&mut text)) {
        Ok(bytes) if bytes as u64 > MAX_FILE => Err(format!("is longer than {MAX_FILE} bytes")),
        Ok(_) => Ok(text),
        Err(error) => Err(format!("cannot be read: {error}")),
    }
}

fn judge(path: &Path, text: &Result<String, String>) -> Result<Policy, PolicyFileError> {
    let name = path.display();
    let is_json = path.extension().is_some_and(|extension| extension == "json");
    let refuse = |problem: &str| PolicyFileError { lines: vec![format!("{name}: {problem}")] };
    let text = text.as_ref().map_err(|problem| refuse(problem))?;
    let policy = if is_json {
        Policy::from_json(text.as_bytes())
    } else {
        Policy::from_value(&parse_yaml(text).map_err(|problem| refuse(&problem))?)
    };
    policy.map_err(|errors| PolicyFileError {
        lines: errors.iter().map(|error| format!("{name}: {error}")).collect(),
    })
}

fn warn_of_slips(path: &Path, policy: &Policy) {
    for warning in &policy.warnings {
        warn!("{}: {warning}", path.display());
    }
}

fn parse_yaml(text: &str) -> Result<Value, String> {
    let options = serde_saphyr::options! {
        // A limit that stands there twice would silently lose one of the two.
        duplicate_keys: DuplicateKeyPolicy::Error,
        // `on` and `1_000` are texts, as in YAML 1.2: what is not quoted must not change its meaning.
        strict_booleans: true,
        underscored_numbers_as_strings: true,
        leading_zero_numbers_as_strings: true,
        // Aliases and merge keys are welcome, bombs of them are not: no policy needs this many values.
        budget: serde_saphyr::budget! { max_nodes: MAX_VALUES, max_aliases: 1000 },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: MAX_VALUES },
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        format!(
            "cannot be read as YAML: {}",
            error.without_snippet().render_with_formatter(&UserMessageFormatter)
        )
    })
}
