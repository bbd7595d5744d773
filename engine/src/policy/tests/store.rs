//! The store's settings.

use std::time::Duration;

use super::*;

fn store(said: Value) -> Value {
    json!({"version": 1, "store": said})
}

#[test]
fn a_store_that_names_its_cluster_alone_has_the_documented_defaults() {
    assert_eq!(
        loaded(&store(json!({"cluster": "lanekeeper"}))).store,
        Some(Store {
            cluster: "lanekeeper".to_owned(),
            timeout: Duration::from_millis(20),
            max_drift: Share::from_millionths(10_000),
            circuit: CircuitSettings {
                failures: 10,
                slow: Duration::from_millis(10),
                probe_every: Duration::from_secs(1),
            },
            token_env: None,
        })
    );
}

#[test]
fn everything_about_a_store_can_be_said() {
    let said = loaded(&store(json!({
        "cluster": "outbound|8080||lanekeeper.mesh.svc.cluster.local",
        "timeout": "1s",
        "max_drift": 0,
        "on_failure": "closed",
        "circuit": {"failures": 3, "slow": "50ms", "probe_every": "5s"},
        "token_env": "LANEKEEPER_TOKEN",
    })));
    assert_eq!(
        said.store,
        Some(Store {
            cluster: "outbound|8080||lanekeeper.mesh.svc.cluster.local".to_owned(),
            timeout: Duration::from_secs(1),
            max_drift: Share::NONE,
            circuit: CircuitSettings {
                failures: 3,
                slow: Duration::from_millis(50),
                probe_every: Duration::from_secs(5),
            },
            token_env: Some("LANEKEEPER_TOKEN".to_owned()),
        })
    );
}

#[test]
fn what_a_limit_does_on_failure_is_its_own_word_or_the_stores() {
    let policy = loaded(&with(
        store(json!({"cluster": "lanekeeper", "on_failure": "open"})),
        json!({"rate_limits": {"a": limit(json!({})), "b": limit(json!({"on_failure": "closed"}))}}),
    ));
    let on_failure: Vec<OnFailure> = policy.lanes[0].limits.iter().map(|l| count(l).on_failure).collect();
    assert_eq!(on_failure, [OnFailure::Open, OnFailure::Closed]);
}

#[test]
fn errors_of_a_store_name_the_range() {
    let duration = |from, to| {
        format!("must be a duration from {from} to {to}: a whole number and its unit, ms, s, m, h or d")
    };
    check(
        store(json!({"timeout": "11s", "max_drfit": "1%"})),
        &[
            "store.max_drfit: \"1%\": is an unknown field; allowed: cluster, timeout, max_drift, on_failure, circuit, \
             token_env; did you mean `max_drift`?",
            "store.cluster: is required: the Envoy cluster of the shim; without `store` each node counts on its own",
            &format!("store.timeout: \"11s\": {}", duration("1ms", "10s")),
        ],
    );
    let percent = "must be a percentage from 0% to 100% with at most four decimals, such as 1% or 0.5%";
    for (wrong, shown) in
        [(json!(1), "1"), (json!("101%"), "\"101%\""), (json!("1"), "\"1\""), (json!(null), "null")]
    {
        check(
            store(json!({"cluster": "c", "max_drift": wrong})),
            &[&format!("store.max_drift: {shown}: {percent}")],
        );
    }
    check(
        store(json!({"cluster": "c", "on_failure": "fail-open", "token_env": "1TOKEN"})),
        &[
            "store.on_failure: \"fail-open\": must be one of local, open, closed",
            "store.token_env: \"1TOKEN\": must be the name of an environment variable: letters, digits and _, \
             no digit first",
        ],
    );
    check(
        store(
            json!({"cluster": "", "timeout": 20, "circuit": {"failures": 0, "slow": "0ms", "probe_every": "1d"}}),
        ),
        &[
            "store.cluster: \"\": must not be empty",
            &format!("store.timeout: 20: {}", duration("1ms", "10s")),
            "store.circuit.failures: 0: must be a whole number from 1 to 1000000",
            &format!("store.circuit.slow: \"0ms\": {}", duration("1ms", "10s")),
            &format!("store.circuit.probe_every: \"1d\": {}", duration("10ms", "1h")),
        ],
    );
    check(store(json!({"cluster": 5})), &["store.cluster: 5: must be a text: write it in quotes"]);
    check(store(json!({"cluster": "a\nb"})), &["store.cluster: \"a\\nb\": must not hold control characters"]);
}
