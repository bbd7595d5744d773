//! The built plugin in a real Envoy.

// clippy.toml allows these in test functions; the helpers here are no less tests
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod envoy {
    mod breakers;
    mod reload;
    mod shims;
    mod success;
    mod trap;
}

use std::io::Write;
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use lanekeeper_tests::client::{Answer, Client, TRUSTED, UNTRUSTED};
use lanekeeper_tests::demo::{self, Stage, Step};
use lanekeeper_tests::envoy::{Envoy, Setup, Shipped, Verdict, WORKERS, validate};
use lanekeeper_tests::redis::Redis;
use lanekeeper_tests::scenario::{self, Proxy, SCENARIOS, Seen, Sender};
use lanekeeper_tests::shim_process::ShimProcess;
use lanekeeper_tests::upstream::Upstream;
use lanekeeper_tests::wait;
use serde_json::{Value, json};

/// `per_user`, `limit` a minute, without a store.
fn standalone(limit: u32) -> Value {
    json!({
        "version": 1,
        "rate_limits": {
            "per_user": {"keys": {"user": [{"header": "x-user"}]}, "windows": [{"limit": limit, "per": "1m"}]},
        },
    })
}

/// The same with a store that each request waits for, as long as a test needs it to.
fn patient(limit: u32) -> Value {
    let mut policy = standalone(limit);
    policy["store"] =
        json!({"cluster": "lanekeeper", "timeout": "10s", "max_drift": 0, "circuit": {"slow": "10s"}});
    policy
}

fn start(upstream: &Upstream, policy: Value) -> Envoy {
    Setup::new(upstream.address()).policy(policy).start().unwrap()
}

fn get(client: &Client, envoy: &Envoy, headers: &[(&str, &[u8])]) -> Answer {
    client.get(&envoy.url("/"), headers).unwrap()
}

/// Returns when a request is at Envoy and Envoy waits for the shim.
fn wait_until_asked(envoy: &Envoy) {
    wait::until("a question to the shim", || {
        let is_there = envoy.admin().counter("http.front.downstream_rq_active")? > 0;
        Ok((is_there && envoy.admin().counter("cluster.lanekeeper.upstream_rq_active")? > 0).then_some(()))
    })
    .unwrap();
}

fn wait_for_charges(envoy: &Envoy, lane: &str, limit: &str, outcome: &str, count: u64) -> Result<()> {
    let labels = [("lane", lane), ("limit", limit), ("outcome", outcome)];
    wait::until("the charges", || {
        let ended = envoy.admin().metric("lanekeeper_charges_total", &labels)?;
        ensure!(ended <= count, "{ended} charges instead of {count}");
        Ok((ended == count).then_some(()))
    })
}

// The demo's steps, each on a stage of its own.

fn holds(step: Step) {
    let mut stage = Stage::start(|_, _| {}).unwrap();
    step(&mut stage).unwrap();
}

#[test]
fn a_user_gets_ten_answers_with_falling_remaining_and_then_429() {
    holds(demo::a_user_is_limited);
}

#[test]
fn a_flood_in_the_shadow_lane_changes_nothing_in_the_normal_lane() {
    holds(demo::a_flood_stays_in_its_lane);
}

#[test]
fn a_flag_from_an_untrusted_client_is_stripped_and_its_request_counts_as_normal() {
    holds(demo::a_forged_flag_counts_as_normal);
}

#[test]
fn without_the_shim_each_request_is_answered_by_the_counters_of_the_node() {
    holds(demo::the_node_counts_without_the_store);
}

#[test]
fn a_shim_that_comes_back_decides_again_within_two_seconds() {
    holds(demo::the_store_decides_again);
}

#[test]
fn a_policy_with_a_typo_is_refused_by_name_and_the_old_one_goes_on() {
    holds(demo::a_typo_is_refused);
}

// The scenarios that the fake host runs too.

struct Real {
    envoy: Envoy,
    upstream: Upstream,
    shim: ShimProcess,
    trusted: Client,
    untrusted: Client,
}

impl Real {
    fn start(store: &str) -> Result<Self> {
        let (upstream, shim) = (Upstream::start()?, ShimProcess::start(store)?);
        let policy = scenario::policy("127.0.0.1/32");
        let envoy = Setup::new(upstream.address()).store(shim.address()).policy(policy).start()?;
        let (trusted, untrusted) = (Client::unkept(TRUSTED)?, Client::unkept(UNTRUSTED)?);
        Ok(Self { envoy, upstream, shim, trusted, untrusted })
    }
}

impl Proxy for Real {
    fn send(&mut self, sender: Sender, headers: &[(&str, &[u8])]) -> Result<Seen> {
        let client = match sender {
            Sender::Trusted => &self.trusted,
            Sender::Untrusted => &self.untrusted,
        };
        let before = self.upstream.seen().len();
        let answer = client.get(&self.envoy.url("/"), headers)?;
        let list = answer.headers.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()));
        // the upstream keeps values as latin-1, one character for each byte
        let bytes = |text: &str| text.chars().filter_map(|c| u8::try_from(c).ok()).collect();
        let upstream = self
            .upstream
            .seen()
            .get(before)
            .map(|seen| seen.headers.iter().map(|(name, value)| (name.clone(), bytes(value))).collect());
        Ok(Seen { status: answer.status, answer: list.collect(), body: answer.body, upstream })
    }

    fn stop_store(&mut self) -> Result<()> {
        self.shim.kill();
        Ok(())
    }

    fn start_store(&mut self) -> Result<()> {
        self.shim.start_again()?;
        // with requests of which no worker knows anything: first one probes, then more and more of them ask
        let (mut in_a_row, mut asked) = (0, 0);
        wait::until("the store to decide again", || {
            asked += 1;
            let user = format!("probe-{asked}");
            let answer = self.trusted.get(&self.envoy.url("/"), &[("x-user", user.as_bytes())])?;
            let by_store = answer.fallback().is_none();
            in_a_row = if by_store { in_a_row + 1 } else { 0 };
            Ok((in_a_row >= 20).then_some(()))
        })
    }

    fn decisions(&self, lane: &str, limit: &str, outcome: &str) -> Result<u64> {
        self.envoy.admin().decisions(lane, limit, outcome)
    }

    fn charges(&self, lane: &str, limit: &str, outcome: &str, count: u64) -> Result<()> {
        wait_for_charges(&self.envoy, lane, limit, outcome, count)
    }
}

#[test]
fn every_scenario_holds_in_a_real_envoy_over_the_embedded_store() {
    for (name, scenario) in SCENARIOS {
        let mut real = Real::start("memory").unwrap();
        scenario(&mut real).unwrap_or_else(|error| panic!("{name}: {error:#}"));
    }
}

#[test]
fn every_scenario_holds_in_a_real_envoy_over_redis() {
    for (name, scenario) in SCENARIOS {
        let redis = Redis::start().unwrap();
        let mut real = Real::start(&redis.url()).unwrap();
        scenario(&mut real).unwrap_or_else(|error| panic!("{name}: {error:#}"));
    }
}

// What is shipped.

/// Its filter's configuration.
fn shipped_plugin(shipped: Shipped) -> Value {
    let envoy = shipped.envoy().unwrap();
    let filter = &envoy["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"];
    filter["http_filters"][0]["typed_config"]["config"].clone()
}

#[test]
fn each_shipped_configuration_holds_the_policy_beside_it_and_reloads_a_filter_that_has_failed() {
    for shipped in Shipped::ALL {
        let plugin = shipped_plugin(shipped);
        let configured: Value =
            serde_json::from_str(plugin["configuration"]["value"].as_str().unwrap()).unwrap();
        assert_eq!(configured, shipped.policy().unwrap(), "{shipped:?}");
        assert_eq!(plugin["failure_policy"], "FAIL_RELOAD", "{shipped:?}");
    }
}

#[test]
fn all_shipped_configurations_label_metrics_alike() {
    let labels = Shipped::ALL.map(|shipped| shipped.envoy().unwrap()["stats_config"].clone());
    assert!(labels.iter().all(|of| *of == labels[0]), "{labels:?}");
}

#[test]
fn each_shipped_configuration_is_valid_and_so_is_what_stands_in_for_a_service() {
    for shipped in Shipped::ALL {
        let setup = Setup::shipped(shipped, ([127, 0, 0, 1], 1).into());
        let setup = if shipped == Shipped::Demo { setup.store(([127, 0, 0, 1], 2).into()) } else { setup };
        for verdict in [setup.validate().unwrap(), validate(&shipped.upstream().unwrap()).unwrap()] {
            assert!(matches!(verdict, Verdict::Accepted), "{shipped:?}: {verdict:?}");
        }
    }
}

// Counting.

#[test]
fn two_workers_without_a_store_admit_exactly_the_limit() {
    const LIMIT: u32 = 100;
    const SENDERS: usize = 4;
    let upstream = Upstream::start().unwrap();
    let envoy = start(&upstream, standalone(LIMIT));
    let admitted: usize = thread::scope(|scope| {
        let senders: Vec<_> = (0..SENDERS)
            .map(|_| {
                scope.spawn(|| {
                    let client = Client::unkept(TRUSTED).unwrap();
                    let statuses =
                        (0..2_000 / SENDERS).map(|_| get(&client, &envoy, &[("x-user", b"eve")]).status);
                    statuses.filter(|status| *status == 200).count()
                })
            })
            .collect();
        senders.into_iter().map(|sender| sender.join().unwrap()).sum()
    });
    assert_eq!(admitted, LIMIT as usize);
    assert_eq!(upstream.seen().len(), LIMIT as usize);
    for worker in 0..WORKERS {
        let connections = format!("listener.127.0.0.1_0.worker_{worker}.downstream_cx_total");
        assert!(envoy.admin().counter(&connections).unwrap() > 0, "worker {worker} had nothing to count");
    }
}

#[test]
fn a_policy_that_is_accepted_while_running_holds_for_new_connections() {
    let upstream = Upstream::start().unwrap();
    let mut envoy = start(&upstream, standalone(10));
    assert!(matches!(envoy.update_policy(&standalone(20)).unwrap(), Verdict::Accepted));
    let answer = get(&Client::unkept(TRUSTED).unwrap(), &envoy, &[("x-user", b"eve")]);
    assert_eq!(answer.header("ratelimit-policy"), Some(r#""per_user";q=20;w=60"#));
}

#[test]
fn counters_carry_lane_limit_outcome_and_source_as_labels() {
    let upstream = Upstream::start().unwrap();
    let shim = ShimProcess::start("memory").unwrap();
    let envoy = Setup::new(upstream.address()).store(shim.address()).start().unwrap();
    let client = Client::from(TRUSTED).unwrap();
    get(&client, &envoy, &[("x-user", b"eve")]);
    get(&client, &envoy, &[("x-user", b"eve"), ("baggage", b"shadow=true")]);
    for (lane, limit) in [("normal", "per_user"), ("shadow", "shadow_per_user")] {
        let labels = [("lane", lane), ("limit", limit), ("outcome", "admitted"), ("source", "store")];
        assert_eq!(envoy.admin().metric("lanekeeper_decisions_total", &labels).unwrap(), 1, "{labels:?}");
    }
    let answered = envoy.admin().metric("lanekeeper_store_calls_total", &[("outcome", "answered")]).unwrap();
    assert!(answered > 0);
}

// What clients send.

#[test]
fn without_the_filter_nothing_is_counted() {
    let upstream = Upstream::start().unwrap();
    let envoy = Setup::new(upstream.address()).unfiltered().start().unwrap();
    let answer = get(&Client::from(TRUSTED).unwrap(), &envoy, &[("x-user", b"eve")]);
    assert_eq!((answer.status, answer.header("ratelimit")), (200, None));
}

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

// Requests that wait for the store.

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
    let mut leaver = TcpStream::connect(envoy.address()).unwrap();
    leaver.write_all(b"GET /left HTTP/1.1\r\nhost: a\r\nx-user: eve\r\n\r\n").unwrap();
    wait_until_asked(&envoy);
    drop(leaver);
    wait::until("Envoy to see that the client left", || {
        Ok((envoy.admin().counter("http.front.downstream_rq_active")? == 0).then_some(()))
    })
    .unwrap();
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
    let mut leaver = TcpStream::connect(envoy.address()).unwrap();
    leaver.write_all(b"GET /left HTTP/1.1\r\nhost: a\r\nx-user: eve\r\n\r\n").unwrap();
    wait::until("the request to arrive", || Ok((!upstream.seen().is_empty()).then_some(()))).unwrap();
    drop(leaver);
    wait::until("Envoy to see that the client left", || {
        Ok((envoy.admin().counter("http.front.downstream_rq_active")? == 0).then_some(()))
    })
    .unwrap();
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
