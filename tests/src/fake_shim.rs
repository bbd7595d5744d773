//! The shim's part in a test of the plugin on the fake host: the embedded store, on the host's wall clock.

#![allow(clippy::panic, clippy::expect_used, reason = "a harness fails as an assertion does")]

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lanekeeper_engine::units::{Timestamp, micros};
use lanekeeper_engine::wire::{DecideRequest, DecideResponse, SHIM_HEADER, VERSION};
use lanekeeper_shim::memory::MemoryStore;
use lanekeeper_shim::store::Store as _;

use crate::host::{Answer, Callout, Host};

/// A store that answers callouts as the shim does. Clones are the same store.
#[derive(Clone)]
pub struct Store {
    memory: Rc<MemoryStore>,
    clock: Arc<AtomicU64>,
    /// Whether it refuses connections.
    pub away: Rc<Cell<bool>>,
    /// How many nodes it says there are.
    pub nodes: Rc<Cell<Option<u32>>>,
}

impl Default for Store {
    fn default() -> Self {
        Self::new()
    }
}

impl Store {
    /// One that has counted nothing.
    pub fn new() -> Self {
        let clock = Arc::new(AtomicU64::new(0));
        let read = Arc::clone(&clock);
        let memory = MemoryStore::with_clock(move || Timestamp::from_micros(read.load(Ordering::Relaxed)));
        Self { memory: Rc::new(memory), clock, away: Rc::default(), nodes: Rc::default() }
    }

    /// What it says to a callout of this host, at the host's moment.
    ///
    /// # Panics
    ///
    /// When the question is not as a shim takes it.
    pub fn answer(&self, host: &Host, callout: &Callout) -> Answer {
        self.clock.store(micros(host.wall()), Ordering::Relaxed);
        let question: DecideRequest = serde_json::from_slice(&callout.body).expect("the question is JSON");
        question.validate().expect("the question is valid");
        let within = Duration::from_millis(question.spend_within_ms.into());
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime can be made");
        let (spent, answers) = runtime.block_on(async {
            let spent = self.memory.record(&question.spent).await;
            self.memory.give_back(&question.returns).await;
            (spent, self.memory.decide(&question.checks, within).await)
        });
        ours(DecideResponse { version: VERSION, nodes: self.nodes.get(), away: false, spent, answers })
    }

    /// Answers every callout of this host at once, or refuses the connection while it is away.
    pub fn serve(&self, host: &Host) {
        let (store, asked) = (self.clone(), host.clone());
        host.answer_callouts(move |callout| {
            Some(if store.away.get() { Answer::connect_failure() } else { store.answer(&asked, callout) })
        });
    }
}

/// An answer as the shim makes it.
///
/// # Panics
///
/// Never: texts and numbers have a JSON form.
pub fn ours(response: DecideResponse) -> Answer {
    let body = serde_json::to_vec(&response).expect("texts and numbers have a JSON form");
    Answer::response(200, [(SHIM_HEADER, "1")], body)
}
