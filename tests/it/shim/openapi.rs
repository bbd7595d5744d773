//! The description of the service is one, is complete, and is true.

use std::collections::BTreeSet;

use lanekeeper_shim::app::{App, MAX_BODY_BYTES, OPENAPI, paths};
use lanekeeper_shim::memory::MemoryStore;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::limits::{Broken, policy};
use crate::support::Shim;

/// What the description says of one answer: `post /v1/decide 200`.
type Answered = (String, String, String);

struct Description(Value);

impl Description {
    fn read() -> Self {
        Self(serde_json::from_str(OPENAPI).unwrap())
    }

    /// Each operation: its path, its method and what is said of it.
    fn operations(&self) -> Vec<(&str, &str, &Value)> {
        let paths = self.0["paths"].as_object().unwrap();
        paths
            .iter()
            .flat_map(|(path, item)| {
                let operations = item.as_object().unwrap().iter();
                operations.map(move |(method, operation)| (path.as_str(), method.as_str(), operation))
            })
            .collect()
    }

    /// What `value` is, or what it refers to.
    fn resolved<'a>(&'a self, value: &'a Value) -> &'a Value {
        match value.get("$ref").and_then(Value::as_str) {
            Some(reference) => self.0.pointer(reference.strip_prefix('#').unwrap()).expect(reference),
            None => value,
        }
    }

    /// Panics when `instance` does not fit.
    #[track_caller]
    fn assert_fits(&self, schema: &Value, instance: &Value, what: &str) {
        let schema = json!({"allOf": [schema], "components": self.0["components"]});
        let validator = jsonschema::draft202012::new(&schema).unwrap();
        let errors: Vec<String> = validator
            .iter_errors(instance)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        assert!(errors.is_empty(), "{what}: {instance}\ndoes not fit: {errors:#?}");
    }
}

fn references(value: &Value) -> Vec<&str> {
    match value {
        Value::Object(fields) => {
            let own = fields.get("$ref").and_then(Value::as_str);
            own.into_iter().chain(fields.values().flat_map(references)).collect()
        }
        Value::Array(items) => items.iter().flat_map(references).collect(),
        _ => Vec::new(),
    }
}

#[test]
fn is_an_openapi_description_of_this_version() {
    let description = Description::read();
    let document = &description.0;
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1."));
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    let named = references(document);
    assert!(named.len() > 40, "{}", named.len());
    for reference in &named {
        assert!(document.pointer(reference.strip_prefix('#').unwrap()).is_some(), "{reference}");
    }
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        jsonschema::draft202012::meta::validate(schema).unwrap_or_else(|error| panic!("{name}: {error}"));
        let reference = format!("#/components/schemas/{name}");
        assert!(named.contains(&reference.as_str()), "nothing refers to {reference}");
    }
    let operations = description.operations();
    let names: BTreeSet<&str> =
        operations.iter().map(|(_, _, operation)| operation["operationId"].as_str().unwrap()).collect();
    assert_eq!(names.len(), operations.len(), "each operation has a name of its own");
    for (path, method, operation) in operations {
        assert!(operation["summary"].is_string(), "{path}");
        let responses = operation["responses"].as_object().unwrap();
        assert!(responses.keys().any(|status| status.starts_with('2')), "{path}");
        let parameters = operation["parameters"].as_array().into_iter().flatten();
        let parameters: Vec<String> =
            parameters.map(|parameter| format!("{{{}}}", parameter["name"].as_str().unwrap())).collect();
        let in_path: Vec<&str> = path.split('/').filter(|part| part.starts_with('{')).collect();
        assert_eq!(parameters, in_path, "{path}");
        for (status, response) in responses {
            let response = description.resolved(response);
            let has_content = response["content"].is_object();
            assert!(response["description"].is_string() && has_content == (status != "204"), "{path}");
        }
        if method == "post" {
            let media = &operation["requestBody"]["content"]["application/json"];
            description.assert_fits(&media["schema"], &media["example"], path);
        }
    }
}

#[tokio::test]
async fn names_every_route_and_its_method_and_no_other() {
    let description = Description::read();
    let described: BTreeSet<&str> = description.operations().iter().map(|(path, ..)| *path).collect();
    assert_eq!(described, paths().collect());
    let shim = Shim::start(App::new(MemoryStore::new()).with_policy(policy())).await;
    for path in paths() {
        for method in [Method::GET, Method::POST, Method::PUT, Method::DELETE, Method::PATCH] {
            let of_method = description.0["paths"][path].get(method.as_str().to_lowercase());
            let url = format!("{}{}", shim.url, path.replace("{limit}", "plain"));
            let answer = shim.client.request(method.clone(), url).send().await.unwrap();
            let is_served = answer.status() != StatusCode::METHOD_NOT_ALLOWED;
            assert_eq!(is_served, of_method.is_some(), "{method} {path}");
        }
    }
}

/// Asks `shim`, holds the answer to the description and returns which answer it was.
async fn ask(
    description: &Description,
    shim: &Shim,
    path: &str,
    limit: &str,
    body: Option<&str>,
) -> Answered {
    let method = if body.is_some() { Method::POST } else { Method::GET };
    let operation = &description.0["paths"][path][method.as_str().to_lowercase()];
    let url = format!("{}{}", shim.url, path.replace("{limit}", limit));
    let request = shim.client.request(method.clone(), url).bearer_auth(TOKEN);
    let answer = request.body(body.unwrap_or_default().to_owned()).send().await.unwrap();
    let status = answer.status().as_u16().to_string();
    let what = format!("{method} {path} {status}");
    let response = description.resolved(&operation["responses"][&status]);
    let shim_header = description.resolved(&response["headers"]["x-lanekeeper-shim"]);
    let header = answer.headers()["x-lanekeeper-shim"].to_str().unwrap();
    description.assert_fits(&shim_header["schema"], &json!(header), &what);
    if answer.status() == StatusCode::NO_CONTENT {
        return (method.to_string().to_lowercase(), path.to_owned(), status);
    }
    let kind = answer.headers()["content-type"].to_str().unwrap().to_owned();
    let media = response["content"].get(&kind).unwrap_or_else(|| panic!("{what}: {kind} is not described"));
    let text = answer.text().await.unwrap();
    let said = if kind.contains("json") { serde_json::from_str(&text).unwrap() } else { json!(text) };
    description.assert_fits(&media["schema"], &said, &what);
    (method.to_string().to_lowercase(), path.to_owned(), status)
}

const BATCHES: [&str; 2] = ["/v1/limits/can_allow", "/v1/limits/allow"];
const SINGLES: [&str; 2] = ["/v1/limits/{limit}/can_allow", "/v1/limits/{limit}/allow"];
const DECIDE: &str = "/v1/decide";
const RETURN: &str = "/v1/return";
const BREAKERS: &str = "/v1/breakers";
const RESET: &str = "/v1/limits/{limit}/reset";
/// What every question here bears.
const TOKEN: &str = "operator";

#[tokio::test]
async fn fits_real_answers_of_every_kind_that_it_names() {
    let description = Description::read();
    let app = || App::new(MemoryStore::new());
    let shim = Shim::start(app().with_policy(policy())).await;
    let bare = Shim::start(app()).await;
    let locked = Shim::start(app().with_token("s3cret").with_policy(policy())).await;
    let ours = Shim::start(app().with_admin_token(TOKEN).with_policy(policy())).await;
    let theirs = Shim::start(app().with_admin_token("s3cret").with_policy(policy())).await;
    let broken = Shim::start(App::new(Broken).with_policy(policy())).await;
    let full = Shim::start(app().with_admin_token(TOKEN).with_policy(policy()).with_max_requests(0)).await;
    let mut seen: BTreeSet<Answered> = BTreeSet::new();

    for path in ["/healthz", "/readyz", "/metrics", "/openapi.json"] {
        seen.insert(ask(&description, &shim, path, "", None).await);
    }
    for (shim, path) in [(&broken, "/readyz"), (&locked, BREAKERS)] {
        seen.insert(ask(&description, shim, path, "", None).await);
    }

    for path in paths().filter(|path| path.starts_with("/v1/")) {
        let body = (path != BREAKERS).then_some("{}");
        let answer = ask(&description, &full, path, "plain", body).await;
        assert_eq!(answer.2, "503", "{path}");
        seen.insert(answer);
    }
    let too_long = " ".repeat(MAX_BODY_BYTES + 1);
    for path in paths().filter(|path| path.starts_with("/v1/") && *path != BREAKERS) {
        let (open, locked) = if path.ends_with("/reset") { (&ours, &theirs) } else { (&shim, &locked) };
        for (shim, body) in [(open, "{"), (open, "[]"), (locked, "{}"), (open, &too_long)] {
            seen.insert(ask(&description, shim, path, "plain", Some(body)).await);
        }
    }
    let windows = r#"[{"algorithm": "sliding_window", "limit": 1, "per_ms": 60000},
        {"algorithm": "sliding_log", "limit": 1, "per_ms": 60000},
        {"algorithm": "sliding_counter", "limit": 1, "per_ms": 60000},
        {"algorithm": "fixed_window", "limit": 1, "per_ms": 60000, "offset_min": 480},
        {"algorithm": "fixed_window", "limit": 1, "per_ms": 60000, "timezone": "Asia/Kathmandu"},
        {"algorithm": "token_bucket", "limit": 1, "per_ms": 60000, "burst": 1}]"#;
    let check = format!(r#"{{"keys": [{{"key": "{{k}}", "cost": 1, "windows": {windows}}}]}}"#);
    let back = format!(r#"{{"key": "{{k}}", "tokens": 1, "dated_us": 9, "id": 1, "windows": {windows}}}"#);
    let lease = r#""lease": {"tokens": 5, "life_ms": 9000, "drift": 10000, "nodes": 1}"#;
    let hour = r#"[{"algorithm": "sliding_window", "limit": 1000, "per_ms": 3600000}]"#;
    let leased = format!(r#"{{"keys": [{{"key": "{{l}}", "cost": 0, {lease}, "windows": {hour}}}]}}"#);
    let breakers = r#"{"name": "a", "state": "closed", "generation": 0},
        {"name": "b", "state": "open", "generation": 18446744073709551615, "for_ms": 0},
        {"name": "c.c", "state": "half_open", "generation": 2, "for_ms": 9007199254740992}"#;
    let slices = r#"[{"age_us": 9007199254740992, "tokens": 1}, {"age_us": 0, "tokens": 1}]"#;
    let spent = format!(r#"{{"key": "{{k}}", "id": 1, "slices": {slices}, "windows": {windows}}}"#);
    for (spent, returns, breakers, checks) in [
        ("", "", "", format!("{check}, {check}, {leased}")),
        (spent.as_str(), "", "", String::new()),
        ("", back.as_str(), "", String::new()),
        ("", "", breakers, String::new()),
    ] {
        let batch = r#"{"version": 1, "spend_within_ms": 0, "node": 1, "#;
        let beside = format!(r#""spent": [{spent}], "returns": [{returns}], "breakers": [{breakers}]"#);
        let batch = format!(r#"{batch}{beside}, "checks": [{checks}]}}"#);
        let asked: Value = serde_json::from_str(&batch).unwrap();
        let schema = json!({"$ref": "#/components/schemas/DecideRequest"});
        description.assert_fits(&schema, &asked, "a batch");
        for shim in [&shim, &broken] {
            seen.insert(ask(&description, shim, DECIDE, "", Some(&batch)).await);
        }
    }
    seen.insert(ask(&description, &shim, BREAKERS, "", None).await);
    let back = format!(r#"{{"version": 1, "returns": [{back}, {back}]}}"#);
    for shim in [&shim, &broken] {
        seen.insert(ask(&description, shim, RETURN, "", Some(&back)).await);
    }
    let nobody = r#"{"subjects": {"user": "nobody"}}"#;
    let broken_ours = Shim::start(App::new(Broken).with_admin_token(TOKEN).with_policy(policy())).await;
    for (shim, limit) in [(&ours, "plain"), (&ours, "none"), (&shim, "plain"), (&broken_ours, "plain")] {
        seen.insert(ask(&description, shim, RESET, limit, Some(nobody)).await);
    }
    // allowed, over the limit, a dry run, nothing to count, a missing key, turned away
    let questions = [
        ("plain", r#"{"subjects": {"user": "u"}}"#),
        ("plain", r#"{"subjects": {"user": "u"}, "cost": 2}"#),
        ("watched", r#"{"subjects": {"user": ["u"]}}"#),
        ("watched", r#"{"subjects": {"user": ["u"]}}"#),
        ("plain", "{}"),
        ("strict", r#"{"lane": "shadow"}"#),
        ("plain", r#"{"lane": "shut"}"#),
    ];
    for path in SINGLES {
        for (limit, body) in questions {
            seen.insert(ask(&description, &shim, path, limit, Some(body)).await);
        }
        seen.insert(ask(&description, &shim, path, "none", Some("{}")).await);
        seen.insert(ask(&description, &bare, path, "plain", Some("{}")).await);
        seen.insert(ask(&description, &broken, path, "together", Some("{}")).await);
    }
    for path in BATCHES {
        let item = |(limit, body): (&str, &str)| {
            let mut item: Value = serde_json::from_str(body).unwrap();
            item["limit"] = json!(limit);
            item
        };
        let items = json!({"items": questions.map(item)}).to_string();
        for shim in [&shim, &broken, &bare] {
            seen.insert(ask(&description, shim, path, "", Some(&items)).await);
        }
    }

    let described = description.operations().into_iter().flat_map(|(path, method, operation)| {
        let statuses = operation["responses"].as_object().unwrap().keys();
        statuses.map(move |status| (method.to_owned(), path.to_owned(), status.clone()))
    });
    assert_eq!(seen, described.collect(), "every answer that is described was seen");
}
