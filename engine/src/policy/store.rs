//! The store: where it is asked, how long it may take, and when it is left alone.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::read::Node;
use super::{CircuitSettings, OnFailure, Share, Store};

/// Within a data centre an answer takes about a millisecond; a request should not wait for a lost one for long.
const TIMEOUT: Duration = Duration::from_millis(20);
/// A host truncates a shorter timeout to none at all, and what is asked for longer may no longer be spent.
const TIMEOUTS: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(10);
/// 1 %: below it leases save little, above it a limit is visibly lower than written.
const MAX_DRIFT: Share = Share::from_millionths(10_000);
const CIRCUIT: CircuitSettings =
    CircuitSettings { failures: 10, slow: Duration::from_millis(10), probe_every: Duration::from_secs(1) };
const PROBES: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(3600);

/// Reads `store`, with what limits do by default while it cannot decide.
pub(super) fn read(node: &Node<'_>) -> Option<(Store, OnFailure)> {
    let fields =
        node.fields(&["cluster", "timeout", "max_drift", "on_failure", "circuit", "token_env"], &[])?;
    let cluster = fields
        .need("cluster", ": the Envoy cluster of the shim; without `store` each node counts on its own")
        .and_then(|node| node.text().map(str::to_owned));
    let timeout = fields.or("timeout", TIMEOUT, |node| node.duration(TIMEOUTS));
    let max_drift = fields.or("max_drift", MAX_DRIFT, |node| node.percent());
    let on_failure = fields.or("on_failure", OnFailure::Local, |node| self::on_failure(&node));
    let circuit = fields.or("circuit", CIRCUIT, |node| read_circuit(&node));
    let token_env = fields.maybe("token_env", |node| environment_variable(&node));
    let store = Store {
        cluster: cluster?,
        timeout: timeout?,
        max_drift: max_drift?,
        circuit: circuit?,
        token_env: token_env?,
    };
    Some((store, on_failure?))
}

/// Reads `on_failure`, of the store or of a limit.
pub(super) fn on_failure(node: &Node<'_>) -> Option<OnFailure> {
    let words = [("local", OnFailure::Local), ("open", OnFailure::Open), ("closed", OnFailure::Closed)];
    node.one_of(&words, &[])
}

fn read_circuit(node: &Node<'_>) -> Option<CircuitSettings> {
    let fields = node.fields(&["failures", "slow", "probe_every"], &[])?;
    let failures = fields.or("failures", CIRCUIT.failures, |node| node.whole(1..=1_000_000));
    let slow = fields.or("slow", CIRCUIT.slow, |node| node.duration(TIMEOUTS));
    let probe_every = fields.or("probe_every", CIRCUIT.probe_every, |node| node.duration(PROBES));
    Some(CircuitSettings { failures: failures?, slow: slow?, probe_every: probe_every? })
}

fn environment_variable(node: &Node<'_>) -> Option<String> {
    let name = node.text()?;
    let good = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && !name.starts_with(|first: char| first.is_ascii_digit());
    node.demand(good, "must be the name of an environment variable: letters, digits and _, no digit first")?;
    Some(name.to_owned())
}
