//! The folders `envoy/outbound` and `envoy/inbound`, as their READMEs tell them.

use lanekeeper_tests::envoy::Shipped;
use lanekeeper_tests::failing::Manner;

use super::*;

const PATH: &str = "/voucher/code/7";
const COMMAND: &str = "voucher.code.get";

fn start(shipped: Shipped) -> (Failing, Envoy) {
    let service = Failing::start().unwrap();
    let envoy = Setup::shipped(shipped, service.address()).start().unwrap();
    (service, envoy)
}

#[test]
fn outbound_a_stress_test_that_breaks_what_it_calls_leaves_it_alone_and_real_users_go_on() {
    let (service, envoy) = start(Shipped::Outbound);
    service.serve(Lane::Shadow, Manner::Status(503));
    let client = Client::unkept(TRUSTED).unwrap();
    let refused = wait::until("a refusal", || {
        let answer = send(&client, &envoy, Lane::Shadow, PATH);
        Ok(refusing(&answer).map(|by| (answer, by)))
    });
    let (answer, by) = refused.unwrap();
    assert_eq!(by, ("shadow.voucher.code.get".to_owned(), "shadow".to_owned()));
    assert_eq!(answer.status, 503);
    // five seconds, and up to half a second by chance
    assert!(matches!(answer.header("retry-after"), Some("5" | "6")), "{answer:?}");
    assert!(service.book().calls(Lane::Shadow).count() >= 10);

    for _ in 0..20 {
        assert_eq!(send(&client, &envoy, Lane::Normal, PATH).status, 200);
    }
    assert_eq!((state(&envoy, Lane::Shadow, COMMAND), state(&envoy, Lane::Normal, COMMAND)), (2, 0));
    assert_eq!((refusals(&envoy, Lane::Shadow, "open"), transitions(&envoy, Lane::Shadow, "open")), (1, 1));

    // what else a stress test calls has a breaker of its own
    let before = service.book().calls(Lane::Shadow).count();
    let grpc: [(&str, &[u8]); 1] = [("content-type", b"application/grpc")];
    let account = envoy.url("/account.core.AccountService/GetAccount");
    client.post(&account, &[Lane::Shadow.headers(), &grpc].concat(), Vec::new()).unwrap();
    assert_eq!(service.book().calls(Lane::Shadow).count(), before + 1);
}

#[test]
fn outbound_a_cache_that_is_slow_is_left_alone_as_one_that_fails() {
    let (service, envoy) = start(Shipped::Outbound);
    service.serve(Lane::Normal, Manner::Late(200, Duration::from_millis(300)));
    let calls: Vec<_> = (0..20).map(|_| begin(&envoy, Lane::Normal, PATH)).collect();
    wait::until("the breaker to open", || Ok((state(&envoy, Lane::Normal, COMMAND) == 2).then_some(())))
        .unwrap();
    // another worker hears of it a moment later
    let client = Client::from(TRUSTED).unwrap();
    let refused = || Ok(refusing(&send(&client, &envoy, Lane::Normal, PATH)));
    let refusing = wait::until("calls to be refused", refused).unwrap();
    assert_eq!(refusing, (COMMAND.to_owned(), "normal".to_owned()));
    drop(calls);
}

#[test]
fn inbound_a_stress_test_that_is_slow_holds_its_own_places_and_those_of_real_users_are_free() {
    let (service, envoy) = start(Shipped::Inbound);
    service.serve(Lane::Shadow, Manner::Hang);
    let held = hold(&service, &envoy, Lane::Shadow, PATH, 5);
    let client = Client::unkept(TRUSTED).unwrap();
    let refused = send(&client, &envoy, Lane::Shadow, PATH);
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    assert_eq!(refusing(&refused), Some(("shadow.voucher.code.get".to_owned(), "shadow".to_owned())));
    assert_eq!(refusals(&envoy, Lane::Shadow, "full"), 1);
    for _ in 0..20 {
        assert_eq!(send(&client, &envoy, Lane::Normal, PATH).status, 200);
    }
    assert_eq!((state(&envoy, Lane::Shadow, COMMAND), state(&envoy, Lane::Normal, COMMAND)), (0, 0));
    // it is by command, too
    let claim = begin_with(&envoy, Lane::Shadow, &format!("POST {PATH} HTTP/1.1\r\ncontent-length: 0\r\n"));
    service.wait("a claim", |book| book.under_way(Lane::Shadow) == 6).unwrap();
    drop((held, claim));
}
