//! When the store is left alone: a request must not wait for a store that has just failed ten others.
//!
//! ```text
//!            failures in a row            probe_every has passed
//!   Closed ---------------------> Open --------------------------> Probing
//!     ^                           ^  ^                              |   |
//!     |                           |  +----------- failure ----------+   | success
//!     |                           |                                     v
//!     |                           +-------------- failure --------- Recovering
//!     +------------------------ RECOVERY has passed --------------------+
//! ```
//!
//! The workers of a node share one: each alone would have to see ten failures of its own, and a node of 16 workers would
//! ask a store that is down 160 times, and go on with 16 probes at once. What they share is one record that is
//! changed by compare-and-swap. A store that is well costs no write: a worker goes by its copy of the
//! record, and reads it again when it asks and the copy has grown old. Where the host's shared data cannot be used, each
//! worker has a circuit of its own.
//!
//! A store that has just come back is asked little by little. A hundred nodes that each ask for all that they
//! have at once would be the next outage, and a store that fails again should have failed few requests.
//!
//! Not to be confused with the breakers of commands, which guard upstreams.

use std::hash::{Hash, Hasher};
use std::time::Duration;

use siphasher::sip::SipHasher13;

use crate::local::Cells;
use crate::policy::CircuitSettings;
use crate::units::Timestamp;

mod record;

pub use record::{LAYOUT, RECOVERY};
use record::{State, read, update};

/// A worker that asks goes by a copy of the record that is at most so old: fifty reads a second at most, and what one worker
/// has found out, the others know within a timeout's time.
const COPY: Duration = Duration::from_millis(20);

/// How one worker sees the node's circuit to a store.
#[derive(Debug)]
pub struct Circuit {
    settings: CircuitSettings,
    slot: u32,
    state: State,
    seen_at: Option<Timestamp>,
    /// Of questions that may go while it recovers, the part that this worker has come to; and since when it does.
    credit: (Duration, Timestamp),
    turn: Option<Turn>,
}

/// Where a circuit stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// All questions go to the store.
    Closed,
    /// None do.
    Open,
    /// One of the node's questions finds out whether the store is back.
    Probing,
    /// A growing share of them goes.
    Recovering,
}

/// A change that this worker has made for all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Where it stood.
    pub from: Phase,
    /// Where it stands.
    pub to: Phase,
}

impl Phase {
    /// Its name in metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Phase::Closed => "closed",
            Phase::Open => "open",
            Phase::Probing => "probing",
            Phase::Recovering => "recovering",
        }
    }
}

impl Turn {
    /// Whether it is worth telling. A probe of each second that finds the store still away is not.
    pub fn is_news(self) -> bool {
        self.to != Phase::Probing && (self.from, self.to) != (Phase::Probing, Phase::Open)
    }
}

impl Circuit {
    /// The circuit to the store behind an Envoy cluster, as its workers know it.
    pub fn new(cluster: &str, settings: CircuitSettings) -> Self {
        Self {
            settings,
            slot: slot(cluster),
            state: State::default(),
            seen_at: None,
            credit: (Duration::ZERO, Timestamp::default()),
            turn: None,
        }
    }

    /// Whether a question may go to the store at `now`. Of all workers' questions to an open circuit one may, once in
    /// `probe_every`.
    pub fn lets_through(&mut self, cells: &dyn Cells, now: Timestamp) -> bool {
        self.look(cells, now);
        let settings = self.settings;
        let is_due = self.state.asked(&settings, now) != self.state;
        let is_ours = is_due && self.change(cells, now, |state| state.asked(&settings, now));
        match self.state {
            State::Closed { .. } => true,
            State::Open { .. } => false,
            State::Probing { .. } => is_ours,
            State::Recovering { since } => self.has_credit(since, now),
        }
    }

    /// The same for what no request waits for. It is no probe: that should be sure to be sent.
    pub fn lets_upkeep_through(&mut self, cells: &dyn Cells, now: Timestamp) -> bool {
        self.look(cells, now);
        match self.phase() {
            Phase::Open | Phase::Probing => false,
            Phase::Closed | Phase::Recovering => self.lets_through(cells, now),
        }
    }

    /// The store answered at `now` what it was asked at `asked_at`. A slow answer counts as a failure.
    pub fn answered(&mut self, cells: &dyn Cells, asked_at: Timestamp, now: Timestamp) {
        if now.since(asked_at) > self.settings.slow {
            self.failed(cells, asked_at, now);
        } else if self.state.succeeded(asked_at, now) != self.state {
            self.change(cells, now, |state| state.succeeded(asked_at, now));
        }
    }

    /// The store gave no answer that could be used to what it was asked at `asked_at`.
    pub fn failed(&mut self, cells: &dyn Cells, asked_at: Timestamp, now: Timestamp) {
        let settings = self.settings;
        self.change(cells, now, |state| state.failed(&settings, asked_at, now));
    }

    /// Where it stands at `now`. This asks nothing, so it neither probes nor counts.
    pub fn phase_at(&mut self, cells: &dyn Cells, now: Timestamp) -> Phase {
        self.look(cells, now);
        self.phase()
    }

    /// Where it stands, as far as this worker knows.
    pub fn phase(&self) -> Phase {
        self.state.phase()
    }

    /// Whether the store is taken to be well.
    pub fn is_closed(&self) -> bool {
        self.phase() == Phase::Closed
    }

    /// Whether the last thing heard of it was a failure, as far as this worker knows.
    pub fn is_in_doubt(&self) -> bool {
        self.state != State::default()
    }

    /// The change that this worker has made since the last call.
    pub fn take_turn(&mut self) -> Option<Turn> {
        self.turn.take()
    }

    /// Reads the record again where the copy is old. What cannot be read stays as it is.
    fn look(&mut self, cells: &dyn Cells, now: Timestamp) {
        if self.seen_at.is_none_or(|seen_at| now.since(seen_at) >= COPY) {
            self.see(read(cells, self.slot, now).unwrap_or(self.state), now);
        }
    }

    /// While it recovers a question brings as much credit as time has passed, and a whole [`RECOVERY`] of it pays for one:
    /// the share grows evenly from none to all.
    fn has_credit(&mut self, since: Timestamp, now: Timestamp) -> bool {
        let (saved, of) = self.credit;
        let saved = if of == since { saved } else { Duration::ZERO };
        let credit = saved + now.since(since);
        let rest = credit.checked_sub(RECOVERY);
        self.credit = (rest.unwrap_or(credit), since);
        rest.is_some()
    }

    /// Changes the record. Whether it was this worker that changed it.
    fn change(&mut self, cells: &dyn Cells, now: Timestamp, change: impl Fn(State) -> State) -> bool {
        let (before, after) =
            update(cells, self.slot, now, &change).unwrap_or_else(|_| (self.state, change(self.state)));
        self.see(after, now);
        if before.phase() != after.phase() {
            self.turn = Some(Turn { from: before.phase(), to: after.phase() });
        }
        before != after
    }

    fn see(&mut self, state: State, now: Timestamp) {
        (self.state, self.seen_at) = (state, Some(now));
    }
}

/// One for each store that a policy of this node names; their names are the operator's.
fn slot(cluster: &str) -> u32 {
    let mut hasher = SipHasher13::new();
    cluster.hash(&mut hasher);
    // the low half of an even hash is as even
    u32::try_from(hasher.finish() & u64::from(u32::MAX)).unwrap_or_default()
}

#[cfg(test)]
mod tests;
