//! What no library is tested for: two lanes, and what in a proxy is not the upstream's doing.

use super::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

const SHADOW: &str = "shadow.account.core.get_account";

/// A call in a lane, if it may go.
fn call(node: &mut Node, owner: &str, outcome: Outcome) -> bool {
    match node.enter_as(0, owner) {
        Entry::Pass(permit) => {
            permit.into_iter().for_each(|permit| node.end(permit, outcome));
            true
        }
        Entry::Refuse(_) | Entry::WouldRefuse(..) => false,
    }
}

#[test]
fn one_lane_trips_and_the_other_does_not_notice() {
    for (failing, healthy) in [(SHADOW, NORMAL), (NORMAL, SHADOW)] {
        let mut node = Node::new(settings());
        for _ in 0..1000 {
            call(&mut node, failing, FAILURE);
            assert!(call(&mut node, healthy, SUCCESS));
        }
        assert!(!call(&mut node, failing, SUCCESS));
    }
}

/// A stream that ends without an answer's headers, by the client's doing.
#[test]
fn a_probe_that_is_reset_gives_its_permit_back() {
    let mut node = Node::new(Settings { half_open_calls: 1, ..settings() });
    node.trip_and_wait();
    for _ in 0..100 {
        let probe = node.acquire().unwrap();
        node.end(probe, Outcome::Ignored);
    }
    assert!(node.acquire().is_ok());
}

/// Our own 429, other filters' replies, and clients that leave.
#[test]
fn what_the_upstream_did_not_do_trips_nothing() {
    let mut node = Node::new(Settings { min_calls: 1, ..settings() });
    node.calls(&[Outcome::Ignored; 1000]);
    assert_eq!(node.state(), State::Closed);
}

#[test]
fn other_values_for_one_lane_leave_the_other_alone() {
    let mut node = Node::new(settings());
    (0..20).for_each(|_| _ = call(&mut node, SHADOW, FAILURE));
    (0..19).for_each(|_| _ = call(&mut node, NORMAL, FAILURE));
    let before = Arc::clone(&node.settings);
    node.settings = Arc::new(Settings { window: seconds(60), ..settings() });
    assert!(!call(&mut node, SHADOW, SUCCESS));
    node.settings = before;
    call(&mut node, NORMAL, FAILURE);
    assert!(!call(&mut node, NORMAL, SUCCESS), "what it had counted still counts");
}
