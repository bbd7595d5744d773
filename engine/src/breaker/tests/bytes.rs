use proptest::prelude::*;

use super::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// A node whose breaker has been through something, and holds places.
fn seasoned() -> Node {
    let max_concurrent = NonZeroU32::new(100);
    let mut node = Node::new(2, Settings { max_concurrent, half_open_calls: 3, ..settings() });
    let _held = [node.let_in(0), node.let_in(1)];
    node.trip();
    node.pass(Duration::from_secs(5));
    node.call(1, SUCCESS);
    assert_eq!(node.state(1), State::HalfOpen);
    node
}

/// Whatever it meets, it goes on.
fn go_on(node: &mut Node) {
    for step in 0..60 {
        if let Some(permit) = node.try_enter(step % 2) {
            node.leave(step % 2, permit, [SUCCESS, FAILURE, Outcome::Ignored][step % 3]);
        }
        node.pass(Duration::from_millis(700));
        (0..2).for_each(|worker| node.tick(worker));
    }
}

#[test]
fn any_bytes_in_a_slot_are_survived() {
    let any = prop::collection::vec(any::<u8>(), 0..200);
    proptest!(|(bytes in any)| {
        let mut node = seasoned();
        node.shared.slots.borrow_mut().values_mut().for_each(|cell| cell.0 = bytes.clone());
        go_on(&mut node);
    });
}

#[test]
fn any_change_of_a_records_bytes_is_survived() {
    let change = (any::<prop::sample::Index>(), any::<u8>());
    proptest!(ProptestConfig::with_cases(1000), |(changes in prop::collection::vec(change, 1..8))| {
        let mut node = seasoned();
        for (at, byte) in changes {
            // behind the breaker's number, and the length of its record
            let mut cells = node.shared.slots.borrow_mut();
            cells.values_mut().for_each(|(bytes, _)| *at.get_mut(&mut bytes[10..]) = byte);
        }
        go_on(&mut node);
    });
}

#[test]
fn a_record_is_read_as_it_was_written() {
    let mut node = seasoned();
    let print = |node: &Node| node.shared.slots.borrow().values().cloned().collect::<Vec<_>>();
    let before = print(&node);
    // a worker that has seen nothing finds what the others left
    node.workers.push(Breakers::new((1, 2), 99));
    let probe = node.let_in(2);
    assert!(probe.is_probe());
    node.leave(2, probe, Outcome::Ignored);
    assert_ne!(print(&node), before);
    node.call(2, SUCCESS);
    assert_eq!(node.state(2), State::Closed, "two of three are well, and one of them another worker's");
}
