//! What is renewed and what goes back, behind the requests' backs.

use super::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

#[test]
fn a_pool_that_runs_low_is_renewed_by_one_worker_and_nobody_waits() {
    let (shared, mut store) = (MemoryCells::default(), Store::default());
    let mut worker = Worker::new(&shared, 1);
    let alice = check(&[("alice", 60_000)]);
    worker.request(&mut store, &alice, at(0));
    for request in 1..2000 {
        let now = at(request * 10);
        assert_eq!(worker.request(&mut store, &alice, now), Judged::Leased, "request {request}");
        worker.look(&mut store, now);
    }
    assert!(store.decisions < 40, "{} questions", store.decisions);
}

#[test]
fn near_the_limit_what_is_left_goes_back_before_its_end_and_far_from_it_nothing() {
    let (shared, mut store) = (MemoryCells::default(), Store::default());
    let mut worker = Worker::new(&shared, 1);
    let (near, far) = (check(&[("near", 400)]), check(&[("far", 6000)]));
    for request in 0..100 {
        worker.request(&mut store, &near, at(request));
    }
    worker.request(&mut store, &far, at(100));
    let mut returned: Vec<String> = Vec::new();
    for ms in (100..60_000).step_by(20) {
        let due = worker.look(&mut store, at(ms));
        returned.extend(due.returns.into_iter().map(|back| back.key));
    }
    assert!(!returned.is_empty() && returned.iter().all(|key| key == "near"), "{returned:?}");
    assert_eq!(store.remaining("near", &window(400)), 300, "all that was not spent is there again");
    assert_eq!(worker.leased(&near, at(60_000)), 0);
}

#[test]
fn a_lease_that_was_used_is_renewed_ahead_of_its_end_and_one_that_was_not_ends() {
    let (shared, mut store) = (MemoryCells::default(), Store::default());
    let mut worker = Worker::new(&shared, 1);
    let (quiet, gone) = (check(&[("quiet", 6000)]), check(&[("gone", 6000)]));
    worker.request(&mut store, &quiet, at(0));
    worker.request(&mut store, &gone, at(0));
    let mut renewed = 0;
    for ms in (0..480_000).step_by(20) {
        if ms % 20_000 == 0 && ms > 0 {
            assert_eq!(worker.request(&mut store, &quiet, at(ms)), Judged::Leased, "at {ms} ms");
        }
        renewed += worker.look(&mut store, at(ms)).renewals.len();
    }
    assert!((3..=8).contains(&renewed), "{renewed} renewals in eight minutes");
    assert_eq!(worker.request(&mut store, &gone, at(480_000)), Judged::Asked(true));
}
