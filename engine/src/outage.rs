//! What a worker admitted by its node's counters while the store was away, until the store has been told.
//!
//! The store's windows know nothing of an outage: told nothing, they would admit to everybody once more what the nodes
//! have admitted already. So each worker remembers what it admitted in the store's place, and reports it once the store
//! is back.
//!
//! ```text
//!            note                     take_due                        recorded
//!   nothing ------> open (slices) ----------------> told (id, slices) ----------> nothing, or open again
//!                    ^  |                               |       ^
//!                    +--+ note                          +-------+  failed, or no answer: again, under the same id
//! ```
//!
//! A report that was sent is never changed: what is admitted meanwhile stands in the next one. So it may be sent as often
//! as it takes, and counts once.
//!
//! What was admitted when is kept in a few slices, each dated at its latest admission, so that nothing is ever said to be
//! older than it is. The slices are longer the older they are: a window of a second asks for the last second only.
//!
//! Requests at their own cost are noted, whatever the node's counters make of it for the other nodes' sake: each of
//! those tells for itself.

use std::collections::BTreeSet;
use std::hash::Hash;
use std::time::Duration;

use lru::LruCache;
use siphasher::sip::SipHasher13;

use crate::refusals::subject_of;
use crate::units::Timestamp;
use crate::wire::{KeyCheck, KeySpent, MAX_SPENT, Recorded};

mod slices;
mod subject;

use subject::Subject;

/// The most subjects remembered: some 700 bytes each. The one that was admitted longest ago makes way.
pub const MOST: usize = 16_384;
/// The most reports that go along with one callout: the answer that its streams wait for comes later for each of them.
pub const MAX_REPORTS: usize = 64;
const _: () = assert!(MAX_REPORTS <= MAX_SPENT);
/// How long a report that failed waits to be sent again.
pub const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// What one worker has admitted and not told yet.
pub struct Outage {
    secret: (u64, u64),
    worker: u64,
    by_subject: LruCache<u128, Subject>,
    /// When each may be told, but for those whose report is under way.
    due: BTreeSet<(Timestamp, u128)>,
    /// How many reports there were.
    reports: u64,
    dropped: u64,
}

impl Outage {
    /// Nothing yet. Subjects are told apart by a hash under `secret`; `worker` is a number of this worker's own, from an
    /// even draw, by which its reports are known.
    pub fn new(secret: (u64, u64), worker: u64) -> Self {
        let by_subject = LruCache::unbounded();
        Self { secret, worker, by_subject, due: BTreeSet::new(), reports: 0, dropped: 0 }
    }

    /// This node has admitted `tokens` of `key` at `now`, and its own counters alone were charged.
    pub fn note(&mut self, key: &KeyCheck, tokens: u32, now: Timestamp) {
        if tokens == 0 {
            return;
        }
        let id = subject_of(self.secret, &key.key, &key.windows);
        if let Some(subject) = self.by_subject.get_mut(&id) {
            return subject.note(tokens, now);
        }
        if self.by_subject.len() >= MOST
            && let Some((oldest, subject)) = self.by_subject.pop_lru()
        {
            self.due.remove(&(subject.due, oldest));
            self.dropped += 1;
        }
        let mut subject = Subject::new(key, now);
        subject.note(tokens, now);
        self.due.insert((subject.due, id));
        self.by_subject.put(id, subject);
    }

    /// What is to be told at `now`, as much as goes along with one callout: of the keys that it asks for, and of others.
    /// Each is then taken to be under way, until it is [`heard`](Self::heard) of.
    pub fn take_due<'a>(
        &mut self,
        asked: impl IntoIterator<Item = &'a KeyCheck>,
        now: Timestamp,
    ) -> Vec<KeySpent> {
        let mut reports = Vec::new();
        if self.by_subject.is_empty() {
            return reports;
        }
        for key in asked {
            let id = subject_of(self.secret, &key.key, &key.windows);
            if reports.len() < MAX_REPORTS && self.by_subject.peek(&id).is_some_and(|of| of.is_due(now)) {
                reports.extend(self.tell(id, now));
            }
        }
        while reports.len() < MAX_REPORTS
            && let Some((_, id)) = self.due.first().copied().filter(|(due, _)| *due <= now)
        {
            reports.extend(self.tell(id, now));
        }
        reports
    }

    /// The store has said what became of these reports, each by its answer.
    pub fn heard(&mut self, reports: &[KeySpent], answers: &[Recorded], now: Timestamp) {
        let failed = Recorded::Failed(crate::wire::StoreError::Unreachable);
        let answers = answers.iter().chain(std::iter::repeat(&failed));
        for (report, answer) in reports.iter().zip(answers) {
            self.ended(report, *answer == Recorded::Recorded, now);
        }
    }

    /// These reports have no answer: they may count, or not.
    pub fn unheard(&mut self, reports: &[KeySpent], now: Timestamp) {
        self.heard(reports, &[], now);
    }

    /// When something may be told; none where nothing waits to be.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.due.first().map(|(due, _)| *due)
    }

    /// How many subjects were dropped, untold, since the last call.
    pub fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.by_subject.clear();
        self.due.clear();
    }

    /// How many subjects are remembered.
    pub fn len(&self) -> usize {
        self.by_subject.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.by_subject.is_empty()
    }

    /// The report of a subject, none if all of it has left its windows.
    fn tell(&mut self, id: u128, now: Timestamp) -> Option<KeySpent> {
        let number = self.next_number();
        let subject = self.by_subject.peek_mut(&id)?;
        self.due.remove(&(subject.due, id));
        let report = subject.tell(number, now);
        if report.is_none() {
            self.by_subject.pop(&id);
        }
        report
    }

    fn ended(&mut self, report: &KeySpent, is_recorded: bool, now: Timestamp) {
        let id = subject_of(self.secret, &report.key, &report.windows);
        let Some(subject) = self.by_subject.peek_mut(&id) else { return };
        // the report of one that was forgotten since, and has come anew
        if !subject.is_under_way(report.id) {
            return;
        }
        let due = subject.ended(is_recorded, now);
        match due {
            Some(due) => {
                self.due.insert((due, id));
            }
            None => {
                self.by_subject.pop(&id);
            }
        }
    }

    fn next_number(&mut self) -> u64 {
        self.reports += 1;
        let mut hasher = SipHasher13::new_with_keys(self.secret.0, self.secret.1);
        ("spent", self.worker, self.reports).hash(&mut hasher);
        std::hash::Hasher::finish(&hasher)
    }
}

#[cfg(test)]
mod tests;
