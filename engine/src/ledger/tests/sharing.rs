//! What the workers of a node share of leases and refusals, and what becomes of it where they cannot.

use super::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

#[test]
fn the_workers_of_a_node_spend_one_lease() {
    let (shared, mut store) = (MemoryCells::default(), Store::default());
    let mut workers: Vec<Worker<'_>> = (0..4).map(|number| Worker::new(&shared, number)).collect();
    let alice = check(&[("alice", 6000)]);
    workers[0].request(&mut store, &alice, at(0));
    let leased: usize = workers.iter_mut().rev().map(|worker| worker.leased(&alice, at(1))).sum();
    assert_eq!((leased, store.decisions), (4, 1));
}

#[test]
fn what_one_worker_was_refused_the_others_know_until_the_moment_that_was_named() {
    let (shared, mut store) = (MemoryCells::default(), Store::default());
    let (mut first, mut second) = (Worker::new(&shared, 1), Worker::new(&shared, 2));
    let alice = check(&[("alice", 1)]);
    assert_eq!(first.request(&mut store, &alice, at(0)), Judged::Asked(true));
    assert_eq!(first.request(&mut store, &alice, at(1)), Judged::Asked(false));
    assert_eq!(second.request(&mut store, &alice, at(2)), Judged::Remembered);
    assert_eq!(second.request(&mut store, &alice, at(10_000)), Judged::Remembered);
    assert_eq!(
        second.request(&mut store, &alice, at(10_001)),
        Judged::Asked(false),
        "ten seconds are enough"
    );
}

#[test]
fn without_cells_a_worker_holds_its_leases_alone() {
    let (shared, mut store) = (MemoryCells::default(), Store::default());
    shared.broken.set(true);
    let mut worker = Worker::new(&shared, 1);
    let alice = check(&[("alice", 6000)]);
    assert_eq!(worker.request(&mut store, &alice, at(0)), Judged::Asked(true));
    assert_eq!(worker.leased(&alice, at(1)), 4);
}

#[test]
fn bytes_of_another_make_are_an_empty_pool() {
    let (shared, mut store) = (MemoryCells::default(), Store::default());
    for slot in 0..pool::SLOTS {
        shared.slots.borrow_mut().insert(slot, (vec![0xff; 300], 1));
    }
    let mut worker = Worker::new(&shared, 1);
    let alice = check(&[("alice", 6000)]);
    assert_eq!(worker.request(&mut store, &alice, at(0)), Judged::Asked(true));
    assert_eq!(worker.leased(&alice, at(1)), 4);
}

#[test]
fn a_chunk_spares_the_shared_map() {
    let (shared, mut store) = (MemoryCells::default(), Store::default());
    let mut worker = Worker::new(&shared, 1);
    let alice = check(&[("alice", 60_000)]);
    for request in 0..2000 {
        worker.request(&mut store, &alice, at(request * 10));
        worker.look(&mut store, at(request * 10));
    }
    let before = shared.reads.get();
    for request in 2000..4000 {
        worker.request(&mut store, &alice, at(request * 10));
        worker.look(&mut store, at(request * 10));
    }
    let reads = shared.reads.get() - before;
    assert!(reads < 600, "{reads} reads for 2000 requests");
}
