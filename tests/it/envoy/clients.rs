//! What clients send that is not of every day: bytes that are no text, much of it, and gRPC.

use lanekeeper_tests::client::{Client, TRUSTED};
use lanekeeper_tests::upstream::Upstream;

use super::super::{get, standalone, start};

#[test]
fn bytes_that_are_no_ascii_pass_unchanged_and_make_subjects_of_their_own() {
    let upstream = Upstream::start().unwrap();
    let mut envoy = start(&upstream, standalone(1));
    let client = Client::from(TRUSTED).unwrap();
    for user in [b"\xe9".as_slice(), b"\xff\xfe", b"\xc3\xa9"] {
        let headers = [("x-user", user), ("baggage", b"name=\xff".as_slice()), ("x-note", b"\x80\xff")];
        assert_eq!(get(&client, &envoy, &headers).status, 200);
        assert_eq!(get(&client, &envoy, &headers).status, 429);
    }
    let seen = upstream.seen();
    assert_eq!(seen.len(), 3);
    assert_eq!(seen[0].header("x-user"), ["\u{e9}"]);
    assert_eq!(seen[0].header("baggage"), ["name=\u{ff}"]);
    assert_eq!(seen[0].header("x-note"), ["\u{80}\u{ff}"]);
    assert!(envoy.is_alive().unwrap());
}

#[test]
fn sixty_four_kibibytes_of_headers_are_counted_as_any() {
    let upstream = Upstream::start().unwrap();
    let envoy = start(&upstream, standalone(1));
    let client = Client::from(TRUSTED).unwrap();
    let big = vec![b'a'; 64 * 1024];
    let headers: [(&str, &[u8]); 2] = [("x-user", b"eve"), ("x-big", &big)];
    assert_eq!(get(&client, &envoy, &headers).status, 200);
    assert_eq!(get(&client, &envoy, &headers).status, 429);
    assert_eq!(upstream.seen()[0].header("x-big")[0].len(), big.len());
}

#[test]
fn a_rejected_grpc_call_ends_with_resource_exhausted() {
    let upstream = Upstream::start().unwrap();
    let envoy = start(&upstream, standalone(1));
    let client = Client::http2(TRUSTED).unwrap();
    let call = || {
        let headers: [(&str, &[u8]); 3] =
            [("x-user", b"eve"), ("content-type", b"application/grpc"), ("te", b"trailers")];
        // an empty message
        client.post(&envoy.url("/account.Accounts/Get"), &headers, vec![0; 5]).unwrap()
    };
    assert_eq!(call().header("grpc-status"), None);
    let rejected = call();
    assert_eq!((rejected.status, rejected.header("grpc-status")), (200, Some("8")));
    assert_eq!(rejected.limit(), Some("per_user"));
}
