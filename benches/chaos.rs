//! What do users see of it when the store, the network or a process fails?
//!
//! Each case is an Envoy of its own with the filter, a shim and a Redis, all real. A constant load comes all the time;
//! after a calm spell something breaks, stays broken for a while, and is mended. Every request is in an account: none
//! may be lost, hang, or be answered with a failure. From the same account come how soon requests stopped to wait for a
//! store that does not answer, how soon it decided again, how long anybody waited, and what was admitted beyond a limit,
//! or refused below it.

mod account;
mod calls;
mod exact;
mod faults;
mod site;
mod traffic;
mod wire;

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use self::account::{Account, Spell};
use self::calls::Watch;
pub use self::faults::{FAULTS, Fault};
use self::site::Site;
use crate::driver::{Driver, End, PATIENCE, Plan};
use crate::record::Row;

/// How long each part of a case lasts, and how long the store is waited for.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    before: Duration,
    broken: Duration,
    after: Duration,
    timeout: Duration,
}

impl Size {
    /// What the figures on file are of.
    pub const FULL: Self = Self::of(2000, 4000, 4000);
    /// For a quick look.
    pub const SHORT: Self = Self::of(1000, 1500, 2500);

    const fn of(before: u64, broken: u64, after: u64) -> Self {
        let [before, broken, after] =
            [Duration::from_millis(before), Duration::from_millis(broken), Duration::from_millis(after)];
        Self { before, broken, after, timeout: TIMEOUT }
    }

    fn whole(&self) -> Duration {
        self.before + self.broken + self.after
    }
}

/// `store.timeout`, as it is by default.
const TIMEOUT: Duration = Duration::from_millis(20);

/// Connections of the load: as many as requests can be under way that wait their whole time, and more.
const CONNECTIONS: usize = 64;

/// What a case came to.
pub struct Outcome {
    fault: Fault,
    timeout: Duration,
    account: Account,
}

/// Breaks something, mends it, and tells what users saw.
pub fn run(fault: &Fault, size: &Size) -> Result<Outcome> {
    let mut site = Site::start(fault.kind, size.timeout)?;
    let plan = Plan {
        envoys: vec![site.envoy.address()],
        connections: CONNECTIONS,
        per_sec: Box::new(|_| traffic::PER_SEC),
        lasts: size.whole(),
        patience: PATIENCE,
        seed: 1,
    };
    let load = Driver::start(plan, traffic::requests(1), Vec::new())?;
    let begin = load.begin();
    let watch = Watch::start(site.envoy.admin().clone(), begin);
    sleep_until(begin + size.before);
    let from = begin.elapsed();
    (fault.breaks)(&mut site).context("it cannot be broken")?;
    if !fault.ends_by_itself {
        sleep_until(begin + size.before + size.broken);
    }
    (fault.mends)(&mut site).context("it cannot be mended")?;
    let spell = Spell { from, until: begin.elapsed() };
    let (requests, calls) = (load.finish()?, watch.finish()?);
    ensure!(site.envoy.is_alive()?, "Envoy has ended:\n{}", site.envoy.log());
    let account = Account::of(requests, calls, spell);
    Ok(Outcome { fault: *fault, timeout: size.timeout, account })
}

fn sleep_until(moment: Instant) {
    thread::sleep(moment.saturating_duration_since(Instant::now()));
}

impl Outcome {
    /// Its figures. A time that there is none of is left out.
    pub fn row(&self) -> Row {
        let account = &self.account;
        let ended = |end: fn(&End) -> bool| account.count(|request| end(&request.end)) as f64;
        let ms = |time: Duration| time.as_secs_f64() * 1000.0;
        let always = [
            ("sent", account.count(|_| true) as f64),
            ("answered", ended(|end| matches!(end, End::Answered { .. }))),
            ("lost", ended(|end| *end == End::Lost)),
            ("hung", ended(|end| *end == End::Hung)),
            ("ours_5xx", account.failures() as f64),
            ("refused_below_limit", account.refused_below_limit() as f64),
            ("fallback_after", self.in_vain() as f64),
            ("waited_in_vain", account.waited_in_vain() as f64),
            ("without_store", account.without_store() as f64),
            ("max_added_wait_ms", account.longest_added_ms()),
            ("longest_ms", ms(account.longest())),
            ("over_admission", account.over_admission()),
            ("over_admission_after", account.over_admission_after()),
            ("under_admission", account.under_admission()),
        ];
        let sometimes =
            [("fallback_after_ms", self.given_up_after()), ("back_after_ms", account.back_after())];
        let sometimes = sometimes.into_iter().filter_map(|(name, time)| Some((name, ms(time?))));
        Row::new(self.fault.name, always.into_iter().chain(sometimes))
    }

    /// How many questions to the store were in vain before nobody waited for it any more. Where another shim answers, so
    /// many requests had to do without it in a second: Envoy leaves alone the one that fails, and tries it again after
    /// a second or more.
    fn in_vain(&self) -> u64 {
        if self.fault.has_another_shim() {
            self.account.most_without_store(TRIED_AGAIN_AFTER) as u64
        } else {
            self.account.calls_in_vain()
        }
    }

    /// When nobody waited for the store any more. A shim that refuses beside another one that answers is not the store.
    fn given_up_after(&self) -> Option<Duration> {
        self.account.fallback_after().filter(|_| !self.fault.has_another_shim())
    }
}

// The goals.

/// So many questions to a store that is gone may be slow or fail before nobody waits for it any more; and to one shim of
/// several, each time that it is tried.
const MOST_IN_VAIN: u64 = 10;
/// The shortest time for which Envoy leaves a shim alone, as shipped: `base_ejection_time`.
const TRIED_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// So long after it was mended it decides again.
const BACK_WITHIN: Duration = Duration::from_secs(2);
/// What may come on top of the store's timeout.
const MORE: Duration = Duration::from_millis(5);

impl Outcome {
    /// What holds in any case: every request is answered, and none with a failure of ours. Only those that a VM had when
    /// it trapped nobody can answer.
    pub fn broken_promises(&self) -> Vec<String> {
        if self.fault.takes_requests { Vec::new() } else { self.unanswered() }
    }

    fn unanswered(&self) -> Vec<String> {
        let row = self.row();
        let broken = ["lost", "hung", "ours_5xx"].into_iter().filter(|figure| row.figure(figure) > 0.0);
        broken.map(|figure| format!("{}: {figure} {}", self.fault.name, row.figure(figure))).collect()
    }

    /// The goals that are missed, in words.
    pub fn missed_goals(&self) -> Vec<String> {
        let account = &self.account;
        let (in_vain, added) = (self.in_vain(), account.longest_added_ms());
        let mut missed = Vec::new();
        if self.fault.is_outage && account.fallback_after().is_none() {
            missed.push("nobody stopped to wait for the store".to_owned());
        }
        if in_vain > MOST_IN_VAIN {
            missed.push(format!("{in_vain} questions were in vain, and the goal is at most {MOST_IN_VAIN}"));
        }
        let most = (self.timeout + MORE).as_secs_f64() * 1000.0;
        if added > most {
            missed.push(format!("somebody waited {added:.0} ms longer, and the goal is at most {most:.0}"));
        }
        if account.back_after().is_none_or(|after| after > BACK_WITHIN) {
            let after = account.back_after().map_or("never".to_owned(), |after| format!("after {after:.1?}"));
            missed.push(format!("the store was back {after}, and the goal is {BACK_WITHIN:?}"));
        }
        let missed = missed.into_iter().map(|missed| format!("{}: {missed}", self.fault.name));
        let unanswered = if self.fault.takes_requests { self.unanswered() } else { Vec::new() };
        missed.chain(unanswered).collect()
    }
}

#[cfg(test)]
mod tests;
