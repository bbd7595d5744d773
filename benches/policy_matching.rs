//! What does it cost to find the limits that concern a request, and the keys of its counters?
#![allow(missing_docs, reason = "criterion's macros make public functions")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use lanekeeper_benches::ordinary::{headers, policy};
use lanekeeper_engine::breaker::Entry;
use lanekeeper_engine::lane::parse_source;
use lanekeeper_engine::request::{Facts, Request};
use lanekeeper_engine::units::Timestamp;

fn policy_matching(c: &mut Criterion) {
    let policy = policy();
    let headers = headers("tenant=7,region=eu");
    let client = || parse_source(b"203.0.113.7:1");
    let facts = Facts {
        headers: &headers,
        client: &client,
        chance: &|| 0,
        now: Timestamp::default(),
        enter: &|_, _, _| Entry::Pass(None),
    };
    c.bench_function("policy_matching/two_of_ten_limits", |b| {
        b.iter(|| Request::arrive(&policy, black_box(&facts)));
    });
}

criterion_group!(benches, policy_matching);
criterion_main!(benches);
