//! What an operator decides: dry runs, and breakers that are held open, held closed, or off.

use lanekeeper_tests::host::Level;
use serde_json::{Value, json};

use super::{
    FORCED, FULL, HEARD, JITTER, OPEN_FOR, behaved, call, fail, guarded, policy, refusal, refusals,
    refused_as, start, state, succeed, told, touchy, transitions,
};

fn with(entry: Value, field: &str, value: &Value) -> Value {
    let mut entry = entry;
    entry[field] = value.clone();
    guarded(&entry)
}

#[test]
fn a_dry_run_lets_everything_pass_and_counts_what_it_would_have_refused() {
    let host = start(&with(touchy(), "enforce", &json!("0%")), 2);
    fail(&call(&host, 0));
    assert_eq!((state(&host), transitions(&host, "open")), (Some(2), 1));
    for n in 0..50 {
        let stream = call(&host, n % 2);
        assert_eq!(refusal(&stream), None);
        fail(&stream);
    }
    assert_eq!((refusals(&host, "dry_run", "open"), refusals(&host, "rejected", "open")), (50, 0));
    host.advance(OPEN_FOR + JITTER);
    let probe = call(&host, 1);
    fail(&call(&host, 1));
    assert_eq!((state(&host), refusals(&host, "dry_run", "half_open")), (Some(1), 1), "only a probe decides");
    succeed(&probe);
    assert_eq!(state(&host), Some(0));
    behaved(&host);
}

#[test]
fn a_bulkhead_in_dry_run_counts_what_is_beyond_it_and_takes_no_place_for_it() {
    let host = start(&guarded(&json!({"max_concurrent": 2, "enforce": "0%"})), 1);
    let held: Vec<_> = (0..5).map(|_| call(&host, 0)).collect();
    assert!(held.iter().all(|stream| refusal(stream).is_none()));
    assert_eq!((refusals(&host, "dry_run", "full"), refusals(&host, "rejected", "full")), (3, 0));
    held.iter().for_each(succeed);
    host.advance(HEARD);
    (0..2).for_each(|_| drop(call(&host, 0)));
    assert_eq!(refusals(&host, "dry_run", "full"), 3, "both places are back");
    behaved(&host);
}

#[test]
fn a_part_that_is_enforced_is_about_as_large_as_written() {
    let host = start(&with(touchy(), "enforce", &json!("30%")), 1);
    fail(&call(&host, 0));
    let refused = (0..2000).filter(|_| refusal(&call(&host, 0)).is_some()).count();
    assert!((500..700).contains(&refused), "{refused} of 2000");
    assert_eq!(refusals(&host, "rejected", "open") + refusals(&host, "dry_run", "open"), 2000);
    behaved(&host);
}

#[test]
fn a_breaker_that_is_forced_open_refuses_all_calls_and_keeps_its_state() {
    let host = start(&with(touchy(), "force_open", &json!(true)), 2);
    for n in 0..50 {
        assert!(refused_as(&call(&host, n % 2), FORCED));
    }
    assert_eq!((refusals(&host, "rejected", "forced"), told(&host).len()), (50, 0));
    host.reconfigure(&guarded(&touchy()).to_string()).unwrap();
    let stream = call(&host, 0);
    assert_eq!(refusal(&stream), None);
    succeed(&stream);
    behaved(&host);
}

#[test]
fn a_breaker_that_is_forced_closed_never_trips_and_closes_where_it_is_open() {
    let forced = with(touchy(), "force_closed", &json!(true));
    let host = start(&forced, 2);
    for n in 0..50 {
        let stream = call(&host, n % 2);
        assert_eq!(refusal(&stream), None);
        fail(&stream);
    }
    assert_eq!(transitions(&host, "open"), 0);
    let host = start(&guarded(&touchy()), 2);
    fail(&call(&host, 0));
    host.reconfigure(&forced.to_string()).unwrap();
    assert_eq!(refusal(&call(&host, 1)), None);
    assert_eq!(state(&host), Some(0));
    let last = told(&host).pop().unwrap();
    assert_eq!(last, "lanekeeper: breaker list was open, and is closed: its operator wants it so");
    behaved(&host);
}

#[test]
fn a_breaker_that_is_forced_closed_holds_its_bulkhead() {
    let host = start(&guarded(&json!({"max_concurrent": 1, "force_closed": true})), 1);
    let held = call(&host, 0);
    assert!(refused_as(&call(&host, 0), FULL));
    succeed(&held);
    assert_eq!(refusal(&call(&host, 0)), None);
    behaved(&host);
}

#[test]
fn a_breaker_that_is_disabled_does_nothing_at_all() {
    let host = start(&guarded(&json!({"consecutive_failures": 1, "max_concurrent": 1, "disabled": true})), 1);
    host.reset_counts();
    let streams: Vec<_> = (0..50).map(|_| call(&host, 0)).collect();
    for stream in &streams {
        assert_eq!(refusal(stream), None);
        fail(stream);
    }
    assert_eq!((host.calls().get("proxy_get_shared_data"), told(&host).len()), (None, 0));
    behaved(&host);
}

#[test]
fn a_breaker_that_guards_nothing_is_said_and_refuses_no_policy() {
    let host = start(&policy(&json!({"list": {}, "lst": touchy()})), 1);
    let warned: Vec<_> = host.log().into_iter().filter(|line| line.level == Level::Warn).collect();
    assert!(!warned.is_empty());
    for line in warned {
        assert!(line.text.starts_with("lanekeeper: resilience.lst"), "{}", line.text);
        assert!(line.text.contains("`commands` does not name `lst`"), "{}", line.text);
    }
    behaved(&host);
}

#[test]
fn a_policy_with_errors_in_its_breakers_is_refused_by_their_paths() {
    let entry = json!({"failure_rate": "101%", "half_open_calls": 0, "open_for": "0s", "window": 0});
    let refused =
        lanekeeper_tests::host::Host::start(&guarded(&entry).to_string(), 1).err().unwrap().to_string();
    for field in ["failure_rate", "half_open_calls", "open_for", "window"] {
        assert!(refused.contains(&format!("resilience.list.{field}")), "{field}: {refused}");
    }
}
