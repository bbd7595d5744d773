//! Several shims behind one cluster.

use lanekeeper_tests::client::{Client, TRUSTED};
use lanekeeper_tests::envoy::Setup;
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
    wait::until("the shim to be left alone", || {
        assert_eq!(ask().status, 200);
        Ok((envoy.admin().counter("cluster.lanekeeper.outlier_detection.ejections_active")? == 1)
            .then_some(()))
    })
    .unwrap();
    for _ in 0..50 {
        let answer = ask();
        assert_eq!((answer.status, answer.headers.get(FALLBACK)), (200, None));
    }
}
