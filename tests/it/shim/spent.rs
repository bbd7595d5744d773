//! What a node admitted by itself while the store was away, told afterwards: on every store.

use std::time::Duration;

use lanekeeper_engine::units::micros;
use lanekeeper_engine::window::Window;
use lanekeeper_engine::wire::{
    Check, CheckAnswer, DecideRequest, KeyCheck, KeyReturn, KeySpent, MAX_SPENT, Recorded, Slice,
};

use crate::support::{
    HOUR, SECOND, Shim, batch, bucket, counter, every_algorithm, left, log, on_every_backend, rejected,
    sliding,
};

on_every_backend! {
    counts_what_is_told_in_every_kind_of_window_before_what_is_asked_in_the_same_message,
    counts_what_is_told_beyond_the_limit_and_for_a_subject_that_nobody_asked_for,
    a_report_that_comes_twice_counts_once_and_another_one_by_itself,
    a_report_counts_before_what_goes_back_in_the_same_message,
    counts_in_each_window_what_is_younger_than_it,
    puts_what_is_old_behind_what_has_come_since,
    spreads_a_report_over_the_shards_and_once_however_often_it_comes,
    takes_as_many_reports_as_a_message_may_hold,
}

fn report(key: &str, id: u64, slices: &[(Duration, u32)], windows: &[Window]) -> KeySpent {
    let slices = slices.iter().map(|&(age, tokens)| Slice { age_us: micros(age), tokens }).collect();
    KeySpent { key: key.into(), shards: 1, id, slices, windows: windows.into() }
}

async fn tell(shim: &Shim, spent: Vec<KeySpent>) {
    let count = spent.len();
    let answer = shim.answer(&DecideRequest { spent, ..batch(0, Vec::new()) }).await;
    assert_eq!(answer.spent, vec![Recorded::Recorded; count]);
}

/// What is left of each window, with nothing charged.
async fn look(shim: &Shim, key: &str, windows: &[Window]) -> Vec<u32> {
    let asked = Check { keys: vec![KeyCheck::take(key, 1, windows).peek()] };
    left(&shim.ask(asked).await).remove(0)
}

const NOW: Duration = Duration::ZERO;

async fn counts_what_is_told_in_every_kind_of_window_before_what_is_asked_in_the_same_message(shim: Shim) {
    let windows = every_algorithm(10);
    let spent: Vec<KeySpent> =
        windows.iter().map(|(key, window)| report(key, 1, &[(NOW, 7)], &[window.clone()])).collect();
    let take = |cost| {
        let keys = windows.iter().map(|(key, window)| KeyCheck::take(*key, cost, [window.clone()]));
        Check { keys: keys.collect() }
    };
    let message = DecideRequest { spent, ..batch(0, vec![take(4), take(3)]) };
    let answers = shim.decide(&message).await;
    rejected(&answers[0]);
    assert_eq!(left(&answers[1]), vec![vec![0]; windows.len()]);
}

async fn counts_what_is_told_beyond_the_limit_and_for_a_subject_that_nobody_asked_for(shim: Shim) {
    for (key, window) in every_algorithm(10) {
        let windows = [window];
        tell(&shim, vec![report(key, 1, &[(NOW, 10)], &windows), report(key, 2, &[(NOW, 10)], &windows)])
            .await;
        let asked = Check { keys: vec![KeyCheck::take(key, 1, windows)] };
        assert!(matches!(shim.ask(asked).await, CheckAnswer::Rejected { .. }), "{key}");
    }
}

async fn a_report_that_comes_twice_counts_once_and_another_one_by_itself(shim: Shim) {
    for (key, window) in every_algorithm(10) {
        let windows = [window];
        for (id, expected) in [(1, 8), (1, 8), (2, 6), (1, 6), (2, 6)] {
            tell(&shim, vec![report(key, id, &[(NOW, 2)], &windows)]).await;
            assert_eq!(look(&shim, key, &windows).await, [expected], "{key}, report {id}");
        }
    }
}

async fn a_report_counts_before_what_goes_back_in_the_same_message(shim: Shim) {
    let windows = [sliding(10, HOUR)];
    let asked = DecideRequest { spend_within_ms: 10_000, ..batch(0, vec![check_of(&windows)]) };
    let CheckAnswer::Allowed { keys } = shim.decide(&asked).await.remove(0) else { panic!("not allowed") };
    let dated_us = keys[0].at_us + 10_000_000;
    let back = KeyReturn {
        key: "k:{a}".into(),
        shards: 1,
        shard: 0,
        tokens: 1,
        dated_us,
        id: 1,
        windows: windows.clone().into(),
    };
    let spent = vec![report("k:{a}", 1, &[(NOW, 3)], &windows)];
    tell(&shim, vec![report("other:{a}", 1, &[(NOW, 3)], &windows)]).await;
    shim.answer(&DecideRequest { spent, returns: vec![back], ..batch(0, Vec::new()) }).await;
    // a report and a return may bear one number: the return was made under it first, and not again
    assert_eq!(look(&shim, "k:{a}", &windows).await, [6]);
}

fn check_of(windows: &[Window]) -> Check {
    Check { keys: vec![KeyCheck::take("k:{a}", 1, windows)] }
}

async fn counts_in_each_window_what_is_younger_than_it(shim: Shim) {
    let windows =
        [sliding(1000, 60 * SECOND), log(5000, HOUR), sliding(9000, 10 * HOUR), bucket(1, HOUR, 1000)];
    let slices = [(9 * HOUR, 400), (HOUR / 2, 30), (30 * SECOND, 2)];
    tell(&shim, vec![report("k:{a}", 1, &slices, &windows)]).await;
    // of the bucket's four hundred nine are repaid by now, and none of the half hour's
    assert_eq!(look(&shim, "k:{a}", &windows).await, [998, 4968, 8568, 577]);
}

async fn puts_what_is_old_behind_what_has_come_since(shim: Shim) {
    let ms = Duration::from_millis;
    let windows = [log(1000, HOUR), sliding(1000, HOUR), counter(1000, 48 * HOUR)];
    for _ in 0..40 {
        left(&shim.ask(Check { keys: vec![KeyCheck::take("k:{a}", 1, &windows[..])] }).await);
    }
    tell(&shim, vec![report("k:{a}", 1, &[(HOUR - SECOND, 100), (60 * SECOND, 20), (ms(1), 3)], &windows)])
        .await;
    for _ in 0..10 {
        left(&shim.ask(Check { keys: vec![KeyCheck::take("k:{a}", 1, &windows[..])] }).await);
    }
    let all = KeyCheck::take("k:{a}", 900, &windows[..]);
    let answer = rejected(&shim.ask(Check { keys: vec![all] }).await).remove(0);
    assert_eq!(answer[0].remaining, 827);
    // when the hundred that were told of as the oldest have gone
    assert!(answer[0].wait_us <= 1_000_000, "{answer:?}");
}

async fn spreads_a_report_over_the_shards_and_once_however_often_it_comes(shim: Shim) {
    let windows = [sliding(40, HOUR)];
    let spread = |spent: u32| KeySpent { shards: 4, ..report("k:{a}", 3, &[(NOW, spent)], &windows) };
    for _ in 0..3 {
        tell(&shim, vec![spread(37)]).await;
    }
    let take = |cost| KeyCheck { shards: 4, ..KeyCheck::take("k:{a}", cost, &windows[..]) };
    for _ in 0..3 {
        left(&shim.ask(Check { keys: vec![take(1)] }).await);
    }
    rejected(&shim.ask(Check { keys: vec![take(1)] }).await);
}

async fn takes_as_many_reports_as_a_message_may_hold(shim: Shim) {
    let windows = [sliding(10, HOUR), sliding(100, 24 * HOUR)];
    let slices = [(2 * HOUR, 1); 16];
    let reports = (0..MAX_SPENT).map(|n| report(&format!("k:{{{n}}}"), 1, &slices, &windows)).collect();
    tell(&shim, reports).await;
    assert_eq!(look(&shim, "k:{255}", &windows).await, [10, 84]);
}
