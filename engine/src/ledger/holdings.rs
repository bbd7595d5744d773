//! All that a worker holds: by subject, by when it was used, and by when it is to be looked at.

use std::collections::BTreeSet;
use std::hash::{BuildHasherDefault, Hasher};

use lru::LruCache;

use super::holding::Holding;
use crate::units::Timestamp;
use crate::wire::KeyCheck;

/// The most subjects of which a worker holds something: some 250 bytes each. The one unused for longest makes way, and its
/// tokens stay charged.
pub const MOST: usize = 100_000;

/// The holdings of a worker.
#[derive(Default)]
pub(super) struct Holdings {
    by_subject: BySubject,
    /// When to look at each.
    due: BTreeSet<(Timestamp, u128)>,
}

struct BySubject(LruCache<u128, Holding, BuildHasherDefault<Hashed>>);

impl Default for BySubject {
    fn default() -> Self {
        Self(LruCache::unbounded_with_hasher(BuildHasherDefault::default()))
    }
}

/// Of subjects that are hashes already.
#[derive(Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk() {
            self.0 = u64::from_ne_bytes(*first);
        }
    }
}

impl Holdings {
    /// What is held of a subject, which is in use now.
    pub(super) fn use_of(&mut self, subject: u128) -> Option<&mut Holding> {
        self.by_subject.0.get_mut(&subject)
    }

    /// What is held of a subject.
    pub(super) fn get(&self, subject: u128) -> Option<&Holding> {
        self.by_subject.0.peek(&subject)
    }

    /// Changes what is held of the subject of `key`; nothing at first. If there are more than [`MOST`], the one unused for
    /// longest makes way.
    pub(super) fn change(&mut self, subject: u128, key: &KeyCheck, change: impl FnOnce(&mut Holding)) {
        let holding = self.by_subject.0.get_or_insert_mut(subject, || Holding::new(key));
        let before = holding.due();
        change(holding);
        let after = holding.due();
        self.reschedule(subject, before, after);
        if self.by_subject.0.len() > MOST
            && let Some((subject, unused)) = self.by_subject.0.pop_lru()
        {
            self.reschedule(subject, unused.due(), None);
        }
    }

    /// Changes what is held of a subject, if anything is. It counts as no use.
    pub(super) fn change_held<T>(
        &mut self,
        subject: u128,
        change: impl FnOnce(&mut Holding) -> T,
    ) -> Option<T> {
        let holding = self.by_subject.0.peek_mut(&subject)?;
        let before = holding.due();
        let outcome = change(holding);
        let after = holding.due();
        self.reschedule(subject, before, after);
        Some(outcome)
    }

    /// The next subject to be looked at by `now`.
    pub(super) fn next_due_by(&self, now: Timestamp) -> Option<u128> {
        self.due.first().filter(|(at, _)| *at <= now).map(|(_, subject)| *subject)
    }

    /// When one is to be looked at next.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.due.first().map(|(at, _)| *at)
    }

    /// All of them, the one in use last in front.
    pub(super) fn latest_first(&self) -> impl Iterator<Item = (u128, &Holding)> {
        self.by_subject.0.iter().map(|(subject, holding)| (*subject, holding))
    }

    /// Of how many subjects something is held.
    pub(super) fn len(&self) -> usize {
        self.by_subject.0.len()
    }

    fn reschedule(&mut self, subject: u128, before: Option<Timestamp>, after: Option<Timestamp>) {
        if before == after {
            return;
        }
        if let Some(at) = before {
            self.due.remove(&(at, subject));
        }
        if let Some(at) = after {
            self.due.insert((at, subject));
        }
    }
}
