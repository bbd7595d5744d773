//! What does a decision on this node's own counters cost, from the headers to the answer's headers?
//!
//! The host's map is a plain one here: two lock-free look-ups stand where a proxy has two host calls.
#![allow(missing_docs, reason = "criterion's macros make public functions")]

use std::hint::black_box;
use std::num::NonZeroU32;

use criterion::{Criterion, criterion_group, criterion_main};
use lanekeeper_benches::ordinary::{headers, policy};
use lanekeeper_engine::breaker::Entry;
use lanekeeper_engine::headers::Headers;
use lanekeeper_engine::lane::parse_source;
use lanekeeper_engine::local::{LocalCounters, MemoryCells};
use lanekeeper_engine::policy::Policy;
use lanekeeper_engine::request::{Facts, Request, Step};
use lanekeeper_engine::units::Timestamp;

fn decide(policy: &Policy, headers: &Headers, cells: &MemoryCells, now: Timestamp) -> Step {
    let client = || parse_source(b"203.0.113.7:1");
    let facts = Facts {
        headers,
        client: &client,
        chance: &|| 0,
        now: Timestamp::default(),
        enter: &|_, _, _| Entry::Pass(None),
    };
    let (mut request, _) = Request::arrive(policy, &facts);
    let counters = LocalCounters::new((1, 2));
    let answers = request.checks().map(|check| counters.decide(cells, check, NonZeroU32::MIN, now)).collect();
    request.counted(policy, answers)
}

fn local_decision(c: &mut Criterion) {
    let (policy, headers) = (policy(), headers("tenant=7,region=eu"));
    let mut group = c.benchmark_group("local_decision");
    for (name, step_us) in [("quiet_subject", 10_000_000_u64), ("hot_subject", 10)] {
        let (cells, mut now) = (MemoryCells::default(), 1_u64 << 40);
        group.bench_function(name, |b| {
            b.iter(|| {
                now += step_us;
                decide(&policy, black_box(&headers), &cells, Timestamp::from_micros(now))
            });
        });
    }
    group.finish();
}

criterion_group!(benches, local_decision);
criterion_main!(benches);
