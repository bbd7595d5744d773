//! Tokens that are charged in advance, and what is left of them going back: on every store.

use std::time::Duration;

use lanekeeper_engine::lease::{Lease, LeaseAsk};
use lanekeeper_engine::units::micros;
use lanekeeper_engine::window::Window;
use lanekeeper_engine::wire::{Check, CheckAnswer, DecideRequest, KeyAnswer, KeyCheck, KeyReturn};

use crate::support::{HOUR, MINUTE, Shim, batch, bucket, left, log, on_every_backend, rejected, sliding};

on_every_backend! {
    charges_a_lease_beside_the_cost_and_in_every_window,
    leases_nothing_to_a_check_that_is_rejected,
    rejects_a_renewal_when_nothing_is_left,
    grants_each_node_its_share,
    what_a_message_returns_its_own_checks_can_have,
    a_message_that_comes_twice_gives_back_once,
    gives_nothing_back_that_could_not_be_spent_any_more,
    a_message_may_hold_returns_alone,
    leases_from_the_shard_that_it_names,
}

/// As many as fit, for as long as may be.
const ASK: LeaseAsk = LeaseAsk { tokens: 4, life_ms: 30_000, drift: 1_000_000, nodes: 1 };

fn key(cost: u32, lease: Option<LeaseAsk>, windows: &[Window]) -> KeyCheck {
    KeyCheck { lease, ..KeyCheck::take("k:{a}", cost, windows) }
}

async fn ask(shim: &Shim, key: KeyCheck) -> CheckAnswer {
    shim.ask(Check { keys: vec![key] }).await
}

/// The answer of the only key of what was allowed.
#[track_caller]
fn granted(answer: CheckAnswer) -> KeyAnswer {
    let CheckAnswer::Allowed { mut keys } = answer else { panic!("not allowed: {answer:?}") };
    keys.remove(0)
}

/// What brings all of a lease back.
fn back(key: &KeyCheck, answer: &KeyAnswer, id: u64) -> KeyReturn {
    let lease = answer.lease.expect("a lease");
    KeyReturn {
        key: key.key.clone(),
        shards: key.shards,
        shard: answer.shard,
        tokens: lease.tokens,
        dated_us: answer.at_us + micros(lease.life()),
        id,
        windows: key.windows.clone(),
    }
}

async fn charges_a_lease_beside_the_cost_and_in_every_window(shim: Shim) {
    let windows = [sliding(10, HOUR), log(20, HOUR), bucket(10, HOUR, 30)];
    let answer = granted(ask(&shim, key(3, Some(ASK), &windows)).await);
    assert_eq!((answer.granted, answer.lease), (3, Some(Lease { tokens: 4, life_ms: 30_000 })));
    let remaining: Vec<u32> = answer.windows.iter().map(|window| window.remaining).collect();
    assert_eq!(remaining, [3, 13, 23]);
    assert_eq!(left(&ask(&shim, key(1, None, &windows)).await), [[2, 12, 22]]);
}

async fn leases_nothing_to_a_check_that_is_rejected(shim: Shim) {
    let (wide, full) = ([sliding(10, HOUR)], [sliding(1, HOUR)]);
    let free = || KeyCheck { lease: Some(ASK), ..KeyCheck::take("free:{a}", 1, &wide[..]) };
    granted(ask(&shim, KeyCheck::take("full:{a}", 1, &full[..])).await);
    let both = Check { keys: vec![free(), KeyCheck::take("full:{a}", 1, &full[..])] };
    let CheckAnswer::Rejected { keys } = shim.ask(both).await else { panic!("not rejected") };
    assert_eq!(keys[0].lease, None);
    assert_eq!(left(&ask(&shim, KeyCheck { lease: None, ..free() }).await), [[9]]);
}

async fn rejects_a_renewal_when_nothing_is_left(shim: Shim) {
    let windows = [sliding(5, HOUR)];
    let renew = || ask(&shim, key(0, Some(ASK), &windows));
    let tokens = |answer: KeyAnswer| (answer.granted, answer.lease.map(|lease| lease.tokens));
    assert_eq!(tokens(granted(renew().await)), (0, Some(4)));
    assert_eq!(tokens(granted(renew().await)), (0, Some(1)));
    let answer = rejected(&renew().await)[0][0];
    assert_eq!(answer.remaining, 0);
    assert!(Duration::from_micros(answer.wait_us) > HOUR - MINUTE, "{answer:?}");
}

async fn grants_each_node_its_share(shim: Shim) {
    let near = LeaseAsk { tokens: 500, drift: 10_000, nodes: 4, ..ASK };
    let windows = [sliding(1000, HOUR)];
    let answer = granted(ask(&shim, key(0, Some(near), &windows)).await);
    // a quarter of what is left, over four
    assert_eq!(answer.lease.map(|lease| lease.tokens), Some(62));
    granted(ask(&shim, key(930, None, &windows)).await);
    // of eight left, 1 % of the limit over four
    let two = granted(ask(&shim, key(0, Some(LeaseAsk { tokens: 3, ..near }), &windows)).await);
    assert_eq!(two.lease.map(|lease| lease.tokens), Some(2));
}

async fn what_a_message_returns_its_own_checks_can_have(shim: Shim) {
    let windows = [sliding(5, HOUR), bucket(1, HOUR, 5)];
    let first = key(1, Some(ASK), &windows);
    // the first return that a server sees may have to bring its script along
    let spare = granted(ask(&shim, KeyCheck { key: "spare:{a}".into(), ..first.clone() }).await);
    let spare = KeyReturn { key: "spare:{a}".into(), ..back(&first, &spare, 1) };
    shim.decide(&DecideRequest { returns: vec![spare], ..batch(0, Vec::new()) }).await;

    let answer = granted(ask(&shim, first.clone()).await);
    let four = || vec![Check { keys: vec![key(4, None, &windows)] }];
    rejected(&shim.decide(&batch(0, four())).await[0]);
    let message = DecideRequest { returns: vec![back(&first, &answer, 2)], ..batch(0, four()) };
    assert_eq!(left(&shim.decide(&message).await[0]), [[0, 0]]);
}

async fn a_message_that_comes_twice_gives_back_once(shim: Shim) {
    let windows = [sliding(10, HOUR)];
    let first = key(1, Some(ASK), &windows);
    let answer = granted(ask(&shim, first.clone()).await);
    granted(ask(&shim, first.clone()).await);
    let returns = vec![back(&first, &answer, 7)];
    let message = DecideRequest { returns, ..batch(0, Vec::new()) };
    for _ in 0..3 {
        assert_eq!(shim.decide(&message).await, []);
        assert_eq!(left(&ask(&shim, key(1, None, &windows).peek()).await), [[4]]);
    }
}

async fn gives_nothing_back_that_could_not_be_spent_any_more(shim: Shim) {
    let windows = [sliding(10, HOUR)];
    let first = key(1, Some(ASK), &windows);
    let answer = granted(ask(&shim, first.clone()).await);
    let late = KeyReturn { dated_us: answer.at_us - 1, ..back(&first, &answer, 1) };
    shim.decide(&DecideRequest { returns: vec![late], ..batch(0, Vec::new()) }).await;
    assert_eq!(left(&ask(&shim, key(1, None, &windows).peek()).await), [[5]]);
}

async fn a_message_may_hold_returns_alone(shim: Shim) {
    let windows = [sliding(10, HOUR)];
    let first = key(1, Some(ASK), &windows);
    let answer = granted(ask(&shim, first.clone()).await);
    let message = DecideRequest { returns: vec![back(&first, &answer, 1)], ..batch(0, Vec::new()) };
    assert_eq!(shim.decide(&message).await, []);
    assert_eq!(left(&ask(&shim, key(1, None, &windows).peek()).await), [[9]]);
}

async fn leases_from_the_shard_that_it_names(shim: Shim) {
    let windows = [sliding(40, HOUR)];
    let spread = KeyCheck { shards: 4, ..key(1, Some(LeaseAsk { tokens: 100, ..ASK }), &windows) };
    let mut shards = Vec::new();
    for id in 0..4 {
        let answer = granted(ask(&shim, spread.clone()).await);
        // all of the shard's part of the limit but for the cost
        assert_eq!(answer.lease.map(|lease| lease.tokens), Some(9));
        shards.push(back(&spread, &answer, id));
    }
    let plain = |cost| KeyCheck { lease: None, cost, ..spread.clone() };
    rejected(&ask(&shim, plain(1)).await);
    let mut named: Vec<u16> = shards.iter().map(|back| back.shard).collect();
    named.sort_unstable();
    assert_eq!(named, [0, 1, 2, 3]);
    shim.decide(&DecideRequest { returns: vec![shards[2].clone()], ..batch(0, Vec::new()) }).await;
    let answer = granted(ask(&shim, plain(9)).await);
    assert_eq!(answer.shard, shards[2].shard);
}
