//! What a node says of its breakers, beside its questions.
//!
//! Every worker of a node knows the same breakers, each callout may go to another shim, and callouts overtake each other. So
//! a report stands for itself and may come twice, and its generation says which of two is the newer one.

use serde::{Deserialize, Serialize};

use super::{BatchError, refuse};
use crate::breaker::State;
use crate::window::MAX_EXACT;

/// The most reports in one message.
pub const MAX_REPORTS: usize = 256;
/// The longest name of a breaker, in bytes: a lane's name, a dot and a command's.
pub const MAX_BREAKER_BYTES: usize = 129;

/// The state of one breaker of the node that asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BreakerReport {
    /// Its name: letters, digits, `_`, `-` and dots, a letter or digit first, at most [`MAX_BREAKER_BYTES`].
    pub name: String,
    /// Its state.
    pub state: State,
    /// Goes up with each change of the state. Of a node's reports of a breaker the one with the highest counts, and of those
    /// with the same, the last.
    pub generation: u64,
    /// For how long it has been in this state, as the message leaves; left out if it has never changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub for_ms: Option<u64>,
}

/// Holds what `node` says to the ranges its fields name.
pub(super) fn validate(reports: &[BreakerReport], node: Option<u64>) -> Result<(), BatchError> {
    if reports.len() > MAX_REPORTS {
        return refuse("breakers".into(), format!("at most {MAX_REPORTS} are allowed"));
    }
    if node.is_none() && !reports.is_empty() {
        return refuse("node".into(), "is needed beside breakers, which are a node's".into());
    }
    for (at, report) in reports.iter().enumerate() {
        report
            .validate()
            .map_err(|(field, problem)| BatchError { field: format!("breakers[{at}].{field}"), problem })?;
    }
    Ok(())
}

impl BreakerReport {
    fn validate(&self) -> Result<(), (&'static str, String)> {
        if self.name.is_empty() || self.name.len() > MAX_BREAKER_BYTES {
            return Err(("name", format!("1 to {MAX_BREAKER_BYTES} bytes are allowed")));
        }
        let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
        if !self.name.bytes().all(inner) || !self.name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
            let allowed = "only letters, digits, _, - and dots are allowed, and a letter or digit first";
            return Err(("name", allowed.into()));
        }
        if self.for_ms.is_some_and(|for_ms| for_ms > MAX_EXACT) {
            return Err(("for_ms", format!("at most {MAX_EXACT} is allowed")));
        }
        Ok(())
    }
}
