//! What the shim counts about itself. No label ever holds a subject: every series is known at the start, or is one
//! of a server that the store is made of.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use lanekeeper_engine::wire::{CheckAnswer, StoreError};
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::policy::Reloaded;
use crate::store::Store;

/// The content type of [`Metrics::text`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The shim's counters.
pub struct Metrics {
    registry: Registry,
    decisions: Family<Decided, Counter>,
    batches: Counter,
    batch_checks: Histogram,
    store_duration: Histogram,
    store_errors: Family<Failed, Counter>,
    requests_shed: Counter,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Decided {
    outcome: Outcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[expect(non_camel_case_types, reason = "the names stand in the metrics as they stand here")]
enum Outcome {
    allowed,
    rejected,
    failed,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Failed {
    kind: &'static str,
}

impl Metrics {
    /// All at zero.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("lanekeeper_shim");
        let metrics = Self {
            decisions: Family::default(),
            batches: Counter::<u64, AtomicU64>::default(),
            // 1 to 256, the most checks of a batch
            batch_checks: Histogram::new(exponential_buckets(1.0, 2.0, 9)),
            // 50 us to 0.8 s
            store_duration: Histogram::new(exponential_buckets(0.000_05, 2.0, 15)),
            store_errors: Family::default(),
            requests_shed: Counter::default(),
            registry: Registry::default(),
        };
        registry.register("decisions", "Checks, by what became of them", metrics.decisions.clone());
        registry.register("batches", "Batches decided", metrics.batches.clone());
        registry.register("batch_checks", "Checks per batch", metrics.batch_checks.clone());
        let help = "Seconds the store took for a batch";
        registry.register("store_duration_seconds", help, metrics.store_duration.clone());
        registry.register("store_errors", "Checks the store failed, by kind", metrics.store_errors.clone());
        let help = "Requests refused at once, as too many were under way";
        registry.register("requests_shed", help, metrics.requests_shed.clone());
        for outcome in [Outcome::allowed, Outcome::rejected, Outcome::failed] {
            metrics.decisions.get_or_create(&Decided { outcome }).inc_by(0);
        }
        for error in [
            StoreError::Unreachable,
            StoreError::Disconnected,
            StoreError::Timeout,
            StoreError::Refused,
            StoreError::Malformed,
            StoreError::Full,
        ] {
            metrics.store_errors.get_or_create(&Failed { kind: kind(error) }).inc_by(0);
        }
        Self { registry, ..metrics }
    }

    /// Shows what `store` knows of itself, too.
    pub(crate) fn show_store(&mut self, store: &dyn Store) {
        store.show(&mut self.registry);
    }

    /// Shows what became of the policy file, too.
    pub(crate) fn show_reloads(&mut self, reloads: Family<Reloaded, Counter>) {
        let help = "Changes of the policy file, by what became of them";
        self.registry.register("policy_reloads", help, reloads);
    }

    /// Counts a batch that the store answered in `took`.
    pub fn record(&self, answers: &[CheckAnswer], took: Duration) {
        self.batches.inc();
        self.batch_checks.observe(answers.len() as f64);
        self.store_duration.observe(took.as_secs_f64());
        for answer in answers {
            let outcome = match answer {
                CheckAnswer::Allowed { .. } => Outcome::allowed,
                CheckAnswer::Rejected { .. } => Outcome::rejected,
                CheckAnswer::Failed { error } => {
                    self.store_errors.get_or_create(&Failed { kind: kind(*error) }).inc();
                    Outcome::failed
                }
            };
            self.decisions.get_or_create(&Decided { outcome }).inc();
        }
    }

    /// Counts a request that was refused, as too many were under way.
    pub(crate) fn record_shed(&self) {
        self.requests_shed.inc();
    }

    /// All of it as OpenMetrics text.
    pub fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

fn kind(error: StoreError) -> &'static str {
    match error {
        StoreError::Unreachable => "unreachable",
        StoreError::Disconnected => "disconnected",
        StoreError::Timeout => "timeout",
        StoreError::Refused => "refused",
        StoreError::Malformed => "malformed",
        StoreError::Full => "full",
    }
}
