//! What the outside knows of a request at each of its turns; asked for only where it matters, since every question
//! costs a call of the host.

use std::net::IpAddr;
use std::sync::Arc;

use crate::breaker::{Entry, Settings};
use crate::headers::Headers;
use crate::units::Timestamp;

/// Asks a breaker whether a call may go: the breaker's lane and its place there, its owner, and its settings.
pub type Enter<'a> = dyn Fn((usize, usize), &str, &Arc<Settings>) -> Entry + 'a;

/// What the outside knows about a request.
pub struct Facts<'a> {
    /// Its headers, as the client sent them.
    pub headers: &'a Headers,
    /// The client's trusted address; asked for only where a rule needs it.
    pub client: &'a dyn Fn() -> Option<IpAddr>,
    /// An even draw from all of `u32`; asked for only where a limit is enforced in part.
    pub chance: &'a dyn Fn() -> u32,
    /// When it arrived.
    pub now: Timestamp,
    /// Asks a breaker; only where one guards the call.
    pub enter: &'a Enter<'a>,
}

/// What is known of an answer when its headers pass; asked for only where it matters.
pub struct AnswerFacts<'a> {
    /// Whether the upstream made it, and not a filter or the proxy.
    pub from_upstream: &'a dyn Fn() -> bool,
    /// The first value of one of its headers.
    pub header: &'a dyn Fn(&str) -> Option<Vec<u8>>,
    /// The moment.
    pub now: &'a dyn Fn() -> Timestamp,
}

/// What is known of a stream when it is over; asked for only where it matters.
pub struct EndFacts<'a> {
    /// Envoy's response code details.
    pub details: &'a dyn Fn() -> Option<Vec<u8>>,
    /// Whether its client left, or broke the protocol.
    pub client_left: &'a dyn Fn() -> bool,
}
