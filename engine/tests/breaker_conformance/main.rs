//! What well-known breakers are tested for, said again of ours. Each module is named after a library and each test after a
//! case of its suite, written anew. `docs/breakers.md` says where ours differs, and why.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "clippy.toml allows these in test functions, and helpers are no less tests"
)]

mod failsafe;
mod gobreaker;
mod hystrix;
mod lanes;
mod polly;
mod resilience4j;
mod sentinel;

use std::sync::Arc;
use std::time::Duration;

use lanekeeper_engine::breaker::{
    Backoff, Breakers, Cause, Control, Entry, Failures, Outcome, Permit, Refusal, Settings, SlowCall, State,
    Transition, Why,
};
use lanekeeper_engine::local::MemoryCells;
use lanekeeper_engine::policy::Share;
use lanekeeper_engine::units::Timestamp;

/// A breaker, its workers and a clock.
struct Node {
    shared: MemoryCells,
    workers: Vec<Breakers>,
    settings: Arc<Settings>,
    now: Timestamp,
}

const QUICK: Duration = Duration::from_millis(1);
const SUCCESS: Outcome = Outcome::Success { took: QUICK };
const FAILURE: Outcome = Outcome::Failure { took: QUICK };
const NORMAL: &str = "account.core.get_account";

fn percent(percent: u32) -> Share {
    Share::from_millionths(percent * 10_000)
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// The defaults of the policy, but for slow calls, which few of the libraries know.
fn settings() -> Settings {
    Settings {
        window: seconds(10),
        min_calls: 20,
        failure_rate: percent(50),
        slow_call: SlowCall { over: seconds(3600), rate: percent(100) },
        consecutive_failures: None,
        open_for: seconds(5),
        backoff: Backoff { factor_thousandths: 1000, max: seconds(5) },
        half_open_calls: 5,
        max_concurrent: None,
        failures: Failures { server_errors: true, connect: true, reset: true, timeout: true, grpc: vec![] },
        control: Control::Automatic,
        enforce: Share::ALL,
    }
}

impl Node {
    fn of_workers(workers: u64, settings: Settings) -> Self {
        Self {
            shared: MemoryCells::default(),
            workers: (0..workers).map(|worker| Breakers::new((1, 2), worker)).collect(),
            settings: Arc::new(settings),
            now: Timestamp::from_micros(3_600_000_000),
        }
    }

    fn new(settings: Settings) -> Self {
        Self::of_workers(1, settings)
    }

    fn pass(&mut self, span: Duration) {
        self.now = self.now.plus(span);
    }

    fn enter_as(&mut self, worker: usize, owner: &str) -> Entry {
        self.workers[worker].enter(&self.shared, owner, &self.settings, self.now, &|| 0)
    }

    /// What a call meets that is turned away.
    fn refusal(&mut self) -> Refusal {
        match self.enter_as(0, NORMAL) {
            Entry::Refuse(refusal) => refusal,
            Entry::Pass(_) | Entry::WouldRefuse(..) => panic!("it was let in"),
        }
    }

    fn acquire_by(&mut self, worker: usize) -> Result<Permit, Why> {
        match self.enter_as(worker, NORMAL) {
            Entry::Pass(permit) => Ok(permit.expect("a permit")),
            Entry::Refuse(refusal) | Entry::WouldRefuse(refusal, _) => Err(refusal.why),
        }
    }

    fn acquire(&mut self) -> Result<Permit, Why> {
        self.acquire_by(0)
    }

    fn permits(&mut self, number: usize) -> Vec<Permit> {
        (0..number).map(|_| self.acquire().unwrap()).collect()
    }

    fn end_by(&mut self, worker: usize, permit: Permit, outcome: Outcome) {
        self.workers[worker].leave(&self.shared, permit, outcome, self.now, &|| 0);
    }

    fn end(&mut self, permit: Permit, outcome: Outcome) {
        self.end_by(0, permit, outcome);
    }

    /// Calls that come and end at once, one after the other.
    fn calls(&mut self, outcomes: &[Outcome]) {
        for outcome in outcomes {
            let permit = self.acquire().unwrap();
            self.end(permit, *outcome);
        }
    }

    fn state(&self) -> State {
        self.workers[0].state(NORMAL)
    }

    fn transitions(&mut self) -> Vec<Transition> {
        self.workers.iter_mut().flat_map(Breakers::take_transitions).collect()
    }

    fn causes(&mut self) -> Vec<Cause> {
        self.transitions().into_iter().map(|turn| turn.cause).collect()
    }

    fn control(&mut self, control: Control) {
        self.settings = Arc::new(Settings { control, ..(*self.settings).clone() });
    }

    /// Trips it, and goes on until it would let a probe through.
    fn trip_and_wait(&mut self) {
        let failures = vec![FAILURE; self.settings.min_calls as usize];
        self.calls(&failures);
        assert_eq!(self.state(), State::Open);
        self.pass(self.settings.open_for);
    }
}
