//! Refusals that are remembered, so that a client that hammers costs the store nothing.
//!
//! Of a store's answers only a refusal is safe to keep without a lease: until the moment that it named, nobody can
//! have been given room. Tokens that others give back, and an operator's reset, may make room sooner; so that those are heard of,
//! no refusal is kept for longer than [`LONGEST`].

use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hash;
use std::time::Duration;

use siphasher::sip128::{Hasher128, SipHasher13};

use crate::units::{Timestamp, micros};
use crate::window::Window;
use crate::wire::{Check, CheckAnswer, KeyAnswer, KeyCheck, WindowAnswer};

/// The longest that a refusal is kept. A client that hammers then costs one question in as long.
pub const LONGEST: Duration = Duration::from_secs(10);
/// The most refusals kept at once: some 300 bytes each. When there are more, the soonest to end go first.
pub const MOST: usize = 16_384;

/// The refusals that one worker has heard of.
pub struct Refusals {
    secret: (u64, u64),
    by_subject: BTreeMap<u128, Refusal>,
    by_end: BTreeSet<(Timestamp, u128)>,
}

/// What a key said when it refused.
struct Refusal {
    asked_at: Timestamp,
    ends: Timestamp,
    /// What did not fit.
    least: u32,
    windows: Vec<WindowAnswer>,
}

impl Refusals {
    /// None yet. Subjects are told apart by a hash under this secret, so that nobody can make two of them one.
    pub fn new(secret: (u64, u64)) -> Self {
        Self { secret, by_subject: BTreeMap::new(), by_end: BTreeSet::new() }
    }

    /// Keeps what `answer` says of the keys of `check` that refused. `asked_at` is when it was asked, so that the
    /// way there and back makes no refusal longer.
    pub fn remember(&mut self, check: &Check, answer: &CheckAnswer, asked_at: Timestamp) {
        let CheckAnswer::Rejected { keys } = answer else { return };
        self.forget_ended(asked_at);
        for (key, answer) in check.keys.iter().zip(keys) {
            // a renewal that was refused says nothing of the tokens that are still there: the ledger remembers it
            let Some(ends) = ends(answer, asked_at).filter(|_| key.cost > 0) else { continue };
            let subject = subject(self.secret, key);
            let refusal =
                Refusal { asked_at, ends, least: key.ask().at_least, windows: answer.windows.clone() };
            if let Some(before) = self.by_subject.insert(subject, refusal) {
                self.by_end.remove(&(before.ends, subject));
            }
            self.by_end.insert((ends, subject));
        }
        while self.by_subject.len() > MOST {
            self.forget_first();
        }
    }

    /// The answer to `check` at `now`, if it is known to be a rejection: what its keys said that refuse, and nothing
    /// of the others.
    pub fn recall(&self, check: &Check, now: Timestamp) -> Option<CheckAnswer> {
        if !self.know(check, now) {
            return None;
        }
        let recalled: Vec<Option<KeyAnswer>> =
            check.keys.iter().map(|key| self.recall_key(key, now)).collect();
        recalled.iter().any(Option::is_some).then(|| CheckAnswer::Rejected {
            keys: recalled.into_iter().map(|answer| answer.unwrap_or_else(KeyAnswer::unknown)).collect(),
        })
    }

    /// Whether there is something to [`recall`](Self::recall) of `check` at `now`.
    pub(crate) fn know(&self, check: &Check, now: Timestamp) -> bool {
        check.keys.iter().any(|key| self.refuses(key, now))
    }

    /// Whether `key` is known to refuse at `now`.
    pub(crate) fn refuses(&self, key: &KeyCheck, now: Timestamp) -> bool {
        !self.by_subject.is_empty() && self.recall_key(key, now).is_some()
    }

    /// How many are kept.
    pub fn len(&self) -> usize {
        self.by_subject.len()
    }

    /// Whether none is kept.
    pub fn is_empty(&self) -> bool {
        self.by_subject.is_empty()
    }

    fn recall_key(&self, key: &KeyCheck, now: Timestamp) -> Option<KeyAnswer> {
        let refusal = self.by_subject.get(&subject(self.secret, key)).filter(|refusal| now < refusal.ends)?;
        let windows = refusal.windows_at(key.ask().at_least, now);
        let refuses = windows.iter().any(|window| window.wait_us > 0);
        refuses.then(|| KeyAnswer { windows, ..KeyAnswer::unknown() })
    }

    fn forget_ended(&mut self, now: Timestamp) {
        while self.by_end.first().is_some_and(|(ends, _)| *ends <= now) {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        if let Some((_, subject)) = self.by_end.pop_first() {
            self.by_subject.remove(&subject);
        }
    }
}

impl Refusal {
    /// What its windows say at `now` to a request that is content with `least`.
    fn windows_at(&self, least: u32, now: Timestamp) -> Vec<WindowAnswer> {
        let age = micros(now.since(self.asked_at));
        let aged = |window: &WindowAnswer| {
            let reset_us = window.reset_us.saturating_sub(age);
            let wait_us = match window.wait_us.saturating_sub(age) {
                wait_us if least >= self.least => wait_us,
                // for less it names no wait, but that until then there is no more than what is left
                _ if window.wait_us > 0 && window.remaining < least => reset_us,
                _ => 0,
            };
            WindowAnswer { remaining: window.remaining, reset_us, wait_us }
        };
        self.windows.iter().map(aged).collect()
    }
}

/// Until when what a key said may be remembered; `None` if it did not refuse.
pub(crate) fn ends(answer: &KeyAnswer, asked_at: Timestamp) -> Option<Timestamp> {
    let wait_us = answer.windows.iter().map(|window| window.wait_us).max().filter(|wait_us| *wait_us > 0)?;
    Some(asked_at.plus(Duration::from_micros(wait_us).min(LONGEST)))
}

/// The subject of `key`.
pub(crate) fn subject(secret: (u64, u64), key: &KeyCheck) -> u128 {
    subject_of(secret, &key.key, &key.windows)
}

/// Who is counted, in which windows: other windows are other counters. A hash under `secret`, so that nobody can make
/// two subjects one.
pub(crate) fn subject_of(secret: (u64, u64), key: &str, windows: &[Window]) -> u128 {
    let mut hasher = SipHasher13::new_with_keys(secret.0, secret.1);
    key.hash(&mut hasher);
    for window in windows {
        (window.unit(), window.limit(), window.capacity()).hash(&mut hasher);
    }
    hasher.finish128().as_u128()
}

impl KeyAnswer {
    /// Of a key of which nothing is known.
    pub(crate) fn unknown() -> Self {
        Self { granted: 0, at_us: 0, shard: 0, lease: None, windows: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::window::Algorithm;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn window(limit: u32) -> Window {
        Window::new(limit, Duration::from_secs(60), Algorithm::SlidingWindow).unwrap()
    }

    fn check(keys: &[(&str, u32)]) -> Check {
        Check { keys: keys.iter().map(|(key, cost)| KeyCheck::take(*key, *cost, [window(10)])).collect() }
    }

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_micros(ms * 1000)
    }

    /// A rejection by the keys that name a wait.
    fn rejection(keys: &[(u32, u64, u64)]) -> CheckAnswer {
        let key = |&(remaining, reset_ms, wait_ms): &(u32, u64, u64)| {
            let (reset_us, wait_us) = (reset_ms * 1000, wait_ms * 1000);
            KeyAnswer { windows: vec![WindowAnswer { remaining, reset_us, wait_us }], ..KeyAnswer::unknown() }
        };
        CheckAnswer::Rejected { keys: keys.iter().map(key).collect() }
    }

    fn refusals() -> Refusals {
        Refusals::new((1, 2))
    }

    #[test]
    fn refuses_until_the_moment_that_was_named_and_not_longer() {
        let mut refusals = refusals();
        let asked = check(&[("a", 1)]);
        refusals.remember(&asked, &rejection(&[(0, 500, 500)]), at(1000));
        let Some(CheckAnswer::Rejected { keys }) = refusals.recall(&asked, at(1200)) else { panic!() };
        assert_eq!(keys[0].windows, [WindowAnswer { remaining: 0, reset_us: 300_000, wait_us: 300_000 }]);
        assert!(refusals.recall(&asked, Timestamp::from_micros(1_499_999)).is_some());
        assert_eq!(refusals.recall(&asked, at(1500)), None);
        assert_eq!(refusals.recall(&check(&[("b", 1)]), at(1200)), None);
    }

    #[test]
    fn keeps_no_refusal_for_longer_than_an_operator_would_wait() {
        let mut refusals = refusals();
        let asked = check(&[("a", 1)]);
        refusals.remember(&asked, &rejection(&[(0, 3_600_000, 3_600_000)]), at(0));
        assert!(refusals.recall(&asked, at(9_999)).is_some());
        assert_eq!(refusals.recall(&asked, at(10_000)), None);
    }

    #[test]
    fn one_key_that_refuses_is_enough_and_speaks_for_itself_alone() {
        let mut refusals = refusals();
        refusals.remember(&check(&[("a", 1), ("b", 1)]), &rejection(&[(9, 0, 0), (0, 500, 500)]), at(0));
        let Some(CheckAnswer::Rejected { keys }) = refusals.recall(&check(&[("c", 1), ("b", 1)]), at(1))
        else {
            panic!()
        };
        assert!(keys[0].windows.is_empty());
        assert_eq!(keys[1].windows[0].wait_us, 499_000);
        assert_eq!(refusals.recall(&check(&[("a", 1)]), at(1)), None, "a had room");
    }

    #[test]
    fn a_smaller_cost_is_refused_only_if_it_does_not_fit_into_what_is_left() {
        let mut refusals = refusals();
        refusals.remember(&check(&[("a", 5)]), &rejection(&[(2, 100, 400)]), at(0));
        let recall = |cost: u32, ms: u64| refusals.recall(&check(&[("a", cost)]), at(ms)).is_some();
        assert_eq!([recall(2, 50), recall(3, 50), recall(5, 50), recall(9, 50)], [false, true, true, true]);
        assert_eq!([recall(3, 100), recall(5, 100)], [false, true], "something came free for three");
        assert!(!recall(5, 400));
    }

    #[test]
    fn another_limit_for_the_same_key_is_another_question() {
        let mut refusals = refusals();
        refusals.remember(&check(&[("a", 1)]), &rejection(&[(0, 500, 500)]), at(0));
        let raised = Check { keys: vec![KeyCheck::take("a", 1, [window(20)])] };
        assert_eq!(refusals.recall(&raised, at(1)), None);
    }

    #[test]
    fn what_has_ended_goes_and_never_are_there_more_than_the_most() {
        let mut refusals = refusals();
        let mut refuse = |number: usize, wait_ms: u64, now: u64| {
            let key = format!("k{number}");
            refusals.remember(&check(&[(&key, 1)]), &rejection(&[(0, wait_ms, wait_ms)]), at(now));
            refusals.len()
        };
        for number in 0..MOST {
            refuse(number, 5000, 0);
        }
        assert_eq!(refuse(MOST, 9000, 0), MOST);
        assert_eq!(refuse(MOST, 9000, 1), MOST, "the same subject is one");
        assert_eq!(refuse(0, 1, 5000), 2, "all but the last have ended");
    }
}
