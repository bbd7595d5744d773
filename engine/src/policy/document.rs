//! The document as a whole: its size, its form and its sections.

use serde_json::Value;

use super::json::Unique;
use super::limits::Surroundings;
use super::matches::Known;
use super::read::{Node, Report};
use super::words::is_longer_than;
use super::{OnFailure, Policy, PolicyError, Responses, commands, inherit, lanes, responses, store};

/// The longest policy, in bytes of JSON. Each worker reads it while it serves requests.
pub const MAX_BYTES: usize = 1024 * 1024;

const SECTIONS: &[&str] = &["version", "lanes", "store", "commands", "rate_limits", "responses"];
const LATER: &[&str] = &["resilience", "telemetry"];

impl Policy {
    /// Reads a policy of version 1 from JSON of at most [`MAX_BYTES`] bytes.
    ///
    /// On failure all errors are there, one at least, each naming its path, its value and what is allowed.
    pub fn from_json(bytes: &[u8]) -> Result<Policy, Vec<PolicyError>> {
        if bytes.len() > MAX_BYTES {
            return Err(vec![too_long()]);
        }
        match serde_json::from_slice(bytes) {
            Ok(Unique(value)) => Self::from_value(&value),
            Err(error) => Err(vec![of_document(format!("must be JSON: {error}"))]),
        }
    }

    /// Reads a policy of version 1 from a document already taken apart, of at most [`MAX_BYTES`] bytes as JSON.
    ///
    /// | what | range |
    /// | --- | --- |
    /// | lanes beside the normal one | at most 64 |
    /// | entries in `rate_limits` | at most 1000 |
    /// | keys of a limit | 1 to 64, each of at most 16 sources |
    /// | windows of a limit | 1 to 16, of 1 to 10^9 requests in 1ms to 366d |
    /// | keys x windows, over all limits of all lanes | at most 65,536 |
    /// | commands | at most 1000 |
    /// | names | 1 to 64 letters, digits, `_` and `-` |
    ///
    /// On failure all errors are there, one at least, each naming its path, its value and what is allowed.
    pub fn from_value(value: &Value) -> Result<Policy, Vec<PolicyError>> {
        if is_longer_than(MAX_BYTES, value) {
            return Err(vec![too_long()]);
        }
        let report = Report::default();
        let policy = read(&Node::root(value, &report));
        let mut errors = report.into_errors();
        match policy {
            Some(policy) if errors.is_empty() => Ok(policy),
            _ => {
                if errors.is_empty() {
                    // No reading function gives up without a note; a slip in one must not pass for a policy.
                    errors.push(of_document("cannot be read".to_owned()));
                }
                Err(errors)
            }
        }
    }
}

fn too_long() -> PolicyError {
    of_document(format!("must be at most {MAX_BYTES} bytes of JSON"))
}

fn of_document(problem: String) -> PolicyError {
    PolicyError { path: String::new(), value: String::new(), problem }
}

fn read(root: &Node<'_>) -> Option<Policy> {
    let fields = root.fields(SECTIONS, LATER)?;
    fields.need("version", ": it is 1").and_then(|node| node.whole(1..=1));
    let drafts = fields.get("lanes").map(|node| lanes::read(&node)).unwrap_or_default();
    let store = fields.maybe("store", |node| store::read(&node));
    let commands_at = fields.get("commands");
    let commands = fields.or("commands", Vec::new(), |node| commands::read(&node));
    let around = Surroundings {
        commands: Known(commands::names(commands_at.as_ref())),
        on_failure: store.iter().flatten().next().map_or(OnFailure::Local, |(_, on_failure)| *on_failure),
    };
    let lanes = inherit::read(fields.get("rate_limits").as_ref(), drafts, &around);
    let responses = fields.or("responses", Responses::default(), |node| responses::read(&node));
    Some(Policy {
        lanes: lanes?,
        store: store?.map(|(store, _)| store),
        commands: commands?,
        responses: responses?,
        warnings: Vec::new(),
    })
}
