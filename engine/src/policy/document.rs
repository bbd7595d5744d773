//! The document as a whole: its size, its form and its sections.

use serde_json::Value;

use super::json::{self, NoJson};
use super::limits::Surroundings;
use super::matches::Known;
use super::read::{Node, Report};
use super::words::is_longer_than;
use super::{
    OnFailure, Policy, PolicyError, Responses, commands, inherit, lanes, resilience, responses, store,
};

/// The longest policy, in bytes of JSON. Each worker reads it while it serves requests.
pub const MAX_BYTES: usize = 1024 * 1024;

const SECTIONS: &[&str] =
    &["version", "lanes", "store", "commands", "rate_limits", "resilience", "responses"];
const LATER: &[&str] = &["telemetry"];

impl Policy {
    /// Reads a policy of version 1 from JSON of at most [`MAX_BYTES`] bytes.
    ///
    /// On failure all errors are there, one at least, each naming its path, its value and what is allowed.
    pub fn from_json(bytes: &[u8]) -> Result<Policy, Vec<PolicyError>> {
        if bytes.len() > MAX_BYTES {
            return Err(vec![too_long()]);
        }
        match json::read(bytes) {
            Ok(value) => Self::from_value(&value),
            Err(NoJson { path, error }) => {
                Err(vec![PolicyError { path, ..of_document(format!("must be JSON: {error}")) }])
            }
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
    /// | entries in `resilience` | at most 1000 |
    /// | breakers, over all lanes | at most 2048 |
    /// | names | 1 to 64 letters, digits, `_` and `-` |
    ///
    /// On failure all errors are there, one at least, each naming its path, its value and what is allowed.
    pub fn from_value(value: &Value) -> Result<Policy, Vec<PolicyError>> {
        if is_longer_than(MAX_BYTES, value) {
            return Err(vec![too_long()]);
        }
        let report = Report::default();
        let policy = read(&Node::root(value, &report));
        let (mut errors, warnings) = report.into_findings();
        match policy {
            Some(policy) if errors.is_empty() => Ok(Policy { warnings, ..policy }),
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
    let breakers = fields.get("resilience").map_or_else(
        || Some(Vec::new()),
        |node| resilience::read(&node, &drafts, &around.commands.0, &commands::places(commands_at.as_ref())),
    );
    let lanes = inherit::read(fields.get("rate_limits").as_ref(), drafts, &around);
    let responses = fields.or("responses", Responses::default(), |node| responses::read(&node));
    let mut lanes = lanes?;
    for (lane, breakers) in lanes.iter_mut().zip(breakers?) {
        lane.breakers = breakers;
    }
    Some(Policy {
        lanes,
        store: store?.map(|(store, _)| store),
        commands: commands?,
        responses: responses?,
        warnings: Vec::new(),
    })
}
