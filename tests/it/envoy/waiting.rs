//! Requests that wait, for the store or for the service, and clients that do not.

use std::io::Write;
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use lanekeeper_tests::client::{Client, TRUSTED};
use lanekeeper_tests::envoy::{Envoy, Setup, WORKERS};
use lanekeeper_tests::shim_process::ShimProcess;
use lanekeeper_tests::upstream::Upstream;
use lanekeeper_tests::wait;
use serde_json::json;

use super::super::{get, patient, standalone, start, wait_for_streams, wait_until_asked};

/// Sends a request for `/left` whose answer nobody reads; dropped, its client leaves.
fn begin(envoy: &Envoy) -> TcpStream {
    let mut client = TcpStream::connect(envoy.address()).unwrap();
    client.write_all(b"GET /left HTTP/1.1\r\nhost: a\r\nx-user: eve\r\n\r\n").unwrap();
    client
}

#[test]
fn a_body_waits_with_its_request_and_arrives_whole() {
    let upstream = Upstream::start().unwrap();
    let shim = ShimProcess::start("memory").unwrap();
    let envoy = Setup::new(upstream.address()).store(shim.address()).policy(patient(10)).start().unwrap();
    let body: Vec<u8> = (0..300_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    let client = Client::from(TRUSTED).unwrap();
    shim.freeze().unwrap();
    let answer = thread::scope(|scope| {
        let answer =
            scope.spawn(|| client.post(&envoy.url("/"), &[("x-user", b"eve")], body.clone()).unwrap());
        wait_until_asked(&envoy);
        assert!(upstream.seen().is_empty(), "the request went on before the decision");
        shim.thaw().unwrap();
        answer.join().unwrap()
    });
    assert_eq!((answer.status, answer.fallback(), answer.remaining()), (200, None, Some(9)));
    assert!(upstream.seen()[0].body == body, "the body is not what was sent");
}

#[test]
fn a_client_that_leaves_while_its_request_waits_harms_nobody() {
    let upstream = Upstream::start().unwrap();
    let shim = ShimProcess::start("memory").unwrap();
    let mut envoy = Setup::new(upstream.address()).store(shim.address()).policy(patient(10)).start().unwrap();
    shim.freeze().unwrap();
    let leaver = begin(&envoy);
    wait_until_asked(&envoy);
    drop(leaver);
    wait_for_streams(&envoy);
    shim.thaw().unwrap();

    let client = Client::unkept(TRUSTED).unwrap();
    for _ in 0..2 * WORKERS {
        assert_eq!(get(&client, &envoy, &[("x-user", b"mallory")]).status, 200);
    }
    assert!(
        upstream.seen().iter().all(|seen| seen.path != "/left"),
        "the request of the client that left went on"
    );
    assert!(envoy.is_alive().unwrap());
}

#[test]
fn a_client_that_leaves_while_the_service_works_harms_nobody() {
    let upstream = Upstream::start().unwrap();
    let envoy = start(&upstream, standalone(10));
    upstream.answer_after(Duration::from_secs(30));
    let leaver = begin(&envoy);
    wait::until("the request to arrive", || Ok((!upstream.seen().is_empty()).then_some(()))).unwrap();
    drop(leaver);
    wait_for_streams(&envoy);
    upstream.answer_after(Duration::ZERO);
    let answer = get(&Client::from(TRUSTED).unwrap(), &envoy, &[("x-user", b"eve")]);
    assert_eq!((answer.status, answer.remaining()), (200, Some(8)));
}

#[test]
fn a_limit_that_fails_closed_turns_requests_away_while_the_shim_is_stopped() {
    let upstream = Upstream::start().unwrap();
    let mut shim = ShimProcess::start("memory").unwrap();
    let mut policy = patient(10);
    policy["rate_limits"]["per_user"]["on_failure"] = json!("closed");
    let envoy = Setup::new(upstream.address()).store(shim.address()).policy(policy).start().unwrap();
    shim.stop().unwrap();
    let answer = get(&Client::from(TRUSTED).unwrap(), &envoy, &[("x-user", b"eve")]);
    assert_eq!((answer.status, answer.fallback()), (503, Some("closed")));
    let labels =
        [("limit", "per_user"), ("outcome", "rejected"), ("source", "fallback"), ("on_failure", "closed")];
    assert_eq!(envoy.admin().metric("lanekeeper_decisions_total", &labels).unwrap(), 1);
}
