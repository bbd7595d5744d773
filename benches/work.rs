//! What does a request cost in host calls and wasm instructions?
//!
//! A time says it too, with all the noise of the machine it was taken on; these are the same in every run, so a test
//! can hold them. The built plugin runs on the fake host, on a clock that moves a millisecond from request to request,
//! with the embedded store behind it. A request's whole life counts: its headers, the answer's headers with what the
//! limits write into them, its end, and whatever timers and questions fall in between, spread over all requests.
//!
//! Host calls weigh more than instructions: each leaves the VM, and most copy.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use anyhow::{Result, ensure};
use lanekeeper_tests::fake_shim::Store;
use lanekeeper_tests::host::{Host, Request, State};
use serde_json::{Value, json};

use crate::ordinary;
use crate::record::{Record, Row};

/// By how much a figure may grow over the recorded one.
pub const MAY_GROW: f64 = 0.10;
/// The figures that may not grow by more.
const HELD: [&str; 2] = ["host_calls", "fuel"];

/// Requests before those that are measured. By then memory is grown, counters are defined, and what is remembered
/// or leased is so.
const WARM_UP: u32 = 200;
const STEP: Duration = Duration::from_millis(1);
/// What no subject comes near to here.
const PER_MINUTE: u32 = 1_000_000;
const PER_HOUR: u32 = 20_000_000;

/// The limits of a policy with two.
const LIMITS: [&str; 2] = ["per_user", "per_shop"];

/// The command of every request.
const COMMAND: &str = "vouchers";

/// How many requests are measured in each case.
#[derive(Clone, Copy, Debug)]
pub struct Size(u32);

impl Size {
    /// What the figures on file are of: a second of requests.
    pub const FULL: Self = Self(1000);
    /// For a quick look.
    pub const SHORT: Self = Self(100);
}

/// Who decides on a request, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Road {
    /// The worker allows it with tokens of a lease.
    Leased,
    /// The worker refuses it, as the store has refused it before.
    Remembered,
    /// The store allows it: its subjects were never seen.
    Cold,
    /// This node's counters allow it: there is no store.
    Local,
    /// The open breaker of its command refuses it.
    Broken,
}

/// What stands between a request's command and its upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// Nothing.
    None,
    /// A breaker.
    Breaker,
    /// A breaker that counts how many calls are under way.
    Bulkhead,
}

/// One kind of requests.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    road: Road,
    limits: usize,
    windows: usize,
    /// Whether the answer gets the older headers beside the draft's.
    older_headers: bool,
    guard: Guard,
}

/// What the requests of a case took together.
#[derive(Clone, Debug)]
pub struct Work {
    /// Whose.
    pub case: Case,
    /// How many they were.
    pub requests: u32,
    /// Their host calls, by name.
    pub calls: BTreeMap<&'static str, u64>,
    /// The fuel that wasmtime took for them: a unit is about an instruction.
    pub fuel: u64,
}

impl Road {
    fn name(self) -> &'static str {
        match self {
            Self::Leased => "leased",
            Self::Remembered => "remembered",
            Self::Cold => "cold",
            Self::Local => "local",
            Self::Broken => "broken",
        }
    }

    /// The counter of what it decides about this limit. A breaker is asked before all limits.
    fn counter(self, limit: &str) -> String {
        let so = match self {
            Self::Leased => "outcome.admitted.source.lease",
            Self::Remembered => "outcome.rejected.source.remembered",
            Self::Cold => "outcome.admitted.source.store",
            Self::Local => "outcome.admitted.source.local",
            Self::Broken => {
                let refusals = "lanekeeper.breaker_refusals_total.lane.normal";
                return format!("{refusals}.command.{COMMAND}.outcome.rejected.reason.open");
            }
        };
        format!("lanekeeper.decisions_total.lane.normal.limit.{limit}.{so}")
    }

    /// How many times it is counted for a request under so many limits: of those that refuse one is named.
    fn counts(self, limits: usize) -> u64 {
        match self {
            Self::Remembered | Self::Broken => 1,
            Self::Leased | Self::Cold | Self::Local => limits as u64,
        }
    }

    /// Whether the policy has a store.
    fn has_store(self) -> bool {
        self != Self::Local
    }
}

impl Guard {
    fn name(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Breaker => "_breaker",
            Self::Bulkhead => "_breaker_and_bulkhead",
        }
    }

    /// What `resilience` says of the command.
    fn entry(self) -> Option<Value> {
        match self {
            Self::None => None,
            Self::Breaker => Some(json!({})),
            Self::Bulkhead => Some(json!({"max_concurrent": 100})),
        }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |count| if count == 1 { "one" } else { "two" };
        let many = |count| if count == 1 { "" } else { "s" };
        let Self { road, limits, windows, older_headers, guard } = *self;
        write!(f, "{}_{}_limit{}", road.name(), number(limits), many(limits))?;
        write!(f, "_{}_window{}", number(windows), many(windows))?;
        f.write_str(if older_headers { "_older_headers" } else { "" })?;
        f.write_str(guard.name())
    }
}

impl Case {
    /// Every kind, in the order in which they are shown.
    pub fn all() -> Vec<Self> {
        let mut cases = Vec::new();
        for road in [Road::Leased, Road::Remembered, Road::Cold, Road::Local] {
            for (limits, windows) in [(1, 1), (1, 2), (2, 1), (2, 2)] {
                cases.push(Self::unguarded(road, limits, windows));
            }
            if road != Road::Remembered {
                cases.push(Self { older_headers: true, ..Self::unguarded(road, 2, 2) });
            }
        }
        cases.extend(Self::guarded());
        cases
    }

    /// Those with a breaker.
    fn guarded() -> Vec<Self> {
        let guards = [Guard::Breaker, Guard::Bulkhead];
        let of = |road| guards.map(|guard| Self { guard, ..Self::unguarded(road, 1, 1) });
        let broken = Self { guard: Guard::Breaker, ..Self::unguarded(Road::Broken, 1, 1) };
        [Road::Leased, Road::Remembered, Road::Local].into_iter().flat_map(of).chain([broken]).collect()
    }

    fn unguarded(road: Road, limits: usize, windows: usize) -> Self {
        Self { road, limits, windows, older_headers: false, guard: Guard::None }
    }

    /// Measures requests of this kind, one after the other.
    pub fn measure(self, size: Size) -> Result<Work> {
        let host = Host::builder().metered().start(&self.policy().to_string())?;
        if self.road.has_store() {
            Store::new().serve(&host);
        }
        let requests = size.0;
        (0..WARM_UP).for_each(|number| self.send(&host, number));
        let decided_before = self.decided(&host);
        host.reset_counts();
        (WARM_UP..WARM_UP + requests).for_each(|number| self.send(&host, number));
        let work = Work {
            case: self,
            requests,
            calls: host.calls().into_iter().collect(),
            fuel: host.work().values().map(|work| work.fuel).sum(),
        };
        let decided = self.decided(&host) - decided_before;
        let expected = u64::from(requests) * self.road.counts(self.limits);
        ensure!(decided == expected, "{self}: {decided} decisions instead of {expected} were so");
        ensure!(host.traps().is_empty(), "{self}: {:?}", host.traps());
        Ok(work)
    }

    /// One request from its first header to its end.
    fn send(self, host: &Host, number: u32) {
        host.advance(STEP);
        // subjects are of one length, whoever they are
        let subject = if self.road == Road::Cold { number } else { 0 };
        let (user, shop) = (format!("u{subject:07}"), format!("s{subject:07}"));
        let headers = ordinary::browser("tenant=7,region=eu");
        let subjects = [("x-user", user.as_str()), ("x-shop", shop.as_str())];
        let headers: Vec<(&str, &str)> = headers.into_iter().chain(subjects).collect();
        let stream = host.worker(0).request(Request::from(headers.as_slice()));
        if stream.state() == State::Continued {
            // the first failures open the breaker for longer than the measured requests take
            let status = if self.road == Road::Broken { "500" } else { "200" };
            let told = (self.guard != Guard::None).then_some(("x-envoy-upstream-service-time", "1"));
            let headers = [
                (":status", status),
                ("content-type", "application/json"),
                ("content-length", "1024"),
                ("server", "shop"),
            ];
            stream.respond(headers.into_iter().chain(told).collect::<Vec<_>>().as_slice());
        }
        stream.end();
    }

    fn policy(self) -> Value {
        // one request fills every window where the next are to be refused
        let most = |limit| if self.road == Road::Remembered { 1 } else { limit };
        let windows =
            [json!({"limit": most(PER_MINUTE), "per": "1m"}), json!({"limit": most(PER_HOUR), "per": "1h"})];
        let windows: Vec<&Value> = windows.iter().take(self.windows).collect();
        let keys = [json!({"user": [{"header": "x-user"}]}), json!({"shop": [{"header": "x-shop"}]})];
        let limits = LIMITS.iter().zip(keys).take(self.limits);
        let limits =
            limits.map(|(name, keys)| ((*name).to_owned(), json!({"keys": keys, "windows": windows})));
        let headers: &[&str] = if self.older_headers { &["draft", "legacy"] } else { &["draft"] };
        let mut policy = json!({
            "version": 1,
            "lanes": {"shadow": {
                "flag": [{"baggage": "shadow", "values": ["true"]}],
                "trust": [{"source_cidr": ["10.0.0.0/8"]}],
                "propagate": [{"baggage": "shadow", "value": "true"}],
            }},
            "rate_limits": limits.collect::<serde_json::Map<_, _>>(),
            "responses": {"headers": headers},
        });
        let store = self.road.has_store().then(|| ("store".to_owned(), json!({"cluster": "lanekeeper"})));
        let commands = json!([{"command": COMMAND, "match": {"path": {"prefix": "/api/"}}}]);
        let guarded = self.guard.entry().map(|entry| {
            [("commands".to_owned(), commands), ("resilience".to_owned(), json!({COMMAND: entry}))]
        });
        if let Some(policy) = policy.as_object_mut() {
            policy.extend(store.into_iter().chain(guarded.into_iter().flatten()));
        }
        policy
    }

    /// How many decisions were as this road has them.
    fn decided(self, host: &Host) -> u64 {
        let counters: BTreeSet<String> = LIMITS.iter().map(|limit| self.road.counter(limit)).collect();
        counters.iter().map(|name| host.counter(name).unwrap_or_default()).sum()
    }
}

impl Work {
    /// What one request took of this, on average.
    pub fn per_request(&self, of_all: u64) -> f64 {
        of_all as f64 / f64::from(self.requests)
    }

    /// Its row in the record.
    pub fn row(&self) -> Row {
        let host_calls = self.per_request(self.calls.values().sum());
        // as many digits as the file's readers can use
        let figures = [
            ("host_calls", (host_calls * 1000.0).round() / 1000.0),
            ("fuel", self.per_request(self.fuel).round()),
        ];
        Row::new(self.case.to_string(), figures)
    }
}

/// What has grown by more than [`MAY_GROW`] since it was recorded, in words, with what to do about it.
pub fn grown(recorded: &Record, measured: &[Row]) -> Vec<String> {
    let advice = "if that is worth it, record it with `cargo xtask bench work --record`";
    let mut grown = Vec::new();
    for row in measured {
        let case = &row.case;
        let Some(before) = recorded.row(case) else {
            grown.push(format!("{case} is not on file: record it with `cargo xtask bench work --record`"));
            continue;
        };
        for figure in HELD {
            let (before, after) = (before.figure(figure), row.figure(figure));
            // a figure that is not there is no number, and within nothing
            let is_within = after <= before * (1.0 + MAY_GROW);
            if !is_within {
                let growth = (after / before - 1.0) * 100.0;
                grown
                    .push(format!("{case}: {figure} was {before} and is {after} ({growth:+.0} %); {advice}"));
            }
        }
    }
    grown
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::documents;

    fn row(host_calls: f64, fuel: f64) -> Row {
        Row::new("cold", [("host_calls", host_calls), ("fuel", fuel)])
    }

    #[test]
    fn no_request_takes_a_tenth_more_work_than_recorded() {
        let recorded = Record::read(&documents::recorded(), "work").unwrap();
        let measured: Vec<Row> =
            Case::all().into_iter().map(|case| case.measure(Size::FULL).unwrap().row()).collect();
        let grown = grown(&recorded, &measured);
        assert!(grown.is_empty(), "{}", grown.join("\n"));
    }

    #[test]
    fn a_request_under_a_lease_makes_eight_host_calls_at_most_and_hardly_a_question() {
        let is_leased =
            |case: &Case| case.road == Road::Leased && !case.older_headers && case.guard == Guard::None;
        for case in Case::all().into_iter().filter(is_leased) {
            let work = case.measure(Size::FULL).unwrap();
            let questions = work.per_request(work.calls.get("proxy_http_call").copied().unwrap_or_default());
            assert!(work.row().figure("host_calls") <= 8.0 && questions < 0.01, "{case}: {:?}", work.calls);
        }
    }

    /// The answer's headers, and how it ended. What the workers share is looked at now and then.
    #[test]
    fn a_breaker_costs_a_request_two_host_calls_and_an_eighth_of_one_at_most() {
        let measured = |case: Case| case.measure(Size::FULL).unwrap();
        for case in Case::guarded().into_iter().filter(|case| case.road != Road::Broken) {
            let (with, without) = (measured(case), measured(Case { guard: Guard::None, ..case }));
            let more = with.row().figure("host_calls") - without.row().figure("host_calls");
            assert!(more <= 2.125, "{case}: {more} more: {:?} and {:?}", with.calls, without.calls);
        }
    }

    #[test]
    fn an_open_breaker_refuses_without_a_look_at_what_the_workers_share() {
        for case in Case::guarded().into_iter().filter(|case| case.road == Road::Broken) {
            let calls = case.measure(Size::FULL).unwrap().calls;
            assert!(!calls.keys().any(|name| name.contains("shared_data")), "{calls:?}");
        }
    }

    #[test]
    fn a_second_run_of_a_case_counts_the_same() {
        for case in Case::all() {
            let [first, second] = [(); 2].map(|()| case.measure(Size::SHORT).unwrap());
            assert_eq!((first.calls, first.fuel), (second.calls, second.fuel), "{case}");
        }
    }

    #[test]
    fn whatever_grows_by_more_than_a_tenth_is_named_with_what_to_do() {
        let recorded = Record::of_now("work", vec![row(10.0, 50_000.0)]);
        assert_eq!(grown(&recorded, &[row(11.0, 10_000.0)]), Vec::<String>::new());
        assert_eq!(
            grown(&recorded, &[row(11.5, 60_000.0)]),
            [
                "cold: host_calls was 10 and is 11.5 (+15 %); if that is worth it, record it with `cargo xtask bench work --record`",
                "cold: fuel was 50000 and is 60000 (+20 %); if that is worth it, record it with `cargo xtask bench work --record`",
            ]
        );
        assert_eq!(
            grown(&recorded, &[Row::new("hot", [])]),
            ["hot is not on file: record it with `cargo xtask bench work --record`"]
        );
    }
}
