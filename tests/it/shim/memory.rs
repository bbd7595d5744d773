//! What is special to the embedded store: it has to forget by itself.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lanekeeper_engine::units::{Timestamp, micros};
use lanekeeper_engine::window::Window;
use lanekeeper_engine::wire::{Check, CheckAnswer, KeyCheck, StoreError};
use lanekeeper_shim::memory::MemoryStore;
use lanekeeper_shim::store::Store;

use crate::support::{HOUR, MINUTE, SECOND, bucket, check, left, rejected, sliding};

/// An embedded store on a clock that only the test moves.
struct Clocked {
    store: MemoryStore,
    now: Arc<AtomicU64>,
}

impl Clocked {
    fn new() -> Self {
        let now = Arc::new(AtomicU64::new(micros(HOUR)));
        let clock = Arc::clone(&now);
        let store = MemoryStore::with_clock(move || Timestamp::from_micros(clock.load(Ordering::Relaxed)));
        Self { store, now }
    }

    fn pass(&self, span: Duration) {
        self.now.fetch_add(micros(span), Ordering::Relaxed);
    }

    async fn ask(&self, key: &str, cost: u32, windows: &[Window]) -> CheckAnswer {
        self.store.decide(&[check(&[(key, cost, windows)])], Duration::ZERO).await.remove(0)
    }
}

#[tokio::test]
async fn forgets_subjects_that_rest_while_others_go_on() {
    let clocked = Clocked::new();
    for user in 0..1000 {
        clocked.ask(&format!("user{user}"), 1, &[sliding(10, SECOND), bucket(10, SECOND, 10)]).await;
    }
    assert_eq!(clocked.store.subjects(), 1000);
    clocked.pass(MINUTE);
    for visit in 1..=500 {
        clocked.ask("regular", 1, &[sliding(1000, HOUR)]).await;
        assert_eq!(clocked.store.subjects(), 1 + 1000 - 2 * visit, "a bounded number of looks a check");
    }
}

#[tokio::test]
async fn holds_no_more_subjects_than_are_new_within_two_windows() {
    let clocked = Clocked::new();
    let mut most = 0;
    for user in 0..100_000 {
        clocked.ask(&format!("user{user}"), 1, &[sliding(10, SECOND)]).await;
        clocked.pass(Duration::from_millis(10));
        most = most.max(clocked.store.subjects());
    }
    assert!((100..=102).contains(&most), "a hundred come in a second: {most}");
}

#[tokio::test]
async fn does_not_forget_a_subject_that_came_back() {
    let clocked = Clocked::new();
    let windows = [sliding(2, MINUTE)];
    clocked.ask("user", 1, &windows).await;
    clocked.pass(MINUTE - SECOND);
    clocked.ask("user", 1, &windows).await;
    // The first charge is gone by now, and the entry made for it is due.
    clocked.pass(SECOND * 2);
    for other in 0..10 {
        clocked.ask(&format!("other{other}"), 1, &windows).await;
    }
    rejected(&clocked.ask("user", 2, &windows).await);
}

#[tokio::test]
async fn keeps_nothing_of_a_subject_that_was_only_refused_with_another() {
    let clocked = Clocked::new();
    let windows = [sliding(1, MINUTE)];
    clocked.ask("full", 1, &windows).await;
    for user in 0..100 {
        let user = format!("user{user}");
        let both = check(&[(&user, 1, &windows), ("full", 1, &windows)]);
        rejected(&clocked.store.decide(&[both], Duration::ZERO).await[0]);
    }
    assert_eq!(clocked.store.subjects(), 1);
}

/// Asks whether one token would be granted.
async fn look(clocked: &Clocked, key: &str) -> CheckAnswer {
    let check = Check { keys: vec![KeyCheck::take(key, 1, [sliding(10, MINUTE)]).peek()] };
    clocked.store.decide(&[check], Duration::ZERO).await.remove(0)
}

#[tokio::test]
async fn holds_no_more_subjects_than_it_may_and_goes_on_for_those_it_knows() {
    let mut clocked = Clocked::new();
    clocked.store = clocked.store.with_max_subjects(NonZeroUsize::new(3).unwrap());
    let full = CheckAnswer::Failed { error: StoreError::Full };
    let window = [sliding(10, MINUTE)];
    for key in ["a", "b", "c"] {
        assert_eq!(left(&clocked.ask(key, 1, &window).await), [[9]]);
    }
    assert_eq!(clocked.ask("d", 1, &window).await, full);
    assert_eq!(left(&clocked.ask("a", 1, &window).await), [[8]], "who is counted goes on");
    let both = check(&[("a", 1, &window), ("d", 1, &window)]);
    assert_eq!(clocked.store.decide(&[both], Duration::ZERO).await, [full]);
    assert_eq!(left(&look(&clocked, "d").await), [[10]], "a look takes no room");
    assert_eq!(left(&look(&clocked, "a").await), [[8]], "nothing was charged");
    assert_eq!(clocked.store.subjects(), 3);
    clocked.pass(MINUTE * 2);
    assert_eq!(left(&clocked.ask("d", 1, &window).await), [[9]], "room comes back with time");
}

#[tokio::test]
async fn a_check_of_more_new_subjects_than_there_is_room_for_is_refused_whole() {
    let mut clocked = Clocked::new();
    clocked.store = clocked.store.with_max_subjects(NonZeroUsize::new(2).unwrap());
    let window = [sliding(10, MINUTE)];
    clocked.ask("a", 1, &window).await;
    let two = check(&[("b", 1, &window), ("c", 1, &window)]);
    let answer = clocked.store.decide(&[two], Duration::ZERO).await;
    assert_eq!(answer, [CheckAnswer::Failed { error: StoreError::Full }]);
    assert_eq!(clocked.store.subjects(), 1);
    assert_eq!(left(&clocked.ask("b", 1, &window).await), [[9]]);
}
