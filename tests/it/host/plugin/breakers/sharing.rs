//! What a node's workers share, and what becomes of calls when it cannot be used.

use lanekeeper_tests::host::{Host, Status, Times};
use serde_json::{Value, json};

use super::{
    FULL, HEARD, JITTER, OPEN, OPEN_FOR, behaved, call, fail, guarded, refusal, refused_as, start, state,
    succeed, told, touchy, transitions,
};

/// Trips at the first failure, and lets in two.
fn small() -> Value {
    let mut entry = touchy();
    entry["max_concurrent"] = json!(2);
    guarded(&entry)
}

/// Where the breakers of this node lie.
fn slots(host: &Host) -> Vec<Vec<u8>> {
    let of_breakers = |key: &Vec<u8>| String::from_utf8_lossy(key).contains("/breaker/");
    host.shared_keys().into_iter().filter(of_breakers).collect()
}

#[test]
fn calls_pass_while_shared_data_fails_and_are_guarded_when_it_works_again() {
    for name in ["proxy_get_shared_data", "proxy_set_shared_data"] {
        for status in [2_u32, 6, 10, 12, 99] {
            let host = start(&small(), 2);
            succeed(&call(&host, 0));
            host.fail(name, status, Times::Always);
            for n in 0..20 {
                // each worker has let in what it knows to be free
                let stream = call(&host, n % 2);
                assert_eq!(refusal(&stream), None, "{name} gives {status}");
                fail(&stream);
                host.advance(HEARD);
            }
            assert_eq!(transitions(&host, "open"), 0, "{name} gives {status}");
            host.heal(name);
            host.advance(HEARD);
            fail(&call(&host, 1));
            assert!(refused_as(&call(&host, 0), OPEN), "{name} gave {status}");
            host.advance(OPEN_FOR + JITTER);
            succeed(&call(&host, 0));
            assert_eq!(state(&host), Some(0));
            let held = [0, 1].map(|worker| call(&host, worker));
            assert!(held.iter().all(|stream| refusal(stream).is_none()), "{name} gave {status}");
            assert!(refused_as(&call(&host, 0), FULL), "{name} gave {status}");
            behaved(&host);
        }
    }
}

#[test]
fn a_failure_that_could_not_be_told_trips_when_it_can() {
    let host = start(&guarded(&touchy()), 1);
    let stream = call(&host, 0);
    host.fail("proxy_set_shared_data", Status::InternalFailure, Times::Always);
    fail(&stream);
    assert_eq!(transitions(&host, "open"), 0);
    host.heal("proxy_set_shared_data");
    host.advance(2 * HEARD);
    assert_eq!(transitions(&host, "open"), 1, "without another call");
    behaved(&host);
}

#[test]
fn races_that_are_lost_all_the_time_let_calls_pass() {
    let host = start(&small(), 1);
    host.fail("proxy_set_shared_data", Status::CasMismatch, Times::Always);
    for _ in 0..5 {
        let stream = call(&host, 0);
        assert_eq!(refusal(&stream), None);
        fail(&stream);
        host.advance(HEARD);
    }
    host.heal("proxy_set_shared_data");
    fail(&call(&host, 0));
    assert!(refused_as(&call(&host, 0), OPEN));
    behaved(&host);
}

#[test]
fn garbage_in_a_breakers_slot_is_a_new_breaker() {
    let good = start(&small(), 1);
    let _under_way = call(&good, 0);
    fail(&call(&good, 0));
    let slot = slots(&good).remove(0);
    let (bytes, _) = good.shared_data(&slot).unwrap();
    let cut = (0..bytes.len()).map(|length| bytes[..length].to_vec());
    let flipped = (0..bytes.len()).map(|at| {
        let mut bytes = bytes.clone();
        bytes[at] ^= 0xff;
        bytes
    });
    let junk = [vec![0xff; 1000], vec![0; 1000], b"another plugin's".to_vec(), vec![0xff; 11]];
    for garbage in cut.chain(flipped).chain(junk) {
        let host = start(&small(), 2);
        let stream = call(&host, 0);
        host.set_shared_data(&slot, &garbage, 0).unwrap();
        host.advance(HEARD);
        for worker in [0, 1, 0, 1] {
            call(&host, worker).reset();
        }
        stream.reset();
        // whatever the bytes say, they say it for no longer than a breaker may stay open
        host.advance(std::time::Duration::from_secs(3600));
        behaved(&host);
    }
    for garbage in [vec![0xff; 1000], vec![0; 1000], bytes[..bytes.len() - 1].to_vec()] {
        let host = start(&small(), 2);
        host.set_shared_data(&slot, &garbage, 0).unwrap();
        let stream = call(&host, 0);
        assert_eq!(refusal(&stream), None);
        fail(&stream);
        assert!(refused_as(&call(&host, 1), OPEN));
        assert_eq!(told(&host).len(), 1);
        behaved(&host);
    }
}

#[test]
fn breakers_take_no_more_of_shared_data_than_their_slots() {
    let mut policy = guarded(&touchy());
    let command =
        |n: usize| json!({"command": format!("c{n}"), "match": {"path": {"exact": format!("/{n}")}}});
    policy["commands"] = (0..100).map(command).collect();
    policy["resilience"] = json!({"default": {"max_concurrent": 10, "min_calls": 1000}});
    let host = start(&policy, 2);
    let all = || {
        for n in 0..100 {
            let stream = host.worker(n % 2).request(lanekeeper_tests::host::Request::get(&format!("/{n}")));
            assert_eq!(refusal(&stream), None, "{n}");
            fail(&stream);
        }
        host.advance(HEARD);
        host.shared_bytes()
    };
    all();
    let grown = (0..20).map(|_| all()).max().unwrap();
    assert!(slots(&host).len() <= 100 && grown < 100_000, "{} slots, {grown} bytes", slots(&host).len());
    behaved(&host);
}
