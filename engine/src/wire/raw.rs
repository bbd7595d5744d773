//! An answer as a worker reads it.
//!
//! The outcome is a field among the others, and may come last. What serde derives for that keeps all the others aside
//! until it knows the outcome, and then reads them again: two thirds of what a worker did with an answer.

use serde::Deserialize;

use super::{CheckAnswer, KeyAnswer, StoreError};

/// The fields of every outcome.
#[derive(Deserialize)]
pub(super) struct RawAnswer {
    outcome: Outcome,
    keys: Option<Vec<KeyAnswer>>,
    error: Option<StoreError>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Allowed,
    Rejected,
    Failed,
}

/// An answer lacks what goes with its outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("missing field `{field}`")]
pub(super) struct Missing {
    field: &'static str,
}

impl TryFrom<RawAnswer> for CheckAnswer {
    type Error = Missing;

    fn try_from(raw: RawAnswer) -> Result<Self, Missing> {
        let keys = raw.keys.ok_or(Missing { field: "keys" });
        Ok(match raw.outcome {
            Outcome::Allowed => Self::Allowed { keys: keys? },
            Outcome::Rejected => Self::Rejected { keys: keys? },
            Outcome::Failed => Self::Failed { error: raw.error.ok_or(Missing { field: "error" })? },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn read(json: &str) -> Result<CheckAnswer, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn every_outcome_reads_as_it_was_written_wherever_it_stands() {
        let key = KeyAnswer { granted: 1, at_us: 7, shard: 0, lease: None, windows: Vec::new() };
        for answer in [
            CheckAnswer::Allowed { keys: vec![key.clone()] },
            CheckAnswer::Rejected { keys: vec![key] },
            CheckAnswer::Failed { error: StoreError::Timeout },
        ] {
            assert_eq!(read(&serde_json::to_string(&answer).unwrap()).unwrap(), answer);
        }
        let failed = CheckAnswer::Failed { error: StoreError::Full };
        assert_eq!(read(r#"{"error": "full", "later": 1, "outcome": "failed"}"#).unwrap(), failed);
    }

    #[test]
    fn an_answer_without_its_fields_is_none() {
        for (json, problem) in [
            ("{}", "missing field `outcome`"),
            (r#"{"outcome": "allowed"}"#, "missing field `keys`"),
            (r#"{"outcome": "rejected", "error": "full"}"#, "missing field `keys`"),
            (r#"{"outcome": "failed", "keys": []}"#, "missing field `error`"),
            (r#"{"outcome": "perhaps"}"#, "unknown variant `perhaps`"),
        ] {
            let refused = read(json).unwrap_err();
            assert!(refused.starts_with(problem), "{json}: {refused}");
        }
    }
}
