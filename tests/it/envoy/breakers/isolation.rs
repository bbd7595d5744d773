//! What a lane's traffic does to its breakers and bulkheads, the other lane does not feel.

use std::sync::atomic::{AtomicBool, Ordering};

use lanekeeper_tests::failing::Manner;

use super::*;

const FLOOD: usize = 1_000;
const SENDERS: usize = 2;

/// One lane's calls fail under a flood, and the other lane goes on meanwhile.
fn a_flood_opens_only_its_own(flooded: Lane) {
    let spared = flooded.other();
    let service = Failing::start().unwrap();
    service.serve(flooded, Manner::Status(503));
    // it stays open to the test's end
    let resilience = json!({"default": {"min_calls": 10, "open_for": "1m"}});
    let envoy = Setup::new(service.address()).policy(policy(&["shop"], resilience)).start().unwrap();

    let is_over = AtomicBool::new(false);
    let (answers, others) = thread::scope(|scope| {
        let flood: Vec<_> = (0..SENDERS)
            .map(|_| {
                scope.spawn(|| {
                    let client = Client::unkept(TRUSTED).unwrap();
                    let send = |_| send(&client, &envoy, flooded, "/shop/1");
                    (0..FLOOD / SENDERS).map(send).collect::<Vec<Answer>>()
                })
            })
            .collect();
        let others = scope.spawn(|| {
            let client = Client::unkept(TRUSTED).unwrap();
            let mut statuses = Vec::new();
            while !is_over.load(Ordering::Relaxed) {
                statuses.push(send(&client, &envoy, spared, "/shop/1").status);
            }
            statuses
        });
        let answers: Vec<Answer> = flood.into_iter().flat_map(|sender| sender.join().unwrap()).collect();
        is_over.store(true, Ordering::Relaxed);
        (answers, others.join().unwrap())
    });

    assert!(others.len() > 100, "only {} requests beside the flood", others.len());
    assert!(others.iter().all(|status| *status == 200), "{others:?}");
    assert_eq!(service.book().calls(spared).count(), others.len());
    let refused = answers.iter().filter_map(refusing).collect::<Vec<_>>();
    assert!(refused.iter().all(|(_, lane)| lane == flooded.name()), "{refused:?}");
    assert_eq!(service.book().calls(flooded).count() + refused.len(), FLOOD);
    assert!(refused.len() > FLOOD / 2, "only {} were refused", refused.len());
    assert_eq!((state(&envoy, flooded, "shop"), state(&envoy, spared, "shop")), (2, 0));
    assert_eq!(
        (refusals(&envoy, flooded, "open"), refusals(&envoy, spared, "open")),
        (refused.len() as u64, 0)
    );
    assert_eq!((transitions(&envoy, flooded, "open"), transitions(&envoy, spared, "open")), (1, 0));
    let log = envoy.log();
    let opened = log.lines().filter(|line| line.contains("was closed, and is open")).count();
    assert_eq!(opened, 1, "one line for the transition, and none for a request");
}

#[test]
fn a_shadow_flood_that_fails_opens_the_shadow_breaker_and_no_user_notices() {
    a_flood_opens_only_its_own(Lane::Shadow);
}

#[test]
fn users_whose_calls_fail_open_their_breaker_and_the_shadow_lane_goes_on() {
    a_flood_opens_only_its_own(Lane::Normal);
}

#[test]
fn a_lane_whose_calls_hang_fills_its_own_bulkhead_alone() {
    const PLACES: usize = 5;
    let service = Failing::start().unwrap();
    service.serve(Lane::Shadow, Manner::Hang);
    let resilience = json!({"shop": {"max_concurrent": PLACES}});
    let envoy = Setup::new(service.address()).policy(policy(&["shop"], resilience)).start().unwrap();
    let held = hold(&service, &envoy, Lane::Shadow, "/shop/1", PLACES);

    let client = Client::unkept(TRUSTED).unwrap();
    let refused = send(&client, &envoy, Lane::Shadow, "/shop/1");
    assert_eq!((refused.status, refusals(&envoy, Lane::Shadow, "full")), (503, 1));
    assert_eq!(refusing(&refused), Some(("shadow.shop".to_owned(), "shadow".to_owned())));
    for _ in 0..20 {
        assert_eq!(send(&client, &envoy, Lane::Normal, "/shop/1").status, 200);
    }
    // clients that leave give their places back
    drop(held);
    wait_for_streams(&envoy);
    service.serve(Lane::Shadow, Manner::Status(200));
    assert_eq!(send(&client, &envoy, Lane::Shadow, "/shop/1").status, 200);
}
