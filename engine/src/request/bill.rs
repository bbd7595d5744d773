//! What a request owes to limits with `consume: on_success`, until its answer has succeeded or failed.
//!
//! ```text
//!              an upstream's answer below 400             its end, or its client has left
//!   Awaited -----------------------------------> Begun -----------------------------------> charges, once
//!      |                                           |
//!      |  any other answer, an end without one     |  cut off; a gRPC status that is not 0
//!      +-------------------------------------------+--------------------------------------> Failed, nothing
//! ```
//!
//! The charge comes at the stream's end, since only then it is known that the answer was not cut off, and what a
//! gRPC call came to. An upgrade is settled by its answer's headers: what follows is a conversation of any length,
//! and it ends with a reset as often as not.
//!
//! A client that leaves amid an answer that has not failed pays for it: else all that a client had to do to be
//! served for nothing were to hang up after the last byte, and before the trailers.

use super::{AnswerFacts, Judge};
use crate::headers::Headers;
use crate::policy::OnFailure;
use crate::wire::{Check, CheckAnswer};

/// A charge for a request that has succeeded. Nobody waits for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Charge {
    /// Whose it is, and where it is counted.
    pub account: Account,
    /// One key, so that a full one keeps no other from being charged.
    pub check: Check,
}

/// Whose a charge is, and where it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account {
    /// The request's lane, as an index into [`Policy::lanes`](crate::policy::Policy::lanes).
    pub lane: usize,
    /// The limit, as an index into the lane's.
    pub limit: usize,
    /// Where it is counted: where the request was judged.
    pub counters: Counters,
}

/// Counters that are charged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counters {
    /// The store's.
    Store {
        /// What the limit does when the store cannot be charged.
        on_failure: OnFailure,
    },
    /// This node's, in the store's place.
    Fallback,
    /// This node's: there is no store.
    Local,
}

/// What became of a charge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChargeEnd {
    /// It counts.
    Charged,
    /// It did not fit any more: others took the rest between the decision and the answer.
    Full,
    /// The counters could not be charged.
    Failed,
    /// Too many waited already.
    Dropped,
}

impl Account {
    /// Where to charge when these counters could not be charged; `None` when nowhere.
    pub fn fallback(self) -> Option<Self> {
        match self.counters {
            Counters::Store { on_failure: OnFailure::Local } => {
                Some(Self { counters: Counters::Fallback, ..self })
            }
            Counters::Store { on_failure: OnFailure::Open | OnFailure::Closed }
            | Counters::Fallback
            | Counters::Local => None,
        }
    }

    /// Whose counters these are.
    pub fn judge(self) -> Judge {
        match self.counters {
            Counters::Store { .. } => Judge::Store,
            Counters::Fallback => Judge::Fallback(OnFailure::Local),
            Counters::Local => Judge::Local,
        }
    }
}

impl From<&CheckAnswer> for ChargeEnd {
    fn from(answer: &CheckAnswer) -> Self {
        match answer {
            CheckAnswer::Allowed { .. } => ChargeEnd::Charged,
            CheckAnswer::Rejected { .. } => ChargeEnd::Full,
            CheckAnswer::Failed { .. } => ChargeEnd::Failed,
        }
    }
}

/// How a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Its answer went out whole.
    Complete,
    /// Its client left, or broke the protocol.
    ClientLeft,
    /// Anything else: the upstream or the proxy cut it off.
    CutOff,
}

/// The charges of one request.
#[derive(Debug, Default)]
pub(super) struct Bill {
    charges: Vec<Charge>,
    asked: Asked,
    stage: Stage,
}

/// What kind of answer the request asks for.
#[derive(Clone, Copy, Debug, Default)]
enum Asked {
    #[default]
    Http,
    Grpc,
    Tunnel,
}

#[derive(Debug, Default)]
enum Stage {
    #[default]
    Awaited,
    /// Good so far.
    Begun,
    /// Good so far, and what it comes to says a status of its own, as far as it has come.
    BegunGrpc {
        status: Option<u32>,
    },
    Failed,
}

impl Bill {
    /// The empty bill of a request.
    pub(super) fn of(headers: &Headers, grpc: bool) -> Self {
        let tunnel = headers.first(":method") == Some(b"CONNECT");
        let asked = match (tunnel, grpc) {
            (true, _) => Asked::Tunnel,
            (false, true) => Asked::Grpc,
            (false, false) => Asked::Http,
        };
        Self { asked, ..Self::default() }
    }

    pub(super) fn add(&mut self, charge: Charge) {
        self.charges.push(charge);
    }

    /// The answer's headers pass. Gives what is to be charged now.
    pub(super) fn answer_began(&mut self, facts: &AnswerFacts<'_>) -> Vec<Charge> {
        if self.charges.is_empty() {
            return Vec::new();
        }
        let status = (facts.from_upstream)().then(|| (facts.header)(":status")).flatten();
        let status = status.and_then(|text| number(&text)).unwrap_or(u32::MAX);
        self.stage = match (status, self.asked) {
            (400.., _) => Stage::Failed,
            (101, _) | (200..=299, Asked::Tunnel) => return std::mem::take(&mut self.charges),
            (_, Asked::Grpc) => grpc_stage(facts),
            (_, Asked::Http | Asked::Tunnel) => Stage::Begun,
        };
        Vec::new()
    }

    /// The answer's trailers pass.
    pub(super) fn answer_trailers(&mut self, trailer: &dyn Fn(&str) -> Option<Vec<u8>>) {
        if let (Stage::BegunGrpc { status }, false) = (&mut self.stage, self.charges.is_empty()) {
            *status = trailer(GRPC_STATUS).map(|text| grpc_status(&text)).or(*status);
        }
    }

    /// The stream is over. Gives what is to be charged.
    pub(super) fn ended(&mut self, end: &dyn Fn() -> End) -> Vec<Charge> {
        let charges = std::mem::take(&mut self.charges);
        if charges.is_empty() || !self.stage.is_success(end) {
            return Vec::new();
        }
        charges
    }
}

impl Stage {
    fn is_success(&self, end: &dyn Fn() -> End) -> bool {
        match self {
            Stage::Awaited | Stage::Failed => false,
            Stage::Begun => end() != End::CutOff,
            // without a status a call has failed, if there was anybody to wait for one
            Stage::BegunGrpc { status: None } => end() == End::ClientLeft,
            Stage::BegunGrpc { status: Some(OK) } => end() != End::CutOff,
            Stage::BegunGrpc { status: Some(_) } => false,
        }
    }
}

pub(super) const GRPC_STATUS: &str = "grpc-status";
const OK: u32 = 0;
const UNKNOWN: u32 = 2;

/// An answer to a gRPC request is one of gRPC if it says so. Else a client could call itself one and never be charged
/// by a service that knows nothing of gRPC.
fn grpc_stage(facts: &AnswerFacts<'_>) -> Stage {
    let status = (facts.header)(GRPC_STATUS).map(|text| grpc_status(&text));
    let is_grpc = || (facts.header)("content-type").is_some_and(|kind| is_grpc(&kind));
    if status.is_some() || is_grpc() { Stage::BegunGrpc { status } } else { Stage::Begun }
}

/// Whether a content type is gRPC's own; that of gRPC-Web is not, which tells its status in the body.
pub(super) fn is_grpc(content_type: &[u8]) -> bool {
    let rest = content_type.strip_prefix(b"application/grpc");
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

pub(super) fn grpc_status(text: &[u8]) -> u32 {
    number(text).unwrap_or(UNKNOWN)
}

pub(super) fn number(text: &[u8]) -> Option<u32> {
    std::str::from_utf8(text).ok()?.parse().ok()
}
