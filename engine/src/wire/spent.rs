//! What a node admitted by itself in the store's place, told once the store is back: an outage report.
//!
//! A report says how much was spent how long ago, in a few slices. Ages and not moments, for the node has another clock
//! than the store; a slice is as old as the youngest of its tokens, and the way to the store makes it younger still, so
//! that nothing leaves a window too soon.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{BatchError, StoreError, check_store_key, is_unsharded, refuse, unsharded};
use crate::window::{MAX_EXACT, Window};

/// The most reports in one message.
pub const MAX_SPENT: usize = 256;
/// The most slices of one report.
pub const MAX_SLICES: usize = 16;

/// What was spent of one key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeySpent {
    /// The key, as it would have been asked for.
    pub key: String,
    /// Over how many store keys it is spread. Each is charged its part.
    #[serde(default = "unsharded", skip_serializing_if = "is_unsharded")]
    pub shards: u16,
    /// The asker's own number for this report, from an even draw: a report that comes twice counts once.
    pub id: u64,
    /// 1 to [`MAX_SLICES`], the oldest first.
    pub slices: Vec<Slice>,
    /// The windows, as they would have been asked for.
    pub windows: Arc<[Window]>,
}

/// Tokens that were spent no later than so long ago.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slice {
    /// How long before the message the latest of them was spent, in microseconds: at most [`MAX_EXACT`].
    pub age_us: u64,
    /// How many; at least 1, at most the largest capacity of the windows.
    pub tokens: u32,
}

/// What became of one report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Recorded {
    /// It counts: from now on, or since it came before.
    Recorded,
    /// Nobody knows whether it counts: it may be sent again, under the same number.
    Failed(StoreError),
    /// It surely does not count, and what it told may be told otherwise.
    NotRecorded(StoreError),
}

pub(super) fn validate(reports: &[KeySpent]) -> Result<(), BatchError> {
    if reports.len() > MAX_SPENT {
        return refuse("spent".into(), format!("at most {MAX_SPENT} are allowed"));
    }
    for (at, report) in reports.iter().enumerate() {
        check_store_key(&report.key, report.shards, &report.windows)
            .map_err(|(field, problem)| BatchError { field: format!("spent[{at}].{field}"), problem })?;
        report
            .check_slices()
            .map_err(|(field, problem)| BatchError { field: format!("spent[{at}].{field}"), problem })?;
    }
    Ok(())
}

impl KeySpent {
    fn check_slices(&self) -> Result<(), (String, String)> {
        if self.slices.is_empty() || self.slices.len() > MAX_SLICES {
            return Err(("slices".into(), format!("1 to {MAX_SLICES} are allowed")));
        }
        let most = self.windows.iter().map(Window::capacity).max().unwrap_or(0);
        let mut oldest = MAX_EXACT;
        for (at, slice) in self.slices.iter().enumerate() {
            if !(1..=most).contains(&slice.tokens) {
                let problem = format!("1 to {most} are allowed, what the largest of its windows can hold");
                return Err((format!("slices[{at}].tokens"), problem));
            }
            if slice.age_us > oldest {
                let problem = format!("at most {oldest} is allowed: the oldest come first");
                return Err((format!("slices[{at}].age_us"), problem));
            }
            oldest = slice.age_us;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::window::Algorithm;
    use crate::wire::DecideRequest;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn window(limit: u32) -> Window {
        Window::new(limit, Duration::from_secs(1), Algorithm::SlidingWindow).unwrap()
    }

    fn report(slices: &[(u64, u32)]) -> KeySpent {
        let slices = slices.iter().map(|&(age_us, tokens)| Slice { age_us, tokens }).collect();
        KeySpent { key: "k".into(), shards: 1, id: 7, slices, windows: [window(3), window(9)].into() }
    }

    fn message(spent: Vec<KeySpent>) -> DecideRequest {
        DecideRequest { spent, ..DecideRequest::new(20, Vec::new()) }
    }

    fn refused(spent: Vec<KeySpent>) -> Option<String> {
        message(spent).validate().err().map(|error| error.field)
    }

    #[test]
    fn goes_over_the_wire_and_back_beside_no_question() {
        let message = message(vec![report(&[(5_000_000, 9), (0, 1)])]);
        assert_eq!(message.validate(), Ok(()));
        let json = serde_json::to_string(&message).unwrap();
        assert!(json.contains(r#""id":7,"slices":[{"age_us":5000000,"tokens":9},{"age_us":0,"tokens":1}]"#));
        assert_eq!(serde_json::from_str::<DecideRequest>(&json).unwrap(), message);
        let refused = Recorded::NotRecorded(StoreError::Refused);
        let outcomes = [Recorded::Recorded, Recorded::Failed(StoreError::Timeout), refused];
        let json = r#"["recorded",{"failed":"timeout"},{"not_recorded":"refused"}]"#;
        assert_eq!(serde_json::to_string(&outcomes).unwrap(), json);
    }

    #[test]
    fn refuses_what_is_out_of_range_by_its_name() {
        let whole = report(&[(5, 3)]);
        assert_eq!(refused(vec![whole.clone(); MAX_SPENT]), None);
        assert_eq!(refused(vec![whole.clone(); MAX_SPENT + 1]).unwrap(), "spent");
        for (slices, field) in [
            (&[][..], "slices"),
            (&[(1, 1); MAX_SLICES + 1], "slices"),
            (&[(1, 0)], "slices[0].tokens"),
            (&[(1, 9), (1, 10)], "slices[1].tokens"),
            (&[(1, 1), (2, 1)], "slices[1].age_us"),
            (&[(MAX_EXACT + 1, 1)], "slices[0].age_us"),
        ] {
            assert_eq!(
                refused(vec![report(&[(1, 1)]), report(slices)]).unwrap(),
                format!("spent[1].{field}")
            );
        }
        assert_eq!(refused(vec![KeySpent { shards: 0, ..whole }]).unwrap(), "spent[0].shards");
    }
}
