//! The checked policy: what an operator wrote, as ready objects.
//!
//! [`Policy::from_json`] is the only way in. It walks the document once, notes every error with its path, value
//! and what is allowed, and refuses the whole policy when there is one; nothing is checked again later.
//! Lanes are resolved here too: each lane owns its limits, with what its own entries leave out taken from
//! the normal ones, so that a request is judged without a second look-up.

use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use regex_lite::Regex;

use crate::window::Window;

mod breakers;
mod commands;
mod document;
mod duration;
mod error;
mod failures;
mod inherit;
mod json;
mod keys;
mod lanes;
mod limits;
mod matches;
mod names;
mod read;
mod resilience;
mod responses;
mod share;
mod store;
mod windows;
mod words;

pub use document::MAX_BYTES;
pub use duration::written;
pub use error::PolicyError;
pub use inherit::own_version;
pub use read::{field_path, item_path};
pub use resilience::{Breaker, BreakerVerdict};
pub use share::Share;

/// A whole policy.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The lanes; the first is the normal one, the others follow in the order of their names.
    pub lanes: Vec<Lane>,
    /// The store; without it every node counts on its own.
    pub store: Option<Store>,
    /// Names for what is called; the first that matches wins.
    pub commands: Vec<Command>,
    /// What clients get to see.
    pub responses: Responses,
    /// What is likely a slip, though nothing is wrong: said to the operator, and no reason to refuse the policy.
    pub warnings: Vec<PolicyError>,
}

/// The name of the lane of real users.
pub const NORMAL: &str = "normal";

/// One lane with its limits and breakers.
#[derive(Clone, Debug)]
pub struct Lane {
    /// Its name: [`NORMAL`], or as written.
    pub name: String,
    /// How requests come into it; none for the normal lane.
    pub entry: Option<LaneEntry>,
    /// What applies in it, in the order of the limits' names.
    pub limits: Vec<Limit>,
    /// What guards its calls, in the order of their commands; see [`Lane::breaker`].
    pub breakers: Vec<Breaker>,
}

/// How requests come into a lane.
#[derive(Clone, Debug)]
pub struct LaneEntry {
    /// Any one of these marks the request.
    pub flags: Vec<Flag>,
    /// Any one of these may set the flag.
    pub trust: Vec<Truster>,
    /// What becomes of a flag that its sender may not set.
    pub untrusted: Untrusted,
    /// What is written for the services downstream.
    pub propagate: Vec<Mark>,
    /// `false`: nobody enters, and the flag is still stripped from the untrusted.
    pub enabled: bool,
}

/// Where a mark is carried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// A member of W3C `baggage`, by its key.
    Baggage(String),
    /// A header of its own, by its lower-case name.
    Header(String),
    /// Jaeger's baggage header `uberctx-<key>`, by the key.
    JaegerBaggage(String),
    /// A pair of SkyWalking's `sw8-correlation`, by its key.
    SkyWalking(String),
    /// A member of W3C `tracestate`, by its key.
    Tracestate(String),
}

/// A carrier and the values that count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flag {
    /// Where to look.
    pub carrier: Carrier,
    /// Any one of these values marks the request.
    pub values: Vec<String>,
}

/// A carrier and the value to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Where to write; never [`Carrier::Tracestate`], which only a tracer may change.
    pub carrier: Carrier,
    /// What to write.
    pub value: String,
}

/// Who may set a lane's flag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Truster {
    /// Anybody.
    Everyone,
    /// Clients whose trusted address lies in one of these networks.
    SourceCidr(Vec<IpNet>),
}

/// What becomes of a flag that its sender may not set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Untrusted {
    /// The flag is removed and the request is normal.
    #[default]
    Strip,
    /// The request is answered with 403.
    Reject,
}

/// The store's settings.
#[derive(Clone, Debug, PartialEq)]
pub struct Store {
    /// The Envoy cluster of the shim.
    pub cluster: String,
    /// How long a request waits for an answer; at least 1 ms.
    pub timeout: Duration,
    /// The share of a limit that leases may hold back. 0: no leases.
    pub max_drift: Share,
    /// When not to ask the store at all.
    pub circuit: CircuitSettings,
    /// The environment variable that holds the bearer token for the shim.
    pub token_env: Option<String>,
}

/// When the store is left alone for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CircuitSettings {
    /// So many failures or slow answers in a row open the circuit.
    pub failures: u32,
    /// An answer later than this counts as a failure here, though it is used.
    pub slow: Duration,
    /// An open circuit lets one question through this often.
    pub probe_every: Duration,
}

/// What a limit does while the store cannot decide.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum OnFailure {
    /// Counts on this node.
    #[default]
    Local,
    /// Admits.
    Open,
    /// Rejects.
    Closed,
}

/// A name for what is called.
#[derive(Clone, Debug)]
pub struct Command {
    /// The name.
    pub name: String,
    /// The requests that it names.
    pub matches: Match,
}

/// Which requests. Every part that is said must hold; parts that are not said hold for all.
#[derive(Clone, Debug, Default)]
pub struct Match {
    /// One of these commands; empty for all.
    pub commands: Vec<String>,
    /// One of these methods; empty for all.
    pub methods: Vec<String>,
    /// The normalised path.
    pub path: Option<StringMatch>,
    /// All of these.
    pub headers: Vec<HeaderMatch>,
}

/// A header and what its value must be.
#[derive(Clone, Debug)]
pub struct HeaderMatch {
    /// Its lower-case name.
    pub name: String,
    /// What holds for it.
    pub value: HeaderTest,
}

/// What holds for a header.
#[derive(Clone, Debug)]
pub enum HeaderTest {
    /// It is there (or is not).
    Present(bool),
    /// One of its values matches.
    Value(StringMatch),
}

/// What holds for a text.
#[derive(Clone, Debug)]
pub enum StringMatch {
    /// It is this.
    Exact(String),
    /// It begins so.
    Prefix(String),
    /// It ends so.
    Suffix(String),
    /// All of it matches this; the expression is anchored at both ends.
    Regex(Regex),
}

/// A limit as it applies in one lane.
#[derive(Clone, Debug)]
pub struct Limit {
    /// The name of its entry for normal traffic.
    pub name: String,
    /// Its name in this lane: `<lane>_<name>`, or the name itself in the normal lane. Clients and metrics see it.
    pub title: String,
    /// What its store keys begin with; the lane's own, unless the lane shares the normal lane's state.
    pub key_prefix: String,
    /// The requests that it applies to.
    pub matches: Match,
    /// Of those, the ones that it does not.
    pub except: Option<Match>,
    /// What it does with them.
    pub verdict: LimitVerdict,
}

/// What a limit does with the requests it applies to.
#[derive(Clone, Debug)]
pub enum LimitVerdict {
    /// Counts them.
    Count(Count),
    /// Turns them away: the lane has no entry of its own and `fallback: reject`.
    TurnAway,
}

/// How a limit counts.
#[derive(Clone, Debug)]
pub struct Count {
    /// All must allow.
    pub keys: Vec<Key>,
    /// All must allow, for each key.
    pub windows: Arc<[Window]>,
    /// For each key and window, in that order: its item in `RateLimit-Policy`.
    pub policy_items: Vec<Vec<PolicyItem>>,
    /// The subject whose hash tag all keys share; else each key has its own.
    pub hash_tag: Option<Vec<Source>>,
    /// What a request costs.
    pub cost: Cost,
    /// Over how many store keys each key is spread: at least 1, at most what the smallest window holds.
    pub shards: u16,
    /// When it is charged.
    pub consume: Consume,
    /// What becomes of a request without one of the keys.
    pub on_missing_key: OnMissingKey,
    /// The share of requests that are rejected when over the limit; the others are a dry run.
    pub enforce: Share,
    /// What it does while the store cannot decide.
    pub on_failure: OnFailure,
}

/// A window as clients get to see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyItem {
    /// `<title>`, then `:<key>` if the limit has several keys, then `:<window>` if it has several windows.
    pub name: String,
    /// The item of `RateLimit-Policy`: `"<name>";q=<limit>;w=<seconds>`, without `w` for less than a second.
    pub item: String,
}

/// What is counted.
#[derive(Clone, Debug)]
pub struct Key {
    /// Its name.
    pub name: String,
    /// Where its subject comes from; several make a composite.
    pub sources: Vec<Source>,
}

/// Where a part of a subject comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The first value of the header of this lower-case name.
    Header(String),
    /// Envoy's trusted client address; an IPv6 address counts as its network of this many bits.
    Ip {
        /// 1 to 128.
        v6_prefix: u8,
    },
    /// The normalised path.
    Path,
    /// The method.
    Method,
    /// The `:authority`, lower-case.
    Host,
    /// The command's name.
    Command,
    /// This text.
    Constant(String),
    /// The value of the header of this lower-case name, which leaves the proxy only as a hash.
    ApiKey(String),
}

/// What a request costs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cost {
    /// This much.
    Fixed(u32),
    /// What this header says, from 1 to `max`. Without the header 1; what is no such number costs `max`, so
    /// that nothing a client can send makes its requests cheaper than the policy means.
    Header {
        /// The lower-case name of the header.
        name: String,
        /// The most it may say; at most the capacity of each window, in one of its shards.
        max: u32,
    },
}

/// When a request is charged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Consume {
    /// With its decision.
    #[default]
    OnRequest,
    /// When its answer has succeeded. The decision only looks whether the request fits.
    OnSuccess,
}

/// What becomes of a request without one of a limit's keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnMissingKey {
    /// The key is not counted.
    #[default]
    Skip,
    /// The request is answered with 400.
    Reject,
}

/// What clients get to see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Responses {
    /// `RateLimit-Policy` and `RateLimit` of draft-ietf-httpapi-ratelimit-headers-10.
    pub draft_headers: bool,
    /// `X-RateLimit-Limit`, `-Remaining` and `-Reset`.
    pub legacy_headers: bool,
    /// The status of a rejected request: 400 to 599.
    pub rejected_status: u16,
    /// The body of a rejected request.
    pub body: Body,
}

/// The body of a rejected request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Body {
    /// RFC 9457, `application/problem+json`.
    #[default]
    Problem,
    /// `{"error":"rate limit exceeded"}`.
    Json,
    /// None.
    None,
}

#[cfg(test)]
mod tests;
