//! Several shims behind one cluster, and one after the other.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::Result;
use lanekeeper_tests::client::{Client, TRUSTED};
use lanekeeper_tests::envoy::{Envoy, Setup};
use lanekeeper_tests::redis::Redis;
use lanekeeper_tests::shim_process::ShimProcess;
use lanekeeper_tests::upstream::Upstream;
use lanekeeper_tests::wait;
use serde_json::{Value, json};

use super::super::{get, patient};

const FALLBACK: &str = "x-lanekeeper-fallback";

/// For as long as the test runs, so that nothing depends on how fast it does.
fn leave_alone_for_long(clusters: &mut Value, _: &mut Value) {
    for cluster in clusters.as_array_mut().into_iter().flatten() {
        if let Some(detection) = cluster.get_mut("outlier_detection") {
            detection["base_ejection_time"] = json!("300s");
        }
    }
}

#[test]
fn a_shim_that_crashes_beside_another_is_left_alone_and_no_client_sees_it() {
    let (upstream, redis) = (Upstream::start().unwrap(), Redis::start().unwrap());
    let shim = || ShimProcess::start(&redis.url()).unwrap();
    let (mut first, second) = (shim(), shim());
    let setup = Setup::new(upstream.address()).shims([first.address(), second.address()]);
    let envoy = setup.policy(patient(1_000_000)).edited(leave_alone_for_long).start().unwrap();
    let client = Client::unkept(TRUSTED).unwrap();
    let ask = || get(&client, &envoy, &[("x-user", b"alice")]);
    for _ in 0..20 {
        assert_eq!((ask().status, ask().headers.get(FALLBACK)), (200, None));
    }
    first.kill();
    ask_until_left_alone(&envoy, 1, || assert_eq!(ask().status, 200));
    for _ in 0..50 {
        let answer = ask();
        assert_eq!((answer.status, answer.headers.get(FALLBACK)), (200, None));
    }
}

#[test]
fn two_shims_of_four_that_crash_together_are_both_left_alone_at_once() {
    let (upstream, redis) = (Upstream::start().unwrap(), Redis::start().unwrap());
    let mut shims = [(); 4].map(|()| ShimProcess::start(&redis.url()).unwrap());
    let setup = Setup::new(upstream.address()).shims(shims.each_ref().map(ShimProcess::address));
    let envoy = setup.policy(patient(1_000_000)).edited(leave_alone_for_long).start().unwrap();
    let client = Client::unkept(TRUSTED).unwrap();
    let ask = || get(&client, &envoy, &[("x-user", b"alice")]);
    shims[..2].iter_mut().for_each(ShimProcess::kill);
    ask_until_left_alone(&envoy, 2, || assert_eq!(ask().status, 200));
    for _ in 0..50 {
        let answer = ask();
        assert_eq!((answer.status, answer.headers.get(FALLBACK)), (200, None));
    }
}

#[test]
fn a_shim_that_hangs_beside_another_is_left_alone_although_it_accepts_connections() {
    let (upstream, redis) = (Upstream::start().unwrap(), Redis::start().unwrap());
    let [hangs, answers] = [(); 2].map(|()| ShimProcess::start(&redis.url()).unwrap());
    let mut policy = patient(1_000_000);
    policy["store"]["timeout"] = json!("500ms");
    policy["store"]["circuit"] = json!({"slow": "500ms"});
    let setup = Setup::new(upstream.address()).shims([hangs.address(), answers.address()]);
    let envoy = setup.policy(policy).edited(leave_alone_for_long).start().unwrap();
    let client = Client::unkept(TRUSTED).unwrap();
    let ask = || get(&client, &envoy, &[("x-user", b"alice")]);
    hangs.freeze().unwrap();
    // one after the other, so that between any two that fail a connection is made
    ask_until_left_alone(&envoy, 1, || assert_eq!(ask().status, 200));
    for _ in 0..20 {
        let answer = ask();
        assert_eq!((answer.status, answer.headers.get(FALLBACK)), (200, None));
    }
}

/// Returns when Envoy has left so many shims alone.
fn ask_until_left_alone(envoy: &Envoy, shims: u64, ask: impl Fn()) {
    wait::until("shims to be left alone", || {
        ask();
        let left = envoy.admin().counter("cluster.lanekeeper.outlier_detection.ejections_active")?;
        Ok((left == shims).then_some(()))
    })
    .unwrap();
}

/// Clients that ask without a pause, each request of another user; they panic when one is not decided by the store.
fn ask_all_the_time(envoy: &Envoy, until: &AtomicBool) -> u64 {
    let clients = (0..4).map(|client| {
        move || {
            let (kept, mut asked) = (Client::from(TRUSTED).unwrap(), 0);
            while !until.load(Ordering::Relaxed) {
                let user = format!("{client}-{asked}");
                let answer = get(&kept, envoy, &[("x-user", user.as_bytes())]);
                assert_eq!((answer.status, answer.headers.get(FALLBACK)), (200, None), "{user}");
                asked += 1;
            }
            asked
        }
    });
    thread::scope(|scope| {
        let clients: Vec<_> = clients.map(|client| scope.spawn(client)).collect();
        clients.into_iter().map(|client| client.join().unwrap()).sum()
    })
}

#[test]
fn shims_that_take_over_from_each_other_are_noticed_by_no_client() {
    let (upstream, redis) = (Upstream::start().unwrap(), Redis::start().unwrap());
    let mut shim = ShimProcess::start(&redis.url()).unwrap();
    let setup = Setup::new(upstream.address()).store(shim.address());
    let envoy = setup.policy(patient(1_000_000)).start().unwrap();
    let done = AtomicBool::new(false);
    let asked = thread::scope(|scope| {
        let asking = scope.spawn(|| ask_all_the_time(&envoy, &done));
        let replaced: Result<()> = (0..20).try_for_each(|_| shim.replace());
        done.store(true, Ordering::Relaxed);
        replaced.unwrap();
        asking.join().unwrap()
    });
    assert!(asked > 20, "{asked}");
    let decided = envoy.admin().metric("lanekeeper_decisions_total", &[("source", "store")]).unwrap();
    assert_eq!(decided, asked, "each once, and by the store");
}
