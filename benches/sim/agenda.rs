//! What happens when: the one order of all events.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::rc::Rc;

use lanekeeper_engine::wire::{DecideRequest, DecideResponse};

/// A worker of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) node: u32,
    pub(super) worker: u32,
}

/// Something that happens.
pub(super) enum Event {
    /// A worker's timer.
    Tick(Place),
    /// A question reaches the store.
    Question { from: Place, number: u32, question: Rc<DecideRequest> },
    /// An answer reaches a worker.
    Answer { to: Place, number: u32, response: Rc<DecideResponse> },
    /// A worker has waited long enough for an answer.
    Timeout { place: Place, number: u32 },
    /// The replicas get a command, which answers this worker's question.
    Replicated { from: Place, command: u64, number: u32 },
    /// The store is lost.
    Failover,
    /// A node crashes.
    NodeCrash,
    /// A worker's VM crashes.
    WorkerCrash,
}

/// Events to come, the soonest first; of those at one moment, the one that was foreseen first.
#[derive(Default)]
pub(super) struct Agenda {
    entries: BinaryHeap<Reverse<(u64, u64, Entry)>>,
    foreseen: u64,
}

/// Never looked at to put events in order: their numbers differ.
struct Entry(Event);

impl Agenda {
    pub(super) fn add(&mut self, at: u64, event: Event) {
        self.foreseen += 1;
        self.entries.push(Reverse((at, self.foreseen, Entry(event))));
    }

    /// When the next event is.
    pub(super) fn next_at(&self) -> Option<u64> {
        self.entries.peek().map(|Reverse((at, ..))| *at)
    }

    pub(super) fn take(&mut self) -> Option<Event> {
        self.entries.pop().map(|Reverse((_, _, Entry(event)))| event)
    }
}

impl PartialEq for Entry {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, _: &Self) -> std::cmp::Ordering {
        std::cmp::Ordering::Equal
    }
}
