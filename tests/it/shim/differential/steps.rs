//! What a case does: batches that are asked, tokens that go back, and reports of what was spent without asking, with
//! time between them.
//!
//! The numbers are such that cases meet what single requests seldom do: costs over a limit, returns and reports that come
//! twice, and dates from the same moment to a year ago.

use std::time::Duration;

use lanekeeper_engine::lease::LeaseAsk;
use lanekeeper_engine::window::{MAX_EXACT, MAX_LIMIT};
use lanekeeper_engine::wire::{MAX_SLICES, Operation};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

pub(super) const KEYS: usize = 4;
const MAX_LIFE_MS: u32 = 120_000;

#[derive(Clone, Debug)]
pub(super) enum Step {
    /// Time passes.
    Pause { us: u64 },
    /// A batch is asked.
    Ask { spend_within: Duration, checks: Vec<Vec<Question>> },
    /// So many tokens of an earlier charge go back: the last, or so many before it. Few numbers for many returns, so
    /// that some come twice.
    GiveBack { charge: usize, tokens: u32, id: u64 },
    /// So much was spent without asking, each slice so long before the next and the last so long ago. Few numbers here
    /// too.
    Record { key: usize, list: usize, spent: Vec<(u64, u32)>, id: u64 },
}

/// One key of a check.
#[derive(Clone, Debug)]
pub(super) struct Question {
    pub(super) key: usize,
    /// Which of the case's lists of windows it is asked for.
    pub(super) list: usize,
    pub(super) operation: Operation,
    /// A number that makes its cost, and perhaps one that makes what would do.
    pub(super) cost: u32,
    pub(super) at_least: Option<u32>,
    /// What it asks for in advance if it takes; of those the ones with the smallest costs cost nothing.
    pub(super) lease: Option<LeaseAsk>,
}

fn leases() -> impl Strategy<Value = Option<LeaseAsk>> {
    let tokens = prop_oneof![4 => 1..6u32, 2 => 1..2000u32, 1 => 1..=MAX_LIMIT, 1 => Just(MAX_LIMIT)];
    let life_ms = prop_oneof![1 => 1..200u32, 3 => 1..=MAX_LIFE_MS, 1 => Just(MAX_LIFE_MS)];
    let drift = prop_oneof![1 => Just(1), 2 => Just(10_000), 2 => 1..=1_000_000u32, 2 => Just(1_000_000)];
    let nodes = prop_oneof![3 => Just(1), 2 => 1..20u32, 1 => 1..=u32::MAX];
    let ask = (tokens, life_ms, drift, nodes).prop_map(|(tokens, life_ms, drift, nodes)| LeaseAsk {
        tokens,
        life_ms,
        drift,
        nodes,
    });
    prop_oneof![1 => Just(None), 1 => ask.prop_map(Some)]
}

pub(super) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let spend_within = select(vec![0, 0, 1, 3, 20, 10_000]).prop_map(Duration::from_millis);
    let cost = || prop_oneof![5 => 0..3u32, 1 => any::<u32>()];
    let operation = || prop_oneof![6 => Just(Operation::Take), 1 => Just(Operation::Peek)];
    let at_least = || prop_oneof![2 => Just(None), 1 => any::<u32>().prop_map(Some)];
    let check = subsequence((0..KEYS).collect::<Vec<_>>(), 1..=KEYS)
        .prop_flat_map(move |keys| {
            let question = |key| {
                (Just(key), 0..2usize, operation(), cost(), at_least(), leases()).prop_map(
                    |(key, list, operation, cost, at_least, lease)| Question {
                        key,
                        list,
                        operation,
                        cost,
                        at_least,
                        lease,
                    },
                )
            };
            keys.into_iter().map(question).collect::<Vec<_>>()
        })
        .prop_shuffle();
    let ask = (spend_within, prop::collection::vec(check, 1..4))
        .prop_map(|(spend_within, checks)| Step::Ask { spend_within, checks });
    let pause = (0..4000u64).prop_map(|us| Step::Pause { us });
    let give_back = (0..6usize, prop_oneof![2 => 1..4u32, 1 => any::<u32>()], 1..30u64)
        .prop_map(|(charge, tokens, id)| Step::GiveBack { charge, tokens, id });
    let gap =
        prop_oneof![3 => 0..3_000u64, 3 => 0..100_000u64, 1 => 0..20_000_000_000u64, 1 => 0..MAX_EXACT / 16];
    let record = records(gap.boxed(), 0..KEYS, prop_oneof![4 => 0..4u32, 1 => any::<u32>()].boxed(), 30..50);
    prop::collection::vec(prop_oneof![1 => pause, 6 => ask, 2 => give_back, 2 => record], 1..40)
}

/// Reports of `keys` in slices that are so far apart and hold so many tokens, under such numbers.
fn records(
    gap: BoxedStrategy<u64>,
    keys: std::ops::Range<usize>,
    tokens: BoxedStrategy<u32>,
    ids: std::ops::Range<u64>,
) -> impl Strategy<Value = Step> {
    let spent = prop::collection::vec((gap, tokens), 1..=MAX_SLICES);
    (keys, 0..2usize, spent, ids).prop_map(|(key, list, spent, id)| Step::Record { key, list, spent, id })
}

/// One subject asked so often, and with dates so far apart, that it holds many buckets and they are read again.
pub(super) fn long_steps() -> impl Strategy<Value = Vec<Step>> {
    let spend_within = select(vec![0, 0, 0, 1, 3, 20, 90]).prop_map(Duration::from_millis);
    let ask = (spend_within, 0..3u32, leases()).prop_map(|(spend_within, cost, lease)| {
        // so few, and for so short, that they do not fill the windows for the rest of the case
        let lease = lease.map(|lease| LeaseAsk {
            tokens: 1 + lease.tokens % 3,
            life_ms: 50 + lease.life_ms % 250,
            drift: 1_000_000,
            nodes: 1,
        });
        let question = Question { key: 0, list: 0, operation: Operation::Take, cost, at_least: None, lease };
        Step::Ask { spend_within, checks: vec![vec![question]] }
    });
    let pause = prop_oneof![6 => 0..300u64, 1 => 0..30_000u64].prop_map(|us| Step::Pause { us });
    let give_back = (0..60usize, 0..2u32, any::<u64>()).prop_map(|(charge, tokens, id)| Step::GiveBack {
        charge,
        tokens,
        id,
    });
    // far enough back that they come before buckets and entries that are there, and not so many that nothing is left
    let gap = prop_oneof![0..5_000u64, 0..60_000u64].boxed();
    let record = records(gap, 0..1, (0..2u32).boxed(), 0..u64::MAX);
    let steps = prop_oneof![30 => pause, 120 => ask, 60 => give_back, 4 => record];
    prop::collection::vec(steps, 300)
}
