use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use super::*;
use crate::counter::Ask;
use crate::window::Algorithm;
use crate::wire::{KeyCheck, WindowAnswer};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

type Hook = Box<dyn FnOnce(&Shared)>;

/// The host's map, with a hook that runs once before a write, as another worker might.
#[derive(Default)]
struct Shared {
    cells: RefCell<HashMap<u32, (Vec<u8>, u32)>>,
    version: Cell<u32>,
    before_write: RefCell<Option<Hook>>,
    broken: Cell<bool>,
}

impl Cells for Shared {
    fn read(&self, slot: u32) -> Result<(Vec<u8>, Option<u32>), CellsBroken> {
        if self.broken.get() {
            return Err(CellsBroken);
        }
        let cells = self.cells.borrow();
        Ok(cells.get(&slot).map_or((Vec::new(), None), |(bytes, version)| (bytes.clone(), Some(*version))))
    }

    fn write(&self, slot: u32, bytes: &[u8], version: Option<u32>) -> Result<bool, CellsBroken> {
        let hook = self.before_write.borrow_mut().take();
        if let Some(hook) = hook {
            hook(self);
        }
        let mut cells = self.cells.borrow_mut();
        if cells.get(&slot).map(|(_, version)| *version) != version {
            return Ok(false);
        }
        self.version.set(self.version.get() + 1);
        cells.insert(slot, (bytes.to_vec(), self.version.get()));
        Ok(true)
    }
}

fn node() -> LocalCounters {
    LocalCounters::new((1, 2))
}

const ALONE: NonZeroU32 = NonZeroU32::MIN;

fn key(name: &str, limit: u32) -> KeyCheck {
    let window = Window::new(limit, Duration::from_secs(60), Algorithm::SlidingWindow).unwrap();
    KeyCheck::take(name, 1, [window])
}

fn check(keys: &[KeyCheck]) -> Check {
    Check { keys: keys.to_vec() }
}

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_micros(seconds * 1_000_000)
}

fn allowed(answer: &CheckAnswer) -> bool {
    match answer {
        CheckAnswer::Allowed { .. } => true,
        CheckAnswer::Rejected { .. } => false,
        CheckAnswer::Failed { error } => panic!("failed: {error}"),
    }
}

fn remaining(answer: &CheckAnswer) -> Vec<u32> {
    let (CheckAnswer::Allowed { keys } | CheckAnswer::Rejected { keys }) = answer else {
        panic!("{answer:?}")
    };
    keys.iter().flat_map(|key| key.windows.iter().map(|w| w.remaining)).collect()
}

#[test]
fn admits_the_limit_and_not_one_more() {
    let (shared, check) = (Shared::default(), check(&[key("a", 3)]));
    let left: Vec<_> =
        (0..3).flat_map(|_| remaining(&node().decide(&shared, &check, ALONE, at(1)))).collect();
    assert_eq!(left, [2, 1, 0]);
    assert!(!allowed(&node().decide(&shared, &check, ALONE, at(1))));
    assert!(allowed(&node().decide(&shared, &check, ALONE, at(63))));
}

#[test]
fn charges_no_key_when_another_refuses() {
    let shared = Shared::default();
    let both = check(&[key("a", 10), key("b", 1)]);
    assert_eq!(remaining(&node().decide(&shared, &both, ALONE, at(1))), [9, 0]);
    for _ in 0..3 {
        let refused = node().decide(&shared, &both, ALONE, at(1));
        assert!(!allowed(&refused));
        assert_eq!(remaining(&refused), [9, 0]);
    }
}

#[test]
fn a_lost_race_on_the_first_write_of_a_slot_loses_no_charge() {
    let shared = Shared::default();
    let one = check(&[key("a", 2)]);
    *shared.before_write.borrow_mut() = Some(Box::new(|shared| {
        assert!(allowed(&node().decide(shared, &check(&[key("a", 2)]), ALONE, at(1))));
    }));
    assert_eq!(remaining(&node().decide(&shared, &one, ALONE, at(1))), [0]);
    assert!(!allowed(&node().decide(&shared, &one, ALONE, at(1))));
}

#[test]
fn a_race_lost_between_two_slots_takes_the_first_charge_back() {
    let names: Vec<String> = (0..100).map(|n| n.to_string()).collect();
    for other in &names {
        let shared = Shared::default();
        let both = check(&[key("a", 1), key(other, 5)]);
        let rival = check(&[key("a", 1)]);
        *shared.before_write.borrow_mut() = Some(Box::new(move |shared| {
            assert!(allowed(&node().decide(shared, &rival, ALONE, at(1))));
        }));
        assert!(!allowed(&node().decide(&shared, &both, ALONE, at(1))), "the rival has the only token");
        assert_eq!(remaining(&node().decide(&shared, &check(&[key(other, 5)]), ALONE, at(1))), [4]);
    }
}

#[test]
fn no_number_of_subjects_frees_a_client_from_its_limit() {
    let shared = Shared::default();
    let spent = |name: &str| allowed(&node().decide(&shared, &check(&[key(name, 1)]), ALONE, at(1)));
    // more than fit into all slots
    let names: Vec<String> = (0..80_000).map(|n| format!("user{n}")).collect();
    let admitted = names.iter().filter(|name| spent(name)).count();
    assert!(admitted > 60_000, "{admitted} were admitted");
    assert!(names.iter().all(|name| !spent(name)), "a second request was admitted");
}

#[test]
fn what_is_idle_makes_room() {
    let shared = Shared::default();
    let mut most = 0;
    for round in 0..20 {
        for n in 0..5_000 {
            let name = format!("r{round}u{n}");
            assert!(allowed(&node().decide(&shared, &check(&[key(&name, 1)]), ALONE, at(round * 100))));
        }
        most = most.max(shared.cells.borrow().values().map(|(bytes, _)| bytes.len()).max().unwrap());
    }
    assert!(most < 2048, "a slot grew to {most} bytes");
}

#[test]
fn a_host_that_breaks_its_word_is_a_failure_and_not_a_hang() {
    let shared = Shared { broken: Cell::new(true), ..Shared::default() };
    let failed = CheckAnswer::Failed { error: StoreError::Refused };
    assert_eq!(node().decide(&shared, &check(&[key("a", 1)]), ALONE, at(1)), failed);

    struct NeverWrites;
    impl Cells for NeverWrites {
        fn read(&self, _: u32) -> Result<(Vec<u8>, Option<u32>), CellsBroken> {
            Ok((vec![0xff; 9], Some(1)))
        }
        fn write(&self, _: u32, _: &[u8], _: Option<u32>) -> Result<bool, CellsBroken> {
            Ok(false)
        }
    }
    assert_eq!(node().decide(&NeverWrites, &check(&[key("a", 1), key("b", 1)]), ALONE, at(1)), failed);
}

#[test]
fn a_node_without_a_calendar_keeps_a_fixed_window_as_a_sliding_one() {
    let minute = Duration::from_secs(60);
    let fixed = Algorithm::FixedWindow { timezone: crate::window::Offset::default().into() };
    let (shared, mut question) = (Shared::default(), check(&[key("a", 3)]));
    (question.keys[0].cost, question.keys[0].windows) = (3, [Window::new(3, minute, fixed).unwrap()].into());
    assert!(matches!(node().decide(&shared, &question, ALONE, at(59)), CheckAnswer::Allowed { .. }));
    // the next minute, by a calendar
    let CheckAnswer::Rejected { keys } = node().decide(&shared, &question, ALONE, at(60)) else {
        panic!("a node knows no calendar");
    };
    let wait = Duration::from_micros(keys[0].windows[0].wait_us);
    assert!((minute..=minute + minute / BUCKETS).contains(&(wait + Duration::from_secs(1))), "{wait:?}");
}

#[test]
fn a_node_keeps_a_log_in_buckets() {
    let (shared, per) = (Shared::default(), Duration::from_secs(60));
    let mut question = check(&[key("a", 1)]);
    question.keys[0].windows = [Window::new(100_000, per, Algorithm::SlidingLog).unwrap()].into();
    for ms in 0..1000 {
        let now = Timestamp::from_micros(ms * 1000);
        assert!(matches!(node().decide(&shared, &question, ALONE, now), CheckAnswer::Allowed { .. }));
    }
    let bytes: usize = shared.cells.borrow().values().map(|(bytes, _)| bytes.len()).sum();
    assert!(bytes < 64, "{bytes} bytes");
}

mod properties {
    use proptest::prelude::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;
    use crate::counter::{SubjectCounters, decide};

    fn windows(sliding: u32, burst: u32) -> Vec<Window> {
        let burst = std::num::NonZeroU32::new(burst).unwrap();
        let bucket = Algorithm::TokenBucket { burst };
        vec![
            Window::new(sliding, Duration::from_secs(1), Algorithm::SlidingWindow).unwrap(),
            Window::new(3, Duration::from_millis(700), bucket).unwrap(),
            Window::new(5, Duration::from_secs(2), Algorithm::SlidingCounter).unwrap(),
        ]
    }

    /// Which of five subjects (two are asked when they differ), at what cost, how long after the last one, and
    /// whether another worker writes in between.
    fn steps() -> impl Strategy<Value = Vec<(usize, usize, u32, u64, bool)>> {
        proptest::collection::vec((0..5_usize, 0..5_usize, 1..3_u32, 0..400_000_u64, any::<bool>()), 1..80)
    }

    proptest! {
        #[test]
        fn decides_as_the_model_does_whoever_writes_in_between(steps in steps(), limit in 2..8_u32, burst in 2..5_u32) {
            let (shared, windows) = (Shared::default(), windows(limit, burst));
            let mut model: Vec<SubjectCounters> = vec![SubjectCounters::default(); 5];
            let mut now = 1_000_000_000_000;
            for (first, second, cost, wait_us, raced) in steps {
                now += wait_us;
                let now = Timestamp::from_micros(now);
                let mut subjects = vec![first, second];
                subjects.dedup();
                let key = |subject: &usize| KeyCheck::take(format!("u{subject}"), cost, windows.clone());
                let check = Check { keys: subjects.iter().map(key).collect() };
                if raced {
                    // a rival that is not in the model: it writes each slot as it is, which is a lost race
                    *shared.before_write.borrow_mut() = Some(Box::new(|shared| {
                        for (_, version) in shared.cells.borrow_mut().values_mut() {
                            *version += 1_000_000;
                        }
                    }));
                }
                let answer = node().decide(&shared, &check, ALONE, now);
                let mut held: Vec<SubjectCounters> = subjects.iter().map(|at| model[*at].clone()).collect();
                let mut charges: Vec<Charge<'_>> = held
                    .iter_mut()
                    .map(|counters| Charge { windows: &windows, ask: Ask::take(cost), counters })
                    .collect();
                let expected = decide(&mut charges, BUCKETS, now, Duration::ZERO);
                if expected.allowed {
                    for (at, counters) in subjects.iter().zip(held) {
                        model[*at] = counters;
                    }
                }
                prop_assert_eq!(answer, CheckAnswer::from(expected));
            }
        }
    }
}

#[test]
fn looks_without_charging_and_grants_less_where_less_will_do() {
    let shared = Shared::default();
    let looked = node().decide(&shared, &check(&[key("a", 5).peek()]), ALONE, at(1));
    assert_eq!((allowed(&looked), remaining(&looked)), (true, vec![5]));
    assert!(shared.cells.borrow().is_empty(), "a look writes nothing");
    let some = KeyCheck { cost: 4, at_least: Some(1), ..key("a", 5) };
    let granted = |answer: CheckAnswer| match answer {
        CheckAnswer::Allowed { keys } => keys[0].granted,
        CheckAnswer::Rejected { .. } | CheckAnswer::Failed { .. } => 0,
    };
    let ask = || granted(node().decide(&shared, &check(std::slice::from_ref(&some)), ALONE, at(1)));
    assert_eq!([ask(), ask(), ask()], [4, 1, 0]);
}

#[test]
fn one_of_four_nodes_admits_a_quarter_of_the_limit() {
    let four = NonZeroU32::new(4).unwrap();
    let shared = Shared::default();
    let one = check(&[key("a", 10)]);
    let answers: Vec<_> = (0..4).map(|_| node().decide(&shared, &one, four, at(1))).collect();
    assert_eq!(answers.iter().map(allowed).collect::<Vec<_>>(), [true, true, false, false]);
    assert_eq!(answers.iter().map(|answer| remaining(answer)[0]).collect::<Vec<_>>(), [1, 0, 0, 0]);
    assert!(allowed(&node().decide(&shared, &one, NonZeroU32::new(2).unwrap(), at(1))), "two nodes left");
}

#[test]
fn a_node_admits_one_request_even_where_there_are_more_nodes_than_requests() {
    let many = NonZeroU32::new(1000).unwrap();
    let shared = Shared::default();
    let one = check(&[KeyCheck { cost: 3, ..key("a", 10) }]);
    let CheckAnswer::Allowed { keys } = node().decide(&shared, &one, many, at(1)) else { panic!() };
    assert_eq!(keys[0].granted, 3);
    assert!(!allowed(&node().decide(&shared, &one, many, at(1))));
}

/// What the store said in second 1 of a window of 60: so many are left, the first comes back in 60.
fn said(remaining: u32) -> LastAnswer {
    let window = WindowAnswer { remaining, reset_us: 60_000_000, wait_us: 0 };
    LastAnswer { asked_at: at(1), windows: vec![window] }
}

#[test]
fn in_a_stores_place_admits_what_that_had_left() {
    let (shared, check) = (Shared::default(), check(&[key("a", 10)]));
    let asked_since = RefCell::new(Vec::new());
    let last_answer = |key: &KeyCheck, since| {
        asked_since.borrow_mut().push((key.key.clone(), since));
        (since < at(1)).then(|| said(4))
    };
    let decide = |nodes: u32, second| {
        let nodes = NonZeroU32::new(nodes).unwrap();
        allowed(&node().decide_after(&shared, &check, nodes, at(second), &last_answer))
    };
    assert_eq!([2, 3, 4].map(|second| decide(2, second)), [true, true, false], "half of what was left");
    assert!(!decide(1, 59));
    assert!(decide(1, 63));
    let since: Vec<Timestamp> = asked_since.borrow().iter().map(|(_, since)| *since).collect();
    assert_eq!(since, [at(0), at(2), at(3), at(3), at(3)]);
    assert!(asked_since.borrow().iter().all(|(key, _)| key == "a"));
}

#[test]
fn a_crowd_is_not_charged_with_what_the_store_said_of_one() {
    let shared = Shared::default();
    let of = |name: &str| check(&[key(name, 10)]);
    // until a slot is full, and somebody counts in its crowd
    let names = (0..80_000).map(|number| number.to_string());
    let is_second_in_a_crowd =
        |name: &String| remaining(&node().decide(&shared, &of(name), ALONE, at(2))) != [9];
    let name = names.into_iter().find(is_second_in_a_crowd).unwrap();
    let before = remaining(&node().decide(&shared, &of(&name), ALONE, at(2)));
    let after = node().decide_after(&shared, &of(&name), ALONE, at(2), &|_, _| Some(said(0)));
    assert_eq!(remaining(&after)[0], before[0] - 1);
}
