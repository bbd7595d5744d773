use std::cell::Cell;
use std::num::NonZeroU32;

use super::*;
use crate::local::MemoryCells;

mod against_model;
mod bulkhead;
mod bytes;
mod control;
mod explored;
mod model;
mod reports;
mod sharing;
mod states;
mod together;

/// Some workers, on a clock of their own that starts late enough for windows to lie behind it.
#[derive(Clone)]
struct Node {
    shared: MemoryCells,
    workers: Vec<Breakers>,
    settings: Arc<Settings>,
    now: Timestamp,
    chance: u32,
}

const OWNER: &str = "shadow.account.core.get_account";
const QUICK: Duration = Duration::from_millis(1);
const LATE: Duration = Duration::from_millis(2001);
const SUCCESS: Outcome = Outcome::Success { took: QUICK };
const FAILURE: Outcome = Outcome::Failure { took: QUICK };

/// The defaults of the policy.
pub(super) fn settings() -> Settings {
    Settings {
        window: Duration::from_secs(10),
        min_calls: 20,
        failure_rate: Share::from_millionths(500_000),
        slow_call: SlowCall { over: Duration::from_secs(2), rate: Share::from_millionths(800_000) },
        consecutive_failures: None,
        open_for: Duration::from_secs(5),
        backoff: Backoff { factor_thousandths: 2000, max: Duration::from_secs(60) },
        half_open_calls: 5,
        max_concurrent: None,
        failures: Failures { server_errors: true, connect: true, reset: true, timeout: true, grpc: vec![14] },
        control: Control::Automatic,
        enforce: Share::ALL,
    }
}

impl Node {
    fn new(workers: u64, settings: Settings) -> Self {
        Self {
            shared: MemoryCells::default(),
            workers: (0..workers).map(|worker| Breakers::new((1, 2), worker + 7)).collect(),
            settings: Arc::new(settings),
            now: Timestamp::from_micros(3_600_000_000),
            chance: 0,
        }
    }

    /// All that it is, but for how it came about.
    fn print(&self) -> String {
        let cells = self.shared.slots.borrow();
        let bytes: Vec<&Vec<u8>> = cells.values().map(|(bytes, _)| bytes).collect();
        format!("{bytes:?} {:?} {:?}", self.workers, self.now)
    }

    fn pass(&mut self, span: Duration) {
        self.now = self.now.plus(span);
    }

    fn enter(&mut self, worker: usize) -> Entry {
        let chance = self.chance;
        self.workers[worker].enter(&self.shared, OWNER, &self.settings, self.now, &|| chance)
    }

    /// Enters, if it may.
    fn try_enter(&mut self, worker: usize) -> Option<Permit> {
        match self.enter(worker) {
            Entry::Pass(permit) => permit,
            Entry::Refuse(_) | Entry::WouldRefuse(..) => None,
        }
    }

    fn let_in(&mut self, worker: usize) -> Permit {
        self.try_enter(worker).expect("let in")
    }

    fn leave(&mut self, worker: usize, permit: Permit, outcome: Outcome) {
        let chance = self.chance;
        self.workers[worker].leave(&self.shared, permit, outcome, self.now, &|| chance);
    }

    fn call(&mut self, worker: usize, outcome: Outcome) {
        let permit = self.let_in(worker);
        self.leave(worker, permit, outcome);
    }

    fn calls(&mut self, worker: usize, number: u32, outcome: Outcome) {
        (0..number).for_each(|_| self.call(worker, outcome));
    }

    fn tick(&mut self, worker: usize) {
        let chance = self.chance;
        self.workers[worker].tick(&self.shared, self.now, &|| chance);
    }

    fn state(&self, worker: usize) -> State {
        self.workers[worker].state(OWNER)
    }

    fn why(&mut self, worker: usize) -> Option<Why> {
        match self.enter(worker) {
            Entry::Refuse(refusal) => Some(refusal.why),
            Entry::Pass(_) | Entry::WouldRefuse(..) => None,
        }
    }

    fn transitions(&mut self, worker: usize) -> Vec<(State, State, Cause)> {
        let taken = self.workers[worker].take_transitions();
        taken.into_iter().map(|turn| (turn.from, turn.to, turn.cause)).collect()
    }

    /// Trips it at `failure_rate`, through the first worker.
    fn trip(&mut self) {
        self.calls(0, self.settings.min_calls, FAILURE);
        assert_eq!(self.state(0), State::Open);
    }
}
