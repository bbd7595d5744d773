//! What a worker admitted by its node's counters while the store was away, until the store has been told.
//!
//! The store's windows know nothing of an outage: told nothing, they would admit to everybody once more what the nodes
//! have admitted already. So each worker remembers what it admitted in the store's place, and reports it once the store
//! is back.
//!
//! ```text
//!            note                     take_due                        recorded
//!   nothing ------> open (slices) ----------------> told (id, slices) ----------> nothing, or open again
//!                   ^ ^  |                              | |     ^
//!                   | +--+ note                         | +-----+  failed, or no answer: again, under the same id
//!                   +-----------------------------------+ surely not recorded
//! ```
//!
//! A report that was sent is never changed: what is admitted meanwhile stands in the next one. So it may be sent as often
//! as it takes, and counts once. Only one that surely does not count is open again, and is told with what came after.
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

use crate::circuit::RECOVERY;
use crate::refusals::subject_of;
use crate::units::Timestamp;
use crate::window::Window;
use crate::wire::{Check, KeyCheck, KeySpent, MAX_SPENT, Recorded};

mod slices;
mod subject;

use subject::{Ended, Subject};

/// The most subjects remembered: some 700 bytes each. The one that was admitted longest ago makes way.
pub const MOST: usize = 16_384;
/// The most reports that go along with one callout: the answer that its streams wait for comes later for each of them.
pub const MAX_REPORTS: usize = 64;
const _: () = assert!(MAX_REPORTS <= MAX_SPENT);
/// As long a worker rests that has told of others than those whom a callout asked for: a store that has just come back is not
/// to be told everything by everybody at once.
pub const REST: Duration = Duration::from_millis(10);
/// How long a report that failed waits to be sent again. Until it counts, the store decides what other workers ask of
/// its subject without it.
pub const AGAIN_AFTER: Duration = Duration::from_millis(100);
/// For so long after a report counts its subject is [unsettled](Outage::is_unsettled): the node's other workers tell what
/// they have admitted in that time, if the store can be told at all.
pub const SETTLES: Duration = Duration::from_millis(150);
const _: () = assert!(SETTLES.as_millis() > AGAIN_AFTER.as_millis());
/// How long a worker that the store has failed rests before it tells anything of its own accord.
pub const REST_AFTER_FAILURE: Duration = Duration::from_secs(1);

/// What one worker has admitted and not told yet.
pub struct Outage {
    secret: (u64, u64),
    worker: u64,
    by_subject: LruCache<u128, Subject>,
    /// When each may be told, but for those whose report is under way.
    due: BTreeSet<(Timestamp, u128)>,
    under_way: BTreeSet<u128>,
    /// Until then nobody is told of who is not asked for.
    rests_until: Timestamp,
    /// While the store recovers, until when requests come first.
    gives_way_until: Option<Timestamp>,
    /// How many reports there were.
    reports: u64,
    dropped: u32,
}

impl Outage {
    /// Nothing yet. Subjects are told apart by a hash under `secret`; `worker` is a number of this worker's own, from an
    /// even draw, by which its reports are known.
    pub fn new(secret: (u64, u64), worker: u64) -> Self {
        Self {
            secret,
            worker,
            by_subject: LruCache::unbounded(),
            due: BTreeSet::new(),
            under_way: BTreeSet::new(),
            rests_until: Timestamp::default(),
            gives_way_until: None,
            reports: 0,
            dropped: 0,
        }
    }

    /// Takes over what the policy before has not told the same store yet. What it has under way is told again: it hears
    /// the answer, and nobody else does.
    pub fn take_over(&mut self, before: &mut Self, now: Timestamp) {
        std::mem::swap(self, before);
        for id in std::mem::take(&mut self.under_way) {
            if let Some(subject) = self.by_subject.peek_mut(&id) {
                subject.ended(Ended::Unknown, now);
                self.due.insert((subject.due, id));
            }
        }
    }

    /// This node has admitted `tokens` of `key` at `now`, and its own counters alone were charged.
    pub fn note(&mut self, key: &KeyCheck, tokens: u32, now: Timestamp) {
        if tokens == 0 {
            return;
        }
        let id = self.id(&key.key, &key.windows);
        if let Some(subject) = self.by_subject.get_mut(&id) {
            if !subject.has_untold() {
                self.due.remove(&(subject.due, id));
                subject.due = now;
                self.due.insert((now, id));
            }
            return subject.note(tokens, now);
        }
        if self.by_subject.len() >= MOST
            && let Some((oldest, subject)) = self.by_subject.pop_lru()
        {
            self.due.remove(&(subject.due, oldest));
            self.under_way.remove(&oldest);
            self.dropped += u32::from(subject.has_untold());
        }
        let mut subject = Subject::new(key, now);
        subject.note(tokens, now);
        self.due.insert((subject.due, id));
        self.by_subject.put(id, subject);
    }

    /// Whether the store may not know yet of all that this node has admitted of one of these keys: then it should be asked
    /// for no lease, and the node's own counters have to allow as well what the store allows.
    pub fn is_unsettled(&self, check: &Check) -> bool {
        let is_remembered = |key: &KeyCheck| self.by_subject.contains(&self.id(&key.key, &key.windows));
        !self.is_empty() && check.keys.iter().any(is_remembered)
    }

    /// What is to be told at `now`, as much as goes along with one callout: of the keys that it asks for, and of others. A
    /// report that failed waits to be sent again, but not while its key is asked for: the store would decide
    /// without it. Each is then taken to be under way, until it is [`heard`](Self::heard) of.
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
            let id = self.id(&key.key, &key.windows);
            if reports.len() < MAX_REPORTS && self.by_subject.peek(&id).is_some_and(Subject::may_be_told) {
                reports.extend(self.tell(id, now));
            }
        }
        if now < self.rests_until {
            return reports;
        }
        while reports.len() < MAX_REPORTS
            && let Some((_, id)) = self.due.first().copied().filter(|(due, _)| *due <= now)
        {
            reports.extend(self.tell(id, now));
            self.rests_until = now.plus(REST);
        }
        reports
    }

    /// The store has said what became of these reports, each by its answer. Gives how many tokens count by them.
    pub fn heard(&mut self, reports: &[KeySpent], answers: &[Recorded], now: Timestamp) -> u32 {
        let mut tokens = 0_u32;
        for (report, answer) in reports.iter().zip(answers) {
            let how = Ended::from(*answer);
            if self.ended(report, how, now) && how == Ended::Counts {
                let of_report = report.slices.iter().map(|slice| slice.tokens);
                tokens = of_report.fold(tokens, u32::saturating_add);
            }
        }
        tokens
    }

    /// These reports have no answer: they may count, or not.
    pub fn unheard(&mut self, reports: &[KeySpent], now: Timestamp) {
        for report in reports {
            self.ended(report, Ended::Unknown, now);
        }
    }

    /// The store has failed this worker at `now`: it is told nothing of its own accord for a while.
    pub fn store_failed(&mut self, now: Timestamp) {
        self.rests_until = now.plus(REST_AFTER_FAILURE);
    }

    /// The store has answered this worker at `now`.
    pub fn store_answered(&mut self, now: Timestamp) {
        self.rests_until = self.rests_until.min(now.plus(REST));
    }

    /// Whether what is due gives way to requests: while the store `recovers`, but not for longer than that takes.
    pub fn gives_way(&mut self, recovers: bool, now: Timestamp) -> bool {
        let until = recovers.then(|| self.gives_way_until.unwrap_or(now.plus(RECOVERY)));
        self.gives_way_until = until;
        until.is_some_and(|until| now < until)
    }

    /// When something may be told; none where nothing waits to be.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.due.first().map(|(due, _)| self.rests_until.max(*due))
    }

    /// How many subjects were dropped, untold, since the last call.
    pub fn take_dropped(&mut self) -> u32 {
        std::mem::take(&mut self.dropped)
    }

    /// How many subjects are remembered.
    pub fn len(&self) -> usize {
        self.by_subject.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.by_subject.is_empty()
    }

    /// The report of a subject; none if there is nothing to tell, and then it is forgotten once it is settled.
    fn tell(&mut self, id: u128, now: Timestamp) -> Option<KeySpent> {
        let number = self.next_number();
        let subject = self.by_subject.peek_mut(&id)?;
        self.due.remove(&(subject.due, id));
        let report = subject.tell(number, now);
        if report.is_some() {
            self.under_way.insert(id);
        } else if subject.settles_at <= now {
            self.by_subject.pop(&id);
        } else {
            subject.due = subject.settles_at;
            self.due.insert((subject.due, id));
        }
        report
    }

    /// Whether this report was under way.
    fn ended(&mut self, report: &KeySpent, how: Ended, now: Timestamp) -> bool {
        let id = self.id(&report.key, &report.windows);
        let of = self.by_subject.peek_mut(&id);
        // not so that of a subject that has made way since, and perhaps has come anew
        let Some(subject) = of.filter(|subject| subject.is_under_way(report.id)) else { return false };
        self.under_way.remove(&id);
        subject.ended(how, now);
        self.due.insert((subject.due, id));
        true
    }

    fn id(&self, key: &str, windows: &[Window]) -> u128 {
        subject_of(self.secret, key, windows)
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
