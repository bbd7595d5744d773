//! What a worker may spend without a question: its chunks of the node's leases.
//!
//! ```text
//!  store ---- lease ----> pool of the node, in shared data ---- chunk ----> worker ----> requests
//!    ^                      |                                     |
//!    +------ returned ------+-------------------------------------+     shortly before the end
//! ```
//!
//! Tokens are in one place at a time. What a worker takes from the pool it takes by compare-and-swap, and what is to go
//! back to the store is taken out before it is sent: so nothing is ever spent twice, nor spent and returned. A node's life of
//! a lease begins when it was *asked* for, and is cut a little short, for clocks that run at different speeds; so it has
//! ended here before it has ended in the store, which dated the charge at its end.
//!
//! The worker that asked looks after a lease: it renews it ahead of its end if it was used, and returns what is left.
//! Whichever worker finds the pool running low renews it too. All of that happens behind the requests' backs; they wait
//! only for subjects that this node does not know, and whoever comes meanwhile waits for the same answer.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use crate::lease::{Lease, surely_within};
use crate::local::{Cells, CellsBroken, LastAnswer};
use crate::refusals::{self, Refusals};
use crate::units::{Timestamp, micros};
use crate::wire::{Check, CheckAnswer, KeyAnswer, KeyCheck, KeyReturn, Operation};

mod counted;
mod demand;
mod holding;
mod holdings;
mod pool;
mod record;
mod succession;
mod upkeep;

pub use counted::Counted;
use holding::{Chunk, Holding, NEVER};
use holdings::Holdings;
pub use holdings::MOST;
use record::{Portion, Record, Refusal};
pub use succession::MOST_PUT_BACK;
pub use upkeep::Due;

/// The layout of the pool's bytes; it belongs into the names of its cells.
pub const LAYOUT: u32 = 1;
/// [`Ledger::take_due`] is to be called at least this often while something is due.
pub const LOOK_EVERY: Duration = Duration::from_millis(20);

/// For so long one worker waits for a renewal that another one asked for.
const RENEWAL: Duration = Duration::from_millis(200);

/// What the ledger makes of a request's checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Spent {
    /// All are allowed, and their tokens spent: an answer for each check, in their order.
    Allowed(Vec<CheckAnswer>),
    /// A key refuses; the refusals know it.
    Refused,
    /// A question about this subject is under way from this worker: wait for its answer, and spend again then.
    Awaits(u128),
    /// The store is to be asked.
    Unknown,
}

/// The leases of one worker.
pub struct Ledger {
    secret: (u64, u64),
    worker: u64,
    drift: NonZeroU32,
    holdings: Holdings,
    /// Subjects whose pool ran low.
    low: Vec<u128>,
    /// When they are to be renewed, and what had to make way returned.
    due_at: Timestamp,
    /// Subjects that are asked for now, and by how many questions.
    asked: BTreeMap<u128, u32>,
    /// What had to make way, and is to be returned.
    leaving: Vec<KeyReturn>,
    /// How many returns there were.
    returns: u64,
    /// What may be renewed of what the ledger before held; all where there was none.
    counted: Option<Counted>,
    /// When what was asked that the store answered last.
    answered_at: Timestamp,
}

impl Ledger {
    /// Nothing yet. Subjects are told apart by a hash under `secret`, which all workers of the node share; `worker` is
    /// a number of this worker's own, from an even draw. `drift` is the policy's `max_drift` in millionths.
    pub fn new(secret: (u64, u64), worker: u64, drift: NonZeroU32) -> Self {
        Self {
            secret,
            worker,
            drift,
            holdings: Holdings::default(),
            low: Vec::new(),
            due_at: NEVER,
            asked: BTreeMap::new(),
            leaving: Vec::new(),
            returns: 0,
            counted: None,
            answered_at: Timestamp::default(),
        }
    }

    /// Spends for all of `checks` at `now`, or nothing.
    pub fn spend(
        &mut self,
        cells: &dyn Cells,
        refusals: &mut Refusals,
        checks: &[&Check],
        now: Timestamp,
    ) -> Spent {
        let mut spent: Vec<(u128, Portion)> = Vec::new();
        let mut answers = Vec::with_capacity(checks.len());
        for check in checks {
            let mut keys = Vec::with_capacity(check.keys.len());
            for key in &check.keys {
                match self.spend_key(cells, refusals, key, now) {
                    Ok((portion, answer)) => {
                        spent.push(portion);
                        keys.push(answer);
                    }
                    Err(otherwise) => {
                        for (subject, portion) in spent {
                            self.put_back(cells, subject, portion, now);
                        }
                        return otherwise;
                    }
                }
            }
            answers.push(CheckAnswer::Allowed { keys });
        }
        Spent::Allowed(answers)
    }

    /// A check is about to be asked: adds what is to be leased along with it, and has others wait for its answer.
    /// `nodes` is how many there are. A check that only looks at one of its keys is asked as it is.
    pub fn ask(&mut self, cells: &dyn Cells, check: &mut Check, nodes: NonZeroU32, now: Timestamp) {
        if check.keys.iter().any(|key| key.operation == Operation::Peek) {
            return;
        }
        for key in &mut check.keys {
            let subject = self.subject(key);
            let record = pool::read(cells, subject);
            if record.as_ref().is_none_or(|record| record.left(now) < key.cost) {
                self.ask_for(key, subject, record, nodes);
            }
        }
    }

    /// The store has answered `check`, which was asked at `asked_at`. Gives the subjects whose answers others may have
    /// waited for.
    pub fn hear(
        &mut self,
        cells: &dyn Cells,
        check: &Check,
        answer: &CheckAnswer,
        asked_at: Timestamp,
        now: Timestamp,
    ) -> Vec<u128> {
        let heard = self.unheard(check);
        let (CheckAnswer::Allowed { keys } | CheckAnswer::Rejected { keys }) = answer else { return heard };
        let is_allowed = matches!(answer, CheckAnswer::Allowed { .. });
        self.answered_at = self.answered_at.max(asked_at);
        for (key, answer) in check.keys.iter().zip(keys).filter(|(key, _)| key.lease.is_some()) {
            if is_allowed {
                self.hear_grant(cells, key, answer, asked_at, now);
            } else if let Some(ends) = refusals::ends(answer, asked_at) {
                let refusal = Refusal { asked_at, ends, least: key.ask().at_least };
                // a pool that cannot be written leaves each worker to ask for itself
                let _ = pool::update(cells, self.subject(key), now, |record| {
                    record.refused(answer, refusal);
                    ((), true)
                });
            }
        }
        heard
    }

    /// Nothing was heard of `check`, or nothing that can be used. Gives the subjects whose answers others may have
    /// waited for.
    pub fn unheard(&mut self, check: &Check) -> Vec<u128> {
        let mut heard = Vec::new();
        for key in check.keys.iter().filter(|key| key.lease.is_some()) {
            let subject = self.subject(key);
            if let Some(questions) = self.asked.get_mut(&subject) {
                *questions -= 1;
                if *questions == 0 {
                    self.asked.remove(&subject);
                }
                heard.push(subject);
            }
        }
        heard
    }

    /// What the store said last of a key's subject, if it was asked after `since`: for whoever decides in its place.
    pub fn last_answer(&self, cells: &dyn Cells, key: &KeyCheck, since: Timestamp) -> Option<LastAnswer> {
        // most of an outage lies after the store's last answer; to whom that was, only fresh counters need to find out
        if since != Timestamp::default() && since >= self.answered_at {
            return None;
        }
        let record = pool::read(cells, self.subject(key))?;
        let refused_at = record.refusal.map(|refusal| refusal.asked_at).unwrap_or_default();
        let asked_at = record.asked_at.max(refused_at);
        (since < asked_at).then_some(LastAnswer { asked_at, windows: record.windows })
    }

    /// Of how many subjects something is held.
    pub fn len(&self) -> usize {
        self.holdings.len()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.holdings.len() == 0
    }

    fn subject(&self, key: &KeyCheck) -> u128 {
        refusals::subject(self.secret, key)
    }

    /// Spends for one key. Gives where the tokens came from, and the key's answer.
    fn spend_key(
        &mut self,
        cells: &dyn Cells,
        refusals: &mut Refusals,
        key: &KeyCheck,
        now: Timestamp,
    ) -> Result<((u128, Portion), KeyAnswer), Spent> {
        if key.operation == Operation::Peek {
            return Err(Spent::Unknown);
        }
        let subject = self.subject(key);
        let spend = |chunk: &mut Chunk| {
            let answer = chunk.spend(key.cost, now)?;
            Some(((subject, Portion { tokens: key.cost, ..chunk.portion }), answer))
        };
        if let Some(spent) = self.holdings.use_of(subject).and_then(Holding::chunk).and_then(spend) {
            return Ok(spent);
        }
        if refusals.refuses(key, now) {
            return Err(Spent::Refused);
        }
        let mut chunk = self.fill(cells, refusals, key, subject, now)?;
        let spent = spend(&mut chunk).ok_or(Spent::Unknown);
        if chunk.portion.tokens > 0 {
            self.holdings.change(subject, key, |holding| holding.hold(chunk, now));
        }
        spent
    }

    /// Takes a chunk of the pool, of what `key` costs at least.
    fn fill(
        &mut self,
        cells: &dyn Cells,
        refusals: &mut Refusals,
        key: &KeyCheck,
        subject: u128,
        now: Timestamp,
    ) -> Result<Chunk, Spent> {
        let rest = self.holdings.get(subject).and_then(|held| held.rest(now));
        let taken = pool::update(cells, subject, now, |record| {
            let Some(portion) = record.take(key.cost, now) else { return (Err(record.clone()), false) };
            rest.into_iter().for_each(|rest| record.put_back(rest));
            let is_low = record.is_low(now);
            if is_low {
                record.renewing_until = now.plus(RENEWAL);
            }
            let renew_at = if record.is_dry_within(2 * LOOK_EVERY, now) { now } else { now.plus(LOOK_EVERY) };
            let chunk = Chunk::taken(portion, record, now);
            (Ok((chunk, is_low.then_some(renew_at))), true)
        });
        match taken {
            Ok(Ok((chunk, renew_at))) => {
                self.holdings.change_held(subject, Holding::take_rest);
                renew_at.into_iter().for_each(|at| self.renew_low(key, subject, at));
                Ok(chunk)
            }
            Ok(Err(record)) => Err(self.nothing_held(refusals, key, subject, record, now)),
            Err(CellsBroken) => Err(Spent::Unknown),
        }
    }

    /// What becomes of a request for a subject of which nothing is held.
    fn nothing_held(
        &self,
        refusals: &mut Refusals,
        key: &KeyCheck,
        subject: u128,
        record: Record,
        now: Timestamp,
    ) -> Spent {
        if let Some(refusal) = record.refusal {
            let refused = KeyAnswer { windows: record.windows, ..KeyAnswer::unknown() };
            let asked = KeyCheck { cost: refusal.least, at_least: None, ..key.clone() };
            let (check, answer) =
                (Check { keys: vec![asked] }, CheckAnswer::Rejected { keys: vec![refused] });
            refusals.remember(&check, &answer, refusal.asked_at);
        }
        if refusals.refuses(key, now) {
            Spent::Refused
        } else if self.asked.contains_key(&subject) {
            Spent::Awaits(subject)
        } else {
            Spent::Unknown
        }
    }

    /// Has a lease that runs low renewed at `at`.
    fn renew_low(&mut self, key: &KeyCheck, subject: u128, at: Timestamp) {
        // whoever renews it needs to know of whom it is
        self.holdings.change(subject, key, |_| {});
        if !self.low.contains(&subject) {
            self.low.push(subject);
        }
        self.due_at = self.due_at.min(at);
    }

    /// Puts back what was spent: into the chunk that it came from, or into the pool.
    fn put_back(&mut self, cells: &dyn Cells, subject: u128, spent: Portion, now: Timestamp) {
        let into_chunk = |holding: &mut Holding| {
            let portion = holding.chunk().map(|chunk| &mut chunk.portion);
            let portion = portion.filter(|portion| portion.is_of_the_same_lease(&spent))?;
            portion.tokens += spent.tokens;
            Some(())
        };
        if self.holdings.change_held(subject, into_chunk).flatten().is_none() {
            // where that fails they stay charged
            let _ = pool::update(cells, subject, now, |record| {
                record.put_back(spent);
                ((), true)
            });
        }
    }

    /// Has a question ask for a lease.
    fn ask_for(&mut self, key: &mut KeyCheck, subject: u128, record: Option<Record>, nodes: NonZeroU32) {
        // whoever is granted no lease has nothing that others could wait for
        if record.as_ref().is_none_or(|record| record.granted > 0) {
            *self.asked.entry(subject).or_default() += 1;
        }
        key.lease = Some(record.unwrap_or_default().rate.ask(self.drift, nodes));
    }

    fn hear_grant(
        &mut self,
        cells: &dyn Cells,
        key: &KeyCheck,
        answer: &KeyAnswer,
        asked_at: Timestamp,
        now: Timestamp,
    ) {
        let subject = self.subject(key);
        let portion = answer.lease.map(|lease| portion(lease, answer, asked_at));
        let portion = portion.filter(|portion| portion.ends > now);
        let outcome = pool::update(cells, subject, now, |record| {
            record.heard(answer, asked_at);
            record.granted = portion.map_or(0, |portion| portion.tokens);
            let made_way = portion.and_then(|portion| record.put(portion));
            let missed = made_way.filter(|_| record.is_missed(&key.windows));
            (missed, true)
        });
        let Some(portion) = portion else { return };
        self.holdings.change(subject, key, |holding| {
            if outcome.is_err() {
                // without a pool this worker holds all of it
                let mut record = Record::default();
                record.heard(answer, asked_at);
                holding.hold(Chunk::taken(portion, &record, now), now);
            }
            holding.look_after(portion.ends, spread_of(subject), now);
        });
        if let Some(portion) = outcome.ok().flatten().filter(|portion| portion.ends > now) {
            let leaving = self.give_back(subject, portion);
            self.leaving.extend(leaving);
            self.due_at = self.due_at.min(now.plus(LOOK_EVERY));
        }
    }
}

/// A lease as this node may spend it.
fn portion(lease: Lease, answer: &KeyAnswer, asked_at: Timestamp) -> Portion {
    Portion {
        tokens: lease.tokens,
        ends: asked_at.plus(surely_within(lease.life())),
        dated_us: answer.at_us.saturating_add(micros(lease.life())),
        shard: answer.shard,
    }
}

/// A number from 0 to 255 of a subject's own, that has nothing to do with its slot.
fn spread_of(subject: u128) -> u8 {
    u8::try_from(subject >> 120).unwrap_or_default()
}

#[cfg(test)]
mod tests;
