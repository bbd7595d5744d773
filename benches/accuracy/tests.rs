//! The short version of the bench, whose promises hold in every test run.

use super::*;

fn measured() -> Vec<Accuracy> {
    measure(&Size::SHORT, &|_| {}).unwrap()
}

fn of<'a>(measured: &'a [Accuracy], algorithm: &str) -> &'a Accuracy {
    measured.iter().find(|accuracy| accuracy.algorithm == algorithm).unwrap()
}

#[test]
fn every_algorithm_keeps_its_promises_and_the_estimates_show_what_they_are() {
    let measured = measured();
    for accuracy in &measured {
        assert_eq!(accuracy.broken_promises(), Vec::<String>::new());
        assert_eq!(accuracy.requests, Size::SHORT.trace.requests);
        // both answers have to come up for either to be judged
        assert!((0.1..0.9).contains(&accuracy.share(accuracy.admitted)), "{accuracy:?}");
    }
    for exact in ["sliding_log", "token_bucket"] {
        let accuracy = of(&measured, exact);
        assert_eq!((accuracy.wrongly_allowed, accuracy.wrongly_rejected), (0, 0), "{exact}");
        assert_eq!(accuracy.worst_under_admission(), 0.0, "{exact}");
    }
    let late = of(&measured, "sliding_window");
    assert_eq!(late.wrongly_allowed, 0);
    assert!(late.wrongly_rejected > 0, "{late:?}");
    for estimate in ["sliding_counter", "fixed_window"] {
        let accuracy = of(&measured, estimate);
        assert!(accuracy.wrongly_allowed > 0 && accuracy.max_admitted_ratio > 1.0, "{accuracy:?}");
    }
    assert_eq!(of(&measured, "fixed_window").wrongly_rejected, 0);
}

#[test]
fn a_sliding_window_loses_the_width_of_a_bucket_in_each_window_and_no_more() {
    let window = limits::window("sliding_window", 50, PER).unwrap();
    let mut late = Accuracy::default();
    late.press(&window, Demand::BucketStarts, 514, &|_| {});
    // two whole windows of 514
    assert_eq!(late.worst_under_admission(), 1.0 - 512.0 / 514.0);
}

#[test]
fn a_sliding_window_refuses_a_whole_limit_that_comes_back_after_exactly_one_window() {
    let admitted = |again: Duration| {
        let window = limits::window("sliding_window", 100, PER).unwrap();
        let mut source = Source::new(&window);
        let mut burst = |at: Timestamp| (0..100).filter(|_| source.ask(&window, at)).count();
        let first = Timestamp::from_micros(123_456_789);
        (burst(first), burst(first.plus(again)))
    };
    assert_eq!(admitted(PER), (100, 0));
    assert_eq!(admitted(PER + PER.div_f64(256.0)), (100, 100));
}

#[test]
fn rounding_costs_a_sliding_counter_up_to_one_request_in_each_window() {
    let window = limits::window("sliding_counter", 10, PER).unwrap();
    let mut rounded = Accuracy::default();
    rounded.press(&window, Demand::Even, 101, &|_| {});
    // one in each window but the first
    assert_eq!(rounded.worst_under_admission(), 1.0 - 910.0 / 1010.0);
}

#[test]
fn a_broken_promise_is_named() {
    let under_admission = vec![(Demand::Even, 0.01), (Demand::Bursts, 0.0123)];
    let exact = Accuracy {
        algorithm: "sliding_window".into(),
        max_admitted_ratio: 1.001,
        under_admission,
        ..Accuracy::default()
    };
    assert_eq!(
        exact.broken_promises(),
        [
            "sliding_window admitted 1.0010 times what it may, and at most 1 is promised",
            "sliding_window refused 1.230 % of what an exact log admits under random bursts, and at most 1 % is promised",
        ]
    );
    let estimate =
        Accuracy { algorithm: "fixed_window".into(), max_admitted_ratio: 2.0, ..Accuracy::default() };
    assert_eq!(estimate.broken_promises(), Vec::<String>::new());
}
