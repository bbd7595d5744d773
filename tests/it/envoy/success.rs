//! What a real Envoy shows of an answer, and what is charged for it.
//!
//! Without a store a charge is made before its stream is gone, so nothing has to be waited for but the streams' end.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use anyhow::ensure;
use lanekeeper_tests::client::{Client, TRUSTED};
use lanekeeper_tests::envoy::{Envoy, Setup, Verdict};
use lanekeeper_tests::shim_process::ShimProcess;
use lanekeeper_tests::wait;
use serde_json::{Value, json};

use super::super::wait_for_streams;

/// An upstream that gives each connection the bytes of its script, whatever it is asked.
struct Scripted {
    address: SocketAddr,
    script: Arc<Mutex<(Vec<u8>, Then)>>,
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// What follows the bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    Close,
    /// Nothing, until the test is over.
    Hold,
}

impl Scripted {
    fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let script = Arc::new(Mutex::new((Vec::new(), Then::Close)));
        let stopped = Arc::new(AtomicBool::new(false));
        let (read, stop) = (Arc::clone(&script), Arc::clone(&stopped));
        let thread = thread::spawn(move || {
            let mut held = Vec::new();
            for connection in listener.incoming() {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let mut connection = connection.unwrap();
                read_request(&mut connection);
                let (bytes, then) = read.lock().unwrap().clone();
                let _ = connection.write_all(&bytes);
                if then == Then::Hold {
                    held.push(connection);
                }
            }
        });
        Self { address, script, stopped, thread: Some(thread) }
    }

    fn say(&self, bytes: &str, then: Then) {
        *self.script.lock().unwrap() = (bytes.as_bytes().to_vec(), then);
    }

    /// An Envoy in front of it with a limit of ten successes, counted on the node.
    fn envoy(&self) -> Envoy {
        Setup::new(self.address).policy(paid(10)).upstream_trailers().websockets().start().unwrap()
    }
}

/// A limit of so many successes, without a store.
fn paid(limit: u32) -> Value {
    json!({"version": 1, "rate_limits": {"paid": {
        "keys": {"all": {"constant": "all"}}, "windows": [{"limit": limit, "per": "1h"}], "consume": "on_success",
    }}})
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        // wakes it up
        let _ = TcpStream::connect(self.address);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn read_request(connection: &mut TcpStream) {
    let (mut request, mut part) = (Vec::new(), [0; 1024]);
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        match connection.read(&mut part) {
            Ok(0) | Err(_) => return,
            Ok(count) => request.extend_from_slice(&part[..count]),
        }
    }
}

/// Reads until these bytes have come.
fn read_until(client: &mut TcpStream, end: &[u8]) {
    let (mut answer, mut part) = (Vec::new(), [0; 1024]);
    while !answer.ends_with(end) {
        let count = client.read(&mut part).unwrap();
        assert_ne!(count, 0, "the answer ended: {}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&part[..count]);
    }
}

/// Checks that so many charges were made in all when every stream has ended. Envoy counts a stream as ended a moment
/// before its filters hear of it.
#[track_caller]
fn expect_charged(envoy: &Envoy, expected: u64, after: &str) {
    wait_for_streams(envoy);
    wait::until(after, || {
        let labels = [("limit", "paid"), ("outcome", "charged")];
        let charged = envoy.admin().metric("lanekeeper_charges_total", &labels)?;
        ensure!(charged <= expected, "{charged} charges instead of {expected}");
        Ok((charged == expected).then_some(()))
    })
    .unwrap();
}

#[test]
fn a_whole_answer_below_400_is_charged_and_no_other() {
    let answers = [
        ("200", "HTTP/1.1 200 OK\r\ncontent-length: 4\r\nconnection: close\r\n\r\nwell", 1),
        ("no body", "HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n", 1),
        (
            "a redirect",
            "HTTP/1.1 302 Found\r\nlocation: /\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
            1,
        ),
        (
            "news before the answer",
            "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
            1,
        ),
        ("404", "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n", 0),
        ("503", "HTTP/1.1 503 Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n", 0),
        ("cut off", "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf", 0),
        ("no answer", "", 0),
        ("no HTTP", "what?\r\n\r\n", 0),
    ];
    let upstream = Scripted::start();
    let envoy = upstream.envoy();
    let mut before = 0;
    for (name, bytes, expected) in answers {
        upstream.say(bytes, Then::Close);
        let mut client = TcpStream::connect(envoy.address()).unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).unwrap();
        expect_charged(&envoy, before + expected, &format!("{name}: {}", String::from_utf8_lossy(&answer)));
        before += expected;
    }
}

#[test]
fn a_grpc_call_is_charged_if_its_status_is_0_wherever_it_stands() {
    let alone = |status: u32| {
        format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\ngrpc-status: {status}\r\ncontent-length: 0\r\n\
             connection: close\r\n\r\n"
        )
    };
    let in_trailers = |status: u32| {
        format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\
             trailer: grpc-status\r\n\r\n5\r\n\0\0\0\0\0\r\n0\r\ngrpc-status: {status}\r\n\r\n"
        )
    };
    let calls = [(alone(0), 1), (alone(14), 0), (in_trailers(0), 1), (in_trailers(5), 0)];
    let upstream = Scripted::start();
    let envoy = upstream.envoy();
    let mut before = 0;
    for (answer, expected) in calls {
        upstream.say(&answer, Then::Close);
        let headers: [(&str, &[u8]); 2] = [("content-type", b"application/grpc"), ("te", b"trailers")];
        Client::http2(TRUSTED).unwrap().post(&envoy.url("/a.B/C"), &headers, vec![0; 5]).unwrap();
        expect_charged(&envoy, before + expected, &answer);
        before += expected;
    }
}

#[test]
fn a_client_that_leaves_amid_a_good_answer_pays_and_one_that_leaves_before_does_not() {
    for (begun, expected) in [("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf", 1), ("", 0)] {
        let upstream = Scripted::start();
        upstream.say(begun, Then::Hold);
        let envoy = upstream.envoy();
        let mut client = TcpStream::connect(envoy.address()).unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
        if begun.is_empty() {
            wait::until("the request to be under way", || {
                Ok((envoy.admin().counter("cluster.upstream.upstream_rq_active")? == 1).then_some(()))
            })
            .unwrap();
        } else {
            read_until(&mut client, b"half");
        }
        drop(client);
        expect_charged(&envoy, expected, &format!("{begun:?}"));
    }
}

#[test]
fn a_grpc_client_that_resets_its_call_amid_the_messages_pays() {
    let begun = "HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\ntransfer-encoding: chunked\r\n\r\n\
                 5\r\n\0\0\0\0\0\r\n";
    let upstream = Scripted::start();
    upstream.say(begun, Then::Hold);
    let envoy = upstream.envoy();
    let client = Client::http2(TRUSTED).unwrap();
    let headers: [(&str, &[u8]); 1] = [("content-type", b"application/grpc")];
    client.abandon(&envoy.url("/a.B/C"), &headers, vec![0; 5]).unwrap();
    expect_charged(&envoy, 1, "the charges");
}

#[test]
fn an_upgraded_request_is_charged_while_its_conversation_goes_on_and_not_again() {
    let upgraded = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    let upstream = Scripted::start();
    upstream.say(upgraded, Then::Hold);
    let envoy = upstream.envoy();
    let mut client = TcpStream::connect(envoy.address()).unwrap();
    let request = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    client.write_all(request).unwrap();
    let charges =
        || envoy.admin().metric("lanekeeper_charges_total", &[("limit", "paid"), ("outcome", "charged")]);
    wait::until("the charge", || Ok((charges()? == 1).then_some(()))).unwrap();
    assert_eq!(envoy.admin().counter("http.front.downstream_rq_active").unwrap(), 1);
    drop(client);
    expect_charged(&envoy, 1, "the charges");
}

#[test]
fn a_policy_that_is_replaced_while_a_charge_is_under_way_still_makes_it() {
    let upstream = Scripted::start();
    upstream.say("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf", Then::Hold);
    let shim = ShimProcess::start("memory").unwrap();
    let stored = |limit: u32| {
        let mut policy = paid(limit);
        policy["store"] = json!({"cluster": "lanekeeper", "timeout": "10s", "circuit": {"slow": "10s"}});
        policy
    };
    let mut envoy = Setup::new(upstream.address).store(shim.address()).policy(stored(10)).start().unwrap();
    let mut client = TcpStream::connect(envoy.address()).unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    read_until(&mut client, b"half");

    shim.freeze().unwrap();
    drop(client);
    expect_charged(&envoy, 0, "the charges");
    wait::until("the charge to be under way", || {
        Ok((envoy.admin().counter("cluster.lanekeeper.upstream_rq_active")? == 1).then_some(()))
    })
    .unwrap();
    assert!(matches!(envoy.update_policy(&stored(20)).unwrap(), Verdict::Accepted));
    wait::until("the old policy to go", || {
        Ok((envoy.admin().counter("listener_manager.total_filter_chains_draining")? == 0).then_some(()))
    })
    .unwrap();
    shim.thaw().unwrap();
    let charges =
        || envoy.admin().metric("lanekeeper_charges_total", &[("source", "store"), ("outcome", "charged")]);
    wait::until("the charge", || Ok((charges()? == 1).then_some(()))).unwrap();
    assert!(envoy.is_alive().unwrap());
}
