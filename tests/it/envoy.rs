//! The built plugin in a real Envoy.

// clippy.toml allows these in test functions; the helpers here are no less tests
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod envoy {
    mod breakers;
    mod clients;
    mod demo;
    mod reload;
    mod scenarios;
    mod shims;
    mod shipped;
    mod success;
    mod trap;
    mod waiting;
}

use std::thread;

use lanekeeper_tests::client::{Answer, Client, TRUSTED};
use lanekeeper_tests::envoy::{Envoy, Setup, Verdict, WORKERS};
use lanekeeper_tests::shim_process::ShimProcess;
use lanekeeper_tests::upstream::Upstream;
use lanekeeper_tests::wait;
use serde_json::{Value, json};

/// `per_user`, `limit` a minute, without a store.
fn standalone(limit: u32) -> Value {
    json!({
        "version": 1,
        "rate_limits": {
            "per_user": {"keys": {"user": [{"header": "x-user"}]}, "windows": [{"limit": limit, "per": "1m"}]},
        },
    })
}

/// The same with a store that each request waits for, as long as a test needs it to.
fn patient(limit: u32) -> Value {
    let mut policy = standalone(limit);
    policy["store"] =
        json!({"cluster": "lanekeeper", "timeout": "10s", "max_drift": 0, "circuit": {"slow": "10s"}});
    policy
}

fn start(upstream: &Upstream, policy: Value) -> Envoy {
    Setup::new(upstream.address()).policy(policy).start().unwrap()
}

fn get(client: &Client, envoy: &Envoy, headers: &[(&str, &[u8])]) -> Answer {
    client.get(&envoy.url("/"), headers).unwrap()
}

/// Returns when a request is at Envoy and Envoy waits for the shim.
fn wait_until_asked(envoy: &Envoy) {
    wait::until("a question to the shim", || {
        let is_there = envoy.admin().counter("http.front.downstream_rq_active")? > 0;
        Ok((is_there && envoy.admin().counter("cluster.lanekeeper.upstream_rq_active")? > 0).then_some(()))
    })
    .unwrap();
}

/// Returns when no request is under way.
fn wait_for_streams(envoy: &Envoy) {
    wait::until("all streams to end", || {
        Ok((envoy.admin().counter("http.front.downstream_rq_active")? == 0).then_some(()))
    })
    .unwrap();
}

#[test]
fn two_workers_without_a_store_admit_exactly_the_limit() {
    const LIMIT: u32 = 100;
    const SENDERS: usize = 4;
    let upstream = Upstream::start().unwrap();
    let envoy = start(&upstream, standalone(LIMIT));
    let admitted: usize = thread::scope(|scope| {
        let senders: Vec<_> = (0..SENDERS)
            .map(|_| {
                scope.spawn(|| {
                    let client = Client::unkept(TRUSTED).unwrap();
                    let statuses =
                        (0..2_000 / SENDERS).map(|_| get(&client, &envoy, &[("x-user", b"eve")]).status);
                    statuses.filter(|status| *status == 200).count()
                })
            })
            .collect();
        senders.into_iter().map(|sender| sender.join().unwrap()).sum()
    });
    assert_eq!(admitted, LIMIT as usize);
    assert_eq!(upstream.seen().len(), LIMIT as usize);
    for worker in 0..WORKERS {
        let connections = format!("listener.127.0.0.1_0.worker_{worker}.downstream_cx_total");
        assert!(envoy.admin().counter(&connections).unwrap() > 0, "worker {worker} had nothing to count");
    }
}

#[test]
fn a_policy_that_is_accepted_while_running_holds_for_new_connections() {
    let upstream = Upstream::start().unwrap();
    let mut envoy = start(&upstream, standalone(10));
    assert!(matches!(envoy.update_policy(&standalone(20)).unwrap(), Verdict::Accepted));
    let answer = get(&Client::unkept(TRUSTED).unwrap(), &envoy, &[("x-user", b"eve")]);
    assert_eq!(answer.header("ratelimit-policy"), Some(r#""per_user";q=20;w=60"#));
}

#[test]
fn counters_carry_lane_limit_outcome_and_source_as_labels() {
    let upstream = Upstream::start().unwrap();
    let shim = ShimProcess::start("memory").unwrap();
    let envoy = Setup::new(upstream.address()).store(shim.address()).start().unwrap();
    let client = Client::from(TRUSTED).unwrap();
    get(&client, &envoy, &[("x-user", b"eve")]);
    get(&client, &envoy, &[("x-user", b"eve"), ("baggage", b"shadow=true")]);
    for (lane, limit) in [("normal", "per_user"), ("shadow", "shadow_per_user")] {
        let labels = [("lane", lane), ("limit", limit), ("outcome", "admitted"), ("source", "store")];
        assert_eq!(envoy.admin().metric("lanekeeper_decisions_total", &labels).unwrap(), 1, "{labels:?}");
    }
    let answered = envoy.admin().metric("lanekeeper_store_calls_total", &[("outcome", "answered")]).unwrap();
    assert!(answered > 0);
}

#[test]
fn without_the_filter_nothing_is_counted() {
    let upstream = Upstream::start().unwrap();
    let envoy = Setup::new(upstream.address()).unfiltered().start().unwrap();
    let answer = get(&Client::from(TRUSTED).unwrap(), &envoy, &[("x-user", b"eve")]);
    assert_eq!((answer.status, answer.header("ratelimit")), (200, None));
}
