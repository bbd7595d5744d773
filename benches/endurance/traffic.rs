//! Requests of several workers, and all that becomes of them.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use lanekeeper_tests::host::{Host, Request, State, Status, Stream, Times};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

use super::Size;
use super::policy::policy;
use super::weather::{self, Weather};

pub(super) const WORKERS: usize = 3;
/// About as many are under way at once, in all workers.
const CROWD: usize = 64;
/// Whoever is held back for longer is stuck. Whatever a request waits for, a timeout of 20 ms ends it.
const STUCK: Duration = Duration::from_secs(1);
/// In this time whatever is under way in the background comes to its end.
const CALM: Duration = Duration::from_secs(5);

/// What became of requests so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Seen {
    pub(super) begun: u64,
    /// Which went on to the upstream.
    pub(super) passed: u64,
    /// Which the filter answered.
    pub(super) replied: u64,
    /// Whose end was a reset, by whomever.
    pub(super) reset: u64,
    pub(super) reloads: u64,
    /// For how long one was held back, at most.
    pub(super) longest_pause: Duration,
}

/// A process with its requests.
pub(super) struct Traffic {
    pub(super) host: Host,
    pub(super) seen: Seen,
    size: Size,
    chance: Pcg64Mcg,
    weather: Rc<Cell<Weather>>,
    under_way: Vec<(Stream, Duration)>,
}

impl Traffic {
    pub(super) fn start(host: Host, size: Size, seed: u64) -> Self {
        let weather = weather::serve(&host, seed);
        let chance = Pcg64Mcg::seed_from_u64(seed);
        Self { host, seen: Seen::default(), size, chance, weather, under_way: Vec::new() }
    }

    /// A request begins, or something becomes of one; in an outage the store is away, else it is as chance has it.
    pub(super) fn step(&mut self, is_outage: bool) -> Result<()> {
        if self.chance.random_range(0..CROWD) >= self.under_way.len() {
            self.begin();
        } else {
            self.go_on()?;
        }
        if self.chance.random_ratio(1, 4) {
            self.host.advance(Duration::from_micros(self.chance.random_range(0..1_000)));
        }
        if is_outage {
            self.weather.set(Weather::Refused);
        } else if self.chance.random_ratio(1, 3_000) {
            self.weather.set(Weather::next(&mut self.chance));
        }
        if self.chance.random_ratio(1, 500) {
            self.meddle();
        }
        Ok(())
    }

    /// Brings the other policy, while the host does what it is asked for: a policy that cannot read the node's secret is
    /// refused.
    pub(super) fn reload(&mut self) -> Result<()> {
        ["proxy_get_shared_data", "proxy_set_shared_data"].into_iter().for_each(|call| self.host.heal(call));
        self.seen.reloads += 1;
        Ok(self.host.reconfigure(&policy(self.seen.reloads % 2 == 1).to_string())?)
    }

    /// Ends all that is under way. An error where something is left of it.
    pub(super) fn end(&mut self) -> Result<()> {
        self.weather.set(Weather::Fair);
        while !self.under_way.is_empty() {
            self.host.advance(Duration::from_millis(1));
            self.go_on()?;
        }
        self.host.advance(CALM);
        for index in 0..WORKERS {
            let left = self.host.worker(index).contexts();
            ensure!(left == (1, 0), "worker {index} is left with (roots, streams) {left:?}");
        }
        ensure!(self.host.traps().is_empty(), "{:?}", self.host.traps());
        ensure!(self.host.misuses().is_empty(), "{:?}", self.host.misuses());
        Ok(())
    }

    /// Host calls fail: somebody was faster, or the host cannot.
    fn meddle(&mut self) {
        let (call, status) = match self.chance.random_range(0..6) {
            0..3 => ("proxy_set_shared_data", Status::CasMismatch),
            3 => ("proxy_set_shared_data", Status::InternalFailure),
            4 => ("proxy_get_shared_data", Status::InternalFailure),
            _ => ("proxy_http_call", Status::InternalFailure),
        };
        self.host.fail(call, status, Times::Next(self.chance.random_range(1..5)));
    }

    fn begin(&mut self) {
        // a third comes from one user of a hundred
        let Size { users, shops, .. } = self.size;
        let most = if self.chance.random_ratio(1, 3) { users.div_ceil(100) } else { users };
        let (user, shop) = (self.chance.random_range(0..most), self.chance.random_range(0..shops));
        let path = ["/list/1", "/claim/1", "/pay/1", "/"];
        let path = path.get(self.chance.random_range(0..path.len())).copied().unwrap_or("/");
        let has_body = self.chance.random_ratio(1, 16);
        let mut request = if has_body { Request::post(path).open() } else { Request::get(path) };
        request = request.header("x-user", format!("u{user}")).header("x-shop", format!("s{shop}"));
        if self.chance.random_ratio(1, 4) {
            request = request.header("x-shadow", "true");
        }
        let stream = self.host.worker(self.chance.random_range(0..WORKERS)).request(request);
        if has_body {
            stream.send_body("one egg", true);
        }
        self.under_way.push((stream, self.host.monotonic()));
        self.seen.begun += 1;
    }

    /// Something becomes of one of those under way.
    fn go_on(&mut self) -> Result<()> {
        let at = self.chance.random_range(0..self.under_way.len());
        let (stream, begun) = self.under_way.swap_remove(at);
        match stream.state() {
            State::Paused => {
                let held = self.host.monotonic() - begun;
                self.seen.longest_pause = self.seen.longest_pause.max(held);
                ensure!(held < STUCK, "a request is held back for {held:?}");
                if self.chance.random_ratio(1, 50) {
                    self.seen.reset += 1;
                    stream.reset();
                } else {
                    self.under_way.push((stream, begun));
                }
            }
            State::Continued => {
                self.seen.passed += 1;
                self.answer(&stream);
                stream.end();
            }
            State::Replied(_) => {
                self.seen.replied += 1;
                stream.end();
            }
            State::Reset | State::Failed => bail!("a request was cut off by the filter"),
        }
        Ok(())
    }

    /// What the upstream, its connection or the client make of a request that went on.
    fn answer(&mut self, stream: &Stream) {
        let ok = [(":status", "200"), ("x-envoy-upstream-service-time", "1")];
        match self.chance.random_range(0..40) {
            0 => stream.reset(),
            1 => stream.reset_by_client(),
            2 => stream.respond_by_envoy(503, "upstream_reset_before_response_started{connection_failure}"),
            3 => stream.respond_by_envoy(504, "response_timeout"),
            4 => drop(stream.respond([(":status", "500")])),
            5 => {
                stream.respond(ok);
                stream.respond_body("one", false);
                stream.break_off();
            }
            6 => {
                stream.respond(ok);
                stream.respond_body("one", false);
                stream.reset();
            }
            7 => {
                stream.respond([(":status", "200"), ("content-type", "application/grpc")]);
                stream.respond_body("one", false);
                stream.respond_trailers([("grpc-status", "14")]);
            }
            8 => drop(stream.respond_and_end([(":status", "404")])),
            _ => {
                stream.respond(ok);
                stream.respond_body("one", true);
            }
        }
        self.seen.reset += u64::from(stream.state() == State::Reset);
    }
}
