//! The same limits for services that are no Envoy: a limit is asked for by its name, with its subjects.
//!
//! The caller has judged what the filter judges by headers: which lane, which limit, whose subjects. From there on
//! all is the same: the lane's version of the limit, its store keys, one decision in the store. What a limit says
//! under `on_failure` is about a node that can count by itself, which a caller is not; so a store that does not
//! answer is a 503, and the caller decides.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use lanekeeper_engine::policy::{Limit, Policy};
use lanekeeper_engine::wire::{Check, CheckAnswer, MAX_CHECKS, Operation};
use serde::{Deserialize, Serialize};

use crate::app::App;
use crate::body::{Body, read};
use crate::problem::Problem;

mod question;
mod verdict;

use question::{Item, Plan, Question};
use verdict::Verdict;

/// Asks for one limit and charges nothing.
pub(crate) const CAN_ALLOW: &str = "/v1/limits/{limit}/can_allow";
/// Charges one limit.
pub(crate) const ALLOW: &str = "/v1/limits/{limit}/allow";
/// Forgets what one limit has counted for these subjects.
pub(crate) const RESET: &str = "/v1/limits/{limit}/reset";
/// Asks for many limits and charges nothing.
pub(crate) const CAN_ALLOW_ALL: &str = "/v1/limits/can_allow";
/// Charges many limits, each for itself.
pub(crate) const ALLOW_ALL: &str = "/v1/limits/allow";

/// Many questions, each for itself.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Items {
    items: Vec<Item>,
}

#[derive(Serialize)]
struct ItemAnswers<'p> {
    items: Vec<ItemAnswer<'p>>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum ItemAnswer<'p> {
    Decided(Verdict<'p>),
    Failed(Problem),
}

/// `POST /v1/limits/{limit}/can_allow`
pub(crate) async fn can_allow(app: State<Arc<App>>, limit: LimitName, body: Body) -> Answer {
    one(&app, limit, body, Operation::Peek).await
}

/// `POST /v1/limits/{limit}/allow`
pub(crate) async fn allow(app: State<Arc<App>>, limit: LimitName, body: Body) -> Answer {
    one(&app, limit, body, Operation::Take).await
}

/// `POST /v1/limits/{limit}/reset`
pub(crate) async fn reset(app: State<Arc<App>>, limit: LimitName, body: Body) -> Result<StatusCode, Problem> {
    let policy = policy(&app)?;
    let question: Question = read(body)?;
    let found = the_limit(&policy, limit, &question)?;
    if let Plan::Ask(asked) = question.plan(found)? {
        app.reset(&asked.store_keys()).await.map_err(Problem::of_store)?;
    }
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /v1/limits/can_allow`
pub(crate) async fn can_allow_all(app: State<Arc<App>>, body: Body) -> Answer {
    many(&app, body, Operation::Peek).await
}

/// `POST /v1/limits/allow`
pub(crate) async fn allow_all(app: State<Arc<App>>, body: Body) -> Answer {
    many(&app, body, Operation::Take).await
}

type Answer = Result<Response, Problem>;
type LimitName = Result<Path<String>, PathRejection>;

async fn one(app: &App, limit: LimitName, body: Body, operation: Operation) -> Answer {
    let policy = policy(app)?;
    let question: Question = read(body)?;
    let found = the_limit(&policy, limit, &question)?;
    let verdict = match question.plan(found)? {
        Plan::Decided(verdict) => verdict,
        Plan::Ask(asked) => {
            let answers = app.decide(&[asked.check(operation)], Duration::ZERO).await;
            asked.verdict(answers.into_iter().next())?
        }
    };
    Ok(Json(verdict).into_response())
}

/// The limit that a path names, in the lane that the question names.
fn the_limit<'p>(policy: &'p Policy, limit: LimitName, question: &Question) -> Result<&'p Limit, Problem> {
    let Path(limit) = limit.map_err(|error| Problem::new(StatusCode::BAD_REQUEST, error.body_text()))?;
    let found = question::find(policy, &limit, &question.lane)?;
    found.ok_or_else(|| question::no_such_limit(policy, StatusCode::NOT_FOUND, &limit))
}

/// Charging asks twice. The first question goes out for all at once and charges nothing: what cannot be had is
/// known then, and what is left to charge goes to the store in the order of the items.
async fn many(app: &App, body: Body, operation: Operation) -> Answer {
    let policy = policy(app)?;
    let Items { items } = read(body)?;
    if items.is_empty() || items.len() > MAX_CHECKS {
        return Err(Problem::of_field("items", format!("1 to {MAX_CHECKS} are allowed")));
    }
    let plan = |(at, item): (usize, Item)| {
        item.plan(&policy).map_err(|problem| problem.under(&format!("items[{at}]")))
    };
    let plans = items.into_iter().enumerate().map(plan).collect::<Result<Vec<Plan<'_>>, Problem>>()?;
    let mut answers = ask(app, &plans, Operation::Peek, |_| true).await;
    if operation == Operation::Take {
        let fits = |at: usize| matches!(answers.get(at), Some(Some(CheckAnswer::Allowed { .. })));
        let charged = ask(app, &plans, Operation::Take, fits).await;
        for (answer, charged) in answers.iter_mut().zip(charged) {
            *answer = charged.or(answer.take());
        }
    }
    let items = plans.into_iter().zip(answers).map(|(plan, answer)| match plan {
        Plan::Decided(verdict) => ItemAnswer::Decided(verdict),
        Plan::Ask(asked) => asked.verdict(answer).map_or_else(ItemAnswer::Failed, ItemAnswer::Decided),
    });
    Ok(Json(ItemAnswers { items: items.collect() }).into_response())
}

/// What the store says of the plans at the places that `wanted` names, as far as they ask it.
async fn ask(
    app: &App,
    plans: &[Plan<'_>],
    operation: Operation,
    wanted: impl Fn(usize) -> bool,
) -> Vec<Option<CheckAnswer>> {
    let check = |(at, plan): (usize, &Plan<'_>)| match plan {
        Plan::Ask(asked) if wanted(at) => Some((at, asked.check(operation))),
        Plan::Ask(_) | Plan::Decided(_) => None,
    };
    let (places, checks): (Vec<usize>, Vec<Check>) = plans.iter().enumerate().filter_map(check).unzip();
    let mut answers = vec![None; plans.len()];
    if !checks.is_empty() {
        for (at, answer) in places.into_iter().zip(app.decide(&checks, Duration::ZERO).await) {
            if let Some(place) = answers.get_mut(at) {
                *place = Some(answer);
            }
        }
    }
    answers
}

fn policy(app: &App) -> Result<Arc<Policy>, Problem> {
    let missing = "the shim knows no limits: start it with --policy FILE";
    app.policy().ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, missing))
}
