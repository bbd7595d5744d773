//! More than there is room for is refused at once, or waits where it costs nothing.

use std::time::Duration;

use lanekeeper_engine::wire::{DECIDE_PATH, SHIM_HEADER};
use lanekeeper_shim::app::App;
use lanekeeper_shim::listen::Manner;
use lanekeeper_shim::memory::MemoryStore;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::endless::Endless;
use crate::support::{HOUR, PATIENT, Shim, batch, check, sliding};

fn body() -> Vec<u8> {
    serde_json::to_vec(&batch(0, vec![check(&[("k", 1, &[sliding(10, HOUR)])])])).unwrap()
}

#[tokio::test]
async fn refuses_at_once_what_there_is_no_room_for() {
    let store = Endless::new();
    let shim = Shim::start(App::new(store.clone()).with_max_requests(3)).await;
    let call = || tokio::spawn(shim.client.post(format!("{}{DECIDE_PATH}", shim.url)).body(body()).send());
    let calls = [call(), call(), call()];
    store.until_working_on(3).await;
    // It would never be answered by the store.
    let refused = timeout(PATIENT, shim.post(body())).await.expect("an answer at once");
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.headers()["retry-after"], "1");
    assert_eq!(refused.headers()[SHIM_HEADER], "1");
    let problem: Value = refused.json().await.unwrap();
    let said =
        json!({"title": "Service Unavailable", "status": 503, "detail": "too many requests are under way"});
    assert_eq!(problem, said);
    for path in ["/healthz", "/readyz", "/metrics", "/openapi.json"] {
        assert_eq!(shim.get(path).await.status(), StatusCode::OK, "{path}");
    }
    assert_eq!(shim.metric("lanekeeper_shim_requests_shed_total").await, 1.0);

    calls[0].abort();
    store.until_working_on(2).await;
    let _next = call();
    store.until_working_on(3).await;
}

#[tokio::test]
async fn a_refused_body_is_not_read() {
    let shim = Shim::start(App::new(MemoryStore::new()).with_max_requests(0)).await;
    let mut caller = TcpStream::connect(&shim.url["http://".len()..]).await.unwrap();
    let head = format!("POST {DECIDE_PATH} HTTP/1.1\r\nhost: shim\r\ncontent-length: 1000000\r\n\r\n");
    caller.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    timeout(PATIENT, caller.read_exact(&mut answer)).await.expect("an answer before the body").unwrap();
    assert_eq!(&answer, b"HTTP/1.1 503");
}

#[tokio::test]
async fn who_may_not_ask_is_told_so_when_there_is_no_room_too() {
    let shim = Shim::start(App::new(MemoryStore::new()).with_token("s3cret").with_max_requests(0)).await;
    assert_eq!(shim.post(body()).await.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(shim.metric("lanekeeper_shim_requests_shed_total").await, 0.0);
}

#[tokio::test]
async fn connections_beyond_the_bound_wait_until_one_is_closed() {
    let app = App::new(MemoryStore::new());
    let shim = Shim::start_as(app, Manner { max_connections: 2, ..Manner::default() }).await;
    let address = &shim.url["http://".len()..];
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut connection = TcpStream::connect(address).await.unwrap();
        health(&mut connection).await;
        open.push(connection);
    }
    let mut third = TcpStream::connect(address).await.unwrap();
    let waits = timeout(Duration::from_millis(100), health(&mut third)).await;
    assert!(waits.is_err(), "a third one is served");
    health(&mut open[0]).await;
    drop(open.remove(0));
    let mut answer = [0; 15];
    timeout(PATIENT, third.read_exact(&mut answer)).await.expect("it is its turn").unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200 OK");
}

/// Asks for the shim's health, and hears the whole answer.
async fn health(connection: &mut TcpStream) {
    connection.write_all(b"GET /healthz HTTP/1.1\r\nhost: shim\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"ok\n") {
        answer.push(connection.read_u8().await.unwrap());
    }
}
