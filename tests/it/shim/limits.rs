//! Limits that services ask for by name: the verdicts, on every store.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use lanekeeper_engine::breaker::Entry;
use lanekeeper_engine::headers::Headers;
use lanekeeper_engine::policy::{LimitVerdict, Policy};
use lanekeeper_engine::request::{Facts, Request};
use lanekeeper_engine::units::Timestamp;
use lanekeeper_engine::wire::{Check, CheckAnswer, KeyReturn, KeySpent, Recorded, Returned, StoreError};
use lanekeeper_shim::app::App;
use lanekeeper_shim::memory::MemoryStore;
use lanekeeper_shim::policy::PolicyFile;
use lanekeeper_shim::redis::RedisStore;
use lanekeeper_shim::store::{Answering, NotReady, Store};
use lanekeeper_tests::redis::Redis;
use reqwest::{Response, StatusCode};
use serde_json::{Value, json};

use crate::support::{PATIENT, Shim, batch, left};

mod refusals;
mod reload;

/// The policy of these suites.
pub(crate) fn policy() -> Arc<PolicyFile> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("it/shim/limits/policy.yaml");
    Arc::new(PolicyFile::open(path).unwrap())
}

/// A shim that knows the policy's limits, in front of its embedded store.
pub(crate) async fn shim() -> Shim {
    Shim::start(App::new(MemoryStore::new()).with_admin_token(OPERATOR).with_policy(policy())).await
}

/// What those bear who may do what operators do.
const OPERATOR: &str = "operator";

impl Shim {
    pub(crate) async fn post_to(&self, path: &str, body: &Value) -> Response {
        self.client.post(format!("{}{path}", self.url)).body(body.to_string()).send().await.unwrap()
    }

    async fn verdict(&self, path: &str, body: Value) -> Value {
        let response = self.post_to(path, &body).await;
        assert_eq!(response.status(), StatusCode::OK, "{path} {body}");
        response.json().await.unwrap()
    }

    async fn allow(&self, limit: &str, body: Value) -> Value {
        self.verdict(&format!("/v1/limits/{limit}/allow"), body).await
    }

    async fn can_allow(&self, limit: &str, body: Value) -> Value {
        self.verdict(&format!("/v1/limits/{limit}/can_allow"), body).await
    }
}

/// A store that cannot decide.
pub(crate) struct Broken;

impl Store for Broken {
    fn decide<'a>(&'a self, checks: &'a [Check], _: Duration) -> Answering<'a, Vec<CheckAnswer>> {
        let failed = CheckAnswer::Failed { error: StoreError::Timeout };
        Box::pin(std::future::ready(vec![failed; checks.len()]))
    }

    fn record<'a>(&'a self, reports: &'a [KeySpent]) -> Answering<'a, Vec<Recorded>> {
        Box::pin(std::future::ready(vec![Recorded::Failed(StoreError::Timeout); reports.len()]))
    }

    fn give_back<'a>(&'a self, returns: &'a [KeyReturn]) -> Answering<'a, Vec<Returned>> {
        Box::pin(std::future::ready(vec![Returned::Failed(StoreError::Timeout); returns.len()]))
    }

    fn reset<'a>(&'a self, _: &'a [String]) -> Answering<'a, Result<(), StoreError>> {
        Box::pin(std::future::ready(Err(StoreError::Timeout)))
    }

    fn ready(&self) -> Answering<'_, Result<(), NotReady>> {
        Box::pin(std::future::ready(Err(StoreError::Timeout.into())))
    }
}

macro_rules! on_every_backend {
    ($($case:ident,)*) => {
        mod embedded {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                super::$case(super::shim().await).await;
            })*
        }

        mod redis {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let redis = super::Redis::start().unwrap();
                let store = super::RedisStore::open(&redis.url(), super::PATIENT).unwrap();
                let app = super::App::new(store).with_admin_token(super::OPERATOR);
                let shim = super::Shim::start(app.with_policy(super::policy())).await;
                shim.until_ready().await;
                super::$case(shim).await;
            })*
        }
    };
}

on_every_backend! {
    looks_without_charging_and_charges_until_nothing_is_left,
    judges_each_lane_by_its_own_version,
    counts_where_the_filter_counts,
    charges_what_the_policy_or_the_caller_says,
    lets_a_dry_run_pass_and_says_what_it_would_have_said,
    leaves_out_a_key_without_a_subject_or_turns_it_away,
    needs_no_subject_for_constants,
    answers_many_questions_in_their_order_and_each_for_itself,
    grants_as_much_as_fits_where_less_will_do,
    forgets_a_subject_that_an_operator_resets,
    takes_a_spread_key_exactly_to_its_limit_and_forgets_all_of_it,
}

async fn grants_as_much_as_fits_where_less_will_do(shim: Shim) {
    let body = |at_least: u32| json!({"subjects": {"per_user": "u", "per_shop": "s"}, "cost": 2, "at_least": at_least});
    assert_eq!(shim.allow("ads", body(2)).await["keys"]["per_user"]["granted"], 2);
    let short = shim.allow("ads", body(2)).await;
    assert_eq!((&short["allowed"], &short["keys"]["per_shop"]["granted"]), (&json!(false), &json!(0)));
    for granted in [1, 0] {
        assert_eq!(shim.allow("ads", body(1)).await["keys"]["per_shop"]["granted"], granted);
    }
}

async fn forgets_a_subject_that_an_operator_resets(shim: Shim) {
    let subjects = |user: &str| json!({"subjects": {"per_user": user, "per_shop": user}, "cost": 3});
    for user in ["u1", "u2"] {
        assert_eq!(shim.allow("ads", subjects(user)).await["allowed"], true);
    }
    let reset = |token: &str| {
        let url = format!("{}/v1/limits/ads/reset", shim.url);
        shim.client.post(url).bearer_auth(token).body(subjects("u1").to_string()).send()
    };
    assert_eq!(reset("somebody").await.unwrap().status(), 401);
    assert_eq!(shim.allow("ads", subjects("u1")).await["allowed"], false);
    assert_eq!(reset(OPERATOR).await.unwrap().status(), 204);
    assert_eq!(shim.allow("ads", subjects("u1")).await["allowed"], true);
    assert_eq!(shim.allow("ads", subjects("u2")).await["allowed"], false, "nobody reset this one");
    assert_eq!(shim.allow("ads", subjects("u1")).await["allowed"], false, "and the limit holds again");
}

async fn takes_a_spread_key_exactly_to_its_limit_and_forgets_all_of_it(shim: Shim) {
    let user = json!({"subjects": {"user": "u"}});
    let too_dear = json!({"subjects": {"user": "u"}, "cost": 3});
    assert_eq!(shim.post_to("/v1/limits/spread/allow", &too_dear).await.status(), StatusCode::BAD_REQUEST);
    for _ in 0..2 {
        for _ in 0..7 {
            assert_eq!(shim.allow("spread", user.clone()).await["allowed"], true);
        }
        assert_eq!(shim.allow("spread", user.clone()).await["allowed"], false);
        assert_eq!(shim.can_allow("spread", user.clone()).await["allowed"], false);
        let reset = shim.client.post(format!("{}/v1/limits/spread/reset", shim.url));
        let reset = reset.bearer_auth(OPERATOR).body(user.to_string()).send().await.unwrap();
        assert_eq!(reset.status(), StatusCode::NO_CONTENT);
    }
}

async fn looks_without_charging_and_charges_until_nothing_is_left(shim: Shim) {
    let body = || json!({"subjects": {"per_user": ["u42"], "per_shop": "s1"}});
    let fresh = shim.can_allow("ads", body()).await;
    let window = |window: &str, limit: u32| json!({"window": window, "limit": limit, "remaining": limit, "reset_us": 0, "wait_us": 0});
    let key =
        json!({"allowed": true, "granted": 1, "windows": [window("1h", 3), window("1d", 100)], "wait_us": 0});
    let whole =
        json!({"allowed": true, "limit": "ads", "keys": {"per_user": key, "per_shop": key}, "wait_us": 0});
    assert_eq!(fresh, whole);
    assert_eq!(shim.can_allow("ads", body()).await, fresh, "a look changes nothing");

    for left_over in [2, 1, 0] {
        let taken = shim.allow("ads", body()).await;
        assert_eq!(taken["allowed"], true);
        assert_eq!(taken["keys"]["per_user"]["windows"][0]["remaining"], left_over);
        assert_eq!(taken["keys"]["per_shop"]["windows"][1]["remaining"], 97 + left_over);
    }
    for refused in [shim.can_allow("ads", body()).await, shim.allow("ads", body()).await] {
        assert_eq!(refused["allowed"], false);
        assert_eq!(refused["reason"], "over_limit");
        assert_eq!(refused["rejected_by"]["window"], "1h");
        let (user, shop) = (&refused["keys"]["per_user"], &refused["keys"]["per_shop"]);
        let longest = user["wait_us"].as_u64().max(shop["wait_us"].as_u64());
        assert_eq!(refused["wait_us"].as_u64(), longest);
        assert_eq!(user["wait_us"], user["windows"][0]["wait_us"]);
        assert_eq!(user["windows"][1]["wait_us"], 0, "the day has room");
    }
    let other_user = json!({"subjects": {"per_user": ["u43"], "per_shop": ["s1"]}});
    let refused = shim.allow("ads", other_user).await;
    assert_eq!(refused["rejected_by"], json!({"key": "per_shop", "window": "1h"}));
    assert_eq!(refused["keys"]["per_user"]["allowed"], true);
    assert_eq!(refused["keys"]["per_user"]["windows"][0]["remaining"], 3, "all or nothing");
}

async fn judges_each_lane_by_its_own_version(shim: Shim) {
    let ads = |lane: &str| json!({"lane": lane, "subjects": {"per_user": "u", "per_shop": "s"}});
    let plain = |lane: &str| json!({"lane": lane, "subjects": {"user": "u"}});
    let remaining = |verdict: &Value, key: &str| verdict["keys"][key]["windows"][0]["remaining"].clone();

    // its own values, in its own counters
    let verdict = shim.allow("ads", ads("shadow")).await;
    assert_eq!(verdict["limit"], "shadow_ads");
    assert_eq!(remaining(&verdict, "per_user"), 4);
    assert_eq!(remaining(&shim.allow("ads", ads("normal")).await, "per_user"), 2);

    // without its own entry: the normal values, still its own counters
    let verdict = shim.allow("plain", plain("shadow")).await;
    assert_eq!(verdict["limit"], "shadow_plain");
    assert_eq!(remaining(&verdict, "user"), 1);
    assert_eq!(remaining(&shim.can_allow("plain", plain("normal")).await, "user"), 2);

    // shared counters, only where the policy says so; a lane that is disabled is the normal one
    for (lane, left_over) in [("sharing", 1), ("asleep", 0)] {
        let verdict = shim.allow("plain", plain(lane)).await;
        assert_eq!(verdict["limit"], "plain");
        assert_eq!(remaining(&verdict, "user"), left_over, "{lane}");
    }
    assert_eq!(shim.allow("plain", plain("normal")).await["allowed"], false);

    let turned_away = json!({"allowed": false, "limit": "shut_plain", "keys": {}, "reason": "turned_away"});
    assert_eq!(shim.allow("plain", plain("shut")).await, turned_away);
}

async fn counts_where_the_filter_counts(shim: Shim) {
    let policy = policy().policy();
    let headers = Headers::from_pairs([
        (":method", "GET"),
        (":path", "/"),
        (":authority", "shop"),
        ("x-user", "u}:{4 2"),
        ("x-shop", "s1"),
    ]);
    let client = || "10.1.2.3".parse().ok();
    let (request, _) = Request::arrive(
        &policy,
        &Facts {
            headers: &headers,
            client: &client,
            chance: &|| u32::MAX,
            now: Timestamp::default(),
            enter: &|_, _, _| Entry::Pass(None),
        },
    );
    let checks: Vec<Check> = request.checks().cloned().collect();
    let answers = shim.decide(&batch(0, checks)).await;
    assert_eq!(answers.len(), 2, "what is enforced, and the dry run");
    answers.iter().for_each(|answer| drop(left(answer)));

    let user = "u}:{4 2";
    for (limit, subjects, left_over) in [
        ("ads", json!({"per_user": user, "per_shop": "s1"}), 2),
        ("plain", json!({"user": user}), 1),
        ("costly", json!({"user": user}), 6),
        ("metered", json!({"user": user}), 9),
        ("watched", json!({"user": user}), 0),
        ("strict", json!({"user": user, "method": "GET"}), 1),
        ("tagged", json!({"per_user": user, "pair": [user, "10.1.2.3"], "hash_tag": user}), 1),
        ("together", json!({}), 1),
    ] {
        let verdict = shim.can_allow(limit, json!({"subjects": subjects})).await;
        let keys = verdict["keys"].as_object().unwrap();
        assert_eq!(keys.len(), policy_keys(&policy, limit), "{verdict}");
        for (key, verdict) in keys {
            assert_eq!(verdict["windows"][0]["remaining"], left_over, "{limit} {key}");
        }
    }
}

fn policy_keys(policy: &Policy, limit: &str) -> usize {
    let limit = policy.lanes[0].limits.iter().find(|known| known.name == limit).unwrap();
    match &limit.verdict {
        LimitVerdict::Count(count) => count.keys.len(),
        LimitVerdict::TurnAway => 0,
    }
}

async fn charges_what_the_policy_or_the_caller_says(shim: Shim) {
    for (limit, cost, left_over) in [
        ("costly", None, 6),
        ("costly", Some(6), 0),
        ("metered", None, 9),
        ("metered", Some(5), 4),
        ("plain", Some(2), 0),
    ] {
        let mut body = json!({"subjects": {"user": "u"}});
        if let Some(cost) = cost {
            body["cost"] = json!(cost);
        }
        let verdict = shim.allow(limit, body).await;
        assert_eq!(verdict["keys"]["user"]["windows"][0]["remaining"], left_over, "{limit} {cost:?}");
    }
}

async fn lets_a_dry_run_pass_and_says_what_it_would_have_said(shim: Shim) {
    let body = || json!({"subjects": {"user": "u"}});
    let said = |verdict: &Value| ["allowed", "dry_run", "would_allow"].map(|name| verdict[name].clone());
    assert_eq!(said(&shim.allow("watched", body()).await), [true, true, true]);
    let second = shim.allow("watched", body()).await;
    assert_eq!(said(&second), [true, true, false]);
    assert_eq!(second["rejected_by"], json!({"key": "user", "window": "1h"}));
    assert!(second["wait_us"].as_u64().unwrap() > 0);
}

async fn leaves_out_a_key_without_a_subject_or_turns_it_away(shim: Shim) {
    let verdict = shim.allow("ads", json!({"subjects": {"per_user": "u", "per_shop": " "}})).await;
    assert_eq!(verdict["allowed"], true);
    assert_eq!(verdict["keys"].as_object().unwrap().keys().collect::<Vec<_>>(), ["per_user"]);
    let nobody = json!({"allowed": true, "limit": "plain", "keys": {}, "wait_us": 0});
    assert_eq!(shim.allow("plain", json!({})).await, nobody);

    let refused = json!({"allowed": false, "limit": "strict", "keys": {}, "reason": "missing_key",
        "rejected_by": {"key": "method"}});
    assert_eq!(shim.allow("strict", json!({"subjects": {"user": "u"}})).await, refused);
    let whole = shim.allow("strict", json!({"subjects": {"user": "u", "method": "GET"}})).await;
    assert_eq!(whole["keys"]["user"]["windows"][0]["remaining"], 1, "the refusal was not charged");
}

async fn needs_no_subject_for_constants(shim: Shim) {
    for left_over in [1, 0] {
        let verdict = shim.allow("together", json!({})).await;
        assert_eq!(verdict["keys"]["all"]["windows"][0]["remaining"], left_over);
    }
    assert_eq!(shim.allow("together", json!({})).await["allowed"], false);
}

async fn answers_many_questions_in_their_order_and_each_for_itself(shim: Shim) {
    let plain = |user: &str| json!({"limit": "plain", "subjects": {"user": user}});
    let items = json!({"items": [
        plain("a"), plain("b"), plain("a"), plain("a"), {"limit": "plain", "lane": "shut"},
        {"limit": "ads", "lane": "shadow", "subjects": {"per_user": "a", "per_shop": "s"}, "cost": 5}, plain("a"),
    ]});
    let allowed = |answer: &Value| -> Vec<bool> {
        answer["items"].as_array().unwrap().iter().map(|item| item["allowed"].as_bool().unwrap()).collect()
    };
    let looks = shim.verdict("/v1/limits/can_allow", items.clone()).await;
    assert_eq!(allowed(&looks), [true, true, true, true, false, true, true], "none knows of the others");
    let taken = shim.verdict("/v1/limits/allow", items.clone()).await;
    assert_eq!(allowed(&taken), [true, true, true, false, false, true, false], "the window holds two");
    assert_eq!(taken["items"][5]["limit"], "shadow_ads");
    assert_eq!(taken["items"][1]["keys"]["user"]["windows"][0]["remaining"], 1);
    let again = shim.verdict("/v1/limits/allow", items).await;
    assert_eq!(allowed(&again), [false, true, false, false, false, false, false]);
}

/// Times are of the moment; whether there is one is not.
fn without_times(mut value: Value) -> Value {
    match &mut value {
        Value::Object(fields) => {
            for (name, field) in fields {
                let time = name.ends_with("_us").then(|| json!(field.as_u64().unwrap().min(1)));
                *field = time.unwrap_or_else(|| without_times(field.take()));
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| *item = without_times(item.take())),
        _ => {}
    }
    value
}

#[tokio::test]
async fn the_readme_shows_real_answers() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    let policy = PolicyFile::open(root.join("envoy/demo/policy.yaml")).unwrap();
    let shim = Shim::start(App::new(MemoryStore::new()).with_policy(Arc::new(policy))).await;
    let mut shown = 0;
    for example in readme.split("    curl http://127.0.0.1:7400").skip(1) {
        let (path, rest) = example.split_once(" -d '").unwrap();
        let (body, rest) = rest.split_once('\'').unwrap();
        let answer = rest.split_once("```json\n").and_then(|(_, rest)| rest.split_once("\n```")).unwrap().0;
        let verdict = shim.verdict(path, serde_json::from_str(body).unwrap()).await;
        assert_eq!(without_times(verdict), without_times(serde_json::from_str(answer).unwrap()), "{body}");
        shown += 1;
    }
    assert_eq!(shown, 2);
}
