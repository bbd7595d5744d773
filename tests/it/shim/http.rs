//! The HTTP side: protocols, the token, what is refused and how, and what the shim says of itself.

use lanekeeper_engine::wire::{DECIDE_PATH, MAX_CHECKS, MAX_RETURNS, SHIM_HEADER};
use lanekeeper_shim::app::{App, MAX_BODY_BYTES};
use lanekeeper_shim::listen::{Address, Manner, listen};
use lanekeeper_shim::memory::MemoryStore;
use reqwest::{Client, Response, StatusCode, Version};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::support::{HOUR, Shim, batch, check, left, sliding};

async fn shim() -> Shim {
    Shim::start(App::new(MemoryStore::new())).await
}

/// A batch that is right, to be made wrong in one place.
fn right() -> Value {
    json!({"version": 1, "spend_within_ms": 20, "checks": [{"keys": [
        {"key": "k", "cost": 1, "windows": [{"algorithm": "sliding_window", "limit": 10, "per_ms": 1000}]},
    ]}]})
}

pub(crate) async fn problem(response: Response, status: StatusCode) -> Value {
    assert_eq!(response.status(), status);
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    assert_eq!(response.headers()[SHIM_HEADER], "1");
    let problem: Value = response.json().await.unwrap();
    assert_eq!(problem["status"], status.as_u16());
    assert_eq!(problem["title"], status.canonical_reason().unwrap());
    problem
}

#[tokio::test]
async fn accepts_a_batch_that_is_right() {
    let response = shim().await.post(right().to_string()).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["content-type"], "application/json");
}

#[tokio::test]
async fn names_the_field_that_is_wrong() {
    let shim = shim().await;
    let cases = [
        ("/version", json!(2), "version"),
        ("/version", json!("1"), "version"),
        ("/spend_within_ms", json!(10_001), "spend_within_ms"),
        ("/spend_within_ms", json!(-1), "spend_within_ms"),
        ("/spend_within_ms", json!(1.5), "spend_within_ms"),
        ("/checks", json!([]), "checks"),
        ("/checks", json!({}), "checks"),
        ("/checks", json!(vec![right()["checks"][0].clone(); MAX_CHECKS + 1]), "checks"),
        ("/checks/0/keys", json!([]), "checks[0].keys"),
        ("/checks/0/keys/0/key", json!(""), "checks[0].keys[0].key"),
        ("/checks/0/keys/0/key", json!("a b"), "checks[0].keys[0].key"),
        ("/checks/0/keys/0/key", json!("é"), "checks[0].keys[0].key"),
        ("/checks/0/keys/0/key", json!("k".repeat(513)), "checks[0].keys[0].key"),
        ("/checks/0/keys/0/cost", json!(0), "checks[0].keys[0].cost"),
        ("/checks/0/keys/0/cost", json!(11), "checks[0].keys[0].cost"),
        ("/checks/0/keys/0/cost", json!(4_294_967_296u64), "checks[0].keys[0].cost"),
        ("/checks/0/keys/0/windows", json!([]), "checks[0].keys[0].windows"),
        ("/checks/0/keys/0/windows/0/limit", json!(0), "checks[0].keys[0].windows[0]"),
        ("/checks/0/keys/0/windows/0/per_ms", json!(0), "checks[0].keys[0].windows[0]"),
        ("/checks/0/keys/0/windows/0/algorithm", json!("fixed"), "checks[0].keys[0].windows[0].algorithm"),
    ];
    for (place, value, field) in cases {
        let mut body = right();
        *body.pointer_mut(place).unwrap() = value;
        let problem = problem(shim.post(body.to_string()).await, StatusCode::BAD_REQUEST).await;
        assert_eq!(problem["field"], field, "{place}: {problem}");
        assert_ne!(problem["detail"], "");
    }
}

#[tokio::test]
async fn names_the_field_of_a_lease_or_of_a_return_that_is_wrong() {
    let shim = shim().await;
    let mut right = right();
    let windows = right["checks"][0]["keys"][0]["windows"].clone();
    right["checks"][0]["keys"][0]["lease"] =
        json!({"tokens": 5, "life_ms": 100, "drift": 10_000, "nodes": 1});
    right["returns"] = json!([{"key": "k", "tokens": 1, "dated_us": 1, "id": 1, "windows": windows}]);
    right["checks"][0]["keys"][0]["operation"] = json!("take");
    right["checks"][0]["keys"][0]["at_least"] = json!(null);
    assert_eq!(shim.post(right.to_string()).await.status(), StatusCode::OK);
    let (key, lease) = ("/checks/0/keys/0", "checks[0].keys[0].lease");
    let cases = [
        ("/lease", json!(1), lease.to_owned()),
        ("/lease/tokens", json!(0), format!("{lease}.tokens")),
        ("/lease/tokens", json!(1_000_000_001), format!("{lease}.tokens")),
        ("/lease/life_ms", json!(0), format!("{lease}.life_ms")),
        ("/lease/life_ms", json!(120_001), format!("{lease}.life_ms")),
        ("/lease/drift", json!(0), format!("{lease}.drift")),
        ("/lease/drift", json!(1_000_001), format!("{lease}.drift")),
        ("/lease/nodes", json!(0), format!("{lease}.nodes")),
        ("/lease/nodes", json!(1.5), format!("{lease}.nodes")),
        ("/operation", json!("peek"), lease.to_owned()),
        ("/at_least", json!(2), "checks[0].keys[0].at_least".to_owned()),
    ];
    let cases = cases.map(|(place, value, field)| (format!("{key}{place}"), value, field));
    let of_returns = [
        ("/returns", json!({}), "returns"),
        ("/returns", json!(vec![right["returns"][0].clone(); MAX_RETURNS + 1]), "returns"),
        ("/returns/0/key", json!(""), "returns[0].key"),
        ("/returns/0/tokens", json!(0), "returns[0].tokens"),
        ("/returns/0/tokens", json!(-1), "returns[0].tokens"),
        ("/returns/0/dated_us", json!(u64::MAX), "returns[0].dated_us"),
        ("/returns/0/windows", json!([]), "returns[0].windows"),
        ("/checks", json!(vec![right["checks"][0].clone(); MAX_CHECKS + 1]), "checks"),
    ];
    let of_returns = of_returns.map(|(place, value, field)| (place.to_owned(), value, field.to_owned()));
    for (place, value, field) in cases.into_iter().chain(of_returns) {
        let mut body = right.clone();
        *body.pointer_mut(&place).unwrap() = value;
        let problem = problem(shim.post(body.to_string()).await, StatusCode::BAD_REQUEST).await;
        assert_eq!(problem["field"], field, "{place}: {problem}");
    }
}

#[tokio::test]
async fn names_the_field_that_is_missing_unknown_or_twice() {
    let shim = shim().await;
    let mut missing = right();
    missing["checks"][0]["keys"][0].as_object_mut().unwrap().remove("cost");
    let mut unknown = right();
    unknown["lane"] = json!("normal");
    let mut twice = right();
    let key = twice["checks"][0]["keys"][0].clone();
    twice["checks"][0]["keys"].as_array_mut().unwrap().push(key);
    for (body, field, detail) in [
        (missing, "checks[0].keys[0].cost", "missing field `cost`"),
        (unknown, "lane", "unknown field `lane`"),
        (twice, "checks[0].keys[1].key", "stands in this check twice"),
        (json!({}), "version", "missing field `version`"),
    ] {
        let problem = problem(shim.post(body.to_string()).await, StatusCode::BAD_REQUEST).await;
        assert_eq!(problem["field"], field, "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains(detail), "{problem}");
    }
}

#[tokio::test]
async fn refuses_what_is_not_json() {
    let shim = shim().await;
    let right = right().to_string();
    let deep = "[".repeat(100_000);
    let cut = &right[..right.len() - 1];
    let cases: [&[u8]; 7] = [
        b"",
        b" ",
        b"version=1",
        cut.as_bytes(),
        deep.as_bytes(),
        b"\xff\xfe",
        &[right.as_bytes(), b"{}"].concat(),
    ];
    for body in cases {
        let problem = problem(shim.post(body.to_vec()).await, StatusCode::BAD_REQUEST).await;
        assert!(problem["detail"].as_str().unwrap().len() < 200, "{problem}");
    }
}

#[tokio::test]
async fn refuses_a_body_that_is_too_large() {
    let shim = shim().await;
    let right = right().to_string();
    let fits = right.clone() + &" ".repeat(MAX_BODY_BYTES - right.len());
    assert_eq!(shim.post(fits.clone()).await.status(), StatusCode::OK);
    problem(shim.post(fits + " ").await, StatusCode::PAYLOAD_TOO_LARGE).await;
}

#[tokio::test]
async fn refuses_unknown_paths_and_wrong_methods() {
    let shim = shim().await;
    problem(shim.get("/").await, StatusCode::NOT_FOUND).await;
    problem(shim.get("/v2/decide").await, StatusCode::NOT_FOUND).await;
    let response = shim.get(DECIDE_PATH).await;
    assert_eq!(response.headers()["allow"], "POST");
    problem(response, StatusCode::METHOD_NOT_ALLOWED).await;
    let post = shim.client.post(format!("{}/healthz", shim.url)).send().await.unwrap();
    problem(post, StatusCode::METHOD_NOT_ALLOWED).await;
}

#[tokio::test]
async fn decides_only_for_those_who_bear_the_token() {
    let shim = Shim::start(App::new(MemoryStore::new()).with_token("s3cret")).await;
    let ask = |authorization: Option<&str>| {
        let request = shim.client.post(format!("{}{DECIDE_PATH}", shim.url)).body(right().to_string());
        authorization
            .map_or(request.try_clone().unwrap(), |value| request.header("authorization", value))
            .send()
    };
    for wrong in
        [None, Some(""), Some("Bearer "), Some("Bearer s3cre"), Some("Bearer s3crets"), Some("s3cret")]
    {
        let response = ask(wrong).await.unwrap();
        assert_eq!(response.headers()["www-authenticate"], "Bearer");
        problem(response, StatusCode::UNAUTHORIZED).await;
    }
    assert_eq!(ask(Some("Bearer s3cret")).await.unwrap().status(), StatusCode::OK);
    for open in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(shim.get(open).await.status(), StatusCode::OK);
    }
}

#[tokio::test]
async fn speaks_http_1_and_http_2_on_one_port() {
    let mut shim = shim().await;
    let ask = || batch(0, vec![check(&[("k", 1, &[sliding(10, HOUR)])])]);
    assert_eq!(shim.get("/healthz").await.version(), Version::HTTP_11);
    assert_eq!(left(&shim.decide(&ask()).await[0]), [[9]]);
    shim.client = Client::builder().http2_prior_knowledge().build().unwrap();
    assert_eq!(shim.get("/healthz").await.version(), Version::HTTP_2);
    assert_eq!(left(&shim.decide(&ask()).await[0]), [[8]]);
}

#[tokio::test]
async fn listens_on_a_unix_socket_and_removes_it_in_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shim.sock");
    // What a shim that was killed leaves behind.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    for http2 in [false, true] {
        let (stop, stopping) = oneshot::channel::<()>();
        let (ready, listening) = oneshot::channel();
        let address: Address = format!("unix:{}", path.display()).parse().unwrap();
        let app = App::new(MemoryStore::new());
        let served = tokio::spawn(listen(
            address.clone(),
            app,
            Manner::default(),
            |address| ready.send(address.to_string()).unwrap(),
            async { stopping.await.unwrap() },
        ));
        assert_eq!(listening.await.unwrap(), format!("unix:{}", path.display()));
        let second =
            listen(address, App::new(MemoryStore::new()), Manner::default(), |_| (), std::future::pending())
                .await;
        assert_eq!(second.unwrap_err().kind(), std::io::ErrorKind::AddrInUse, "it is in use");

        let client = Client::builder().unix_socket(&*path);
        let client = if http2 { client.http2_prior_knowledge() } else { client }.build().unwrap();
        let response = client.post("http://shim/v1/decide").body(right().to_string()).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        drop(client);
        stop.send(()).unwrap();
        served.await.unwrap().unwrap();
        assert!(!path.exists());
    }
}

#[tokio::test]
async fn does_not_take_the_place_of_a_file_that_is_no_socket() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("precious");
    std::fs::write(&path, "data").unwrap();
    let app = App::new(MemoryStore::new());
    assert!(
        listen(Address::Unix(path.clone()), app, Manner::default(), |_| (), std::future::pending())
            .await
            .is_err()
    );
    assert_eq!(std::fs::read_to_string(path).unwrap(), "data");
}

#[test]
fn reads_where_to_listen() {
    let read = |text: &str| text.parse::<Address>().map(|address| address.to_string());
    assert_eq!(read("127.0.0.1:7400").unwrap(), "http://127.0.0.1:7400");
    assert_eq!(read("systemd").unwrap(), "systemd");
    assert_eq!(read("[::1]:0").unwrap(), "http://[::1]:0");
    assert_eq!(read("unix:/run/shim.sock").unwrap(), "unix:/run/shim.sock");
    for wrong in ["", "7400", "localhost", "127.0.0.1", "unix:"] {
        assert!(read(wrong).is_err(), "{wrong}");
    }
}

#[tokio::test]
async fn counts_what_it_did_and_names_no_subject() {
    let shim = shim().await;
    let ask = |key| check(&[(key, 1, &[sliding(1, HOUR)])]);
    shim.decide(&batch(0, vec![ask("alice"), ask("alice"), ask("bob")])).await;
    shim.post("{}").await;
    let response = shim.get("/metrics").await;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert_eq!(response.headers()["content-type"], kind);
    let text = response.text().await.unwrap();
    for line in [
        "lanekeeper_shim_decisions_total{outcome=\"allowed\"} 2",
        "lanekeeper_shim_decisions_total{outcome=\"rejected\"} 1",
        "lanekeeper_shim_decisions_total{outcome=\"failed\"} 0",
        "lanekeeper_shim_batches_total 1",
        "lanekeeper_shim_batch_checks_sum 3.0",
        "lanekeeper_shim_batch_checks_bucket{le=\"4.0\"} 1",
        "lanekeeper_shim_store_duration_seconds_count 1",
        "lanekeeper_shim_store_errors_total{kind=\"timeout\"} 0",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is missing in\n{text}");
    }
    assert!(!text.contains("alice") && !text.contains("bob"));
    assert!(text.lines().all(|line| line.starts_with('#') || line.starts_with("lanekeeper_shim_")), "{text}");
}
