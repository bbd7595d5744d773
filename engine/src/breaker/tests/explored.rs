//! Every way in which a few workers can go, for bounds small enough to try them all.

use std::collections::BTreeSet;
use std::hash::Hash;

use siphasher::sip128::{Hasher128, SipHasher13};

use super::against_model::{Pair, Step};
use super::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// Goes from state to state, each once, and so many steps deep. Returns how many there are.
fn explore<S>(start: S, depth: usize, print: impl Fn(&S) -> String, next: impl Fn(&S) -> Vec<S>) -> usize {
    let mut seen = BTreeSet::new();
    let mut layer = vec![start];
    for _ in 0..depth {
        let mut following = Vec::new();
        for state in layer.iter().flat_map(&next) {
            let mut hasher = SipHasher13::new();
            print(&state).hash(&mut hasher);
            if seen.insert(hasher.finish128().as_u128()) {
                following.push(state);
            }
        }
        layer = following;
    }
    seen.len()
}

fn small() -> Settings {
    let (open_for, max) = (Duration::from_millis(800), Duration::from_secs(1));
    let backoff = Backoff { factor_thousandths: 2000, max };
    let slow_call = SlowCall { over: Duration::from_secs(1), rate: Share::ALL };
    let window = Duration::from_secs(1);
    Settings { window, min_calls: 2, half_open_calls: 2, open_for, backoff, slow_call, ..settings() }
}

#[test]
fn two_workers_are_what_the_model_is_in_every_order_of_events() {
    let steps = |pair: &Pair| {
        let mut steps = vec![Step::Wait(Duration::from_millis(700))];
        if pair.under_way() < 3 {
            steps.extend([Step::Enter(0), Step::Enter(1)]);
        }
        for call in 0..pair.under_way().min(2) {
            steps.extend([SUCCESS, FAILURE, Outcome::Ignored].map(|outcome| Step::Leave(call, outcome)));
        }
        steps
    };
    let next = |pair: &Pair| {
        let step = |step| {
            let mut next = pair.clone();
            next.step(step);
            next
        };
        steps(pair).into_iter().map(step).collect()
    };
    for consecutive_failures in [None, NonZeroU32::new(2)] {
        let closed = Pair::new(2, Settings { consecutive_failures, ..small() });
        let mut open = closed.clone();
        for step in [Step::Enter(0), Step::Enter(0), Step::Leave(0, FAILURE), Step::Leave(0, FAILURE)] {
            open.step(step);
        }
        for (start, depth) in [(closed, 7), (open, 8)] {
            let states = explore(start, depth, Pair::print, next);
            assert!(states > 5000, "{states} are no exploration");
        }
    }
}

/// Workers that live and die, with all the calls under way.
#[derive(Clone)]
struct Crew {
    node: Node,
    calls: Vec<(usize, Permit)>,
    /// Calls whose worker died, and when.
    lost: Vec<Timestamp>,
    born: u64,
}

/// What was reserved by a worker that died is free after so long.
const MOURNING: Duration = Duration::from_secs(5);

impl Crew {
    fn new(workers: u64, settings: Settings) -> Self {
        Self { node: Node::new(workers, settings), calls: Vec::new(), lost: Vec::new(), born: 1000 }
    }

    fn enter(&mut self, worker: usize) {
        if let Some(permit) = self.node.try_enter(worker) {
            self.calls.push((worker, permit));
        }
        self.hold();
    }

    fn leave(&mut self, call: usize, outcome: Outcome) {
        let (worker, permit) = self.calls.remove(call);
        self.node.leave(worker, permit, outcome);
    }

    fn die(&mut self, worker: usize) {
        let (lost, living) = std::mem::take(&mut self.calls).into_iter().partition(|call| call.0 == worker);
        let lost: Vec<(usize, Permit)> = lost;
        self.calls = living;
        self.lost.extend(lost.iter().map(|_| self.node.now));
        self.born += 1;
        self.node.workers[worker] = Breakers::new((1, 2), self.born);
    }

    /// Time passes, and all workers look after what is due.
    fn wait(&mut self, span: Duration) {
        self.node.pass(span);
        (0..self.node.workers.len()).for_each(|worker| self.node.tick(worker));
        let now = self.node.now;
        self.lost.retain(|died_at| now.since(*died_at) <= MOURNING - Duration::from_secs(1));
    }

    /// No more calls are under way than may be, those of workers that died just now included.
    fn hold(&self) {
        let most = self.node.settings.max_concurrent.unwrap().get() as usize;
        let under_way = self.calls.len() + self.lost.len();
        assert!(under_way <= most, "{under_way} calls of {most}");
    }

    /// What is open closes again, and then every place has come back.
    fn recover_from_trips(mut self) {
        self.node.settings =
            Arc::new(Settings { control: Control::ForceClosed, ..(*self.node.settings).clone() });
        self.recover();
    }

    /// When all calls have ended, as many can be under way as may be.
    fn recover(mut self) {
        while !self.calls.is_empty() {
            self.leave(0, SUCCESS);
        }
        self.wait(MOURNING + QUICK);
        (0..3).for_each(|_| self.wait(Duration::from_millis(100)));
        let most = self.node.settings.max_concurrent.unwrap().get() as usize;
        let reserved: Vec<Option<Timestamp>> = self.node.workers.iter().map(Breakers::next_due).collect();
        assert!(reserved.iter().all(Option::is_none), "nobody holds anything");
        (0..most).for_each(|call| self.enter(call % self.node.workers.len()));
        for _ in 0..3 {
            self.wait(Duration::from_millis(100));
            (0..self.node.workers.len()).for_each(|worker| (0..most).for_each(|_| self.enter(worker)));
        }
        assert_eq!(self.calls.len(), most, "every place has come back");
    }

    fn print(&self) -> String {
        format!("{} {:?} {:?}", self.node.print(), self.calls, self.lost)
    }
}

#[test]
fn a_bulkhead_holds_and_loses_nothing_in_every_order_of_events() {
    let most = NonZeroU32::new(2);
    // nothing trips here
    let settings = Settings { max_concurrent: most, control: Control::ForceClosed, ..small() };
    let next = |crew: &Crew| {
        let mut next: Vec<Crew> = Vec::new();
        let mut with = |change: &dyn Fn(&mut Crew)| {
            let mut crew = crew.clone();
            change(&mut crew);
            crew.clone().recover();
            next.push(crew);
        };
        for worker in 0..2 {
            with(&|crew| crew.enter(worker));
            with(&|crew| crew.node.tick(worker));
            with(&|crew| crew.die(worker));
        }
        (0..crew.calls.len()).for_each(|call| with(&|crew| crew.leave(call, SUCCESS)));
        for millis in [20, 100, 1000] {
            with(&|crew| crew.wait(Duration::from_millis(millis)));
        }
        next
    };
    let states = explore(Crew::new(2, settings), 5, Crew::print, next);
    assert!(states > 1000, "{states} are no exploration");
}

/// Evenly spread numbers, the same in each run.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

#[test]
fn a_bulkhead_holds_and_loses_nothing_in_a_hundred_thousand_random_events() {
    for (seed, most) in [(1, 1), (2, 2), (3, 7), (4, 20), (5, 100)] {
        let settings = Settings { max_concurrent: NonZeroU32::new(most), ..small() };
        let mut crew = Crew::new(4, settings);
        let mut dice = Dice(seed);
        let mut turned_away = 0;
        for _ in 0..20_000 {
            match dice.roll(100) {
                0..45 => {
                    let before = crew.calls.len();
                    crew.enter(dice.roll(4) as usize);
                    turned_away += u32::from(crew.calls.len() == before);
                }
                45..85 if !crew.calls.is_empty() => {
                    let call = dice.roll(crew.calls.len() as u64) as usize;
                    let outcome =
                        [SUCCESS, SUCCESS, SUCCESS, FAILURE, Outcome::Ignored][dice.roll(5) as usize];
                    crew.leave(call, outcome);
                }
                85..90 => crew.node.shared.races.set(dice.roll(3) as u32),
                90 => crew.die(dice.roll(4) as usize),
                _ => crew.wait(Duration::from_millis(dice.roll(40))),
            }
        }
        assert!(turned_away > 0, "{most} were never reached");
        crew.recover_from_trips();
    }
}
