//! The one clock of the process, and what is due on it.
//!
//! Time stands still until a test moves it. The wall clock may jump; the monotonic one orders all events.

use std::collections::BTreeMap;
use std::time::Duration;

use super::VmId;
use super::callout::Answer;

/// Both clocks of a process.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    /// Since an arbitrary start, which is not zero, so that "never" and "at the start" cannot be mixed up.
    pub(super) monotonic: Duration,
    /// Since 1970.
    pub(super) wall: Duration,
}

impl Default for Clock {
    fn default() -> Self {
        // the first second of 2026, in UTC
        Self { monotonic: Duration::from_secs(1_000), wall: Duration::from_secs(1_767_225_600) }
    }
}

impl Clock {
    /// Moves both clocks to the moment `monotonic`.
    pub(super) fn advance_to(&mut self, monotonic: Duration) {
        let step = monotonic.saturating_sub(self.monotonic);
        self.monotonic += step;
        self.wall += step;
    }
}

/// What an event loop has to do at some moment.
#[derive(Debug)]
pub(super) enum Event {
    /// A root's timer, unless a later period replaced the `arming`.
    Tick { vm: VmId, root: u32, arming: u64 },
    /// A message lies in a queue of this VM.
    QueueReady { vm: VmId, root: u32, queue: u32 },
    /// A callout was sent; whoever answers callouts may look at it.
    CalloutSent { vm: VmId, id: u64 },
    /// An answer to a callout arrives.
    Answered { vm: VmId, id: u64, answer: Answer },
}

impl Event {
    /// On whose thread it happens.
    pub(super) fn vm(&self) -> VmId {
        match *self {
            Event::Tick { vm, .. }
            | Event::QueueReady { vm, .. }
            | Event::CalloutSent { vm, .. }
            | Event::Answered { vm, .. } => vm,
        }
    }
}

/// Events by the moment they are due, and at one moment by their order of coming.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    events: BTreeMap<(Duration, u64), Event>,
    next: u64,
}

impl Agenda {
    /// Adds an event that is due at the monotonic moment `at`.
    pub(super) fn add(&mut self, at: Duration, event: Event) {
        self.events.insert((at, self.next), event);
        self.next += 1;
    }

    /// When the first event is due whose thread is not `busy`.
    pub(super) fn next_due(&self, busy: impl Fn(VmId) -> bool) -> Option<Duration> {
        self.events.iter().find(|(_, event)| !busy(event.vm())).map(|((at, _), _)| *at)
    }

    /// Takes the first event that is due by `now` and whose thread is not `busy`.
    pub(super) fn take_due(&mut self, now: Duration, busy: impl Fn(VmId) -> bool) -> Option<Event> {
        let due = self.events.range(..=(now, u64::MAX)).find(|(_, event)| !busy(event.vm()))?;
        let key = *due.0;
        self.events.remove(&key)
    }

    /// Forgets every event that `gone` names.
    pub(super) fn forget(&mut self, gone: impl Fn(&Event) -> bool) {
        self.events.retain(|_, event| !gone(event));
    }
}
