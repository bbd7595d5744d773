//! What every store does, whatever it is made of.

use std::time::{Duration, Instant};

use lanekeeper_engine::counter::STORE_BUCKETS;
use lanekeeper_engine::wire::CheckAnswer;
use tokio::task::JoinSet;

use crate::support::{
    HOUR, MINUTE, SECOND, Shim, allowed, batch, bucket, check, counter, fixed, left, log, on_every_backend,
    rejected, sliding,
};

on_every_backend! {
    refuses_the_eleventh_request_in_an_hour_of_ten,
    admits_at_the_moment_it_named,
    admits_a_burst_and_then_a_token_at_a_time,
    is_charged_what_a_request_costs,
    charges_no_key_of_a_check_that_one_key_refuses,
    charges_no_window_of_a_key_that_one_window_refuses,
    answers_the_checks_of_a_batch_in_their_order_and_each_for_itself,
    admits_exactly_the_limit_to_two_hundred_callers_at_once,
    admits_exactly_the_limit_to_crossing_checks_of_two_keys,
    keeps_what_is_used_when_a_limit_changes,
    starts_afresh_when_a_span_changes,
    keeps_a_window_that_another_policy_does_not_have,
    counts_two_windows_of_the_same_span_each_for_itself,
    holds_the_largest_batch,
}

async fn refuses_the_eleventh_request_in_an_hour_of_ten(shim: Shim) {
    let ask = || check(&[("k:{a}", 1, &[sliding(10, HOUR)])]);
    let began = Instant::now();
    for used in 1..=10 {
        assert_eq!(left(&shim.ask(ask()).await), [[10 - used]]);
    }
    let answer = rejected(&shim.ask(ask()).await)[0][0];
    let took = began.elapsed();
    assert_eq!(answer.remaining, 0);
    assert_eq!(answer.wait_us, answer.reset_us, "the first token is the one that is waited for");
    let wait = Duration::from_micros(answer.wait_us);
    assert!((HOUR - took..=HOUR + HOUR / STORE_BUCKETS).contains(&wait), "{wait:?}");
}

async fn admits_at_the_moment_it_named(shim: Shim) {
    let span = Duration::from_millis(40);
    for window in [sliding(1, span), log(1, span), counter(1, span), fixed(1, span, 0), bucket(1, span, 1)] {
        let ask = || check(&[("k:{a}", 1, std::slice::from_ref(&window))]);
        allowed(&shim.ask(ask()).await);
        let mut asked = 0;
        // A store that takes longer than the window to answer admits without a wait.
        while let CheckAnswer::Rejected { keys } = shim.ask(ask()).await {
            asked += 1;
            assert_eq!(asked, 1, "refused again after the wait that was named");
            tokio::time::sleep(Duration::from_micros(keys[0].windows[0].wait_us)).await;
        }
    }
}

async fn admits_a_burst_and_then_a_token_at_a_time(shim: Shim) {
    let ask = || check(&[("k:{a}", 1, &[bucket(1, HOUR, 3)])]);
    for left_over in [2, 1, 0] {
        assert_eq!(left(&shim.ask(ask()).await), [[left_over]]);
    }
    let answer = rejected(&shim.ask(ask()).await)[0][0];
    assert!((1..=3_600_000_000).contains(&answer.wait_us), "{answer:?}");
}

async fn is_charged_what_a_request_costs(shim: Shim) {
    let windows = [sliding(10, HOUR), bucket(10, HOUR, 8)];
    assert_eq!(left(&shim.ask(check(&[("k:{a}", 5, &windows)])).await), [[5, 3]]);
    let answer = rejected(&shim.ask(check(&[("k:{a}", 4, &windows)])).await);
    assert_eq!(answer[0][0].wait_us, 0, "the window of ten has room for four");
    assert!(answer[0][1].wait_us > 0, "the bucket of eight does not");
    assert_eq!(left(&shim.ask(check(&[("k:{a}", 3, &windows)])).await), [[2, 0]]);
}

async fn charges_no_key_of_a_check_that_one_key_refuses(shim: Shim) {
    let windows = [sliding(5, HOUR), bucket(5, HOUR, 5)];
    allowed(&shim.ask(check(&[("full:{a}", 5, &windows)])).await);
    for _ in 0..3 {
        rejected(&shim.ask(check(&[("free:{a}", 1, &windows), ("full:{a}", 1, &windows)])).await);
    }
    assert_eq!(left(&shim.ask(check(&[("free:{a}", 1, &windows)])).await), [[4, 4]]);
}

async fn charges_no_window_of_a_key_that_one_window_refuses(shim: Shim) {
    let (wide, narrow) = (sliding(100, HOUR), bucket(1, HOUR, 1));
    let both = [wide.clone(), narrow];
    assert_eq!(left(&shim.ask(check(&[("k:{a}", 1, &both)])).await), [[99, 0]]);
    rejected(&shim.ask(check(&[("k:{a}", 1, &both)])).await);
    assert_eq!(left(&shim.ask(check(&[("k:{a}", 1, &[wide])])).await), [[98]]);
}

async fn answers_the_checks_of_a_batch_in_their_order_and_each_for_itself(shim: Shim) {
    let ask = |key, cost| check(&[(key, cost, &[sliding(5, HOUR)])]);
    let answers = shim.decide(&batch(10_000, vec![ask("a", 5), ask("a", 1), ask("b", 2), ask("b", 2)])).await;
    assert_eq!(left(&answers[0]), [[0]]);
    rejected(&answers[1]);
    assert_eq!(left(&answers[2]), [[3]]);
    assert_eq!(left(&answers[3]), [[1]]);
}

async fn admits_exactly_the_limit_to_two_hundred_callers_at_once(shim: Shim) {
    let check = check(&[("k:{a}", 1, &[sliding(100, HOUR), bucket(100, HOUR, 100)])]);
    assert_eq!(admitted(&shim, vec![check; 200]).await, 100);
}

async fn admits_exactly_the_limit_to_crossing_checks_of_two_keys(shim: Shim) {
    let window = [sliding(50, HOUR)];
    let (ab, ba) =
        (check(&[("a", 1, &window), ("b", 1, &window)]), check(&[("b", 1, &window), ("a", 1, &window)]));
    assert_eq!(admitted(&shim, [vec![ab; 50], vec![ba; 50]].concat()).await, 50);
}

/// How many of `checks` are allowed when each has a caller of its own.
async fn admitted(shim: &Shim, checks: Vec<lanekeeper_engine::wire::Check>) -> usize {
    let mut callers = JoinSet::new();
    for check in checks {
        let (client, url) = (shim.client.clone(), format!("{}/v1/decide", shim.url));
        callers.spawn(async move {
            let body = serde_json::to_vec(&batch(10_000, vec![check])).unwrap();
            let answer = client.post(url).body(body).send().await.unwrap();
            answer.json::<lanekeeper_engine::wire::DecideResponse>().await.unwrap().answers.remove(0)
        });
    }
    let answers = callers.join_all().await;
    assert!(!answers.iter().any(|answer| matches!(answer, CheckAnswer::Failed { .. })), "{answers:?}");
    answers.iter().filter(|answer| matches!(answer, CheckAnswer::Allowed { .. })).count()
}

async fn keeps_what_is_used_when_a_limit_changes(shim: Shim) {
    allowed(&shim.ask(check(&[("k:{a}", 8, &[sliding(10, HOUR), bucket(10, HOUR, 10)])])).await);
    let lower = [sliding(5, HOUR), bucket(10, HOUR, 5)];
    let answer = rejected(&shim.ask(check(&[("k:{a}", 1, &lower)])).await);
    assert_eq!((answer[0][0].remaining, answer[0][1].remaining), (0, 0));
    let higher = [sliding(20, HOUR), bucket(10, HOUR, 20)];
    assert_eq!(left(&shim.ask(check(&[("k:{a}", 1, &higher)])).await), [[11, 11]]);
}

async fn starts_afresh_when_a_span_changes(shim: Shim) {
    allowed(&shim.ask(check(&[("k:{a}", 10, &[sliding(10, HOUR), bucket(10, HOUR, 10)])])).await);
    let other = [sliding(10, MINUTE), bucket(10, MINUTE, 10)];
    assert_eq!(left(&shim.ask(check(&[("k:{a}", 1, &other)])).await), [[9, 9]]);
}

async fn keeps_a_window_that_another_policy_does_not_have(shim: Shim) {
    let (hour, minute) = (sliding(10, HOUR), sliding(100, MINUTE));
    let (old, new) = ([minute.clone()], [hour.clone(), minute]);
    allowed(&shim.ask(check(&[("k:{a}", 10, &new)])).await);
    assert_eq!(left(&shim.ask(check(&[("k:{a}", 1, &old)])).await), [[89]]);
    let answer = rejected(&shim.ask(check(&[("k:{a}", 1, &new)])).await);
    assert_eq!((answer[0][0].remaining, answer[0][1].remaining), (0, 89));
}

async fn counts_two_windows_of_the_same_span_each_for_itself(shim: Shim) {
    let windows = [sliding(10, HOUR), sliding(20, HOUR), bucket(5, HOUR, 10), bucket(5, HOUR, 20)];
    assert_eq!(left(&shim.ask(check(&[("k:{a}", 4, &windows)])).await), [[6, 16, 6, 16]]);
    assert_eq!(left(&shim.ask(check(&[("k:{a}", 4, &windows)])).await), [[2, 12, 2, 12]]);
}

async fn holds_the_largest_batch(shim: Shim) {
    let windows: Vec<_> = (1..=16u32)
        .map(|i| if i % 2 == 0 { sliding(9, SECOND * i) } else { bucket(9, HOUR * i, 9) })
        .collect();
    let names: Vec<String> = (0..64).map(|key| format!("k{key}:{{a}}")).collect();
    let widest = check(&names.iter().map(|name| (&name[..], 1, &windows[..])).collect::<Vec<_>>());
    assert_eq!(left(&shim.ask(widest).await), vec![[8; 16]; 64]);
    let longest = (0..256).map(|_| check(&[("one", 1, &[sliding(1000, HOUR)])])).collect();
    let answers = shim.decide(&batch(10_000, longest)).await;
    assert_eq!(left(&answers[255]), [[1000 - 256]]);
}
