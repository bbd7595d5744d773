//! What leases cost as nodes, workers and subjects grow: one thing changes, the rest is as in the production load.

use std::sync::Arc;
use std::time::Duration;

use lanekeeper_engine::window::{Algorithm, Window, WindowError};

use super::scenario::{Phase, Population, Scenario, Size, scenario};
use crate::record::Row;

/// Requests a second of all subjects of a point together. Less would leave hot subjects cold, more tells nothing new.
const PER_SEC: f64 = 8_000.0;
/// The first leases are asked for, and the first limits reached, within this.
const LASTS: u64 = 70;

/// What changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Axis {
    /// Nodes of four workers.
    Nodes,
    /// Workers of each of ten nodes.
    Workers,
    /// Subjects that share the requests, on ten nodes of four workers.
    Subjects,
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One subject at half of its limit.
    Hot,
    /// Ten users who ask for eight times theirs.
    Pressing,
    /// Many users who ask for a fiftieth of theirs, twice a second.
    Quiet,
}

/// One simulation of the sweep.
#[derive(Clone, Debug)]
pub struct Point {
    /// What changes.
    pub axis: Axis,
    /// Who asks.
    pub kind: Kind,
    /// How many there are of what changes.
    pub value: u32,
    /// The simulation.
    pub scenario: Scenario,
}

impl Axis {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Nodes, Self::Workers, Self::Subjects];

    /// Its name in the record.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nodes => "nodes",
            Self::Workers => "workers",
            Self::Subjects => "subjects",
        }
    }

    /// How many of it are simulated.
    pub fn values(self) -> &'static [u32] {
        match self {
            Self::Nodes => &[1, 2, 5, 10, 20, 50, 100],
            Self::Workers => &[1, 2, 4, 8],
            Self::Subjects => &[1, 10, 100, 1_000, 10_000, 100_000],
        }
    }

    /// Who asks along it. Subjects that share a number of requests are hot when they are few, and quiet when many.
    pub fn kinds(self) -> &'static [Kind] {
        match self {
            Self::Nodes | Self::Workers => &[Kind::Hot, Kind::Pressing, Kind::Quiet],
            Self::Subjects => &[Kind::Quiet],
        }
    }
}

impl Kind {
    /// Its name in the record.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hot => "hot",
            Self::Pressing => "pressing",
            Self::Quiet => "quiet",
        }
    }

    /// Its clients and what each may in a minute.
    fn clients(self) -> (u32, u32) {
        let a_minute = PER_SEC * 60.0;
        match self {
            Self::Hot => (1, (a_minute * 2.0) as u32),
            Self::Pressing => (10, (a_minute / 10.0 / 8.0) as u32),
            Self::Quiet => (4_000, 6_000),
        }
    }
}

impl Point {
    /// The case of the record.
    pub fn case(axis: Axis, kind: Kind, value: u32) -> String {
        format!("{}/{}/{value}", axis.name(), kind.name())
    }

    /// Its row, from that of its simulation.
    pub fn row(&self, simulated: Row) -> Row {
        Row { case: Self::case(self.axis, self.kind, self.value), ..simulated }
    }
}

/// Every point.
pub fn points() -> Result<Vec<Point>, WindowError> {
    let all = Axis::ALL.into_iter().flat_map(|axis| {
        let kinds = axis.kinds().iter();
        kinds.flat_map(move |kind| axis.values().iter().map(move |value| (axis, *kind, *value)))
    });
    all.map(|(axis, kind, value)| point(axis, kind, value)).collect()
}

fn point(axis: Axis, kind: Kind, value: u32) -> Result<Point, WindowError> {
    let (mut nodes, mut workers) = (10, 4);
    let (mut clients, mut limit) = kind.clients();
    match axis {
        Axis::Nodes => nodes = value,
        Axis::Workers => workers = value,
        // nobody is near a limit, however few share the requests
        Axis::Subjects => (clients, limit) = (value, (PER_SEC * 60.0 * 50.0) as u32),
    }
    let windows: Arc<[Window]> =
        Arc::new([Window::new(limit, Duration::from_secs(60), Algorithm::SlidingWindow)?]);
    let phases = vec![Phase { from: Duration::ZERO, per_sec: PER_SEC }];
    let population = Population { clients, phases, windows, judged: kind == Kind::Pressing };
    let scenario = scenario(&Point::case(axis, kind, value), nodes, workers, LASTS, vec![population]);
    Ok(Point { axis, kind, value, scenario: Scenario { size: Size::Full, ..scenario } })
}
