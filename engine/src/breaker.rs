//! Breakers: what keeps calls from an upstream that fails, one for each command and lane.
//!
//! ```text
//!            too many failures, or slow calls          its time has passed, and a call comes
//!   Closed ------------------------------------> Open ----------------------------------------> HalfOpen
//!     ^                                           ^                                               |  |
//!     |                                           +----- probes fail, or are never answered ------+  |
//!     +-------------------------------------- probes succeed ---------------------------------------+
//! ```
//!
//! A breaker is its node's. Its record (`breaker/record.rs`) lies in shared data, where the workers change it by compare-and-swap, so
//! whoever sees the last failure trips it for all, and no two workers let the same probe through. Each change of state
//! begins a new *generation*, and what was let in under an earlier one says nothing any more when it ends.
//!
//! Each worker has a [`Breakers`], which says of each call whether it may go ([`Breakers::enter`]) and is told what came of it
//! ([`Breakers::leave`]). Its [`Reports`] say what operators get to read. Where the host's shared data cannot be used,
//! every call may go.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::local::{Cells, CellsBroken};
use crate::policy::Share;
use crate::units::Timestamp;

mod guard;
mod places;
mod pool;
mod probes;
mod record;
mod reports;
mod settings;
mod tally;
mod window;

pub use reports::Reports;
pub use settings::{Backoff, Control, Failures, Settings, SlowCall};

use guard::{Entered, Guard, Site};
use pool::Address;
use record::Role;
use window::Counts;

/// The layout of a slot's bytes. It belongs into the slot's name, so that two versions of the filter that meet during an
/// upgrade do not read each other's slots.
pub const LAYOUT: u32 = 1;
/// When a call that was turned away may well get through, where nobody knows: a probe, or another call, may end at any moment.
const AGAIN_SOON: Duration = Duration::from_secs(1);
/// What the host failed to do is tried again after so long.
const AGAIN_AFTER: Duration = Duration::from_millis(100);

/// The states of a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Calls go through.
    Closed,
    /// It has tripped, and no call goes through.
    Open,
    /// A few calls go through, to see whether the upstream is well again.
    HalfOpen,
}

impl State {
    /// As logs and metrics have it.
    pub fn name(self) -> &'static str {
        match self {
            State::Closed => "closed",
            State::Open => "open",
            State::HalfOpen => "half_open",
        }
    }
}

/// Whether a call may go.
#[derive(Debug, PartialEq, Eq)]
pub enum Entry {
    /// It may. What came of it is to be told with the permit, if there is one.
    Pass(Option<Permit>),
    /// It may not.
    Refuse(Refusal),
    /// It may, for the breaker refuses only a part of the calls, and this one is not among them. What came of it is to be
    /// told with the permit, if there is one.
    WouldRefuse(Refusal, Option<Permit>),
}

/// Why a call may not go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What turned it away.
    pub why: Why,
    /// When it may be tried again; a second where nobody knows.
    pub retry_after: Duration,
}

/// What turns a call away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// The breaker is open.
    Open,
    /// The breaker is half-open, and its probes are under way.
    HalfOpen,
    /// As many calls are under way as may be.
    Full,
    /// An operator wants it so.
    Forced,
}

/// What a call that may go brings back when it has ended.
#[derive(Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(Clone))]
#[must_use = "a call that has ended, however it did, must leave"]
pub struct Permit {
    id: u64,
    generation: u64,
    role: Role,
    /// Whether it takes one of the places of the bulkhead.
    has_place: bool,
}

impl Permit {
    /// Whether what comes of the call decides over a half-open breaker.
    pub fn is_probe(&self) -> bool {
        self.role == Role::Probe
    }
}

/// What came of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The upstream did what it should.
    Success {
        /// How long it took.
        took: Duration,
    },
    /// The upstream failed.
    Failure {
        /// How long it took.
        took: Duration,
    },
    /// It says nothing of the upstream: a limit refused the call, the client left, or another filter answered.
    Ignored,
}

/// A change of a breaker's state, made by this worker: of all workers just one has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// Whose state it is.
    pub owner: Arc<str>,
    /// The state that it left.
    pub from: State,
    /// The state that it is in now.
    pub to: State,
    /// Why.
    pub cause: Cause,
    /// How long it will be open, when it is.
    pub open_for: Option<Duration>,
}

/// Why a breaker changes its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Too large a share of the calls in the window failed.
    FailureRate {
        /// So many
        failures: u32,
        /// of so many.
        calls: u32,
    },
    /// Too large a share of the calls in the window was slow.
    SlowRate {
        /// So many
        slow: u32,
        /// of so many.
        calls: u32,
    },
    /// Too many calls failed in a row.
    ConsecutiveFailures {
        /// So many.
        failures: u32,
    },
    /// It was open for its time.
    Waited,
    /// Too many probes failed.
    ProbesFailed,
    /// Too many probes were slow.
    ProbesSlow,
    /// No answer came to the last probes.
    ProbesUnanswered,
    /// Enough probes succeeded.
    ProbesSucceeded,
    /// An operator wants it so.
    Forced,
}

/// What a change of the record was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Turn {
    from: State,
    to: State,
    cause: Cause,
    open_for: Option<Duration>,
}

/// Whether `count` of `all` is such a share, or more.
fn reaches(count: u32, all: u32, rate: Share) -> bool {
    u64::from(count) * u64::from(Share::ALL.millionths()) >= u64::from(all) * u64::from(rate.millionths())
}

/// One worker's side of the node's breakers.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub struct Breakers {
    secret: (u64, u64),
    worker: u64,
    ids: BTreeMap<Arc<str>, u64>,
    guards: BTreeMap<u64, Guard>,
    transitions: Vec<Transition>,
    /// Nothing is due before.
    due: Option<Timestamp>,
}

impl Breakers {
    /// The breakers of the node whose workers share this secret, as seen by the one of this number: a random one, which
    /// no other `Breakers` of the node has or had.
    pub fn new(secret: (u64, u64), worker: u64) -> Self {
        let (ids, guards, transitions) = Default::default();
        Self { secret, worker, ids, guards, transitions, due: None }
    }

    /// Asks whether a call may go that concerns the breaker `owner`, at `now`, a moment of the node's monotonic clock.
    /// `chance` draws evenly from all of `u32`.
    pub fn enter(
        &mut self,
        cells: &dyn Cells,
        owner: &str,
        settings: &Arc<Settings>,
        now: Timestamp,
        chance: &dyn Fn() -> u32,
    ) -> Entry {
        match settings.control {
            Control::Disabled => return Entry::Pass(None),
            Control::ForceOpen => {
                let refusal = Refusal { why: Why::Forced, retry_after: settings.open_for };
                return refuse(refusal, None, settings, chance);
            }
            Control::Automatic | Control::ForceClosed => {}
        }
        let site = Site { cells, worker: self.worker, now, chance };
        let guard = self.guard(owner, settings);
        let entered = guard.enter(site);
        let uncounted = guard.without_place();
        let id = guard.id();
        self.note(id);
        match entered {
            Ok(Entered::In(permit)) => Entry::Pass(Some(permit)),
            Ok(Entered::Out(why, retry_after)) => {
                refuse(Refusal { why, retry_after }, uncounted, settings, chance)
            }
            Err(CellsBroken) => Entry::Pass(None),
        }
    }

    /// Hears what came of a call that was let in.
    pub fn leave(
        &mut self,
        cells: &dyn Cells,
        permit: Permit,
        outcome: Outcome,
        now: Timestamp,
        chance: &dyn Fn() -> u32,
    ) {
        let site = Site { cells, worker: self.worker, now, chance };
        let Some(guard) = self.guards.get_mut(&permit.id) else { return };
        // what cannot be told now goes with the next call, or with the next look
        let _ = guard.leave(&permit, outcome, site);
        self.note(permit.id);
    }

    /// Looks after what is due at `now`: what the other workers have not been told, and places that nobody uses.
    pub fn tick(&mut self, cells: &dyn Cells, now: Timestamp, chance: &dyn Fn() -> u32) {
        if self.due.is_none_or(|due| now < due) {
            return;
        }
        self.due = None;
        let site = Site { cells, worker: self.worker, now, chance };
        let ids: Vec<u64> = self.guards.keys().copied().collect();
        for id in ids {
            // what failed is due again
            let _ = self.guards.get_mut(&id).map(|guard| guard.tick(site));
            self.note(id);
        }
        self.due = self.due.map(|due| if due > now { due } else { now.plus(AGAIN_AFTER) });
    }

    /// Nobody calls under this policy any more: the others hear at once what they were not told, and places that no call
    /// has are free.
    pub fn retire(&mut self, cells: &dyn Cells, now: Timestamp, chance: &dyn Fn() -> u32) {
        let site = Site { cells, worker: self.worker, now, chance };
        let ids: Vec<u64> = self.guards.keys().copied().collect();
        for id in ids {
            // what cannot be told is lost, and places that cannot be given back are free in a few seconds
            let _ = self.guards.get_mut(&id).map(|guard| guard.retire(site));
            self.note(id);
        }
    }

    /// Before this moment there is nothing to look after; never, where none is named. A [`Self::tick`] that comes late
    /// delays what other workers learn, and by more than four seconds gives this one's places to others.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.due
    }

    /// The state of a breaker as far as this worker knows, which has seen it when the last call came. What an operator
    /// decided stands in its settings, and not here.
    pub fn state(&self, owner: &str) -> State {
        let guard = self.ids.get(owner).and_then(|id| self.guards.get(id));
        guard.map_or(State::Closed, Guard::state)
    }

    /// The changes that this worker made since they were taken last.
    pub fn take_transitions(&mut self) -> Vec<Transition> {
        std::mem::take(&mut self.transitions)
    }

    fn guard(&mut self, owner: &str, settings: &Arc<Settings>) -> &mut Guard {
        let id = match self.ids.get(owner) {
            Some(id) => *id,
            None => {
                let id = Address::of(owner, self.secret).id;
                self.ids.insert(owner.into(), id);
                id
            }
        };
        let new = || Guard::new(owner, Arc::clone(settings), Address::of(owner, self.secret));
        let guard = self.guards.entry(id).or_insert_with(new);
        guard.follow(settings);
        guard
    }

    /// Notes what a guard has to report, and when it is to be looked after.
    fn note(&mut self, id: u64) {
        let Some(guard) = self.guards.get_mut(&id) else { return };
        if let Some(Turn { from, to, cause, open_for }) = guard.turn.take() {
            self.transitions.push(Transition { owner: Arc::clone(&guard.owner), from, to, cause, open_for });
        }
        self.due = [self.due, guard.due(self.worker)].into_iter().flatten().min();
    }
}

/// A refusal, or what it is while only a part of the calls is refused.
fn refuse(
    refusal: Refusal,
    uncounted: Option<Permit>,
    settings: &Settings,
    chance: &dyn Fn() -> u32,
) -> Entry {
    let is_enforced = settings.enforce == Share::ALL || settings.enforce.holds(chance());
    if is_enforced { Entry::Refuse(refusal) } else { Entry::WouldRefuse(refusal, uncounted) }
}

#[cfg(test)]
mod tests;
