//! What does it cost to find a request's lane?
#![allow(missing_docs, reason = "criterion's macros make public functions")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use lanekeeper_benches::ordinary::{headers, policy};
use lanekeeper_engine::lane::{parse_source, sort};

fn lane_detection(c: &mut Criterion) {
    let policy = policy();
    let trusted = || parse_source(b"10.0.0.1:1");
    let untrusted = || parse_source(b"203.0.113.7:1");
    let many = (0..63).map(|n| format!("key{n}=value{n}")).collect::<Vec<_>>().join(",") + ",shadow=true";
    let mut group = c.benchmark_group("lane_detection");
    let mut bench = |name: &str, baggage: &str, source: &dyn Fn() -> _| {
        let headers = headers(baggage);
        group.bench_function(name, |b| b.iter(|| sort(&policy, black_box(&headers), source)));
    };
    bench("no_flag", "tenant=7,region=eu", &trusted);
    bench("trusted_flag", "tenant=7,shadow=true", &trusted);
    bench("stripped_flag", "tenant=7,shadow=true", &untrusted);
    bench("flag_behind_63_members", &many, &trusted);
    group.finish();
}

criterion_group!(benches, lane_detection);
criterion_main!(benches);
