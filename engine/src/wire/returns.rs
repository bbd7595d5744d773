//! Tokens that were charged and not spent, on their way back: `POST /v1/return`.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{
    BatchError, StoreError, check_store_key, check_version, is_first, is_unsharded, refuse, unsharded,
};
use crate::window::{MAX_EXACT, Window};

/// The path at which unspent tokens are given back.
pub const RETURN_PATH: &str = "/v1/return";
/// The most returns in one message.
pub const MAX_RETURNS: usize = 1024;

/// Tokens that were charged and will not be spent, each for itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReturnRequest {
    /// [`VERSION`].
    pub version: u32,
    /// 1 to [`MAX_RETURNS`] returns.
    pub returns: Vec<KeyReturn>,
}

/// Tokens of one charge of one key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyReturn {
    /// The key, as it was asked for.
    pub key: String,
    /// Over how many store keys it is spread.
    #[serde(default = "unsharded", skip_serializing_if = "is_unsharded")]
    pub shards: u16,
    /// Which of them was charged: what the answer said.
    #[serde(default, skip_serializing_if = "is_first")]
    pub shard: u16,
    /// How many go back; at least 1, at most what was granted.
    pub tokens: u32,
    /// Until when they could be spent: the answer's [`at_us`](KeyAnswer::at_us) and the question's
    /// [`spend_within_ms`](DecideRequest::spend_within_ms) or the lease's life together. Once that is past nothing goes
    /// back.
    pub dated_us: u64,
    /// The asker's own number for this return, from an even draw: a message that comes twice gives back once.
    pub id: u64,
    /// The windows, as they were asked for.
    pub windows: Arc<[Window]>,
}

/// What went back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReturnResponse {
    /// [`VERSION`].
    pub version: u32,
    /// One for each return, in their order.
    pub returned: Vec<Returned>,
}

/// What became of one return.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Returned {
    /// So many tokens went back: none when it was too late, or done already.
    Tokens(u32),
    /// The store could not do it. The tokens count until their windows have passed, unless it did and only its answer
    /// was lost.
    Failed(StoreError),
}

impl ReturnRequest {
    /// Holds the message to the ranges its fields name.
    pub fn validate(&self) -> Result<(), BatchError> {
        check_version(self.version)?;
        if self.returns.is_empty() || self.returns.len() > MAX_RETURNS {
            return refuse("returns".into(), format!("1 to {MAX_RETURNS} are allowed"));
        }
        validate_each(&self.returns)
    }
}

pub(super) fn validate_each(returns: &[KeyReturn]) -> Result<(), BatchError> {
    for (at, key) in returns.iter().enumerate() {
        key.validate()
            .map_err(|(field, problem)| BatchError { field: format!("returns[{at}].{field}"), problem })?;
    }
    Ok(())
}

impl KeyReturn {
    fn validate(&self) -> Result<(), (&'static str, String)> {
        check_store_key(&self.key, self.shards, &self.windows)?;
        if self.shard >= self.shards {
            return Err(("shard", format!("0 to {} are allowed", self.shards - 1)));
        }
        if self.tokens == 0 {
            return Err(("tokens", "at least 1 is allowed".into()));
        }
        if self.dated_us > MAX_EXACT {
            return Err(("dated_us", format!("at most {MAX_EXACT} is allowed")));
        }
        Ok(())
    }
}
