//! From what a caller asks to a check of the store, or to a verdict that needs none.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use lanekeeper_engine::policy::{
    Cost, Count, Lane, Limit, LimitVerdict, NORMAL, OnMissingKey, Policy, Share,
};
use lanekeeper_engine::subject::{SubjectError, named_store_keys};
use lanekeeper_engine::window::Window;
use lanekeeper_engine::wire::{Check, CheckAnswer, KeyCheck, Operation, StoreError};
use serde::Deserialize;

use super::verdict::Verdict;
use crate::problem::Problem;
use crate::shards;

/// A question about a limit that is named elsewhere.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Question {
    #[serde(default = "normal")]
    pub(super) lane: String,
    #[serde(default)]
    subjects: BTreeMap<String, Texts>,
    cost: Option<u32>,
    at_least: Option<u32>,
}

/// A question that names its limit.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Item {
    limit: String,
    #[serde(default = "normal")]
    lane: String,
    #[serde(default)]
    subjects: BTreeMap<String, Texts>,
    cost: Option<u32>,
    at_least: Option<u32>,
}

/// What stands for the sources of a key.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a text or a list of texts is needed")]
enum Texts {
    One(String),
    Several(Vec<String>),
}

fn normal() -> String {
    NORMAL.to_owned()
}

/// What a question comes to.
pub(super) enum Plan<'p> {
    /// A verdict, without the store.
    Decided(Verdict<'p>),
    /// A question to the store.
    Ask(Asked<'p>),
}

/// A question to the store, and what its answer has to be read with.
pub(super) struct Asked<'p> {
    pub(super) limit: &'p Limit,
    pub(super) count: &'p Count,
    /// For each key that is asked for: its index in the limit's, and the store key.
    pub(super) keys: Vec<(usize, String)>,
    /// A key for whose lack the limit would reject, were it enforced.
    pub(super) missing: Option<&'p str>,
    pub(super) dry_run: bool,
    cost: u32,
    at_least: Option<u32>,
}

impl Item {
    pub(super) fn plan<'p>(self, policy: &'p Policy) -> Result<Plan<'p>, Problem> {
        let Self { limit, lane, subjects, cost, at_least } = self;
        let found = find(policy, &limit, &lane)?;
        let found =
            found.ok_or_else(|| no_such_limit(policy, StatusCode::BAD_REQUEST, &limit).about("limit"))?;
        Question { lane, subjects, cost, at_least }.plan(found)
    }
}

impl Question {
    pub(super) fn plan(self, limit: &Limit) -> Result<Plan<'_>, Problem> {
        let LimitVerdict::Count(count) = &limit.verdict else {
            return Ok(Plan::Decided(Verdict::turned_away(limit)));
        };
        let cost = self.cost(count)?;
        let at_least = self.at_least(cost)?;
        let given = self.subjects.into_iter().map(|(name, texts)| (name, texts.into())).collect();
        let keys = named_store_keys(&limit.key_prefix, count, &given).map_err(|error| of_subject(&error))?;
        let missing = keys.missing.filter(|_| count.on_missing_key == OnMissingKey::Reject);
        let missing = missing.and_then(|at| count.keys.get(at)).map(|key| key.name.as_str());
        let dry_run = is_dry_run(count.enforce);
        Ok(match missing {
            Some(key) if !dry_run => Plan::Decided(Verdict::missing_key(limit, key)),
            _ if keys.present.is_empty() => Plan::Decided(Verdict::nothing_to_count(limit, dry_run, missing)),
            _ => Plan::Ask(Asked { limit, count, keys: keys.present, missing, dry_run, cost, at_least }),
        })
    }

    fn at_least(&self, cost: u32) -> Result<Option<u32>, Problem> {
        match self.at_least {
            Some(least) if !(1..=cost).contains(&least) => {
                Err(Problem::of_field("at_least", format!("1 to {cost} are allowed, what is asked for")))
            }
            at_least => Ok(at_least),
        }
    }

    fn cost(&self, count: &Count) -> Result<u32, Problem> {
        let capacity = count.windows.iter().map(Window::capacity).min().unwrap_or_default();
        let capacity = capacity / u32::from(count.shards);
        let (default, most) = match count.cost {
            Cost::Fixed(cost) => (cost, capacity),
            Cost::Header { max, .. } => (1, max),
        };
        let cost = self.cost.unwrap_or(default);
        if (1..=most).contains(&cost) {
            return Ok(cost);
        }
        Err(Problem::of_field("cost", format!("1 to {most} are allowed for this limit")))
    }
}

impl From<Texts> for Vec<String> {
    fn from(texts: Texts) -> Self {
        match texts {
            Texts::One(text) => vec![text],
            Texts::Several(texts) => texts,
        }
    }
}

impl<'p> Asked<'p> {
    pub(super) fn check(&self, operation: Operation) -> Check {
        let key = |(_, key): &(usize, String)| KeyCheck {
            operation,
            at_least: self.at_least,
            shards: self.count.shards,
            ..KeyCheck::take(key, self.cost, self.count.windows.clone())
        };
        Check { keys: self.keys.iter().map(key).collect() }
    }

    /// The keys in the store that it asks about, with every shard of each.
    pub(super) fn store_keys(&self) -> Vec<String> {
        self.keys.iter().flat_map(|(_, key)| shards::store_keys(key, self.count.shards)).collect()
    }

    /// What the store's answer comes to; a problem when it has none.
    pub(super) fn verdict(self, answer: Option<CheckAnswer>) -> Result<Verdict<'p>, Problem> {
        match answer {
            Some(CheckAnswer::Allowed { keys } | CheckAnswer::Rejected { keys }) => {
                Ok(Verdict::of_store(&self, &keys))
            }
            Some(CheckAnswer::Failed { error }) => Err(Problem::of_store(error)),
            None => Err(Problem::of_store(StoreError::Malformed)),
        }
    }
}

/// The version of `limit` that holds in `lane`; `None` when there is no such limit. Into a lane that is disabled
/// nobody comes: who would be there is judged as normal.
pub(super) fn find<'p>(policy: &'p Policy, limit: &str, lane: &str) -> Result<Option<&'p Limit>, Problem> {
    let Some(found) = policy.lanes.iter().find(|known| known.name == lane) else {
        let known = listed(policy.lanes.iter().map(|lane| &lane.name));
        return Err(Problem::of_field("lane", format!("there is no lane `{lane}`; there are {known}")));
    };
    let is_open = |lane: &&Lane| lane.entry.as_ref().is_none_or(|entry| entry.enabled);
    let lane = Some(found).filter(is_open).or(policy.lanes.first());
    Ok(lane.and_then(|lane| lane.limits.iter().find(|known| known.name == limit)))
}

pub(super) fn no_such_limit(policy: &Policy, status: StatusCode, limit: &str) -> Problem {
    let known = policy.lanes.first().map(|lane| listed(lane.limits.iter().map(|limit| &limit.name)));
    let known = known.filter(|known| !known.is_empty()).unwrap_or_else(|| "none".to_owned());
    Problem::new(status, format!("there is no limit `{limit}`; there are {known}"))
}

fn listed<'a>(names: impl Iterator<Item = &'a String>) -> String {
    names.map(String::as_str).collect::<Vec<_>>().join(", ")
}

fn of_subject(error: &SubjectError) -> Problem {
    Problem::of_field(format!("subjects.{}", error.name()), error.to_string())
}

/// Whether this request is among those that a limit enforced in part only watches.
fn is_dry_run(enforce: Share) -> bool {
    match enforce {
        Share::ALL => false,
        Share::NONE => true,
        // without a source of chance the limit is enforced
        share => !share.holds(getrandom::u32().unwrap_or_default()),
    }
}
