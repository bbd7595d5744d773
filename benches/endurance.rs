//! Does a worker's memory stay as it is, and does every request end, whatever happens to them?
//!
//! The built plugin runs on the fake host, three workers of it, and millions of requests go through them while the
//! store answers late, wrongly, or not at all, streams are reset at any point, host calls fail, and the policy is
//! exchanged now and then. All of it is drawn from a seed, so that a run can be played again.
//!
//! What is measured is how long the VMs' linear memories are. They are never shortened, so what a request leaves behind
//! shows sooner or later. The first four tenths fill what is bounded: the subjects that a worker knows, what it remembers
//! of refusals, what it admitted while the store was away, the allocator's free blocks. They begin with an outage longer
//! than any that chance brings later. From then on memory may not grow.

mod policy;
mod traffic;
mod weather;

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use lanekeeper_tests::host::{Host, Level};

use self::traffic::{Seen, Traffic, WORKERS};
use crate::record::Row;
use crate::trend::Trend;

/// How often memory is looked at.
const LOOKS: u64 = 100;
/// Those that come before the first one that counts: until then each worker has met as many subjects as it keeps leases
/// of, and some more.
const WARM_UP: u64 = 40;
/// Those before which the store is away.
const OUTAGE: u64 = 10;
const REQUESTS_PER_POLICY: u64 = 10_000;

/// How much is asked.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    requests: u64,
    users: u64,
    /// They are asked for so often that their limits are full.
    shops: u64,
    /// By how much memory may grow with a million requests, KiB, in all VMs together.
    may_grow: f64,
}

impl Size {
    /// What the figures on file are of. Each worker meets more users than it could keep leases of. Memory comes in pieces of
    /// 64 KiB: one of them for a million requests is a byte for fifteen.
    pub const FULL: Self = Self { requests: 10_000_000, users: 300_000, shops: 50, may_grow: 64.0 };
    /// For a quick look, and for every test run: few subjects, so that what is bounded is filled as early. Chance may still
    /// need a piece more in each VM, so eight bytes a request are allowed: half of the smallest block, left behind by each.
    pub const SHORT: Self = Self { requests: 100_000, users: 40, shops: 5, may_grow: 8_000.0 };

    /// How often progress is heard of.
    pub fn steps(&self) -> u64 {
        LOOKS
    }
}

/// What a run came to.
#[derive(Clone, Copy, Debug)]
pub struct Endurance {
    seen: Seen,
    may_grow: f64,
    /// At the end, KiB, in all VMs together.
    memory_kib: f64,
    /// After the first four tenths, KiB for a million requests.
    slope: f64,
    took: Duration,
}

/// Asks for all of it. An error where a request does not end, or a VM fails; `step` is heard after each hundredth.
pub fn measure(size: &Size, seed: u64, step: &dyn Fn()) -> Result<Endurance> {
    run(size, seed, step).with_context(|| format!("--seed {seed} plays it again"))
}

fn run(size: &Size, seed: u64, step: &dyn Fn()) -> Result<Endurance> {
    let began = Instant::now();
    // what is logged would be kept
    let host = Host::builder().workers(WORKERS).seed(seed).log_level(Level::Critical);
    let host = host.start(&policy::policy(false).to_string())?;
    let mut traffic = Traffic::start(host, *size, seed);
    let mut memory = Trend::default();
    for look in 1..=LOOKS {
        while traffic.seen.begun < size.requests * look / LOOKS {
            traffic.step(look < OUTAGE)?;
            if traffic.seen.begun / REQUESTS_PER_POLICY > traffic.seen.reloads {
                traffic.reload()?;
            }
        }
        if look > WARM_UP {
            memory.add(traffic.seen.begun as f64 / 1e6, memory_kib(&traffic.host));
        }
        step();
    }
    traffic.end()?;
    Ok(Endurance {
        seen: traffic.seen,
        may_grow: size.may_grow,
        memory_kib: memory_kib(&traffic.host),
        slope: memory.slope(),
        took: began.elapsed(),
    })
}

fn memory_kib(host: &Host) -> f64 {
    let workers = (0..WORKERS).map(|index| host.worker(index));
    let bytes: usize = workers.chain([host.main()]).map(|worker| worker.memory_bytes()).sum();
    bytes as f64 / 1024.0
}

impl Endurance {
    /// Its row in the record.
    pub fn row(&self) -> Row {
        let Seen { begun, passed, replied, reset, reloads, longest_pause } = self.seen;
        let figures = [
            ("requests", begun as f64),
            ("passed_share", passed as f64 / begun as f64),
            ("replied_share", replied as f64 / begun as f64),
            ("reset_share", reset as f64 / begun as f64),
            ("reloads", reloads as f64),
            ("longest_pause_ms", longest_pause.as_secs_f64() * 1e3),
            ("memory_kib", self.memory_kib),
            ("memory_slope_kib_per_million", self.slope),
            ("requests_per_sec", begun as f64 / self.took.as_secs_f64()),
        ];
        // as many digits as the file's readers can use
        Row::new("faults", figures.map(|(name, figure)| (name, (figure * 1e3).round() / 1e3)))
    }

    /// What grew, in words.
    pub fn broken_promise(&self) -> Option<String> {
        let holds = self.slope <= self.may_grow;
        (!holds).then(|| {
            format!(
                "memory grows by {:.0} KiB with a million requests, and {:.0} are allowed",
                self.slope, self.may_grow
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hundred_thousand_requests_among_faults_all_end_and_leave_memory_as_it_was() {
        let measured = measure(&Size::SHORT, 1, &|| ()).unwrap();
        println!("{:?}", measured.row());
        assert_eq!(measured.broken_promise(), None);
        let Seen { begun, passed, replied, reset, reloads, .. } = measured.seen;
        // the run says little unless a good part of them went each way
        assert!(
            passed > begun / 3 && replied > begun / 20 && reset > begun / 50 && reloads > 5,
            "{measured:?}"
        );
    }
    #[test]
    fn memory_that_grows_is_said() {
        let of = |slope| {
            let seen = Seen { begun: 1_000_000, ..Seen::default() };
            Endurance { seen, may_grow: 64.0, memory_kib: 6_000.0, slope, took: Duration::from_secs(1) }
        };
        assert_eq!(of(64.0).broken_promise(), None);
        let says = "memory grows by 65 KiB with a million requests, and 64 are allowed";
        assert_eq!(of(65.0).broken_promise().as_deref(), Some(says));
        assert!(of(f64::NAN).broken_promise().is_some());
    }
}
