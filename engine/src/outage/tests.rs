use proptest::prelude::*;

use super::*;
use crate::units::micros;
use crate::window::Algorithm;
use crate::wire::{DecideRequest, MAX_SLICES, StoreError};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

const MINUTE: Duration = Duration::from_secs(60);

fn key(name: &str) -> KeyCheck {
    KeyCheck::take(name, 1, [Window::new(100, MINUTE, Algorithm::SlidingWindow).unwrap()])
}

fn at(ms: u64) -> Timestamp {
    Timestamp::from_micros(ms * 1000)
}

fn outage() -> Outage {
    Outage::new((1, 2), 3)
}

/// What is told at a moment, of nobody in particular.
fn told(outage: &mut Outage, ms: u64) -> Vec<KeySpent> {
    outage.take_due([], at(ms))
}

/// Ages in milliseconds, and tokens.
fn slices(report: &KeySpent) -> Vec<(u64, u32)> {
    report.slices.iter().map(|slice| (slice.age_us / 1000, slice.tokens)).collect()
}

#[test]
fn tells_what_was_admitted_and_how_long_ago() {
    let mut outage = outage();
    outage.note(&key("a"), 1, at(1_000));
    outage.note(&key("a"), 2, at(3_000));
    outage.note(&key("b"), 0, at(3_000));
    let reports = told(&mut outage, 5_000);
    assert_eq!(reports.len(), 1, "nothing was admitted to b");
    assert_eq!((reports[0].key.as_str(), slices(&reports[0])), ("a", vec![(4_000, 1), (2_000, 2)]));
    assert!(told(&mut outage, 9_000).is_empty(), "it is under way");
    assert_eq!(outage.heard(&reports, &[Recorded::Recorded], at(9_000)), 3);
    assert_eq!((told(&mut outage, 9_149).len(), outage.len()), (0, 1), "others may still tell of it");
    assert_eq!((told(&mut outage, 9_150).len(), outage.len()), (0, 0));
    assert_eq!(outage.next_due(), None);
}

#[test]
fn a_subject_is_unsettled_until_the_other_workers_have_told_of_it_too() {
    let check = |names: &[&str]| Check { keys: names.iter().map(|name| key(name)).collect() };
    let mut outage = outage();
    assert!(!outage.is_unsettled(&check(&["a"])));
    outage.note(&key("a"), 1, at(0));
    let is_unsettled =
        |outage: &Outage| [&["a"][..], &["b"], &["b", "a"]].map(|names| outage.is_unsettled(&check(names)));
    assert_eq!(is_unsettled(&outage), [true, false, true]);
    let reports = told(&mut outage, 1);
    outage.heard(&reports, &[Recorded::Recorded], at(10));
    assert!(outage.take_due(&[key("a")], at(159)).is_empty());
    assert_eq!(is_unsettled(&outage), [true, false, true]);
    assert!(outage.take_due(&[key("a")], at(160)).is_empty());
    assert_eq!(is_unsettled(&outage), [false; 3]);
}

#[test]
fn what_left_its_windows_before_its_subject_was_settled_is_not_told() {
    let window = Window::new(100, Duration::from_millis(50), Algorithm::SlidingWindow).unwrap();
    let (key, mut outage) = (KeyCheck::take("a", 1, [window]), outage());
    outage.note(&key, 1, at(0));
    let reports = told(&mut outage, 1);
    outage.note(&key, 1, at(2));
    outage.heard(&reports, &[Recorded::Recorded], at(10));
    assert_eq!((told(&mut outage, 70).len(), outage.next_due()), (0, Some(at(160))));
    assert_eq!((told(&mut outage, 160).len(), outage.next_due()), (0, None));
}

#[test]
fn what_was_not_answered_is_told_again_as_it_was_under_its_number() {
    let mut outage = outage();
    outage.note(&key("a"), 1, at(0));
    let first = told(&mut outage, 10);
    outage.note(&key("a"), 5, at(20));
    outage.unheard(&first, at(30));
    assert!(told(&mut outage, 129).is_empty(), "not at once");
    assert_eq!(outage.next_due(), Some(at(130)));
    let again = told(&mut outage, 130);
    assert_eq!((again[0].id, slices(&again[0])), (first[0].id, vec![(130, 1)]));
    outage.heard(&again, &[Recorded::Failed(StoreError::Timeout)], at(140));
    let again = told(&mut outage, 240);
    assert_eq!(again[0].id, first[0].id);
    outage.heard(&again, &[Recorded::Recorded], at(250));
    let next = told(&mut outage, 250);
    assert_eq!(slices(&next[0]), [(230, 5)], "what came meanwhile");
    assert_ne!(next[0].id, first[0].id);
    outage.heard(&next, &[Recorded::Recorded], at(260));
    assert_eq!(outage.next_due(), Some(at(410)), "nothing but to be forgotten");
}

#[test]
fn what_surely_does_not_count_is_told_with_what_came_after_under_another_number() {
    let (refused, lost) = (StoreError::Refused, StoreError::Timeout);
    let mut outage = outage();
    outage.note(&key("a"), 1, at(0));
    let first = told(&mut outage, 10);
    outage.note(&key("a"), 5, at(20));
    outage.heard(&first, &[Recorded::NotRecorded(refused)], at(30));
    assert!(told(&mut outage, 129).is_empty(), "not at once");
    let both = told(&mut outage, 130);
    assert_eq!(slices(&both[0]), [(130, 1), (110, 5)]);
    assert_ne!(both[0].id, first[0].id);
    // of this one nobody knows, whatever becomes of it later
    outage.heard(&both, &[Recorded::Failed(lost)], at(140));
    outage.note(&key("a"), 7, at(150));
    let again = told(&mut outage, 240);
    outage.heard(&again, &[Recorded::NotRecorded(refused)], at(250));
    let again = told(&mut outage, 350);
    assert_eq!((again[0].id, slices(&again[0]).len()), (both[0].id, 2));
}

#[test]
fn what_is_refused_again_and_again_stays_in_few_slices_and_loses_nothing() {
    let mut outage = outage();
    for second in 0..50 {
        outage.note(&key("a"), 2, at(1_000 * second));
        let reports = told(&mut outage, 1_000 * second + 1);
        outage.heard(&reports, &[Recorded::NotRecorded(StoreError::Refused)], at(1_000 * second + 2));
    }
    let reports = told(&mut outage, 51_000);
    let tokens: u32 = reports[0].slices.iter().map(|slice| slice.tokens).sum();
    assert_eq!((reports[0].slices.len(), tokens), (MAX_SLICES, 100));
}

#[test]
fn a_report_that_failed_goes_again_beside_the_next_question_about_its_subject() {
    let mut outage = outage();
    outage.note(&key("a"), 1, at(0));
    outage.note(&key("b"), 1, at(0));
    let first = told(&mut outage, 10);
    assert!(outage.take_due(&[key("a")], at(11)).is_empty(), "it is under way");
    outage.heard(&first, &[Recorded::Failed(StoreError::Refused); 2], at(20));
    let again = outage.take_due(&[key("a")], at(21));
    let ids_of_a = |reports: &[KeySpent]| -> Vec<u64> {
        reports.iter().filter(|report| report.key == "a").map(|report| report.id).collect()
    };
    assert_eq!((again.len(), ids_of_a(&again)), (1, ids_of_a(&first)));
    outage.heard(&again, &[Recorded::Recorded], at(30));
    assert_eq!(outage.next_due(), Some(at(120)), "b's report");
}

#[test]
fn an_answer_that_comes_twice_or_for_nobody_changes_nothing() {
    let mut outage = outage();
    outage.note(&key("a"), 1, at(0));
    let first = told(&mut outage, 0);
    outage.heard(&first, &[Recorded::Recorded], at(1));
    outage.note(&key("a"), 2, at(2));
    outage.heard(&first, &[Recorded::Recorded], at(3));
    assert_eq!(slices(&told(&mut outage, 20)[0]), [(18, 2)]);
    outage.heard(&first, &[Recorded::Recorded], at(21));
    assert_eq!(outage.len(), 1, "another report is under way");
}

#[test]
fn the_keys_of_a_callout_are_told_first_and_no_more_than_it_takes() {
    let mut outage = outage();
    for number in 0..200 {
        outage.note(&key(&format!("k{number}")), 1, at(0));
    }
    let asked = [key("k150"), key("unknown"), key("k150"), key("k199")];
    let first = outage.take_due(&asked, at(1));
    assert_eq!(first.len(), MAX_REPORTS);
    assert_eq!([first[0].key.as_str(), first[1].key.as_str()], ["k150", "k199"]);
    assert_eq!(outage.next_due(), Some(at(11)));
    let more = (0..150).map(|number| key(&format!("k{number}"))).collect::<Vec<_>>();
    let those = outage.take_due(&more[..3], at(1));
    assert!(those.iter().all(|report| ["k0", "k1", "k2"].contains(&report.key.as_str())), "whom it asks for");
    let mut names: Vec<String> = first.into_iter().chain(those).map(|report| report.key).collect();
    for turn in 1..4 {
        assert!(told(&mut outage, 10 * turn).is_empty(), "it rests");
        names.extend(told(&mut outage, 10 * turn + 1).into_iter().map(|report| report.key));
    }
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 200);
}

#[test]
fn a_store_that_has_failed_is_told_nothing_of_its_own_accord_until_it_has_answered() {
    let mut outage = outage();
    outage.note(&key("a"), 1, at(0));
    outage.store_failed(at(5));
    assert_eq!((told(&mut outage, 1_004).len(), outage.next_due()), (0, Some(at(1_005))));
    outage.store_answered(at(500));
    assert_eq!((told(&mut outage, 509).len(), told(&mut outage, 510).len()), (0, 1));
    outage.note(&key("b"), 1, at(600));
    outage.store_failed(at(600));
    assert_eq!(outage.take_due(&[key("b")], at(601)).len(), 1, "beside a question that is asked anyway");
}

#[test]
fn the_policy_that_follows_tells_what_is_left_and_again_what_was_under_way() {
    let (mut before, mut after) = (outage(), Outage::new((1, 2), 4));
    before.note(&key("a"), 1, at(0));
    let told_before = told(&mut before, 0);
    before.note(&key("b"), 2, at(100));
    after.take_over(&mut before, at(100));
    before.heard(&told_before, &[Recorded::Recorded], at(110));
    assert_eq!((before.len(), after.len()), (0, 2));
    assert_eq!(slices(&told(&mut after, 199)[0]), [(99, 2)]);
    let again = told(&mut after, 209);
    assert_eq!((again.len(), again[0].id), (1, told_before[0].id));
}

#[test]
fn while_the_store_recovers_it_gives_way_and_no_longer() {
    let mut outage = outage();
    assert!(!outage.gives_way(false, at(0)));
    let gives_way = |ms| outage.gives_way(true, at(ms));
    assert_eq!([5, 404, 405, 500].map(gives_way), [true, true, false, false]);
    assert!(!outage.gives_way(false, at(600)));
    assert!(outage.gives_way(true, at(700)), "it recovers once more");
}

#[test]
fn what_has_left_its_windows_is_not_told() {
    let mut outage = outage();
    outage.note(&key("a"), 1, at(0));
    outage.note(&key("b"), 1, at(0));
    outage.note(&key("b"), 1, at(1));
    let reports = told(&mut outage, 60_000);
    assert_eq!((reports.len(), slices(&reports[0])), (1, vec![(59_999, 1)]));
    assert_eq!(outage.len(), 1);
}

#[test]
fn the_subject_that_was_admitted_longest_ago_makes_way_and_is_counted() {
    let mut outage = outage();
    for number in 0..MOST {
        outage.note(&key(&format!("k{number}")), 1, at(0));
    }
    outage.note(&key("k0"), 1, at(1));
    assert_eq!((outage.len(), outage.take_dropped()), (MOST, 0));
    outage.note(&key("one more"), 1, at(2));
    assert_eq!((outage.len(), outage.take_dropped(), outage.take_dropped()), (MOST, 1, 0));
    let of_k2 = outage.take_due(&[key("k2")], at(2));
    outage.heard(&of_k2, &[Recorded::Recorded], at(2));
    outage.note(&key("another"), 1, at(2));
    assert_eq!((outage.len(), outage.take_dropped()), (MOST, 0), "k2 was told");
    let reports = outage.take_due(&[key("k1"), key("k0")], at(3));
    assert_eq!(reports[0].key, "k0", "k1 made way");
}

#[test]
fn two_workers_never_number_their_reports_alike() {
    let id = |worker| {
        let mut outage = Outage::new((1, 2), worker);
        outage.note(&key("a"), 1, at(0));
        told(&mut outage, 0)[0].id
    };
    assert_ne!(id(1), id(2));
}

#[test]
fn slices_are_finest_where_the_shortest_window_looks() {
    let windows = [
        Window::new(1000, Duration::from_secs(1), Algorithm::SlidingWindow).unwrap(),
        Window::new(1_000_000, MINUTE * 60, Algorithm::SlidingWindow).unwrap(),
    ];
    let mut outage = outage();
    let key = KeyCheck::take("a", 1, windows);
    for ms in 0..600_000 {
        outage.note(&key, 1, at(ms));
    }
    let ages: Vec<u64> = slices(&told(&mut outage, 600_000)[0]).into_iter().map(|(age, _)| age).collect();
    assert_eq!(ages.len(), MAX_SLICES);
    // to each, how much of what lies between it and the end of the shortest window, and how far it is off
    let off = ages.windows(2).map(|pair| (pair[0] - pair[1]) as f64 / (pair[0] + 1000) as f64);
    assert!(off.fold(0.0, f64::max) < 0.5, "{ages:?}");
    assert!(ages.iter().filter(|age| **age < 1000).count() >= 2, "{ages:?}");
}

#[test]
fn a_slice_of_a_window_in_even_use_is_never_longer_than_a_sixth_of_it() {
    let mut outage = outage();
    for tenths in 0..1800 {
        outage.note(&key("a"), 1, at(100 * tenths));
        if tenths % 37 == 0 {
            let reports = told(&mut outage, 100 * tenths);
            let ages: Vec<u64> = slices(&reports[0]).into_iter().map(|(age, _)| age).collect();
            let longest = ages.windows(2).map(|pair| pair[0] - pair[1]).max().unwrap_or(0);
            assert!(longest <= 10_000, "{ages:?}");
            outage = self::outage();
            (0..=tenths).for_each(|tenths| outage.note(&key("a"), 1, at(100 * tenths)));
        }
    }
}

proptest! {
    #[test]
    fn slices_lose_nothing_and_never_make_anything_older_than_it_is(
        gaps in prop::collection::vec((prop_oneof![0..3u64, 0..500u64, 0..20_000u64], 1..3u32), 1..150),
    ) {
        let window = Window::new(1000, MINUTE * 60, Algorithm::SlidingWindow).unwrap();
        let (key, mut outage, mut now) = (KeyCheck::take("a", 1, [window]), outage(), 0);
        let mut noted = Vec::new();
        for (gap, tokens) in gaps {
            now += gap;
            outage.note(&key, tokens, at(now));
            noted.push((at(now), tokens));
        }
        let reports = outage.take_due([], at(now + 7));
        let message = DecideRequest { spent: reports.clone(), ..DecideRequest::new(0, Vec::new()) };
        prop_assert_eq!(message.validate(), Ok(()));
        let slices = &reports[0].slices;
        prop_assert!(slices.len() <= MAX_SLICES);
        let total: u32 = slices.iter().map(|slice| slice.tokens).sum();
        prop_assert_eq!(total, noted.iter().map(|(_, tokens)| tokens).sum::<u32>());
        // as much at least is younger than any age as truly was
        for (moment, _) in &noted {
            let age = micros(at(now + 7).since(*moment));
            let truly: u32 = noted.iter().filter(|(when, _)| when >= moment).map(|(_, tokens)| tokens).sum();
            let said: u32 = slices.iter().filter(|slice| slice.age_us <= age).map(|slice| slice.tokens).sum();
            prop_assert!(said >= truly, "{} of {} within {}", said, truly, age);
        }
    }
}
