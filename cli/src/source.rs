//! Where a policy comes from: a file or standard input, YAML or JSON.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use lanekeeper_engine::policy::{MAX_BYTES, Policy, PolicyError};
use serde_json::Value;
use serde_saphyr::UserMessageFormatter;
use serde_saphyr::options::DuplicateKeyPolicy;

use crate::lines::Lines;

/// The longest file, in bytes. The policy itself is bounded as JSON; YAML has comments and indentation too.
const MAX_FILE: u64 = 4 * MAX_BYTES as u64;

/// The most values in a document: as JSON each takes two bytes at least.
const MAX_VALUES: usize = MAX_BYTES / 2;

/// A file that was read.
pub(crate) struct Source {
    /// What messages call it.
    pub(crate) name: String,
    text: String,
    /// Whether it must be JSON, by its name. All else is YAML, which JSON nearly always is too.
    is_json: bool,
}

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unreadable {
    /// The system says so.
    #[error("{name}: cannot be read: {error}")]
    Io { name: String, error: io::Error },
    /// It is too long to be a policy.
    #[error("{name}: is longer than {MAX_FILE} bytes")]
    TooLong { name: String },
}

/// A policy without errors.
pub(crate) struct Good {
    /// What it was read from.
    pub(crate) document: Value,
    pub(crate) policy: Policy,
    pub(crate) warnings: Vec<Finding>,
}

/// An error or a warning, and the line it stands on, if that is known.
pub(crate) struct Finding {
    pub(crate) line: Option<usize>,
    pub(crate) error: PolicyError,
}

impl Source {
    /// Reads `path`, or standard input for `-`.
    pub(crate) fn read(path: &Path) -> Result<Self, Unreadable> {
        let is_stdin = path.as_os_str() == "-";
        let name = if is_stdin { "standard input".to_owned() } else { path.display().to_string() };
        let mut text = String::new();
        let read = if is_stdin {
            io::stdin().lock().take(MAX_FILE + 1).read_to_string(&mut text)
        } else {
            File::open(path).and_then(|file| file.take(MAX_FILE + 1).read_to_string(&mut text))
        };
        match read {
            Ok(bytes) if bytes as u64 > MAX_FILE => Err(Unreadable::TooLong { name }),
            Ok(_) => Ok(Self { name, text, is_json: path.extension().is_some_and(|e| e == "json") }),
            Err(error) => Err(Unreadable::Io { name, error }),
        }
    }

    /// The policy in it, or everything that is wrong with it.
    pub(crate) fn judge(&self) -> Result<Good, Vec<Finding>> {
        let (document, policy) = if self.is_json {
            let policy = Policy::from_json(self.text.as_bytes());
            (serde_json::from_str(&self.text).unwrap_or_default(), policy)
        } else {
            let document = self.parse_yaml().map_err(|finding| vec![finding])?;
            let policy = Policy::from_value(&document);
            (document, policy)
        };
        let mut policy = policy.map_err(|errors| self.place(errors))?;
        let warnings = self.place(std::mem::take(&mut policy.warnings));
        Ok(Good { document, policy, warnings })
    }

    fn place(&self, errors: Vec<PolicyError>) -> Vec<Finding> {
        if errors.is_empty() {
            return Vec::new();
        }
        let lines = Lines::of(&self.text);
        errors.into_iter().map(|error| Finding { line: lines.line(&error.path), error }).collect()
    }

    fn parse_yaml(&self) -> Result<Value, Finding> {
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
        serde_saphyr::from_str_with_options(&self.text, options).map_err(|error| {
            let error = error.without_snippet();
            let line = error.location().and_then(|location| usize::try_from(location.line()).ok());
            let path = match (error, line) {
                (serde_saphyr::Error::DuplicateMappingKey { .. }, Some(line)) => {
                    Lines::of(&self.text).again(line).map(str::to_owned)
                }
                _ => None,
            };
            let problem =
                format!("cannot be read as YAML: {}", error.render_with_formatter(&UserMessageFormatter));
            let error = PolicyError { path: path.unwrap_or_default(), value: String::new(), problem };
            Finding { line, error }
        })
    }
}
