//! What nodes say of their breakers, for an operator to read: `GET /v1/breakers`.
//!
//! Nothing is decided by it. Each shim shows what it was told itself. Nodes say it again and again, so each of several
//! shims knows it before long, and so does one that has just started.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lanekeeper_engine::breaker::State;
use lanekeeper_engine::wire::BreakerReport;
use serde::Serialize;
use tokio::time::Instant;
use tracing::warn;

use crate::nodes::NODE_LIFE;

/// Shows the state of every breaker.
pub(crate) const PATH: &str = "/v1/breakers";

/// The most states that are kept: of 2,048 breakers, which is all that a policy may have, on 48 nodes, or of 50 on two
/// thousand. In 25 MB, with the longest names.
const MOST_STATES: usize = 100_000;
/// How often those are dropped of which nothing is heard any more.
const SWEPT_EVERY: Duration = Duration::from_secs(10);

/// What one shim was told.
#[derive(Default)]
pub(crate) struct Breakers {
    heard: Mutex<Heard>,
}

#[derive(Default)]
struct Heard {
    /// By the breaker's name and the node.
    states: BTreeMap<(String, u64), Told>,
    swept_at: Option<Instant>,
    /// Whether it was said since that there is no room.
    has_warned: bool,
}

#[derive(Clone, Copy)]
struct Told {
    state: State,
    generation: u64,
    /// For how long it had been in this state.
    held: Option<Duration>,
    at: Instant,
}

/// All breakers that nodes have spoken of, by their names.
#[derive(Serialize)]
pub(crate) struct View {
    breakers: Vec<BreakerView>,
}

/// A breaker: on how many nodes it is in which state, and which those are.
#[derive(Serialize)]
struct BreakerView {
    name: String,
    open: u32,
    half_open: u32,
    closed: u32,
    nodes: Vec<NodeView>,
}

#[derive(Serialize)]
struct NodeView {
    /// The node's number as a text, for it has more digits than many readers of JSON keep.
    node: String,
    state: State,
    #[serde(skip_serializing_if = "Option::is_none")]
    for_ms: Option<u64>,
}

impl Breakers {
    /// A node speaks of its breakers.
    pub(crate) fn hear(&self, node: u64, reports: Vec<BreakerReport>) {
        if reports.is_empty() {
            return;
        }
        let now = Instant::now();
        let mut heard = self.heard();
        heard.sweep(now);
        reports.into_iter().for_each(|report| heard.note(node, report, now));
    }

    /// What nodes have said of late.
    pub(crate) fn view(&self) -> View {
        let now = Instant::now();
        let mut breakers: Vec<BreakerView> = Vec::new();
        for ((name, node), told) in self.heard().states.iter().filter(|(_, told)| told.is_live(now)) {
            match breakers.last_mut().filter(|last| last.name == *name) {
                Some(same) => same.add(*node, told, now),
                None => {
                    let mut next = BreakerView::new(name);
                    next.add(*node, told, now);
                    breakers.push(next);
                }
            }
        }
        View { breakers }
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Heard {
    fn sweep(&mut self, now: Instant) {
        if self.swept_at.is_none_or(|swept| now.duration_since(swept) >= SWEPT_EVERY) {
            self.states.retain(|_, told| told.is_live(now));
            (self.swept_at, self.has_warned) = (Some(now), false);
        }
    }

    fn note(&mut self, node: u64, report: BreakerReport, now: Instant) {
        let BreakerReport { name, state, generation, for_ms } = report;
        let told = Told { state, generation, held: for_ms.map(Duration::from_millis), at: now };
        let is_full = self.states.len() >= MOST_STATES;
        match self.states.entry((name, node)) {
            Entry::Occupied(mut known) => {
                // an older one was overtaken on its way, or comes from a worker that knows no better
                if generation >= known.get().generation || !known.get().is_live(now) {
                    known.insert(told);
                }
            }
            Entry::Vacant(free) if !is_full => {
                free.insert(told);
            }
            Entry::Vacant(_) => {
                if !self.has_warned {
                    warn!("nodes speak of more breakers than {MOST_STATES}: the view leaves some out");
                }
                self.has_warned = true;
            }
        }
    }
}

impl Told {
    fn is_live(&self, now: Instant) -> bool {
        now.duration_since(self.at) < NODE_LIFE
    }
}

impl BreakerView {
    fn new(name: &str) -> Self {
        Self { name: name.to_owned(), open: 0, half_open: 0, closed: 0, nodes: Vec::new() }
    }

    fn add(&mut self, node: u64, told: &Told, now: Instant) {
        match told.state {
            State::Open => self.open += 1,
            State::HalfOpen => self.half_open += 1,
            State::Closed => self.closed += 1,
        }
        let held = told.held.map(|held| held + now.duration_since(told.at));
        let for_ms = held.map(|held| u64::try_from(held.as_millis()).unwrap_or(u64::MAX));
        self.nodes.push(NodeView { node: node.to_string(), state: told.state, for_ms });
    }
}
