//! The promise of leases over any order of events: whoever spends, and whatever crashes, no window is over its limit.

use proptest::prelude::*;
use proptest::sample::select;

use super::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

#[derive(Clone, Debug)]
enum Step {
    Pass {
        ms: u64,
    },
    Request {
        worker: usize,
        subject: usize,
        times: usize,
    },
    Look {
        worker: usize,
    },
    /// The worker's VM ends; the pool stays.
    Crash {
        worker: usize,
    },
    /// The node ends.
    Restart {
        node: usize,
    },
}

const NODES: usize = 2;
const WORKERS: usize = 4;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => select(vec![0, 1, 20, 100, 600, 7000]).prop_map(|ms| Step::Pass { ms }),
        8 => (0..WORKERS, 0..2usize, select(vec![1, 2, 10, 60]))
            .prop_map(|(worker, subject, times)| Step::Request { worker, subject, times }),
        4 => (0..WORKERS).prop_map(|worker| Step::Look { worker }),
        1 => (0..WORKERS).prop_map(|worker| Step::Crash { worker }),
        1 => (0..NODES).prop_map(|node| Step::Restart { node }),
    ];
    proptest::collection::vec(step, 1..120)
}

/// Admissions of each subject, and whether any ten seconds hold more than the limit.
#[derive(Default)]
struct Log([Vec<u64>; 2]);

impl Log {
    fn admit(&mut self, subject: usize, now: u64, limit: usize) -> Result<(), TestCaseError> {
        let log = &mut self.0[subject];
        log.push(now);
        let within = log.iter().filter(|at| **at + 10_000 > now).count();
        prop_assert!(within <= limit, "{within} of {limit} within ten seconds before {now}");
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(target_arch = "wasm32") { 16 } else { 256 }))]

    #[test]
    fn no_trailing_window_is_over_its_limit_over_all_workers_of_all_nodes(steps in steps(), limit in select(vec![5_u32, 100, 900])) {
        let per = Duration::from_secs(10);
        let window = Window::new(limit, per, Algorithm::SlidingWindow).unwrap();
        let checks = ["alice", "bob"].map(|key| Check { keys: vec![KeyCheck::take(key, 1, [window.clone()])] });
        let shared: [MemoryCells; NODES] = Default::default();
        let mut workers: Vec<Worker<'_>> =
            (0..WORKERS).map(|number| Worker::new(&shared[number % NODES], number as u64)).collect();
        let (mut store, mut log, mut now, mut drawn) = (Store::default(), Log::default(), 0, 100);
        let mut begin = |node: usize| {
            drawn += 1;
            Worker::new(&shared[node], drawn)
        };
        for step in steps {
            match step {
                Step::Pass { ms } => now += ms,
                Step::Request { worker, subject, times } => {
                    for _ in 0..times {
                        let judged = workers[worker].request(&mut store, &checks[subject], at(now));
                        if matches!(judged, Judged::Leased | Judged::Asked(true)) {
                            log.admit(subject, now, limit as usize)?;
                        }
                    }
                }
                Step::Look { worker } => {
                    workers[worker].look(&mut store, at(now));
                }
                Step::Crash { worker } => {
                    workers[worker] = begin(worker % NODES);
                }
                Step::Restart { node } => {
                    shared[node].slots.borrow_mut().clear();
                    for worker in (node..WORKERS).step_by(NODES) {
                        workers[worker] = begin(node);
                    }
                }
            }
        }
    }
}
