//! The messages between the plugin and the shim: `POST /v1/decide`, JSON both ways.
//!
//! A batch holds one check for each paused request (or more, when some of its limits are dry runs). Each check
//! is all or nothing over its keys; checks are independent of each other, and the answers come in their order.
//! What was charged and not spent goes back by `POST /v1/return`.
//! What is said here is untrusted on both sides: the shim refuses a batch that does not fit the ranges below,
//! and the plugin takes an answer of another shape for a failed store.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::counter::{Ask, Decision, KeyVerdict, WindowVerdict};
use crate::lease::{Lease, LeaseAsk};
use crate::window::Window;

mod breakers;
mod raw;
mod returns;
mod spent;
mod store_key;

pub use breakers::{BreakerReport, MAX_BREAKER_BYTES, MAX_REPORTS};
use raw::RawAnswer;
pub use returns::{KeyReturn, MAX_RETURNS, RETURN_PATH, ReturnRequest, ReturnResponse, Returned};
pub use spent::{KeySpent, MAX_SLICES, MAX_SPENT, Recorded, Slice};
use store_key::check_store_key;

/// The version of these messages. A side that reads another one refuses.
pub const VERSION: u32 = 1;
/// The path of the decision endpoint.
pub const DECIDE_PATH: &str = "/v1/decide";
/// The shim marks each of its answers with this header, so that an answer Envoy made in its place
/// (503 on a refused connection, 504 on a timeout) is never taken for the shim's own.
pub const SHIM_HEADER: &str = "x-lanekeeper-shim";
/// The most checks in one batch.
pub const MAX_CHECKS: usize = 256;
/// The most keys in one check: of all the limits that one request meets.
pub const MAX_KEYS: usize = 256;
/// The most windows of one key.
pub const MAX_WINDOWS: usize = 16;
/// The most store keys that a key is spread over.
pub const MAX_SHARDS: u16 = 256;
/// The longest store key, in bytes.
pub const MAX_KEY_BYTES: usize = 512;
/// The longest span for which a charge may be dated ahead.
pub const MAX_SPEND_WITHIN: Duration = Duration::from_secs(10);

/// A batch of questions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecideRequest {
    /// [`VERSION`].
    pub version: u32,
    /// How long after the decision its tokens may be spent: the asker's timeout. Unless it is 0, an answer that took
    /// longer is not waited for.
    pub spend_within_ms: u32,
    /// The asker's own number, from an even draw, if it is one of the nodes that are counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<u64>,
    /// What the node admitted by itself while the store was away, at most [`MAX_SPENT`] reports. It counts before anything
    /// else is done.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub spent: Vec<KeySpent>,
    /// Tokens that go back before anything is decided, at most [`MAX_RETURNS`]. Nobody hears what became of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub returns: Vec<KeyReturn>,
    /// What the node says of its breakers, at most [`MAX_REPORTS`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub breakers: Vec<BreakerReport>,
    /// At most [`MAX_CHECKS`] questions, and none only beside reports, returns or breakers.
    pub checks: Vec<Check>,
}

/// What becomes of a key's counters when every window of the check allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// They are charged.
    #[default]
    Take,
    /// They stay as they are. What is allowed now may be refused a moment later.
    Peek,
}

/// One question: may all of this be charged?
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// 1 to [`MAX_KEYS`] keys, all or nothing, no two the same.
    pub keys: Vec<KeyCheck>,
}

/// One key of a question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyCheck {
    /// The key in the store: printable ASCII, at most [`MAX_KEY_BYTES`], with one hash tag in braces.
    pub key: String,
    /// Whether it is charged.
    #[serde(default, skip_serializing_if = "is_take")]
    pub operation: Operation,
    /// How much is asked for: at least 1, at most the capacity of each window. 0 where only a lease is asked for, which
    /// is rejected when nothing is left.
    pub cost: u32,
    /// With how much less the asker is content, 1 to `cost`; left out, with nothing less. As much of `cost` is
    /// granted as fits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_least: Option<u32>,
    /// Over how many store keys it is spread, 1 to [`MAX_SHARDS`]: each holds its part of every window's limit.
    #[serde(default = "unsharded", skip_serializing_if = "is_unsharded")]
    pub shards: u16,
    /// What is to be charged in advance beside the cost, if that is allowed and charged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<LeaseAsk>,
    /// 1 to [`MAX_WINDOWS`] windows.
    pub windows: Arc<[Window]>,
}

fn unsharded() -> u16 {
    1
}

fn is_unsharded(shards: &u16) -> bool {
    *shards == 1
}

fn is_take(operation: &Operation) -> bool {
    *operation == Operation::Take
}

/// The answers to a batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecideResponse {
    /// [`VERSION`].
    pub version: u32,
    /// How many nodes there are, as far as the store knows: those that asked within the last 150 seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<u32>,
    /// No server of the store would have answered: to ask again at once is of no use.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub away: bool,
    /// One for each report of what was spent, in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub spent: Vec<Recorded>,
    /// One for each check, in their order.
    pub answers: Vec<CheckAnswer>,
}

/// The answer to one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case", try_from = "RawAnswer")]
pub enum CheckAnswer {
    /// Every window allowed; all are charged.
    Allowed {
        /// One for each key, in their order.
        keys: Vec<KeyAnswer>,
    },
    /// At least one window refused; nothing is charged.
    Rejected {
        /// One for each key, in their order.
        keys: Vec<KeyAnswer>,
    },
    /// The store could not decide. Nothing was charged, or what was charged will not be spent.
    Failed {
        /// Why, for logs and metrics.
        error: StoreError,
    },
}

/// What the windows of one key say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyAnswer {
    /// How much of the cost was granted; 0 when the check was rejected. Of a key that is only looked at, what
    /// would have been.
    pub granted: u32,
    /// When, in microseconds of the key's own time, which is the store's clock and never runs backwards.
    pub at_us: u64,
    /// Of a key that is spread over several store keys: which of them answered.
    #[serde(default, skip_serializing_if = "is_first")]
    pub shard: u16,
    /// What was charged in advance: its last moment is [`at_us`](Self::at_us) and its life together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<Lease>,
    /// One for each window, in their order.
    pub windows: Vec<WindowAnswer>,
}

fn is_first(shard: &u16) -> bool {
    *shard == 0
}

/// What one window says, as it stands after the decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowAnswer {
    /// What is left.
    pub remaining: u32,
    /// Microseconds until more is left than now; 0 when nothing is used.
    pub reset_us: u64,
    /// Microseconds until the cost fits; 0 in a window that allowed.
    pub wait_us: u64,
}

/// Why a store could not decide. The names are metric values: few, and none comes from a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum StoreError {
    /// There is no connection: nothing was sent.
    #[error("the store is unreachable")]
    Unreachable,
    /// The connection broke before the answer came: what was asked may have been done.
    #[error("the connection to the store broke")]
    Disconnected,
    /// No answer within the shim's timeout.
    #[error("the store did not answer in time")]
    Timeout,
    /// The store answered with an error (wrong type, out of memory, read-only, no permission).
    #[error("the store refused")]
    Refused,
    /// The store's answer does not fit the question.
    #[error("the store's answer does not fit")]
    Malformed,
    /// The store's memory is nearly used up, and it has not seen one of the subjects before.
    #[error("the store has no room for a subject that it has not seen before")]
    Full,
}

impl From<Decision> for CheckAnswer {
    fn from(decision: Decision) -> Self {
        let keys = decision.keys.into_iter().map(KeyAnswer::from).collect();
        if decision.allowed { CheckAnswer::Allowed { keys } } else { CheckAnswer::Rejected { keys } }
    }
}

impl From<KeyVerdict> for KeyAnswer {
    fn from(verdict: KeyVerdict) -> Self {
        let windows = verdict.windows.into_iter().map(WindowAnswer::from).collect();
        Self {
            granted: verdict.granted,
            at_us: verdict.at.as_micros(),
            shard: 0,
            lease: verdict.lease,
            windows,
        }
    }
}

impl From<WindowVerdict> for WindowAnswer {
    fn from(verdict: WindowVerdict) -> Self {
        let micros = crate::units::micros;
        Self { remaining: verdict.remaining, reset_us: micros(verdict.reset), wait_us: micros(verdict.wait) }
    }
}

impl From<WindowAnswer> for WindowVerdict {
    fn from(answer: WindowAnswer) -> Self {
        Self {
            remaining: answer.remaining,
            reset: Duration::from_micros(answer.reset_us),
            wait: Duration::from_micros(answer.wait_us),
        }
    }
}

/// Why a message is refused: which field, and what is allowed there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct BatchError {
    /// The field, as in `checks[2].keys[0].cost`.
    pub field: String,
    /// What is wrong with it and what is allowed.
    pub problem: String,
}

impl DecideRequest {
    /// Questions of nobody who is counted as a node.
    pub fn new(spend_within_ms: u32, checks: Vec<Check>) -> Self {
        Self {
            version: VERSION,
            spend_within_ms,
            node: None,
            spent: Vec::new(),
            returns: Vec::new(),
            breakers: Vec::new(),
            checks,
        }
    }

    /// Holds the batch to the ranges its fields name. What serde checks (types, windows) is not checked again.
    pub fn validate(&self) -> Result<(), BatchError> {
        check_version(self.version)?;
        if u128::from(self.spend_within_ms) > MAX_SPEND_WITHIN.as_millis() {
            return refuse("spend_within_ms".into(), format!("at most {}", MAX_SPEND_WITHIN.as_millis()));
        }
        spent::validate(&self.spent)?;
        if self.returns.len() > MAX_RETURNS {
            return refuse("returns".into(), format!("at most {MAX_RETURNS} are allowed"));
        }
        returns::validate_each(&self.returns)?;
        breakers::validate(&self.breakers, self.node)?;
        let is_bare = self.spent.is_empty() && self.returns.is_empty() && self.breakers.is_empty();
        let least = usize::from(is_bare);
        if !(least..=MAX_CHECKS).contains(&self.checks.len()) {
            return refuse("checks".into(), format!("{least} to {MAX_CHECKS} are allowed"));
        }
        for (c, check) in self.checks.iter().enumerate() {
            if check.keys.is_empty() || check.keys.len() > MAX_KEYS {
                return refuse(format!("checks[{c}].keys"), format!("1 to {MAX_KEYS} are allowed"));
            }
            for (k, key) in check.keys.iter().enumerate() {
                key.validate().map_err(|(field, problem)| BatchError {
                    field: format!("checks[{c}].keys[{k}].{field}"),
                    problem,
                })?;
                if check.keys.iter().take(k).any(|earlier| earlier.key == key.key) {
                    return refuse(format!("checks[{c}].keys[{k}].key"), "stands in this check twice".into());
                }
            }
        }
        Ok(())
    }
}

fn refuse(field: String, problem: String) -> Result<(), BatchError> {
    Err(BatchError { field, problem })
}

fn check_version(version: u32) -> Result<(), BatchError> {
    match version {
        VERSION => Ok(()),
        other => refuse("version".into(), format!("{other} is not spoken here, {VERSION} is")),
    }
}

impl KeyCheck {
    /// All of `cost` or nothing, from one store key.
    pub fn take(key: impl Into<String>, cost: u32, windows: impl Into<Arc<[Window]>>) -> Self {
        let (key, windows) = (key.into(), windows.into());
        Self { key, operation: Operation::Take, cost, at_least: None, shards: 1, lease: None, windows }
    }

    /// The same question, with nothing charged.
    pub fn peek(self) -> Self {
        Self { operation: Operation::Peek, lease: None, ..self }
    }

    /// What it asks of the key's counters.
    pub fn ask(&self) -> Ask {
        let at_least = self.at_least.unwrap_or(self.cost).max(1);
        Ask { operation: self.operation, cost: self.cost, at_least, lease: self.lease }
    }

    fn validate(&self) -> Result<(), (&'static str, String)> {
        check_store_key(&self.key, self.shards, &self.windows)?;
        // the smallest of the parts that a key is spread over holds as much
        let most = self.windows.iter().map(Window::capacity).min().unwrap_or(0) / u32::from(self.shards);
        let least = u32::from(self.lease.is_none());
        if !(least..=most).contains(&self.cost) {
            return Err(("cost", format!("{least} to {most} are allowed, what its windows can hold")));
        }
        if let Some(lease) = self.lease {
            if self.operation == Operation::Peek {
                return Err(("lease", "nothing is leased where nothing is charged".into()));
            }
            lease.validate()?;
        }
        if self.at_least.is_some_and(|least| least == 0 || least > self.cost) {
            return Err(("at_least", format!("1 to {} are allowed, what is asked for", self.cost)));
        }
        Ok(())
    }
}

impl DecideResponse {
    /// Whether this answers `request`: the same version, and an answer for each report, check, key and window.
    pub fn fits(&self, request: &DecideRequest) -> bool {
        self.version == VERSION
            && self.spent.len() == request.spent.len()
            && self.answers.len() == request.checks.len()
            && self.answers.iter().zip(&request.checks).all(|(answer, check)| answer.fits(check))
    }
}

impl CheckAnswer {
    fn fits(&self, check: &Check) -> bool {
        match self {
            CheckAnswer::Failed { .. } => true,
            CheckAnswer::Allowed { keys } | CheckAnswer::Rejected { keys } => {
                keys.len() == check.keys.len()
                    && keys.iter().zip(&check.keys).all(|(answer, key)| {
                        answer.windows.len() == key.windows.len()
                            && answer.granted <= key.cost
                            && answer.lease.is_none_or(|lease| key.lease.is_some_and(|ask| lease.fits(ask)))
                    })
            }
        }
    }
}
