//! Workers that call on their own, as they do in Envoy: nothing is told before its time.

use super::explored::Dice;
use super::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

#[test]
fn states_follow_upon_each_other_and_no_more_probes_go_than_may() {
    for seed in 1..6 {
        let open_for = Duration::from_millis(40);
        let slow_call = SlowCall { over: Duration::from_millis(50), rate: Share::ALL };
        let backoff = Backoff { factor_thousandths: 1500, max: Duration::from_millis(200) };
        let mut node = Node::new(
            4,
            Settings { min_calls: 8, half_open_calls: 3, open_for, slow_call, backoff, ..settings() },
        );
        let mut dice = Dice(seed);
        let mut under_way: Vec<(usize, Permit)> = Vec::new();
        // of each generation: how many probes it had, without those that came to nothing
        let mut probes: BTreeMap<u64, u32> = BTreeMap::new();
        let mut state = State::Closed;
        let mut changes = 0;
        for _ in 0..20_000 {
            match dice.roll(10) {
                0..4 => {
                    let worker = dice.roll(4) as usize;
                    if let Some(permit) = node.try_enter(worker) {
                        if permit.is_probe() {
                            *probes.entry(permit.generation).or_default() += 1;
                        }
                        under_way.push((worker, permit));
                    }
                }
                4..8 if !under_way.is_empty() => {
                    let (worker, permit) = under_way.swap_remove(dice.roll(under_way.len() as u64) as usize);
                    let outcome =
                        [SUCCESS, SUCCESS, FAILURE, FAILURE, Outcome::Ignored][dice.roll(5) as usize];
                    if permit.is_probe() && outcome == Outcome::Ignored {
                        probes.entry(permit.generation).and_modify(|probes| *probes -= 1);
                    }
                    node.leave(worker, permit, outcome);
                }
                _ => {
                    node.pass(Duration::from_micros(dice.roll(5000)));
                    (0..4).for_each(|worker| node.tick(worker));
                }
            }
            assert!(probes.values().all(|probes| *probes <= 3));
            probes.retain(|generation, _| node.now.as_micros() - generation < 10_000_000);
            for (from, to, _) in (0..4).flat_map(|worker| node.transitions(worker)).collect::<Vec<_>>() {
                assert_eq!(from, state);
                (state, changes) = (to, changes + 1);
            }
        }
        assert!(changes > 50, "{changes} changes are few");
    }
}

/// How many calls reach an upstream that fails for a minute: one comes each millisecond, to each worker in turn, and takes ten.
fn reaching_a_dead_upstream(workers: usize) -> usize {
    let mut node = Node::new(workers as u64, settings());
    let mut under_way = std::collections::VecDeque::new();
    let mut reaching = 0;
    for call in 0..60_000 {
        let worker = call % workers;
        if let Some(permit) = node.try_enter(worker) {
            under_way.push_back((node.now.plus(Duration::from_millis(10)), worker, permit));
            reaching += 1;
        }
        node.pass(QUICK);
        while under_way.front().is_some_and(|(ends, ..)| *ends <= node.now) {
            let (_, worker, permit) = under_way.pop_front().unwrap();
            node.leave(worker, permit, FAILURE);
        }
    }
    reaching
}

#[test]
fn four_workers_let_no_more_than_a_tenth_more_calls_reach_a_dead_upstream_than_one() {
    let (one, four) = (reaching_a_dead_upstream(1), reaching_a_dead_upstream(4));
    // twenty to find out, ten under way then, and five probes at 5, 15 and 35 seconds
    assert_eq!(one, 20 + 9 + 3 * 5);
    assert!(four * 10 <= one * 11, "{four}, and {one}");
}
