//! What does a request cost in host calls and wasm instructions?
//!
//! A time says it too, with all the noise of the machine it was taken on; these are the same in every run, so a test
//! can hold them. The built plugin runs on the fake host, on a clock that moves a millisecond from request to request,
//! with the embedded store behind it. A request's whole life counts: its headers, the answer's headers with what the
//! limits write into them, its end, and whatever timers and questions fall in between, spread over all requests.
//!
//! Host calls weigh more than instructions: each leaves the VM, and most copy.

mod case;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Result, ensure};
use lanekeeper_tests::fake_shim::Store;
use lanekeeper_tests::host::{Host, Request, State};

use crate::ordinary;
use crate::record::{Record, Row};
use case::LIMITS;
pub use case::{Case, Guard, Road};

/// By how much a figure may grow over the recorded one.
pub const MAY_GROW: f64 = 0.10;
/// The figures that may not grow by more.
const HELD: [&str; 2] = ["host_calls", "fuel"];

/// Requests before those that are measured. By then memory is grown, counters are defined, and what is remembered
/// or leased is so.
const WARM_UP: u32 = 200;
const STEP: Duration = Duration::from_millis(1);

/// How many requests are measured in each case.
#[derive(Clone, Copy, Debug)]
pub struct Size(u32);

impl Size {
    /// What the figures on file are of: a second of requests.
    pub const FULL: Self = Self(1000);
    /// For a quick look.
    pub const SHORT: Self = Self(100);
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

impl Case {
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
mod tests;
