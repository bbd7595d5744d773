//! A VM that traps: what it takes with it, and what stays.

use std::thread;

use lanekeeper_tests::client::{Answer, Client, TRUSTED};
use lanekeeper_tests::envoy::{Envoy, Setup, Shipped};
use lanekeeper_tests::shim_process::ShimProcess;
use lanekeeper_tests::upstream::Upstream;
use lanekeeper_tests::wait;
use serde_json::{Value, json};

use super::super::{get, patient, standalone, wait_until_asked};

/// What the plugin of these tests traps for.
const TRAP: (&str, &[u8]) = ("x-lanekeeper-trap", b"now");
const ALICE: (&str, &[u8]) = ("x-user", b"alice");
const BOB: (&str, &[u8]) = ("x-user", b"bob");

/// Traps the VM of an Envoy with one worker, and returns when requests are judged by another one.
fn trap(envoy: &Envoy) -> Answer {
    let client = Client::unkept(TRUSTED).unwrap();
    let trapped = get(&client, envoy, &[TRAP]);
    wait::until("a VM that begins anew", || {
        let answer = client.get(&envoy.url("/"), &[BOB])?;
        Ok((answer.status != 503).then_some(()))
    })
    .unwrap();
    trapped
}

fn remaining(answer: &Answer) -> Option<&str> {
    answer.headers.get("ratelimit").and_then(|value| value.to_str().ok())
}

#[test]
fn a_request_that_traps_a_vm_is_answered_503_and_the_next_vm_finds_the_counters_as_they_were() {
    let upstream = Upstream::start().unwrap();
    let setup = Setup::new(upstream.address()).policy(standalone(10));
    let envoy = setup.workers(1).trapping().start().unwrap();
    let client = Client::unkept(TRUSTED).unwrap();
    for _ in 0..3 {
        get(&client, &envoy, &[ALICE]);
    }
    assert_eq!(trap(&envoy).status, 503);
    let answer = get(&client, &envoy, &[ALICE]);
    assert!(remaining(&answer).unwrap().starts_with("\"per_user\";r=6;"), "{answer:?}");
}

#[test]
fn what_the_node_has_leased_is_still_there_for_the_next_vm() {
    let (upstream, shim) = (Upstream::start().unwrap(), ShimProcess::start("memory").unwrap());
    let mut policy = standalone(1000);
    policy["store"] = json!({"cluster": "lanekeeper", "timeout": "10s", "circuit": {"slow": "10s"}});
    let setup = Setup::new(upstream.address()).store(shim.address()).policy(policy);
    let envoy = setup.workers(1).trapping().start().unwrap();
    let client = Client::unkept(TRUSTED).unwrap();
    let leased =
        |envoy: &Envoy| envoy.admin().metric("lanekeeper_decisions_total", &[("source", "lease")]).unwrap();
    // asks, and has some leased beside
    assert_eq!(get(&client, &envoy, &[ALICE]).status, 200);
    trap(&envoy);
    // of which a store that does not answer knows nothing
    shim.freeze().unwrap();
    let before = leased(&envoy);
    assert_eq!(get(&client, &envoy, &[ALICE]).status, 200);
    assert_eq!(leased(&envoy) - before, 1);
}

#[test]
fn what_a_vm_that_traps_had_paused_is_answered_when_the_request_timeout_is_over() {
    let (upstream, shim) = (Upstream::start().unwrap(), ShimProcess::start("memory").unwrap());
    let setup = Setup::new(upstream.address()).store(shim.address()).policy(patient(10)).workers(1);
    let soon = |_: &mut Value, listener: &mut Value| {
        if let Some(manager) = listener.pointer_mut(MANAGER) {
            manager["request_timeout"] = json!("0.5s");
        }
    };
    let envoy = setup.trapping().edited(soon).start().unwrap();
    shim.freeze().unwrap();
    let waiting = {
        let (client, url) = (Client::unkept(TRUSTED).unwrap(), envoy.url("/"));
        thread::spawn(move || client.get(&url, &[ALICE]).unwrap())
    };
    wait_until_asked(&envoy);
    assert_eq!(get(&Client::unkept(TRUSTED).unwrap(), &envoy, &[TRAP]).status, 503);
    assert_eq!(waiting.join().unwrap().status, 503);
}

const MANAGER: &str = "/filter_chains/0/filters/0/typed_config";

#[test]
fn every_envoy_that_is_shipped_begins_a_vm_anew_and_lets_no_request_wait_for_ever() {
    for shipped in Shipped::ALL {
        let envoy = shipped.envoy().unwrap();
        let listeners = envoy.pointer("/static_resources/listeners").and_then(Value::as_array).unwrap();
        let managers = listeners.iter().filter_map(|listener| listener.pointer(MANAGER));
        let ours = |manager: &Value| {
            let mut filters = manager["http_filters"].as_array().cloned().unwrap_or_default().into_iter();
            filters.find(|filter| filter["name"] == "lanekeeper").map(|filter| (manager.clone(), filter))
        };
        let found: Vec<(Value, Value)> = managers.filter_map(ours).collect();
        assert!(!found.is_empty(), "{shipped:?}");
        for (manager, filter) in found {
            assert_eq!(filter["typed_config"]["config"]["failure_policy"], "FAIL_RELOAD", "{shipped:?}");
            assert_eq!(manager["request_timeout"], "10s", "{shipped:?}");
            assert_eq!(manager["stream_idle_timeout"], "30s", "{shipped:?}");
        }
    }
}
