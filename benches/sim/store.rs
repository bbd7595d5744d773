//! The store: the shim's own embedded one, on the simulation's clock, with replicas that follow it.
//!
//! A replica is another embedded store, which gets the same commands later and with the clock as it was: what replication
//! of effects comes to. All replicas are equally far behind, so that each is ready to take over from the one before.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use lanekeeper_engine::units::{Timestamp, micros};
use lanekeeper_engine::wire::{CheckAnswer, DecideRequest, DecideResponse, Returned, StoreError, VERSION};
use lanekeeper_shim::memory::MemoryStore;
use lanekeeper_shim::store::Store as _;

/// The subjects that fit: all.
const ROOM: NonZeroUsize = NonZeroUsize::MAX;

/// A master and its replicas.
pub(super) struct Store {
    master: MemoryStore,
    replicas: VecDeque<MemoryStore>,
    /// What all of them take for the time.
    clock: Arc<AtomicU64>,
    /// How far the master's clock is behind the first one's, in microseconds.
    behind: u64,
    /// What the replicas do not have yet.
    unreplicated: VecDeque<Command>,
    /// Tokens that the master took back.
    pub(super) taken_back: u64,
}

/// What the master did.
struct Command {
    at: u64,
    number: u64,
    question: Rc<DecideRequest>,
    answer: Rc<DecideResponse>,
}

/// A question and what was answered.
type Exchange = (Rc<DecideRequest>, Rc<DecideResponse>);

impl Store {
    pub(super) fn new(replicas: u32) -> Self {
        let clock = Arc::new(AtomicU64::new(0));
        let store = || {
            let clock = Arc::clone(&clock);
            MemoryStore::with_clock(move || Timestamp::from_micros(clock.load(Ordering::Relaxed)))
                .with_max_subjects(ROOM)
        };
        let replicas = (0..replicas).map(|_| store()).collect();
        Self {
            master: store(),
            replicas,
            clock: Arc::clone(&clock),
            behind: 0,
            unreplicated: VecDeque::new(),
            taken_back: 0,
        }
    }

    /// Answers at `us`. The command's `number` is known again when it is replicated or lost.
    pub(super) fn answer(&mut self, us: u64, number: u64, question: Rc<DecideRequest>) -> Rc<DecideResponse> {
        let at = us - self.behind.min(us);
        self.clock.store(at, Ordering::Relaxed);
        let (taken_back, answers) = run(&self.master, &question);
        self.taken_back += taken_back;
        let answer = Rc::new(DecideResponse {
            version: VERSION,
            nodes: None,
            away: false,
            spent: Vec::new(),
            answers,
        });
        if !self.replicas.is_empty() {
            let answer = Rc::clone(&answer);
            self.unreplicated.push_back(Command { at, number, question, answer });
        }
        answer
    }

    /// The replicas get the next command, if it is this one. What was lost meanwhile comes no more.
    pub(super) fn replicate(&mut self, number: u64) -> Option<Rc<DecideResponse>> {
        let command = self.unreplicated.pop_front_if(|command| command.number == number)?;
        self.clock.store(command.at, Ordering::Relaxed);
        for replica in &self.replicas {
            run(replica, &command.question);
        }
        Some(command.answer)
    }

    /// The next replica takes over, with a clock that is so far behind. Returns what it has never heard of.
    pub(super) fn fail_over(&mut self, clock_back: Duration) -> Vec<Exchange> {
        if let Some(replica) = self.replicas.pop_front() {
            self.master = replica;
            self.behind += micros(clock_back);
        }
        self.unreplicated.drain(..).map(|command| (command.question, command.answer)).collect()
    }
}

/// Decides as the shim does: what goes back first. Gives how many tokens did.
fn run(store: &MemoryStore, question: &DecideRequest) -> (u64, Vec<CheckAnswer>) {
    let spend_within = Duration::from_millis(question.spend_within_ms.into());
    // its futures are ready at once
    let returned = store.give_back(&question.returns).now_or_never().unwrap_or_default();
    let taken_back = returned.iter().map(|returned| match returned {
        Returned::Tokens(tokens) => u64::from(*tokens),
        Returned::Failed(_) => 0,
    });
    let failed = || failures(question);
    let answers = store.decide(&question.checks, spend_within).now_or_never().unwrap_or_else(failed);
    (taken_back.sum(), answers)
}

/// What a shim says that has no store.
pub(super) fn failure(question: &DecideRequest) -> DecideResponse {
    DecideResponse {
        version: VERSION,
        nodes: None,
        away: false,
        spent: Vec::new(),
        answers: failures(question),
    }
}

fn failures(question: &DecideRequest) -> Vec<CheckAnswer> {
    vec![CheckAnswer::Failed { error: StoreError::Unreachable }; question.checks.len()]
}
