//! What clients get to see: the headers of an answer, and the answer to a rejected request.
//!
//! `RateLimit-Policy` and `RateLimit` follow draft-ietf-httpapi-ratelimit-headers-10, the bodies RFC 9457. The
//! policy header names every window that the request was judged by, the other one the window that is closest
//! to its end, as the draft asks for. The problem types are those that the draft registers.

use std::time::Duration;

use serde::Serialize;
use serde_json::json;

use crate::breaker::{self, Why};
use crate::counter::WindowVerdict;
use crate::policy::{Body, Breaker, Limit, LimitVerdict, OnFailure, PolicyItem, Responses, written};
use crate::window::Window;

/// Tells that the store did not decide, and what stood in for it: `local`, `open` or `closed`.
pub const FALLBACK_HEADER: &str = "x-lanekeeper-fallback";

/// The older header that says what is left.
pub const LEGACY_REMAINING: &str = "x-ratelimit-remaining";

/// A header for the answer of an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnswerHeader {
    /// Its lower-case name.
    pub name: &'static str,
    /// Its value.
    pub value: String,
    /// Whether it takes the place of the upstream's own; else it is a list, and joins it.
    pub replaces: bool,
}

/// An answer made by the filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// The gRPC status, for gRPC requests.
    pub grpc_status: u32,
    /// What access logs show as the response code's details.
    pub details: &'static str,
    /// Its headers.
    pub headers: Vec<(&'static str, String)>,
    /// Its body; for gRPC requests the `grpc-message`.
    pub body: String,
}

/// Why a request was refused without being over a limit.
#[derive(Debug)]
pub enum Refusal<'a> {
    /// It bears a flag that its sender may not set.
    Untrusted,
    /// Its lane has no entry of its own for this limit, and the lane says `fallback: reject`.
    TurnedAway {
        /// The limit.
        limit: &'a Limit,
    },
    /// It lacks a key that the limit asks for.
    MissingKey {
        /// The limit.
        limit: &'a Limit,
        /// The key's name.
        key: &'a str,
    },
    /// Its lane has no entry of its own for its command's breaker, and the lane says `fallback: reject`.
    CommandTurnedAway {
        /// The breaker.
        breaker: &'a Breaker,
    },
    /// Its command's breaker does not let it go.
    Broken {
        /// The breaker.
        breaker: &'a Breaker,
        /// The lane's name.
        lane: &'a str,
        /// What the breaker says.
        refusal: breaker::Refusal,
    },
    /// The store could not decide, and a limit says `on_failure: closed`.
    FailedClosed,
    /// Neither the store nor this node could decide.
    Unavailable,
}

/// A window that a request was judged by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShownWindow {
    /// An index into the lane's limits.
    pub limit: usize,
    /// An index into the limit's keys.
    pub key: usize,
    /// An index into the limit's windows.
    pub window: usize,
    /// What is left in it.
    pub remaining: u32,
    /// Until more is left.
    pub reset: Duration,
    /// Until the request fits.
    pub wait: Duration,
}

/// Every window that a request was judged by.
#[derive(Debug)]
pub struct Shown<'a> {
    /// The lane's limits.
    pub limits: &'a [Limit],
    /// The windows.
    pub windows: Vec<ShownWindow>,
}

impl ShownWindow {
    /// The window at this place, after this verdict.
    pub fn new(limit: usize, key: usize, window: usize, verdict: WindowVerdict) -> Self {
        let WindowVerdict { remaining, reset, wait } = verdict;
        Self { limit, key, window, remaining, reset, wait }
    }

    /// The window that a rejected request has to wait for: by then it fits into the others as well.
    pub fn last_to_free(windows: &[Self]) -> Option<Self> {
        windows.iter().min_by_key(|window| std::cmp::Reverse(window.wait)).copied()
    }
}

impl<'a> Shown<'a> {
    fn item(&self, shown: &ShownWindow) -> Option<&'a PolicyItem> {
        match &self.limits.get(shown.limit)?.verdict {
            LimitVerdict::Count(count) => count.policy_items.get(shown.key)?.get(shown.window),
            LimitVerdict::TurnAway => None,
        }
    }

    /// Every window's item, as a list.
    fn policy(&self) -> String {
        let items = || self.windows.iter().filter_map(|window| self.item(window)).map(|item| &item.item);
        let mut list = String::with_capacity(items().map(|item| item.len() + 1).sum());
        for item in items() {
            if !list.is_empty() {
                list.push(',');
            }
            list.push_str(item);
        }
        list
    }

    fn window(&self, shown: &ShownWindow) -> Option<(&'a Limit, &'a str, &'a Window)> {
        let limit = self.limits.get(shown.limit)?;
        match &limit.verdict {
            LimitVerdict::Count(count) => {
                Some((limit, &count.keys.get(shown.key)?.name, count.windows.get(shown.window)?))
            }
            LimitVerdict::TurnAway => None,
        }
    }

    /// The window with the least left; of several, the one that takes longest to have more.
    fn tightest(&self) -> Option<&ShownWindow> {
        self.windows.iter().min_by_key(|w| (w.remaining, std::cmp::Reverse(w.reset)))
    }
}

/// The problem types of draft-ietf-httpapi-ratelimit-headers-10, section 5.
const QUOTA_EXCEEDED: &str = "https://iana.org/assignments/http-problem-types#quota-exceeded";
const REDUCED_CAPACITY: &str = "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity";

/// The body of a refusal, as RFC 9457 has it.
#[derive(Serialize)]
struct Problem<'a> {
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    title: &'a str,
    status: u16,
    detail: &'a str,
    #[serde(flatten)]
    hit: Option<Hit<'a>>,
}

/// What a problem says of what rejected.
#[derive(Serialize)]
#[serde(untagged)]
enum Hit<'a> {
    Window {
        #[serde(rename = "violated-policies")]
        violated_policies: [&'a str; 1],
        limit: &'a str,
        key: &'a str,
        window: &'a str,
    },
    Breaker {
        breaker: &'a str,
        lane: &'a str,
    },
}

impl Problem<'_> {
    fn to_json(&self) -> String {
        // texts and numbers always have a JSON form
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// The headers for the answer to a request that was admitted. `fallback` is what stood in for the store.
pub fn headers(responses: &Responses, shown: &Shown<'_>, fallback: Option<OnFailure>) -> Vec<AnswerHeader> {
    let mut headers =
        shown.tightest().map(|closest| limit_headers(responses, shown, closest)).unwrap_or_default();
    let name_fallback = |mode: OnFailure| mode.name().to_owned();
    headers.extend(fallback.map(name_fallback).map(|value| AnswerHeader {
        name: FALLBACK_HEADER,
        value,
        replaces: true,
    }));
    headers
}

/// Whether the upstream says in its own older headers that less is left than `headers` say. The stricter of two
/// limiters is the one that clients must hear.
pub fn upstream_is_stricter(
    headers: &[AnswerHeader],
    upstream_remaining: &dyn Fn() -> Option<Vec<u8>>,
) -> bool {
    let number = |text: &str| text.trim().parse::<u64>().ok();
    let ours = headers.iter().find(|header| header.name == LEGACY_REMAINING).and_then(|h| number(&h.value));
    let Some(ours) = ours else { return false };
    let theirs = upstream_remaining().and_then(|value| String::from_utf8(value).ok());
    theirs.and_then(|text| number(&text)).is_some_and(|theirs| theirs < ours)
}

/// The answer to a request that `hit`, one of the shown windows, rejected.
pub fn over_limit(
    responses: &Responses,
    shown: &Shown<'_>,
    hit: ShownWindow,
    fallback: Option<OnFailure>,
    grpc: bool,
) -> Reply {
    let (limit, key, window) = match shown.window(&hit) {
        Some((limit, key, window)) => (limit.title.as_str(), key, written(window.per())),
        None => ("", "", String::new()),
    };
    let policy = shown.item(&hit).map(|item| item.name.as_str()).unwrap_or_default();
    let detail = format!("limit {limit} has nothing left for this {key} in its window of {window}");
    let mut headers = vec![("retry-after", seconds(hit.wait).max(1).to_string())];
    headers
        .extend(limit_headers(responses, shown, &hit).into_iter().map(|header| (header.name, header.value)));
    if let Some(mode) = fallback {
        headers.push((FALLBACK_HEADER, mode.name().to_owned()));
    }
    let problem = Problem {
        kind: Some(QUOTA_EXCEEDED),
        title: "Request cannot be satisfied as assigned quota has been exceeded",
        status: responses.rejected_status,
        detail: &detail,
        hit: Some(Hit::Window { violated_policies: [policy], limit, key, window: &window }),
    };
    let problem = problem.to_json();
    let details = "lanekeeper_over_limit";
    let reply = Reply { status: responses.rejected_status, grpc_status: 8, details, headers, body: detail };
    reply.with_body(responses.body, grpc, "rate limit exceeded", problem)
}

/// The answer to a request that was refused without being over a limit.
pub fn refusal(responses: &Responses, refusal: &Refusal<'_>, grpc: bool) -> Reply {
    let (status, grpc_status, details, title, detail) = match refusal {
        Refusal::Untrusted => {
            let detail = "this client may not mark its requests for another lane".to_owned();
            (403, 7, "lanekeeper_untrusted_flag", "Forbidden", detail)
        }
        Refusal::TurnedAway { limit } => {
            let detail = format!("there is no limit {}, and its lane goes nowhere without one", limit.title);
            (403, 7, "lanekeeper_lane_without_entry", "Forbidden", detail)
        }
        Refusal::MissingKey { limit, key } => {
            let detail = format!("limit {} cannot tell the {key} of this request", limit.title);
            (400, 3, "lanekeeper_missing_key", "Bad Request", detail)
        }
        Refusal::CommandTurnedAway { breaker } => {
            let detail =
                format!("there is no breaker {}, and its lane goes nowhere without one", breaker.title);
            (403, 7, "lanekeeper_lane_without_entry", "Forbidden", detail)
        }
        Refusal::Broken { breaker, lane, refusal } => {
            return broken(responses, breaker, lane, *refusal, grpc);
        }
        Refusal::FailedClosed => {
            let detail = "the limits of this request cannot be checked now".to_owned();
            (503, 14, "lanekeeper_failed_closed", "Service Unavailable", detail)
        }
        Refusal::Unavailable => {
            let detail = "the counters of this request cannot be read now".to_owned();
            (503, 14, "lanekeeper_counters_unavailable", "Service Unavailable", detail)
        }
    };
    let mut headers = Vec::new();
    let mut kind = None;
    if status == 503 {
        headers.push(("retry-after", "1".to_owned()));
        headers.push((FALLBACK_HEADER, OnFailure::Closed.name().to_owned()));
        kind = Some(REDUCED_CAPACITY);
    }
    let problem = Problem { kind, title, status, detail: &detail, hit: None }.to_json();
    let reply = Reply { status, grpc_status, details, headers, body: detail };
    reply.with_body(responses.body, grpc, &title.to_ascii_lowercase(), problem)
}

/// The answer to a request that its command's breaker did not let go.
fn broken(
    responses: &Responses,
    breaker: &Breaker,
    lane: &str,
    refusal: breaker::Refusal,
    grpc: bool,
) -> Reply {
    let title = &breaker.title;
    let (details, detail) = match refusal.why {
        Why::Open => ("lanekeeper_breaker_open", format!("breaker {title} of lane {lane} is open")),
        Why::HalfOpen => (
            "lanekeeper_breaker_half_open",
            format!("breaker {title} of lane {lane} is half-open, and its probes are under way"),
        ),
        Why::Full => (
            "lanekeeper_bulkhead_full",
            format!("as many calls of {title} of lane {lane} are under way as may be"),
        ),
        Why::Forced => (
            "lanekeeper_breaker_forced_open",
            format!("breaker {title} of lane {lane} is held open by its operator"),
        ),
    };
    let headers = vec![("retry-after", seconds(refusal.retry_after).max(1).to_string())];
    let (status, name) = (503, "Service Unavailable");
    let hit = Some(Hit::Breaker { breaker: title, lane });
    let problem =
        Problem { kind: Some(REDUCED_CAPACITY), title: name, status, detail: &detail, hit }.to_json();
    let reply = Reply { status, grpc_status: 14, details, headers, body: detail };
    reply.with_body(responses.body, grpc, &name.to_ascii_lowercase(), problem)
}

impl Reply {
    /// The same with the body that the policy asks for. A gRPC client reads the body as `grpc-message`.
    fn with_body(mut self, body: Body, grpc: bool, error: &str, problem: String) -> Self {
        let (content_type, text) = match body {
            _ if grpc => return self,
            Body::Problem => ("application/problem+json", problem),
            Body::Json => ("application/json", json!({ "error": error }).to_string()),
            Body::None => {
                self.body.clear();
                return self;
            }
        };
        self.headers.push(("content-type", content_type.to_owned()));
        self.body = text;
        self
    }
}

impl OnFailure {
    /// As policies and metrics have it.
    pub fn name(self) -> &'static str {
        match self {
            OnFailure::Local => "local",
            OnFailure::Open => "open",
            OnFailure::Closed => "closed",
        }
    }
}

fn limit_headers(responses: &Responses, shown: &Shown<'_>, closest: &ShownWindow) -> Vec<AnswerHeader> {
    let mut headers = Vec::new();
    let (Some(item), Some((_, _, window))) = (shown.item(closest), shown.window(closest)) else {
        return headers;
    };
    let (remaining, reset) = (closest.remaining, seconds(closest.reset));
    let mut add = |name, value, replaces| headers.push(AnswerHeader { name, value, replaces });
    if responses.draft_headers {
        add("ratelimit-policy", shown.policy(), false);
        let (remaining, reset) = (remaining.to_string(), reset.to_string());
        add("ratelimit", ["\"", &item.name, "\";r=", &remaining, ";t=", &reset].concat(), false);
    }
    if responses.legacy_headers {
        add("x-ratelimit-limit", window.limit().to_string(), true);
        add(LEGACY_REMAINING, remaining.to_string(), true);
        add("x-ratelimit-reset", reset.to_string(), true);
    }
    headers
}

/// Whole seconds, rounded up, so that whoever waits as long as told is not told to wait again.
fn seconds(span: Duration) -> u64 {
    span.as_secs() + u64::from(span.subsec_nanos() > 0)
}
