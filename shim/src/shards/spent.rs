//! What was spent of a key that is spread: every shard's part of a report.
//!
//! Nobody knows which shard would have been asked for which token, so each is charged as many as the others, and none
//! two more. Where the odd ones go follows from the report alone: one that is sent again is cut into the same parts,
//! and those that were counted already are known by its number.

use lanekeeper_engine::wire::{KeySpent, Recorded, Slice, StoreError};

use super::{parts, store_key};

/// What each store key is told of `report`; `None` when a part of a window cannot be counted, which a validated message
/// does not ask for.
pub(super) fn parts_of_report(report: &KeySpent) -> Option<Vec<KeySpent>> {
    if report.shards == 1 {
        return Some(vec![report.clone()]);
    }
    let part = |shard| {
        let slices = part_of_slices(report, shard);
        let windows = parts(&report.windows, report.shards, shard)?;
        Some(KeySpent { key: store_key(&report.key, shard), shards: 1, slices, windows, ..report.clone() })
    };
    let parts: Option<Vec<KeySpent>> = (0..report.shards).map(part).collect();
    parts.map(|parts| parts.into_iter().filter(|part| !part.slices.is_empty()).collect())
}

/// The report was recorded when each of its parts was, and was not when none was.
pub(super) fn together(answers: impl Iterator<Item = Recorded>) -> Recorded {
    let both = |one, other| match (one, other) {
        (Recorded::Recorded, Recorded::Recorded) => Recorded::Recorded,
        (Recorded::NotRecorded(error), Recorded::NotRecorded(_)) => Recorded::NotRecorded(error),
        (Recorded::Failed(error) | Recorded::NotRecorded(error), _)
        | (_, Recorded::Failed(error) | Recorded::NotRecorded(error)) => Recorded::Failed(error),
    };
    answers.reduce(both).unwrap_or(Recorded::Recorded)
}

/// What is said of a report that was not cut.
pub(super) const UNCUT: Recorded = Recorded::NotRecorded(StoreError::Malformed);

/// Token after token goes to shard after shard, from one that the report's number names.
fn part_of_slices(report: &KeySpent, shard: u16) -> Vec<Slice> {
    let (shards, shard) = (u64::from(report.shards), u64::from(shard));
    let mut first = report.id % shards;
    let part = |slice: &Slice| {
        let tokens = u64::from(slice.tokens);
        // how many after the first shard this one stands
        let place = (shard + shards - first) % shards;
        let part = tokens / shards + u64::from(place < tokens % shards);
        first = (first + tokens) % shards;
        Some(Slice { tokens: u32::try_from(part).ok()?, ..*slice }).filter(|slice| slice.tokens > 0)
    };
    report.slices.iter().filter_map(part).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use lanekeeper_engine::window::{Algorithm, Window};

    use super::*;

    fn report(id: u64, shards: u16, tokens: &[u32]) -> KeySpent {
        let slices = tokens.iter().map(|tokens| Slice { age_us: 0, tokens: *tokens }).collect();
        let windows = [Window::new(1000, Duration::from_secs(1), Algorithm::SlidingWindow).unwrap()].into();
        KeySpent { key: "a:{k}:g".into(), shards, id, slices, windows }
    }

    #[test]
    fn every_token_goes_to_one_shard_and_none_has_two_more_than_another() {
        for (id, tokens) in [(0, &[1, 1, 1][..]), (7, &[5]), (u64::MAX, &[3, 4, 1000]), (2, &[1])] {
            let report = report(id, 4, tokens);
            let parts = parts_of_report(&report).unwrap();
            assert_eq!(parts, parts_of_report(&report).unwrap());
            let of_part = |part: &KeySpent| part.slices.iter().map(|slice| slice.tokens).sum::<u32>();
            let mut counts: Vec<u32> = parts.iter().map(of_part).collect();
            counts.resize(4, 0);
            assert_eq!(counts.iter().sum::<u32>(), tokens.iter().sum::<u32>());
            assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1, "{counts:?}");
            assert!(parts.iter().all(|part| part.id == id && part.windows[0].limit() == 250));
        }
    }

    #[test]
    fn a_report_is_recorded_when_all_of_its_parts_are() {
        let (good, bad) = (Recorded::Recorded, Recorded::Failed(StoreError::Timeout));
        assert_eq!(together([good, good].into_iter()), good);
        assert_eq!(together([good, bad, good].into_iter()), bad);
        let (refused, failed) = (StoreError::Refused, |error| Recorded::Failed(error));
        let not = Recorded::NotRecorded(refused);
        assert_eq!(together([not, not].into_iter()), not);
        for some in [[not, good], [good, not]] {
            assert_eq!(together(some.into_iter()), failed(refused));
        }
        assert_eq!(together([not, bad].into_iter()), failed(refused));
    }
}
