//! What the shim is told of breakers, for operators to read.

use lanekeeper_engine::wire::DecideRequest;

use super::super::{MS, Store, with_store};
use super::*;

/// What the next callout says of breakers, which leaves within a second: the breaker, and its state.
fn told_next(host: &Host) -> Vec<(String, breaker::State)> {
    for _ in 0..1000 {
        if let Some(callout) = host.callouts().pop() {
            host.answer(&callout, Store::new().answer(host, &callout));
            let question: DecideRequest =
                serde_json::from_slice(&callout.body).expect("the question is JSON");
            return question.breakers.into_iter().map(|report| (report.name, report.state)).collect();
        }
        host.advance(MS);
    }
    panic!("nothing was told");
}

fn with_a_store(entry: &Value) -> Value {
    let mut policy = guarded(entry);
    policy["store"] = with_store(1, "local")["store"].clone();
    policy
}

#[test]
fn a_change_is_told_within_a_second_also_when_no_limit_asks_anything() {
    let host = start(&with_a_store(&touchy()), 1);
    fail(&call(&host, 0));
    assert_eq!(told_next(&host), [("list".to_owned(), breaker::State::Open)]);
    host.advance(OPEN_FOR + JITTER);
    succeed(&call(&host, 0));
    let closed = ("list".to_owned(), breaker::State::Closed);
    assert_eq!(told_next(&host), [closed]);
    behaved(&host);
}

#[test]
fn a_shim_that_is_away_keeps_no_breaker_from_opening_and_closing() {
    let host = start(&with_a_store(&touchy()), 2);
    let store = Store::new();
    store.away.set(true);
    store.serve(&host);
    for _ in 0..20 {
        fail(&call(&host, 0));
        assert!(refused_as(&call(&host, 1), OPEN));
        host.advance(Duration::from_secs(61));
        succeed(&call(&host, 1));
        assert_eq!(refusal(&call(&host, 0)), None);
        host.advance(HEARD);
    }
    behaved(&host);
}
