//! What does the filter cost in a real Envoy, beside no filter, an empty one, and Envoy's own limiter?
//!
//! Each [`Case`] is an Envoy of its own with one worker. All run all the time on one core, and one at a time is asked.
//! On the other core are who asks, the upstream, and for two cases the shim and its Redis; so what the store costs is
//! in the throughput too, once that core is full. Rounds go through all cases, one right after the other, and what is
//! compared is compared within a round: on a machine that others share, minutes differ more than filters do. Each
//! figure is the median of the rounds.
//!
//! Throughput and processor time are taken while 64 clients ask for all that a case can; times at half of that, with
//! requests that come at random moments, since at full load they show the queue and nothing of the filter.

mod case;
mod load;
mod site;
mod users;

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};

pub use self::case::Case;
use self::load::{Latencies, Target};
use self::site::{Site, Used};

use crate::cores::{Cores, on_core};
use crate::record::Row;
use crate::samples::median;
use crate::upstream::Upstream;

/// How much is asked.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    rounds: u64,
    /// Before anything is measured: connections, subjects, the processor's caches.
    warm_up: Duration,
    /// The same where tokens are leased: until nearly all who ask once in five seconds have done so.
    leases: Duration,
    /// For how long all that a case can is asked of it.
    all_out: Duration,
    /// For how long half of it.
    calm: Duration,
}

impl Size {
    /// What the figures on file are of.
    pub const FULL: Self = Self {
        rounds: 7,
        warm_up: Duration::from_millis(400),
        leases: Duration::from_secs(12),
        all_out: Duration::from_secs(4),
        calm: Duration::from_millis(1600),
    };
    /// For a quick look.
    pub const SHORT: Self = Self {
        rounds: 3,
        warm_up: Duration::from_millis(200),
        leases: Duration::from_millis(200),
        all_out: Duration::from_millis(700),
        calm: Duration::from_millis(300),
    };

    /// How often progress is heard of.
    pub fn steps(&self) -> u64 {
        self.rounds * Case::ALL.len() as u64
    }
}

/// The figures of a case by their names.
type Figures = BTreeMap<&'static str, f64>;

/// Measures every case; a row for each. `step` is heard after each case of each round.
pub fn measure(size: &Size, step: &dyn Fn()) -> Result<Vec<Row>> {
    let bench = Bench::start(*size)?;
    let mut samples: Vec<Vec<Figures>> = vec![Vec::new(); Case::ALL.len()];
    for round in 0..size.rounds {
        for (samples, figures) in samples.iter_mut().zip(bench.round(round, step)?) {
            samples.push(figures);
        }
    }
    for (case, site) in Case::ALL.iter().zip(&bench.sites) {
        site.is_judged(*case).with_context(|| format!("{} is not what was measured", case.name()))?;
    }
    Ok(Case::ALL.iter().zip(&samples).map(|(case, samples)| row(*case, samples)).collect())
}

/// Each figure's median.
fn row(case: Case, samples: &[Figures]) -> Row {
    let names = samples.first().into_iter().flat_map(BTreeMap::keys);
    let of = |name: &'static str| {
        let of_rounds: Vec<f64> = samples.iter().filter_map(|figures| figures.get(name).copied()).collect();
        (name, median(&of_rounds))
    };
    Row::new(case.name(), names.map(|name| of(name)))
}

/// What runs all the time.
struct Bench {
    size: Size,
    cores: Cores,
    upstream: Upstream,
    /// One for each case.
    sites: Vec<Site>,
}

impl Bench {
    fn start(size: Size) -> Result<Self> {
        let cores = Cores::find()?;
        let upstream = on_core(cores.second, Upstream::start)?;
        let sites = Case::ALL.iter().map(|case| Site::start(*case, cores, &upstream));
        let sites = sites.collect::<Result<Vec<_>>>()?;
        Ok(Self { size, cores, upstream, sites })
    }

    /// One round: the figures of every case.
    fn round(&self, round: u64, step: &dyn Fn()) -> Result<Vec<Figures>> {
        let measure = |(case, site): (&Case, &Site)| {
            let figures =
                self.case(*case, site, round).with_context(|| format!("while {} was asked", case.name()));
            step();
            figures
        };
        let mut figures = Case::ALL.iter().zip(&self.sites).map(measure).collect::<Result<Vec<_>>>()?;
        relate(&mut figures);
        Ok(figures)
    }

    fn case(&self, case: Case, site: &Site, round: u64) -> Result<Figures> {
        let Size { warm_up, leases, all_out, calm, .. } = self.size;
        let filled = if case == Case::Leased { leases } else { warm_up };
        // every case sees the same users
        let target =
            |seed| Target { envoy: site.envoy.address(), core: self.cores.second, seed: 2 * round + seed };
        let look = |answers, load| Ok((answers, std::time::Instant::now(), site.used(&self.upstream, load)?));
        let (before, after) = load::all_out(&target(0), filled, all_out, look)?;
        let answers = (after.0 - before.0) as f64;
        let per_sec = answers / (after.1 - before.1).as_secs_f64();
        let latencies = load::at_rate(&target(1), per_sec / 2.0, warm_up, calm)?;
        let mut figures = costs(&before.2, &after.2, answers);
        figures.extend(times(&latencies));
        figures.insert("rps", per_sec);
        Ok(figures)
    }
}

/// What each request cost.
fn costs(before: &Used, after: &Used, answers: f64) -> Figures {
    let us = |of: fn(&Used) -> Duration| (of(after) - of(before)).as_secs_f64() * 1e6 / answers;
    let each = [
        ("envoy_us", us(|used| used.envoy)),
        ("shim_us", us(|used| used.shim)),
        ("redis_us", us(|used| used.redis)),
        ("load_us", us(|used| used.load)),
    ];
    let all = each.iter().map(|(_, us)| us).sum();
    let besides = [
        // everybody but the upstream, which is the same in each case
        ("cpu_us_per_request", all),
        ("upstream_us", us(|used| used.upstream)),
        ("store_commands_per_decision", (after.commands - before.commands) as f64 / answers),
    ];
    each.into_iter().chain(besides).collect()
}

fn times(latencies: &Latencies) -> Figures {
    Figures::from([
        ("p50_ms", latencies.all.ms_of(0.5)),
        ("p99_ms", latencies.all.ms_of(0.99)),
        ("busy_p99_ms", latencies.busy.ms_of(0.99)),
        ("others_p99_ms", latencies.others.ms_of(0.99)),
    ])
}

/// Adds what only a comparison within the round says.
fn relate(round: &mut [Figures]) {
    let of = |case: Case, figure: &str| {
        let at = Case::ALL.iter().position(|other| *other == case);
        at.and_then(|at| round.get(at)?.get(figure).copied()).unwrap_or(f64::NAN)
    };
    let (empty, local) = (of(Case::EmptyWasm, "rps"), of(Case::LocalRatelimit, "rps"));
    let none_us = of(Case::None, "cpu_us_per_request");
    let (busy_ms, others_ms) = (of(Case::EmptyWasm, "busy_p99_ms"), of(Case::EmptyWasm, "others_p99_ms"));
    for figures in round {
        let own = |figure: &str| figures.get(figure).copied().unwrap_or(f64::NAN);
        let related = [
            ("ratio_to_empty", own("rps") / empty),
            ("ratio_to_local_ratelimit", own("rps") / local),
            ("cpu_added_us", own("cpu_us_per_request") - none_us),
            ("busy_p99_added_ms", own("busy_p99_ms") - busy_ms),
            ("others_p99_added_ms", own("others_p99_ms") - others_ms),
        ];
        figures.extend(related);
    }
}

/// What all of a request without any filter cost when the goals for processor time were set, µs. Another machine is
/// faster or slower in all, so those goals are scaled by what it costs there.
const NONE_US: f64 = 32.0;

/// The goals that are missed, in words.
pub fn missed_goals(rows: &[Row]) -> Vec<String> {
    let of = |case: Case, figure: &str| {
        rows.iter().find(|row| row.case == case.name()).map_or(f64::NAN, |row| row.figure(figure))
    };
    let pace = of(Case::None, "cpu_us_per_request") / NONE_US;
    let least = [
        (Case::Leased, "ratio_to_empty", 0.92),
        (Case::Leased, "ratio_to_local_ratelimit", 0.90),
        (Case::Strict, "ratio_to_empty", 0.45),
    ];
    let most = [
        (Case::Leased, "cpu_added_us", 9.0 * pace),
        (Case::Strict, "cpu_added_us", 60.0 * pace),
        (Case::Leased, "busy_p99_added_ms", 0.2),
        (Case::Leased, "others_p99_added_ms", 2.0),
    ];
    // what is not a number misses too
    let holds = |held: Option<Ordering>, wanted| held.is_some_and(|held| held == wanted || held.is_eq());
    let against = |(case, figure, goal): &(Case, &str, f64)| of(*case, figure).partial_cmp(goal);
    let low = least.into_iter().filter(|goal| !holds(against(goal), Ordering::Greater));
    let high = most.into_iter().filter(|goal| !holds(against(goal), Ordering::Less));
    let say = |bound: &'static str| {
        move |(case, figure, goal): (Case, &str, f64)| {
            format!("{} has {figure} {:.2}, and the goal is {bound} {goal:.2}", case.name(), of(case, figure))
        }
    };
    low.map(say("at least")).chain(high.map(say("at most"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_answers_its_requests_and_is_judged_as_its_name_says() {
        let moment = Duration::from_millis(100);
        let size = Size { rounds: 1, warm_up: moment, leases: moment, all_out: 2 * moment, calm: 2 * moment };
        let rows = measure(&size, &|| ()).unwrap();
        let of = |case: Case| rows.iter().find(|row| row.case == case.name()).unwrap();
        for case in Case::ALL {
            let row = of(case);
            assert!(row.figures.values().all(|figure| figure.is_finite()), "{row:?}");
            assert!(row.figure("rps") > 0.0 && row.figure("p99_ms") >= row.figure("p50_ms"), "{row:?}");
            assert!(row.figure("envoy_us") > 0.0 && row.figure("load_us") > 0.0, "{row:?}");
            let asks = matches!(case, Case::Leased | Case::Strict);
            assert_eq!(row.figure("redis_us") > 0.0 && row.figure("shim_us") > 0.0, asks, "{row:?}");
        }
        assert_eq!(of(Case::Standalone).figure("store_commands_per_decision"), 0.0);
        // an answer may come in after one look whose script ran before it
        assert!((0.8..1.2).contains(&of(Case::Strict).figure("store_commands_per_decision")));
    }

    #[test]
    fn cases_are_compared_within_their_round() {
        let of = |rps, cpu, p99| {
            let p99s = [("busy_p99_ms", p99), ("others_p99_ms", 2.0 * p99)];
            Figures::from_iter([("rps", rps), ("cpu_us_per_request", cpu)].into_iter().chain(p99s))
        };
        let mut round = [
            of(110.0, 30.0, 1.0),
            of(100.0, 32.0, 1.5),
            of(200.0, 33.0, 1.5),
            of(90.0, 40.0, 2.0),
            of(95.0, 39.0, 1.75),
            of(50.0, 70.0, 4.0),
        ];
        relate(&mut round);
        let leased = &round[4];
        assert_eq!((leased["ratio_to_empty"], leased["ratio_to_local_ratelimit"]), (0.95, 0.475));
        assert_eq!((leased["cpu_added_us"], leased["busy_p99_added_ms"]), (9.0, 0.25));
        assert_eq!((round[0]["cpu_added_us"], leased["others_p99_added_ms"]), (0.0, 0.5));
    }

    #[test]
    fn a_missed_goal_is_named_and_the_machines_pace_counts() {
        let none = |cpu| Row::new("none", [("cpu_us_per_request", cpu)]);
        let leased = |cpu| {
            let speed = [("ratio_to_empty", 0.92), ("ratio_to_local_ratelimit", 0.9)];
            let times = [("cpu_added_us", cpu), ("busy_p99_added_ms", 0.2), ("others_p99_added_ms", 2.0)];
            Row::new("leased", speed.into_iter().chain(times))
        };
        let strict = |ratio| Row::new("strict", [("ratio_to_empty", ratio), ("cpu_added_us", 120.0)]);
        // a machine at half the pace
        assert_eq!(missed_goals(&[none(64.0), leased(18.0), strict(0.45)]), Vec::<String>::new());
        assert_eq!(
            missed_goals(&[none(32.0), leased(9.0), strict(f64::NAN)]),
            [
                "strict has ratio_to_empty NaN, and the goal is at least 0.45",
                "strict has cpu_added_us 120.00, and the goal is at most 60.00",
            ]
        );
    }
}
