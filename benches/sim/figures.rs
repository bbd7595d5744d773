//! What a simulation came to.

use std::time::Duration;

use super::scenario::Scenario;
use super::watch::Watch;
use crate::record::Row;

/// The most that may be refused of what an oracle admits.
pub const MOST_UNDER_ADMISSION: f64 = 0.01;

/// What is counted on the way.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    pub(super) requests: u64,
    /// Of them, those decided without waiting.
    pub(super) at_once: u64,
    pub(super) admitted: u64,
    pub(super) rejected: u64,
    /// The store could not say, or not in time.
    pub(super) failed: u64,
    /// Whose worker crashed while they waited.
    pub(super) cut_off: u64,
    /// Messages to the store.
    pub(super) questions: u64,
    /// One for each check and each return in them.
    pub(super) commands: u64,
    pub(super) returns: u64,
    /// Tokens charged, for all keys together, and those that went back.
    pub(super) charged: u64,
    pub(super) taken_back: u64,
    waits: u64,
    wait_us: u64,
    longest_wait_us: u64,
}

impl Tally {
    /// A request that waited so long has its answer.
    pub(super) fn waited(&mut self, us: u64) {
        self.waits += 1;
        self.wait_us += us;
        self.longest_wait_us = self.longest_wait_us.max(us);
    }
}

/// The figures of one scenario.
#[derive(Clone, Debug)]
pub struct Figures {
    /// The scenario.
    pub scenario: Scenario,
    /// How many requests came.
    pub requests: u64,
    /// The share of them that was admitted.
    pub admitted_share: f64,
    /// The share that the store could not decide, or not in time.
    pub failed_share: f64,
    /// The most that any window ever held beyond its limit, as a share of that.
    pub over_admission: f64,
    /// The share of what an oracle admits that was not admitted, of those who asked for more than they may.
    pub under_admission: f64,
    /// The share of the tokens that were charged and not given back which nobody spent.
    pub stranded_share: f64,
    /// The share of decisions that did not wait for the store.
    pub local_share: f64,
    /// Messages to the store.
    pub store_calls_per_sec: f64,
    /// Checks and returns in them, for each decision.
    pub commands: f64,
    /// The returns among them.
    pub returns: f64,
    /// The share of requests that waited.
    pub waited_share: f64,
    /// How long those waited.
    pub mean_wait_ms: f64,
    /// The longest of them.
    pub max_wait_ms: f64,
    /// Tokens whose charges failovers lost.
    pub lost: u64,
    /// How long the simulation took.
    pub took: Duration,
}

impl Figures {
    pub(super) fn of(scenario: &Scenario, tally: &Tally, watch: &Watch, took: Duration) -> Self {
        let keys = 1 + u64::from(scenario.shared.is_some());
        let (kept, spent) = (tally.charged.saturating_sub(tally.taken_back), keys * tally.admitted);
        let share = |part: u64| part as f64 / tally.requests.max(1) as f64;
        Self {
            scenario: scenario.clone(),
            requests: tally.requests,
            admitted_share: share(tally.admitted),
            failed_share: share(tally.failed + tally.cut_off),
            over_admission: watch.over_admission(),
            under_admission: watch.under_admission(),
            stranded_share: kept.saturating_sub(spent) as f64 / kept.max(1) as f64,
            local_share: share(tally.at_once),
            store_calls_per_sec: tally.questions as f64 / scenario.lasts.as_secs_f64(),
            commands: share(tally.commands),
            returns: share(tally.returns),
            waited_share: share(tally.requests - tally.at_once),
            mean_wait_ms: tally.wait_us as f64 / tally.waits.max(1) as f64 / 1e3,
            max_wait_ms: tally.longest_wait_us as f64 / 1e3,
            lost: watch.lost_in_all(),
            took,
        }
    }

    /// The row in the record.
    pub fn row(&self) -> Row {
        Row::new(
            &self.scenario.name,
            [
                ("requests", self.requests as f64),
                ("admitted_share", self.admitted_share),
                ("failed_share", self.failed_share),
                ("over_admission", self.over_admission),
                ("under_admission", self.under_admission),
                ("stranded_share", self.stranded_share),
                ("local_share", self.local_share),
                ("store_calls_per_sec", self.store_calls_per_sec),
                ("store_commands_per_decision", self.commands),
                ("returns_per_decision", self.returns),
                ("waited_share", self.waited_share),
                ("mean_wait_ms", self.mean_wait_ms),
                ("max_wait_ms", self.max_wait_ms),
            ],
        )
    }

    /// The goals that are missed, in words.
    pub fn missed_goals(&self) -> Vec<String> {
        let name = &self.scenario.name;
        let mut missed = Vec::new();
        let mut goal = |is_met: bool, what: String| {
            if !is_met {
                missed.push(format!("{name}: {what}"));
            }
        };
        let percent = |share: f64| format!("{:.2} %", share * 100.0);
        if self.scenario.is_healthy() {
            let most = MOST_UNDER_ADMISSION;
            let under = self.under_admission;
            goal(
                under <= most,
                format!(
                    "{} refused of what an oracle admits, at most {} is wanted",
                    percent(under),
                    percent(most)
                ),
            );
        }
        if let Some(goals) = self.scenario.goals {
            let (local, commands, waited) = (self.local_share, self.commands, self.waited_share);
            let wanted = percent(goals.local_share);
            goal(
                local >= goals.local_share,
                format!("{} decided without the store, {wanted} are wanted", percent(local)),
            );
            let wanted = goals.commands;
            goal(
                commands <= wanted,
                format!("{commands:.4} commands for a decision, at most {wanted} are wanted"),
            );
            let wanted = percent(goals.waited_share);
            goal(
                waited < goals.waited_share,
                format!("{} of the requests waited, less than {wanted} are wanted", percent(waited)),
            );
        }
        missed
    }
}
