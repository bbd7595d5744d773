//! What a caller is answered.

use std::collections::BTreeMap;

use lanekeeper_engine::answer::ShownWindow;
use lanekeeper_engine::policy::{Limit, written};
use lanekeeper_engine::wire::{KeyAnswer, WindowAnswer};
use serde::Serialize;

use super::question::Asked;

/// Whether a request may go on, and what its windows say.
#[derive(Serialize)]
pub(super) struct Verdict<'p> {
    allowed: bool,
    /// The limit's name in its lane.
    limit: &'p str,
    /// There in a dry run: what `allowed` would be, were the limit enforced.
    #[serde(skip_serializing_if = "Option::is_none")]
    would_allow: Option<bool>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    dry_run: bool,
    /// The keys that were asked for, by their names.
    keys: BTreeMap<&'p str, KeyVerdict>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Reason>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rejected_by: Option<RejectedBy<'p>>,
    /// Until the cost fits; not there when waiting does not help.
    #[serde(skip_serializing_if = "Option::is_none")]
    wait_us: Option<u64>,
}

#[derive(Serialize)]
struct KeyVerdict {
    allowed: bool,
    /// How much of the cost; 0 when any key rejects.
    granted: u32,
    windows: Vec<WindowVerdict>,
    wait_us: u64,
}

#[derive(Serialize)]
struct WindowVerdict {
    window: String,
    limit: u32,
    #[serde(flatten)]
    answer: WindowAnswer,
}

/// Why a request may not go on.
#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
enum Reason {
    /// A window is full.
    OverLimit,
    /// A key has no subject, and the limit says `on_missing_key: reject`.
    MissingKey,
    /// The lane has no version of the limit, and says `fallback: reject`.
    TurnedAway,
}

/// The window that takes longest to have room; or the key that is missing.
#[derive(Serialize)]
struct RejectedBy<'p> {
    key: &'p str,
    #[serde(skip_serializing_if = "Option::is_none")]
    window: Option<String>,
}

impl<'p> Verdict<'p> {
    /// The lane turns everybody away.
    pub(super) fn turned_away(limit: &'p Limit) -> Self {
        Self { reason: Some(Reason::TurnedAway), wait_us: None, ..Self::new(limit, false) }.enforced()
    }

    /// The limit turns away who has no such key.
    pub(super) fn missing_key(limit: &'p Limit, key: &'p str) -> Self {
        Self::new(limit, false).lacks(Some(key)).enforced()
    }

    /// No key of the limit has a subject.
    pub(super) fn nothing_to_count(limit: &'p Limit, dry_run: bool, missing: Option<&'p str>) -> Self {
        Self::new(limit, dry_run).lacks(missing).enforced()
    }

    /// What the store says of `asked`.
    pub(super) fn of_store(asked: &Asked<'p>, keys: &[KeyAnswer]) -> Self {
        let mut verdict = Self::new(asked.limit, asked.dry_run);
        let mut shown = Vec::new();
        for ((at, _), answer) in asked.keys.iter().zip(keys) {
            let windows = || answer.windows.iter().enumerate();
            shown.extend(windows().map(|(w, window)| ShownWindow::new(0, *at, w, (*window).into())));
            let wait_us = windows().map(|(_, window)| window.wait_us).max().unwrap_or_default();
            let windows = asked.count.windows.iter().zip(&answer.windows).map(|(window, answer)| {
                WindowVerdict { window: written(window.per()), limit: window.limit(), answer: *answer }
            });
            let key = KeyVerdict {
                allowed: wait_us == 0,
                granted: answer.granted,
                windows: windows.collect(),
                wait_us,
            };
            verdict.keys.extend(asked.count.keys.get(*at).map(|of| (of.name.as_str(), key)));
        }
        let last = ShownWindow::last_to_free(&shown).filter(|last| !last.wait.is_zero());
        if let Some(last) = last {
            let window = asked.count.windows.get(last.window).map(|window| written(window.per()));
            let key = asked.count.keys.get(last.key).map(|key| key.name.as_str());
            verdict.reason = Some(Reason::OverLimit);
            verdict.rejected_by = key.map(|key| RejectedBy { key, window });
            verdict.wait_us = verdict.keys.values().map(|key| key.wait_us).max();
        }
        verdict.lacks(asked.missing).enforced()
    }

    fn new(limit: &'p Limit, dry_run: bool) -> Self {
        Self {
            allowed: true,
            limit: &limit.title,
            would_allow: None,
            dry_run,
            keys: BTreeMap::new(),
            reason: None,
            rejected_by: None,
            wait_us: Some(0),
        }
    }

    /// A missing key weighs more than a full window: no wait brings it.
    fn lacks(self, missing: Option<&'p str>) -> Self {
        let Some(key) = missing else { return self };
        let rejected_by = Some(RejectedBy { key, window: None });
        Self { reason: Some(Reason::MissingKey), rejected_by, wait_us: None, ..self }
    }

    /// Draws the conclusion: whatever has a reason against it is not allowed, but for a dry run.
    fn enforced(self) -> Self {
        let fits = self.reason.is_none();
        Self { allowed: fits || self.dry_run, would_allow: self.dry_run.then_some(fits), ..self }
    }
}
