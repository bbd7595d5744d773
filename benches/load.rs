//! Is the production load carried for as long as one likes, and what does the filter add to it?
//!
//! Two Envoys of two workers, each with a shim of its own, ask one Redis Cluster of three masters with a replica each, all
//! on this machine. Requests come at random moments whether or not others are answered ([`crate::driver`]), four of five
//! from a fifth of the users, in both lanes, with a spike in the middle. The same comes first to the same Envoys without
//! the filter, to compare.
//!
//! A load of a day must not grow what measures it, or nothing could be said of what it measures: times go into a
//! histogram, and memory into the sums of a [trend](crate::trend::Trend).

mod book;
mod forecast;
mod site;
mod traffic;

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use self::book::Book;
pub use self::forecast::scenario;
use self::site::{Named, Site};
use crate::driver::{Driver, PATIENCE, Plan};
use crate::record::Row;
use crate::trend::Trend;

/// As many clients as ask at once.
const CONNECTIONS: usize = 64;
const SAMPLE_EVERY: Duration = Duration::from_secs(1);
/// Memory counts after this share of the time: by then caches, pools and buffers are as they will be.
const SETTLED_AFTER: f64 = 0.25;
/// By how much a process may grow, KiB in a minute, once it has settled. Of what a machine here is asked, some 2,400
/// requests a second, that is seven bytes for each.
const MAY_GROW: f64 = 1024.0;
/// A process that has just begun grows. A shorter load is not held to it.
const HELD_FROM: Duration = Duration::from_secs(60);
/// A shorter load has no moment in which memory could be looked at twice.
const SHORTEST: Duration = Duration::from_secs(4);

/// How much is asked.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    lasts: Duration,
    /// Requests a second outside of the spike.
    per_sec: f64,
}

impl Size {
    /// What the figures on file are of.
    pub const FULL: Self = Self { lasts: Duration::from_secs(120), per_sec: 2_000.0 };
    /// For a quick look.
    pub const SHORT: Self = Self { lasts: Duration::from_secs(10), per_sec: 1_000.0 };

    /// The full load for another time.
    pub fn lasting(lasts: Duration) -> Result<Self> {
        ensure!(lasts >= SHORTEST, "a load lasts for {SHORTEST:?} at least");
        Ok(Self { lasts, ..Self::FULL })
    }

    /// How often progress is heard of.
    pub fn steps(&self) -> u64 {
        2 * self.lasts.as_secs()
    }
}

/// What a load came to.
#[derive(Clone, Debug)]
pub struct Load {
    /// With the filter, without it, and what is simulated for ten machines.
    pub rows: Vec<Row>,
    /// The goals that are missed, in words.
    pub missed: Vec<String>,
}

/// Carries the load without the filter and with it. `step` is heard each second.
pub fn measure(size: &Size, step: &dyn Fn()) -> Result<Load> {
    let without = Carried::on(&Site::start(false)?, size, step)?;
    let with = Carried::on(&Site::start(true)?, size, step)?;
    let simulated = forecast::simulate(size)?;
    let predicted = [
        ("local_share", simulated.local_share),
        ("store_calls_per_sec", simulated.store_calls_per_sec),
        ("store_commands_per_decision", simulated.commands),
    ];
    let runs = [("with", &with), ("without", &without)];
    let mut rows: Vec<Row> = runs.iter().map(|(case, run)| run.row(case)).collect();
    rows.push(Row::new("ten_machines", predicted));
    Ok(Load { rows, missed: runs.iter().flat_map(|(case, run)| run.missed_goals(case)).collect() })
}

/// What one run came to.
struct Carried {
    book: Book,
    lasts: Duration,
    /// For how long requests were counted.
    counted: Duration,
    /// Of one core.
    store_cpu_share: f64,
    /// By how much each process grows, KiB in a minute.
    slopes: BTreeMap<Named, f64>,
}

impl Carried {
    fn on(site: &Site, size: &Size, step: &dyn Fn()) -> Result<Self> {
        let Size { lasts, per_sec } = *size;
        // connections, pools and leases are made in the first twentieth
        let warm_up = lasts / 20;
        let plan = Plan {
            envoys: site.addresses(),
            connections: CONNECTIONS,
            per_sec: Box::new(traffic::rate(per_sec, lasts)),
            lasts,
            patience: PATIENCE,
            seed: 1,
        };
        let (before, began) = (site.store_cpu()?, Instant::now());
        let driver = Driver::start(plan, traffic::requests(1), Book::new(warm_up)?)?;
        let slopes = watch_memory(site, driver.begin(), lasts, step)?;
        let book = driver.finish()?;
        let store_cpu = site.store_cpu()? - before;
        Ok(Self {
            book,
            lasts,
            counted: lasts - warm_up,
            store_cpu_share: store_cpu.as_secs_f64() / began.elapsed().as_secs_f64(),
            slopes,
        })
    }

    /// The process that grows most.
    fn grown_most(&self) -> (&str, f64) {
        let most = self.slopes.iter().max_by(|one, other| one.1.total_cmp(other.1));
        most.map_or(("nobody", f64::NAN), |(process, slope)| (process.name.as_str(), *slope))
    }

    fn row(&self, case: &str) -> Row {
        let Self { book, counted, store_cpu_share, .. } = self;
        let share = |part: u64| part as f64 / book.requests as f64;
        let figures = [
            ("requests", book.requests as f64),
            ("rps", (book.requests - book.errors) as f64 / counted.as_secs_f64()),
            ("p50_ms", book.ms_of(0.5)),
            ("p99_ms", book.ms_of(0.99)),
            ("p999_ms", book.ms_of(0.999)),
            ("errors", book.errors as f64),
            ("refused_share", share(book.refused)),
            ("fallback_share", share(book.fallbacks)),
            ("store_cpu_share", *store_cpu_share),
            ("memory_slope_kib_per_min", self.grown_most().1),
        ];
        Row::new(case, figures)
    }

    fn missed_goals(&self, case: &str) -> Vec<String> {
        let errors = self.book.errors;
        let (who, slope) = self.grown_most();
        let failed = (errors > 0).then(|| format!("{case}: {errors} errors, and none is wanted"));
        let is_steady = self.lasts < HELD_FROM || slope <= MAY_GROW;
        let grown = (!is_steady).then(|| {
            format!("{case}: {who} grows by {slope:.0} KiB in a minute, and at most {MAY_GROW} are wanted")
        });
        failed.into_iter().chain(grown).collect()
    }
}

/// Looks at each process once a second until the load is over, and says by how much they grow.
fn watch_memory(
    site: &Site,
    begin: Instant,
    lasts: Duration,
    step: &dyn Fn(),
) -> Result<BTreeMap<Named, f64>> {
    let mut trends: BTreeMap<Named, Trend> = BTreeMap::new();
    let mut at = SAMPLE_EVERY;
    while at <= lasts {
        thread::sleep((begin + at).saturating_duration_since(Instant::now()));
        if at >= lasts.mul_f64(SETTLED_AFTER) {
            for process in site.processes() {
                let resident = process.resident_kib()?;
                trends.entry(process).or_default().add(at.as_secs_f64() / 60.0, resident);
            }
        }
        step();
        at += SAMPLE_EVERY;
    }
    Ok(trends.into_iter().map(|(process, trend)| (process, trend.slope())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_load_is_carried_with_and_without_the_filter() {
        let size = Size { lasts: Duration::from_secs(4), per_sec: 200.0 };
        let load = measure(&size, &|| ()).unwrap();
        let of = |case: &str| load.rows.iter().find(|row| row.case == case).unwrap();
        let (with, without) = (of("with"), of("without"));
        for row in [with, without] {
            assert_eq!(row.figure("errors"), 0.0, "{row:?}");
            // 200 a second, and three times as many for a tenth of the time
            assert!((180.0..300.0).contains(&row.figure("rps")), "{row:?}");
            assert!(
                row.figure("p50_ms") <= row.figure("p99_ms") && row.figure("p99_ms") <= row.figure("p999_ms")
            );
            assert!(row.figure("memory_slope_kib_per_min").is_finite(), "{row:?}");
        }
        assert!(with.figure("store_cpu_share") > 0.0, "{with:?}");
        assert_eq!((without.figure("store_cpu_share"), without.figure("refused_share")), (0.0, 0.0));
        let predicted = of("ten_machines");
        assert!((0.0..1.0).contains(&predicted.figure("local_share")), "{predicted:?}");
    }
}
