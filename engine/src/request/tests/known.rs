//! Requests that need no question.

use std::num::NonZeroU32;

use super::*;
use crate::lease::Lease;
use crate::ledger::Ledger;
use crate::local::MemoryCells;
use crate::units::Timestamp;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

const NOW: Timestamp = Timestamp::from_micros(1_000_000);

/// A worker that knows nothing at first.
struct Worker {
    cells: MemoryCells,
    ledger: Ledger,
    refusals: Refusals,
}

impl Worker {
    fn new() -> Self {
        let drift = NonZeroU32::new(10_000).unwrap();
        Self {
            cells: MemoryCells::default(),
            ledger: Ledger::new((1, 2), 3, drift),
            refusals: Refusals::new((1, 2)),
        }
    }

    /// What was heard of this request's checks: a lease for every key, or a refusal of every window.
    fn hears(&mut self, request: &Request, allowed: bool) {
        let answer = if allowed { SOME_LEFT } else { NONE_LEFT };
        for (check, mut answer) in request.checks().zip(answers(request, allowed, answer)) {
            let mut check = check.clone();
            self.ledger.ask(&self.cells, &mut check, NonZeroU32::MIN, NOW);
            if let CheckAnswer::Allowed { keys } = &mut answer {
                keys.iter_mut().for_each(|key| key.lease = Some(Lease { tokens: 4, life_ms: 30_000 }));
            }
            self.refusals.remember(&check, &answer, NOW);
            self.ledger.hear(&self.cells, &check, &answer, NOW, NOW);
        }
    }

    fn spends(&mut self, policy: &Policy, request: &mut Request) -> Spending {
        request.spend(policy, &mut self.ledger, &self.cells, &mut self.refusals, NOW)
    }
}

/// One limit in dry run beside the enforced one.
fn with_a_dry_run() -> Policy {
    let watched = json!({"watched": {
        "keys": {"shop": [{"header": "x-shop"}]},
        "windows": [{"limit": 10, "per": "1m"}],
        "enforce": "0%",
    }});
    with_limits(true, watched)
}

#[test]
fn tokens_that_are_held_decide_and_are_told_from_the_stores_decisions() {
    let policy = with_limits(true, json!({}));
    let mut worker = Worker::new();
    let (first, _) = arrive(&policy, &[("x-user", "u1")]);
    worker.hears(&first, true);
    let (mut second, _) = arrive(&policy, &[("x-user", "u1")]);
    assert_eq!(worker.spends(&policy, &mut second), Spending::Decided(Step::Continue));
    assert_eq!(second.take_tallies(), [tally(0, Outcome::Admitted, Judge::Lease)]);
    assert!(headers(&second)[0].starts_with("ratelimit-policy: \"per_user:1m\";q=10;w=60"));
}

#[test]
fn nothing_is_decided_of_a_request_of_which_nothing_is_held() {
    let policy = with_limits(true, json!({}));
    let mut worker = Worker::new();
    let (mut request, _) = arrive(&policy, &[("x-user", "u1")]);
    assert_eq!(worker.spends(&policy, &mut request), Spending::Unknown);
    assert!(request.is_pending());
    let mut check = request.checks().next().unwrap().clone();
    worker.ledger.ask(&worker.cells, &mut check, NonZeroU32::MIN, NOW);
    assert!(matches!(worker.spends(&policy, &mut request), Spending::Awaits(_)));
    assert!(request.is_pending());
}

#[test]
fn a_dry_run_that_is_known_to_refuse_is_no_obstacle_to_the_limits_beside_it() {
    let policy = with_a_dry_run();
    let mut worker = Worker::new();
    let (user, _) = arrive(&policy, &[("x-user", "u1")]);
    worker.hears(&user, true);
    let (shop, _) = arrive(&policy, &[("x-shop", "s1")]);
    worker.hears(&shop, false);
    let (mut both, _) = arrive(&policy, &[("x-user", "u1"), ("x-shop", "s1")]);
    assert_eq!(worker.spends(&policy, &mut both), Spending::Decided(Step::Continue));
    let mut tallies = both.take_tallies();
    tallies.sort_by_key(|tally| tally.limit);
    assert_eq!(
        tallies,
        [tally(0, Outcome::Admitted, Judge::Lease), tally(1, Outcome::DryRun, Judge::Remembered)]
    );
}

#[test]
fn a_dry_run_that_is_known_to_refuse_decides_nothing_for_a_limit_that_is_not_known() {
    let policy = with_a_dry_run();
    let mut worker = Worker::new();
    let (shop, _) = arrive(&policy, &[("x-shop", "s1")]);
    worker.hears(&shop, false);
    let (mut both, _) = arrive(&policy, &[("x-user", "u1"), ("x-shop", "s1")]);
    assert_eq!(worker.spends(&policy, &mut both), Spending::Unknown);
    assert!(both.is_pending());
}

#[test]
fn a_refusal_that_another_worker_heard_rejects() {
    let policy = with_limits(true, json!({}));
    let mut worker = Worker::new();
    let (first, _) = arrive(&policy, &[("x-user", "u1")]);
    worker.hears(&first, false);
    // the other worker of the node shares the pool, and has heard nothing itself
    worker.refusals = Refusals::new((1, 2));
    let (mut second, _) = arrive(&policy, &[("x-user", "u1")]);
    let Spending::Decided(step) = worker.spends(&policy, &mut second) else { panic!("nothing decided") };
    assert_eq!(reply(step).status, 429);
    assert_eq!(second.take_tallies(), [tally(0, Outcome::Rejected, Judge::Remembered)]);
}
