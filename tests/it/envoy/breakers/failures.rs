//! What counts as a failure, and how Envoy names it.
//!
//! Each case has a command of its own, whose breaker opens with the first failure; so its state says what was counted. The
//! details are Envoy's own, from its access log: if a later version names them otherwise, these tests say so.

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr};

use lanekeeper_tests::failing::Manner;
use tokio::net::TcpSocket;

use super::*;

const NORMAL: Lane = Lane::Normal;

/// A running Envoy whose routes fail in ways of their own, before a service that fails as it is told.
struct Cases {
    service: Failing,
    envoy: Envoy,
}

impl Cases {
    /// For these commands.
    fn start(commands: &[&str]) -> Self {
        Self::start_with(policy_for(commands))
    }

    fn start_with(policy: Value) -> Self {
        let service = Failing::start().unwrap();
        let envoy = envoy(service.address(), policy);
        Self { service, envoy }
    }

    fn serve(&self, manner: Manner) {
        self.service.serve(NORMAL, manner);
    }

    fn get(&self, command: &str) {
        get(&self.envoy, command);
    }

    /// A gRPC call.
    fn call(&self, command: &str) {
        let headers: [(&str, &[u8]); 2] = [("content-type", b"application/grpc"), ("te", b"trailers")];
        let client = Client::http2(TRUSTED).unwrap();
        let _ = client.post(&self.envoy.url(&format!("/{command}/")), &headers, vec![0; 5]);
    }

    fn check(&self, command: &str, details: &str, is_failure: bool) {
        check(&self.envoy, command, details, is_failure);
    }
}

fn policy_for(commands: &[&str]) -> Value {
    policy(commands, json!({"default": {"consecutive_failures": 1, "open_for": "1m"}}))
}

fn envoy(upstream: SocketAddr, policy: Value) -> Envoy {
    // one worker: what it has counted, its gauges say
    let setup = Setup::new(upstream).policy(policy).workers(1);
    setup.upstream_trailers().edited(with_more_routes).start().unwrap()
}

/// How the one request for a command ends for its client does not matter here: some are cut off.
fn get(envoy: &Envoy, command: &str) {
    let client = Client::unkept(TRUSTED).unwrap();
    let _ = client.get(&envoy.url(&format!("/{command}/")), &[]);
}

/// Checks how Envoy names the end of a request for a command, and what its breaker made of it.
fn check(envoy: &Envoy, command: &str, details: &str, is_failure: bool) {
    wait_for_streams(envoy);
    let line = format!("ended /{command}/ {details} ");
    let is_logged = || envoy.log().lines().any(|logged| logged.starts_with(&line));
    wait::until(&line, || Ok(is_logged().then_some(()))).unwrap();
    let is_open = state(envoy, NORMAL, command) == 2;
    assert_eq!(is_open, is_failure, "{command}, {details}");
}

/// Adds an access log, a filter behind ours that answers by itself, and routes that time out, answer by themselves, or
/// lead to where nobody is or nobody has room.
fn with_more_routes(clusters: &mut Value, listener: &mut Value) {
    let manager = &mut listener["filter_chains"][0]["filters"][0]["typed_config"];
    let format = "ended %REQ(:path)% %RESPONSE_CODE_DETAILS% %RESPONSE_FLAGS%\n";
    manager["access_log"] = json!([{"name": "stdout", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog",
        "log_format": {"text_format_source": {"inline_string": format}},
    }}]);
    let other_filter = json!({"name": "fault", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault",
        "abort": {"http_status": 503, "percentage": {"numerator": 100}},
        "headers": [{"name": ":path", "string_match": {"exact": "/other_filter/"}}],
    }});
    manager["http_filters"].as_array_mut().unwrap().insert(1, other_filter);

    let to = |command: &str, cluster: &str, more: Value| {
        let mut route = json!({"cluster": cluster, "timeout": "0s"});
        route.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"match": {"prefix": format!("/{command}")}, "route": route})
    };
    let routes = manager["route_config"]["virtual_hosts"][0]["routes"].as_array_mut().unwrap();
    let more = [
        to("response", "upstream", json!({"timeout": "0.1s"})),
        to("each_try", "upstream", json!({"retry_policy": {"per_try_timeout": "0.1s"}})),
        to("quiet_try", "upstream", json!({"retry_policy": {"per_try_idle_timeout": "0.1s"}})),
        to("idle", "upstream", json!({"idle_timeout": "0.1s"})),
        to("duration", "upstream", json!({"max_stream_duration": {"max_stream_duration": "0.1s"}})),
        to("cluster_duration", "hasty", json!({})),
        to("hurry", "hurried", json!({})),
        to("nobody", "nobody", json!({})),
        to("no_room", "narrow", json!({})),
        json!({"match": {"path": "/direct/"}, "direct_response": {"status": 503}}),
    ];
    routes.splice(0..0, more);

    let clusters = clusters.as_array_mut().unwrap();
    let like_upstream = |name: &str| {
        let mut cluster = clusters[0].clone();
        cluster["name"] = json!(name);
        cluster["load_assignment"]["cluster_name"] = json!(name);
        clusters.push(cluster);
        clusters.len() - 1
    };
    let [hasty, hurried, narrow, nobody] = ["hasty", "hurried", "narrow", "nobody"].map(like_upstream);
    let options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    let hasty = &mut clusters[hasty]["typed_extension_protocol_options"][options];
    hasty["common_http_protocol_options"] = json!({"max_stream_duration": "0.1s"});
    clusters[hurried]["connect_timeout"] = json!("0.1s");
    clusters[narrow]["circuit_breakers"] = json!({"thresholds": [{"max_pending_requests": 0}]});
    clusters[nobody]["load_assignment"]["endpoints"] = json!([]);
}

#[test]
fn an_answer_counts_by_its_status_and_by_its_grpc_status_wherever_that_stands() {
    let answers = [
        ("ok", Manner::Status(200), false),
        ("not_found", Manner::Status(404), false),
        ("too_many", Manner::Status(429), false),
        ("broken", Manner::Status(500), true),
        ("unavailable", Manner::Status(503), true),
    ];
    let calls = [
        ("fine", Manner::GrpcTrailers(0), false),
        ("unknown", Manner::GrpcTrailers(5), false),
        ("down", Manner::GrpcTrailers(14), true),
        ("fine_alone", Manner::GrpcAlone(0), false),
        ("unknown_alone", Manner::GrpcAlone(5), false),
        ("down_alone", Manner::GrpcAlone(14), true),
    ];
    let commands: Vec<&str> = answers.iter().chain(&calls).map(|(command, ..)| *command).collect();
    let cases = Cases::start(&commands);
    for (command, manner, is_failure) in answers {
        cases.serve(manner);
        cases.get(command);
        cases.check(command, "via_upstream", is_failure);
    }
    for (command, manner, is_failure) in calls {
        cases.serve(manner);
        cases.call(command);
        cases.check(command, "via_upstream", is_failure);
    }
}

#[test]
fn a_connection_that_breaks_counts_before_the_answer_and_amid_it() {
    let breaks = [
        ("reset", Manner::ResetBefore, "upstream_reset_before_response_started{connection_termination}"),
        ("closed", Manner::Close, "upstream_reset_before_response_started{connection_termination}"),
        ("nonsense", Manner::Nonsense, "upstream_reset_before_response_started{protocol_error}"),
        ("amid", Manner::ResetAmid, "upstream_reset_after_response_started{protocol_error}"),
    ];
    let cases = Cases::start(&breaks.map(|(command, ..)| command));
    for (command, manner, details) in breaks {
        cases.serve(manner);
        cases.get(command);
        cases.check(command, details, true);
    }
}

const REFUSED: &str = "upstream_reset_before_response_started{remote_connection_failure|delayed_connect_error:_Connection_refused}";

#[test]
fn a_connection_that_is_refused_counts() {
    let mut cases = Cases::start(&["refused"]);
    cases.service.refuse_connections().unwrap();
    cases.get("refused");
    cases.check("refused", REFUSED, true);
}

#[test]
fn a_connection_that_nobody_takes_counts() {
    // its queue has room for one, and one more waits before it
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let listener = runtime
        .block_on(async {
            let socket = TcpSocket::new_v4()?;
            socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
            socket.listen(1)
        })
        .unwrap();
    let address = listener.local_addr().unwrap();
    let _queue = [TcpStream::connect(address).unwrap(), TcpStream::connect(address).unwrap()];

    let envoy = envoy(address, policy_for(&["hurry"]));
    get(&envoy, "hurry");
    check(&envoy, "hurry", "upstream_reset_before_response_started{connection_timeout}", true);
}

#[test]
fn an_answer_that_does_not_come_in_time_counts_if_it_was_the_upstreams_time() {
    let timeouts = [
        ("response", "response_timeout", true),
        ("each_try", "upstream_per_try_timeout", true),
        ("quiet_try", "upstream_per_try_idle_timeout", true),
        ("cluster_duration", "upstream_max_stream_duration_reached", true),
        // these two count all that a stream waits for: another filter, or a client that does not read
        ("idle", "stream_idle_timeout", false),
        ("duration", "max_duration_timeout", false),
    ];
    let cases = Cases::start(&timeouts.map(|(command, ..)| command));
    cases.serve(Manner::Hang);
    for (command, details, is_failure) in timeouts {
        cases.get(command);
        cases.check(command, details, is_failure);
    }
}

#[test]
fn what_envoy_or_another_filter_answers_never_counts() {
    let others = [
        ("other_filter", "fault_filter_abort"),
        ("direct", "direct_response"),
        ("nobody", "no_healthy_upstream"),
        ("no_room", "upstream_reset_before_response_started{overflow}"),
    ];
    let cases = Cases::start(&others.map(|(command, _)| command));
    for (command, details) in others {
        cases.get(command);
        cases.check(command, details, false);
    }
    assert_eq!(cases.service.book().calls(NORMAL).count(), 0, "the upstream had nothing to do with it");
}

#[test]
fn what_lanekeeper_refuses_never_counts() {
    let mut policy =
        policy(&["limited"], json!({"limited": {"consecutive_failures": 1, "max_concurrent": 1}}));
    policy["rate_limits"] = json!({"once": {
        "keys": {"all": {"constant": "all"}}, "windows": [{"limit": 1, "per": "1h"}],
    }});
    let cases = Cases::start_with(policy);
    cases.get("limited");
    cases.check("limited", "via_upstream", false);
    for _ in 0..3 {
        cases.get("limited");
    }
    cases.check("limited", "lanekeeper_over_limit", false);
}

#[test]
fn a_client_that_leaves_never_counts_before_the_answer_or_amid_it() {
    let cases = Cases::start(&["before", "amid", "grpc"]);
    cases.serve(Manner::Hang);
    drop(hold(&cases.service, &cases.envoy, NORMAL, "/before/", 1));
    cases.check("before", "downstream_remote_disconnect", false);

    cases.serve(Manner::HangAmid);
    let mut client = begin(&cases.envoy, NORMAL, "/amid/");
    let mut half = Vec::new();
    while !half.ends_with(b"half") {
        let mut part = [0; 1024];
        let count = client.read(&mut part).unwrap();
        half.extend_from_slice(&part[..count]);
    }
    drop(client);
    cases.check("amid", "downstream_remote_disconnect", false);

    let client = Client::http2(TRUSTED).unwrap();
    client.abandon(&cases.envoy.url("/grpc/"), &[("content-type", b"application/grpc")], vec![0; 5]).unwrap();
    cases.check("grpc", "http2.remote_reset", false);
}

#[test]
fn of_what_fails_only_what_the_policy_lists_counts() {
    const KINDS: [(&str, Manner, &str); 4] = [
        ("5xx", Manner::Status(500), "via_upstream"),
        ("reset", Manner::ResetBefore, "upstream_reset_before_response_started{connection_termination}"),
        ("timeout", Manner::Hang, "response_timeout"),
        ("connect", Manner::Status(200), REFUSED),
    ];
    // those that are to time out take the route that does
    let name = |kind: &str, listed: &str| {
        let route = if kind == "timeout" { "response" } else { "any" };
        format!("{route}_{kind}_listed_{listed}")
    };
    let pairs = || KINDS.iter().flat_map(|(kind, ..)| KINDS.iter().map(move |(listed, ..)| (*kind, *listed)));
    let entry = |(kind, listed): (&str, &str)| {
        let entry = json!({"consecutive_failures": 1, "open_for": "1m", "failures": [listed]});
        (name(kind, listed), entry)
    };
    let resilience: serde_json::Map<_, _> = pairs().map(entry).collect();
    let commands: Vec<&str> = resilience.keys().map(String::as_str).collect();
    let mut cases = Cases::start_with(policy(&commands, json!(resilience)));
    for (kind, manner, details) in KINDS {
        cases.serve(manner);
        if kind == "connect" {
            cases.service.refuse_connections().unwrap();
        }
        for (listed, ..) in KINDS {
            cases.get(&name(kind, listed));
            cases.check(&name(kind, listed), details, kind == listed);
        }
    }
}
