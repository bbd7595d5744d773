//! A batch as the filter sends it, ready for the wire but for whose it is.
//!
//! Writing and reading JSON for each decision would cost whoever asks as much as the shim, on the shim's own core. So
//! the bytes are made once for each length of a batch, and only the subjects' digits are written anew.

use anyhow::Result;
use lanekeeper_engine::window::Window;
use lanekeeper_engine::wire::{Check, DECIDE_PATH, DecideRequest, KeyCheck};

use crate::limits;

/// The most checks in a batch of the filter's, each of a request of its own.
pub(super) const MOST_CHECKS: usize = 64;
/// Where `redis-benchmark` puts a random number, and this bench a subject's: both of twelve digits.
pub(super) const SUBJECT: &str = "__rand_int__";
/// What a filter whose store may take 200 ms asks for.
const SPEND_WITHIN_MS: u32 = 200;

/// What is asked: one limit, for one key.
#[derive(Clone, Debug)]
pub(super) struct Question {
    /// For batches of one check, of two, and so on.
    requests: Vec<Template>,
}

/// A whole HTTP request.
#[derive(Clone, Debug)]
struct Template {
    bytes: Vec<u8>,
    /// Where the subjects' digits begin.
    places: Vec<usize>,
}

impl Question {
    /// For one limit of two windows, 100 a minute and 1000 an hour.
    pub(super) fn new(algorithm: &str) -> Result<Self> {
        Self::of(&limits::ordinary(algorithm)?)
    }

    pub(super) fn of(windows: &[Window]) -> Result<Self> {
        let requests = (1..=MOST_CHECKS).map(|checks| Template::new(checks, windows));
        Ok(Self { requests: requests.collect::<Result<_>>()? })
    }

    /// Writes a batch over these subjects to `request`.
    pub(super) fn write(&self, subjects: &[u64], request: &mut Vec<u8>) {
        request.clear();
        let Some(template) = subjects.len().checked_sub(1).and_then(|at| self.requests.get(at)) else {
            return;
        };
        request.extend_from_slice(&template.bytes);
        for (subject, place) in subjects.iter().zip(&template.places) {
            if let Some(digits) = request.get_mut(*place..*place + SUBJECT.len()) {
                digits.copy_from_slice(digits_of(*subject).as_bytes());
            }
        }
    }
}

/// A subject's twelve digits.
pub(super) fn digits_of(subject: u64) -> String {
    format!("{subject:012}")
}

/// The store key of a subject.
pub(super) fn key(subject: &str) -> String {
    format!("per_user:{{{subject}}}")
}

impl Template {
    fn new(checks: usize, windows: &[Window]) -> Result<Self> {
        let check = Check { keys: vec![KeyCheck::take(key(SUBJECT), 1, windows)] };
        let checks = vec![check; checks];
        let batch = DecideRequest::new(SPEND_WITHIN_MS, checks);
        let body = serde_json::to_string(&batch)?;
        let request = format!(
            "POST {DECIDE_PATH} HTTP/1.1\r\nhost: lanekeeper\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let places = request.match_indices(SUBJECT).map(|(place, _)| place).collect();
        Ok(Self { bytes: request.into_bytes(), places })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_asks_for_its_subjects_in_their_order() {
        let mut request = Vec::new();
        Question::new("token_bucket").unwrap().write(&[7, 123_456_789_012, 0], &mut request);
        let request = String::from_utf8(request).unwrap();
        let (head, body) = request.split_once("\r\n\r\n").unwrap();
        assert!(head.ends_with(&format!("content-length: {}", body.len())), "{head}");
        let batch: DecideRequest = serde_json::from_str(body).unwrap();
        batch.validate().unwrap();
        let keys: Vec<&str> = batch.checks.iter().map(|check| check.keys[0].key.as_str()).collect();
        assert_eq!(keys, ["per_user:{000000000007}", "per_user:{123456789012}", "per_user:{000000000000}"]);
    }
}
