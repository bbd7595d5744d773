//! Several workers side by side with the model, step by step.
//!
//! After each step the workers have told each other what they saw, so they have to say what the model says, to the
//! microsecond. There is one thing in which they may differ: a success that trips, in a worker that has not looked for a
//! while, trips when it is told.

use proptest::prelude::*;

use super::model::{Model, ModelPermit};
use super::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// What a worker keeps to itself, it keeps so long.
const TOLD_AFTER: Duration = Duration::from_millis(100);

/// The workers, the model, and the calls under way in both.
#[derive(Clone)]
pub(super) struct Pair {
    node: Node,
    model: Model,
    under_way: Vec<(usize, Permit, ModelPermit)>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    /// A call comes to this worker.
    Enter(usize),
    /// Of the calls under way, this one ends.
    Leave(usize, Outcome),
    /// Nothing happens for so long.
    Wait(Duration),
}

impl Pair {
    pub(super) fn new(workers: u64, settings: Settings) -> Self {
        let model = Model::new(settings.clone());
        Self { node: Node::new(workers, settings), model, under_way: Vec::new() }
    }

    /// All that it is, but for how it came about.
    pub(super) fn print(&self) -> String {
        format!("{} {:?} {:?}", self.node.print(), self.model, self.under_way)
    }

    pub(super) fn under_way(&self) -> usize {
        self.under_way.len()
    }

    /// Does a step in both, and compares them.
    pub(super) fn step(&mut self, step: Step) {
        let now = self.node.now;
        let changes = self.model.changes();
        match step {
            Step::Enter(worker) => self.enter(worker),
            Step::Leave(..) if self.under_way.is_empty() => {}
            Step::Leave(call, outcome) => {
                let (worker, permit, expected) = self.under_way.remove(call % self.under_way.len());
                self.node.leave(worker, permit, outcome);
                self.model.leave(expected, outcome, now);
            }
            Step::Wait(span) => self.node.pass(span),
        }
        let mut made = self.changes_made();
        self.node.pass(TOLD_AFTER);
        (0..self.node.workers.len()).for_each(|worker| self.node.tick(worker));
        let made_late = self.changes_made();
        if made_late > 0 {
            let is_success = matches!(step, Step::Leave(_, Outcome::Success { .. }));
            assert!(
                is_success && made == 0 && self.model.state() == State::Open,
                "only a success is told late"
            );
            self.model.opened_later_by(TOLD_AFTER);
            made += made_late;
        }
        assert_eq!(made, self.model.changes() - changes, "each change has one worker that tells of it");
    }

    fn enter(&mut self, worker: usize) {
        let expected = self.model.enter(self.node.now);
        match (self.node.enter(worker), expected) {
            (Entry::Pass(Some(permit)), Ok(expected)) => {
                assert_eq!(permit.is_probe(), expected.is_probe);
                self.under_way.push((worker, permit, expected));
            }
            (Entry::Refuse(refusal), Err(expected)) => {
                assert_eq!((refusal.why, refusal.retry_after), expected);
            }
            (entry, expected) => panic!("{entry:?}, and not {expected:?}"),
        }
        assert_eq!(self.node.state(worker), self.model.state());
    }

    fn changes_made(&mut self) -> u64 {
        let workers = self.node.workers.iter_mut();
        workers.map(|worker| worker.take_transitions().len() as u64).sum()
    }
}

const OVER: Duration = Duration::from_millis(300);

/// Shares and factors that are exact as doubles, or nearly so and far from every quotient that occurs.
pub(super) fn some_settings() -> impl Strategy<Value = Settings> {
    let rate = || prop::sample::select(vec![1, 250_000, 300_000, 500_000, 800_000, 1_000_000]);
    let window = prop::sample::select(vec![1000_u64, 2500, 10_000]).prop_map(Duration::from_millis);
    let in_a_row = prop::option::weighted(0.3, (1_u32..5).prop_map(|most| NonZeroU32::new(most).unwrap()));
    let factor = prop::sample::select(vec![1000, 1500, 2000]);
    (window, 1_u32..8, (rate(), rate()), in_a_row, factor, 1_u32..5).prop_map(
        |(window, min_calls, (failures, slow), consecutive_failures, factor_thousandths, half_open_calls)| {
            Settings {
                window,
                min_calls,
                failure_rate: Share::from_millionths(failures),
                slow_call: SlowCall { over: OVER, rate: Share::from_millionths(slow) },
                consecutive_failures,
                open_for: Duration::from_millis(800),
                backoff: Backoff { factor_thousandths, max: Duration::from_millis(2000) },
                half_open_calls,
                ..settings()
            }
        },
    )
}

fn some_outcome() -> impl Strategy<Value = Outcome> {
    let took = prop::sample::select(vec![QUICK, OVER, OVER + Duration::from_micros(1)]);
    (0..10_u32, took).prop_map(|(which, took)| match which {
        0..5 => Outcome::Success { took },
        5..9 => Outcome::Failure { took },
        _ => Outcome::Ignored,
    })
}

fn some_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..3_usize).prop_map(Step::Enter),
        4 => (0..8_usize, some_outcome()).prop_map(|(call, outcome)| Step::Leave(call, outcome)),
        1 => prop::sample::select(vec![0, 50, 300, 600, 1900, 10_000])
            .prop_map(|millis| Step::Wait(Duration::from_millis(millis))),
    ]
}

#[test]
fn three_workers_together_are_what_the_model_is() {
    let steps = prop::collection::vec(some_step(), 1..120);
    proptest!(ProptestConfig::with_cases(2000), |(settings in some_settings(), steps in steps)| {
        let mut pair = Pair::new(3, settings);
        steps.into_iter().for_each(|step| pair.step(step));
    });
}
