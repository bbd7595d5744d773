//! Streams that wait for the answer to another stream's question.
//!
//! Of the requests of one moment for a subject that the node does not know, the first asks, and the others follow it: its
//! answer brings tokens for them, or a refusal, or neither, and then each is judged anew. A question that failed has
//! failed for them as well, so that nobody waits for one failure after another.

use std::collections::{BTreeMap, VecDeque};

use crate::units::Timestamp;

/// The followers among the streams of one worker.
#[derive(Debug, Default)]
pub struct Followers {
    by_subject: BTreeMap<u128, Vec<Waiting>>,
    freed: VecDeque<Freed>,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    stream: u32,
    since: Timestamp,
}

/// A stream that waits no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Freed {
    /// The stream.
    pub stream: u32,
    /// Since when it has waited.
    pub since: Timestamp,
    /// Whether it may ask for itself now. Else what is known decides, or the store has failed it.
    pub may_ask: bool,
}

impl Followers {
    /// A stream waits for what is heard of `subject`.
    pub fn follow(&mut self, subject: u128, stream: u32, since: Timestamp) {
        self.by_subject.entry(subject).or_default().push(Waiting { stream, since });
    }

    /// Something was heard of these subjects, or is not to be heard any more.
    pub fn free(&mut self, subjects: &[u128], may_ask: bool) {
        for subject in subjects {
            let followers = self.by_subject.remove(subject).into_iter().flatten();
            self.freed.extend(followers.map(|follower| follower.freed(may_ask)));
        }
    }

    /// Frees those who have waited since before `moment`: nothing was heard in time.
    pub fn free_since_before(&mut self, moment: Timestamp) {
        self.by_subject.retain(|_, followers| {
            let late = followers.extract_if(.., |follower| follower.since < moment);
            self.freed.extend(late.map(|follower| follower.freed(false)));
            !followers.is_empty()
        });
    }

    /// The next stream that waits no more.
    pub fn next_freed(&mut self) -> Option<Freed> {
        self.freed.pop_front()
    }

    /// Whether a stream is to be judged anew.
    pub fn has_freed(&self) -> bool {
        !self.freed.is_empty()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.by_subject.is_empty() && self.freed.is_empty()
    }
}

impl Waiting {
    fn freed(self, may_ask: bool) -> Freed {
        Freed { stream: self.stream, since: self.since, may_ask }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_micros(ms * 1000)
    }

    fn freed(followers: &mut Followers) -> Vec<(u32, bool)> {
        std::iter::from_fn(|| followers.next_freed()).map(|freed| (freed.stream, freed.may_ask)).collect()
    }

    #[test]
    fn those_who_follow_a_subject_are_freed_in_their_order_when_it_is_heard_of() {
        let mut followers = Followers::default();
        for (subject, stream) in [(1, 10), (2, 20), (1, 11)] {
            followers.follow(subject, stream, at(0));
        }
        followers.free(&[1, 3], true);
        assert!(followers.has_freed());
        assert_eq!(freed(&mut followers), [(10, true), (11, true)]);
        assert!(!followers.has_freed() && !followers.is_empty());
        followers.free(&[2], false);
        assert_eq!(freed(&mut followers), [(20, false)]);
        assert!(followers.is_empty());
    }

    #[test]
    fn nobody_follows_for_longer_than_the_timeout() {
        let mut followers = Followers::default();
        for (stream, ms) in [(1, 5), (2, 9), (3, 4)] {
            followers.follow(7, stream, at(ms));
        }
        followers.free_since_before(at(6));
        assert_eq!(freed(&mut followers), [(1, false), (3, false)]);
        followers.free(&[7], true);
        assert_eq!(followers.next_freed(), Some(Freed { stream: 2, since: at(9), may_ask: true }));
    }
}
