//! What is no question about a limit, and what says why.

use std::num::NonZeroUsize;

use lanekeeper_shim::app::App;
use lanekeeper_shim::memory::MemoryStore;
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::{Broken, policy, shim};
use crate::http::problem;
use crate::support::Shim;

const PATHS: [&str; 4] =
    ["/v1/limits/plain/allow", "/v1/limits/plain/can_allow", "/v1/limits/allow", "/v1/limits/can_allow"];

#[tokio::test]
async fn names_the_field_that_is_wrong_and_what_there_is() {
    let shim = shim().await;
    for (limit, body, field, detail) in [
        ("plain", json!({"lane": "shadwo"}), "lane", "there are normal, asleep, shadow, sharing, shut"),
        ("plain", json!({"lane": 1}), "lane", "expected a string"),
        ("plain", json!({"subjects": []}), "subjects", "expected a map"),
        ("plain", json!({"subjects": {"user": 42}}), "subjects.user", "a text or a list of texts is needed"),
        ("ads", json!({"subjects": {"user": "u"}}), "subjects.user", "which has per_shop, per_user"),
        ("plain", json!({"subjects": {"user": ["a", "b"]}}), "subjects.user", "takes 1"),
        ("tagged", json!({"subjects": {"pair": ["a"]}}), "subjects.pair", "takes 2"),
        ("tagged", json!({"subjects": {"pair": ["a", "b"]}}), "subjects.pair", "`b` is none"),
        ("plain", json!({"cost": 0}), "cost", "1 to 2 are allowed"),
        ("plain", json!({"cost": 3}), "cost", "1 to 2 are allowed"),
        ("metered", json!({"cost": 6}), "cost", "1 to 5 are allowed"),
        ("plain", json!({"cost": -1}), "cost", "expected u32"),
        ("plain", json!({"limit": "plain"}), "limit", "unknown field `limit`"),
    ] {
        for verb in ["allow", "can_allow"] {
            let response = shim.post_to(&format!("/v1/limits/{limit}/{verb}"), &body).await;
            let problem = problem(response, StatusCode::BAD_REQUEST).await;
            assert_eq!(problem["field"], field, "{body}: {problem}");
            assert!(problem["detail"].as_str().unwrap().contains(detail), "{body}: {problem}");
        }
    }
}

#[tokio::test]
async fn names_the_limits_that_there_are() {
    let response = shim().await.post_to("/v1/limits/shadow_ads/allow", &json!({})).await;
    let problem = problem(response, StatusCode::NOT_FOUND).await;
    let limits = "there are ads, costly, metered, plain, spread, strict, tagged, together, watched";
    assert_eq!(problem["detail"], format!("there is no limit `shadow_ads`; {limits}"));
}

#[tokio::test]
async fn refuses_a_batch_whole_when_one_of_its_items_is_wrong() {
    let shim = shim().await;
    let good = json!({"limit": "plain", "subjects": {"user": "u"}});
    for (items, field) in [
        (json!([]), "items"),
        (json!(vec![good.clone(); 257]), "items"),
        (json!([good, {"limit": "plian"}]), "items[1].limit"),
        (json!([good, {"limit": "plain", "lane": "x"}]), "items[1].lane"),
        (json!([good, {"limit": "plain", "subjects": {"x": "u"}}]), "items[1].subjects.x"),
        (json!([good, {"limit": "plain", "cost": 9}]), "items[1].cost"),
        (json!([good, {}]), "items[1].limit"),
    ] {
        for path in ["/v1/limits/allow", "/v1/limits/can_allow"] {
            let response = shim.post_to(path, &json!({"items": items})).await;
            assert_eq!(problem(response, StatusCode::BAD_REQUEST).await["field"], field);
        }
    }
    let whole = json!({"items": vec![good; 256]});
    let answer: Value = shim.post_to("/v1/limits/allow", &whole).await.json().await.unwrap();
    let allowed = answer["items"].as_array().unwrap().iter().filter(|item| item["allowed"] == true).count();
    assert_eq!(allowed, 2, "no batch that was refused has charged anything");
}

#[tokio::test]
async fn leaves_it_to_the_caller_when_the_store_cannot_decide() {
    let shim = Shim::start(App::new(Broken).with_policy(policy())).await;
    let body = json!({"subjects": {"user": "u"}});
    for verb in ["allow", "can_allow"] {
        let response = shim.post_to(&format!("/v1/limits/plain/{verb}"), &body).await;
        let problem = problem(response, StatusCode::SERVICE_UNAVAILABLE).await;
        assert_eq!(problem["error"], "timeout");
        let items = json!({"items": [{"limit": "plain", "lane": "shut"}, {"limit": "together"}]});
        let response = shim.post_to(&format!("/v1/limits/{verb}"), &items).await;
        assert_eq!(response.status(), StatusCode::OK);
        let answer: Value = response.json().await.unwrap();
        assert_eq!(answer["items"][0]["reason"], "turned_away", "what needs no store is decided");
        assert_eq!(answer["items"][1], problem);
    }
}

#[tokio::test]
async fn tells_an_unseen_subject_that_the_store_is_full() {
    let store = MemoryStore::new().with_max_subjects(NonZeroUsize::MIN);
    let shim = Shim::start(App::new(store).with_policy(policy())).await;
    let ask =
        async |user: &str| shim.post_to("/v1/limits/plain/allow", &json!({"subjects": {"user": user}})).await;
    assert_eq!(ask("known").await.status(), StatusCode::OK);
    let problem = problem(ask("unseen").await, StatusCode::SERVICE_UNAVAILABLE).await;
    assert_eq!(problem["error"], "full");
    assert_eq!(ask("known").await.status(), StatusCode::OK);
}

#[tokio::test]
async fn knows_no_limits_without_a_policy() {
    let shim = Shim::start(App::new(MemoryStore::new())).await;
    for path in PATHS {
        let problem = problem(shim.post_to(path, &json!({})).await, StatusCode::NOT_FOUND).await;
        assert!(problem["detail"].as_str().unwrap().contains("--policy"), "{problem}");
    }
}

#[tokio::test]
async fn answers_only_those_who_bear_the_token() {
    let shim = Shim::start(App::new(MemoryStore::new()).with_token("s3cret").with_policy(policy())).await;
    for path in PATHS {
        problem(shim.post_to(path, &json!({})).await, StatusCode::UNAUTHORIZED).await;
    }
    let url = format!("{}/v1/limits/plain/allow", shim.url);
    let answer = shim.client.post(url).bearer_auth("s3cret").body("{}").send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
}
