//! Who asks, when and where: each population's requests come at random moments, evenly over its clients and all workers.

use std::time::Duration;

use lanekeeper_engine::units::micros;
use rand::{RngExt, SeedableRng};
use rand_distr::Exp1;
use rand_pcg::Pcg64Mcg;

use super::scenario::{Phase, Scenario};

/// A request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Arrival {
    pub(super) at_us: u64,
    pub(super) client: u32,
    pub(super) node: u32,
    pub(super) worker: u32,
}

/// The requests of a scenario, in order.
pub(super) struct Demand {
    streams: Vec<Stream>,
    nodes: u32,
    workers: u32,
    ends_us: f64,
    chance: Pcg64Mcg,
}

/// The requests of one population.
struct Stream {
    next_us: f64,
    phases: Vec<Phase>,
    clients: std::ops::Range<u32>,
}

impl Demand {
    pub(super) fn of(scenario: &Scenario, seed: u64) -> Self {
        let mut chance = Pcg64Mcg::seed_from_u64(seed);
        let mut first = 0;
        let stream = |population: &super::scenario::Population| {
            let clients = first..first + population.clients;
            first = clients.end;
            let mut stream = Stream { next_us: 0.0, phases: population.phases.clone(), clients };
            stream.advance(&mut chance);
            stream
        };
        let streams = scenario.populations.iter().map(stream).collect();
        let ends_us = micros(scenario.lasts) as f64;
        Self { streams, nodes: scenario.nodes, workers: scenario.workers, ends_us, chance }
    }

    /// When the next request comes; `None` after the last.
    pub(super) fn next_at(&self) -> Option<u64> {
        let next = self.streams.iter().map(|stream| stream.next_us).fold(f64::INFINITY, f64::min);
        (next < self.ends_us).then_some(next as u64)
    }

    /// The next request.
    pub(super) fn take(&mut self) -> Option<Arrival> {
        let next = self.streams.iter_mut().min_by(|one, other| one.next_us.total_cmp(&other.next_us))?;
        if next.next_us >= self.ends_us {
            return None;
        }
        let at_us = next.next_us as u64;
        let client = self.chance.random_range(next.clients.clone());
        next.advance(&mut self.chance);
        let (node, worker) =
            (self.chance.random_range(0..self.nodes), self.chance.random_range(0..self.workers));
        Some(Arrival { at_us, client, node, worker })
    }
}

impl Stream {
    /// Draws the next moment. Gaps have no memory, so each phase may begin its own.
    fn advance(&mut self, chance: &mut Pcg64Mcg) {
        let mut now = self.next_us;
        for (at, phase) in self.phases.iter().enumerate() {
            let ends = self.phases.get(at + 1).map_or(f64::INFINITY, |next| us(next.from));
            if now >= ends {
                continue;
            }
            now = now.max(us(phase.from));
            let gap: f64 = chance.sample(Exp1);
            now += gap * 1e6 / phase.per_sec;
            if now < ends {
                self.next_us = now;
                return;
            }
            now = ends;
        }
        self.next_us = f64::INFINITY;
    }
}

fn us(span: Duration) -> f64 {
    micros(span) as f64
}
