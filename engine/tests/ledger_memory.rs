//! What a node's leases take of memory when more subjects were seen than are kept.
#![cfg(not(target_arch = "wasm32"))]

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use lanekeeper_engine::lease::Lease;
use lanekeeper_engine::ledger::{Ledger, MOST};
use lanekeeper_engine::local::MemoryCells;
use lanekeeper_engine::units::Timestamp;
use lanekeeper_engine::window::{Algorithm, Window};
use lanekeeper_engine::wire::{Check, CheckAnswer, KeyAnswer, KeyCheck, WindowAnswer};
use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

#[test]
fn a_node_of_four_workers_keeps_its_leases_in_a_hundred_megabytes_however_many_subjects_it_sees() {
    let windows: Arc<[Window]> = [(6_000, 60), (200_000, 3600)]
        .map(|(limit, per_s)| {
            Window::new(limit, Duration::from_secs(per_s), Algorithm::SlidingWindow).unwrap()
        })
        .into();
    let before = PeakAlloc.current_usage();
    let shared = MemoryCells::default();
    let drift = NonZeroU32::new(10_000).unwrap();
    let mut workers: Vec<Ledger> = (0..4).map(|worker| Ledger::new((1, 2), worker, drift)).collect();
    let seen = workers.len() * (MOST + MOST / 10);
    for number in 0..seen {
        let key = format!("per_user:{{user-{number:08}}}:user");
        let mut check = Check { keys: vec![KeyCheck::take(key, 1, Arc::clone(&windows))] };
        let ledger = &mut workers[number % 4];
        let now = Timestamp::from_micros(1_000_000 + number as u64 * 20);
        ledger.ask(&shared, &mut check, NonZeroU32::MIN, now);
        let window = WindowAnswer { remaining: 5_000, reset_us: 60_000_000, wait_us: 0 };
        let lease = Some(Lease { tokens: 4, life_ms: 30_000 });
        let answer = KeyAnswer { granted: 1, at_us: 1, shard: 0, lease, windows: vec![window; 2] };
        ledger.hear(&shared, &check, &CheckAnswer::Allowed { keys: vec![answer] }, now, now);
    }
    assert!(workers.iter().all(|ledger| ledger.len() == MOST));
    let megabytes = (PeakAlloc.current_usage() - before) as f64 / 1e6;
    println!("{megabytes:.1} MB for {} subjects in workers, after {seen} seen", 4 * MOST);
    assert!((20.0..100.0).contains(&megabytes), "{megabytes:.1} MB");
}
