//! One request and its answer.

use std::cell::RefCell;
use std::rc::Rc;

use lanekeeper_engine::answer::{AnswerHeader, LEGACY_REMAINING, Reply};
use lanekeeper_engine::lane::{HeaderEdit, parse_source};
use lanekeeper_engine::request::{AnswerFacts, Charge, End, EndFacts, Facts, Request, Step, VIA_UPSTREAM};
use lanekeeper_engine::units::Timestamp;

use crate::host::{self, HostError, Level, Map};
use crate::root::{Active, Root};

/// What the host does after a callback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// It goes on.
    Continue = 0,
    /// It waits until it is told to go on.
    Pause = 1,
}

/// A stream context.
pub(crate) struct Stream {
    root: u32,
    /// None before its headers. Not in place: streams are moved about in the map that holds them.
    request: Option<Box<Request>>,
}

/// What a decided request may do.
enum Verdict {
    Pass,
    Refused(Reply),
    Waits,
}

impl Stream {
    pub(crate) fn new(root: u32) -> Self {
        Self { root, request: None }
    }

    /// The root context that it belongs to.
    pub(crate) fn root(&self) -> u32 {
        self.root
    }

    /// Its headers have come. `None` when they cannot be judged.
    pub(crate) fn request_headers(&mut self, id: u32, root: &mut Root) -> Option<Action> {
        let active = root.active()?;
        let headers = host::headers(Map::Request).ok().flatten()?;
        let client = || host::property(&["source", "address"]).and_then(|address| parse_source(&address));
        // without chance a limit that is enforced in part is enforced
        let chance = || getrandom::u32().unwrap_or(0);
        let (policy, now) = (Rc::clone(&active.policy), host::now());
        let (request, arrival) = {
            let active = RefCell::new(&mut *active);
            let enter = |at, owner: &str, settings: &_| active.borrow_mut().enter(at, owner, settings, now);
            let facts = Facts { headers: &headers, client: &client, chance: &chance, now, enter: &enter };
            Request::arrive(&policy, &facts)
        };
        for lane in arrival.forged {
            active.metrics.forged(&policy, lane);
        }
        if !matches!(arrival.step, Step::Reply(_)) {
            // a flag that cannot be stripped would reach the services
            arrival.edits.iter().try_for_each(apply).ok()?;
        }
        let request = self.request.insert(Box::new(request));
        Some(match settle(id, request, active, arrival.step, now) {
            Verdict::Pass => Action::Continue,
            Verdict::Waits => Action::Pause,
            Verdict::Refused(reply) => {
                send(&reply);
                Action::Pause
            }
        })
    }

    /// More of its body, or its trailers. A body that is let go takes the paused headers with it.
    pub(crate) fn request_goes_on(&self) -> Action {
        match &self.request {
            Some(request) if request.is_pending() => Action::Pause,
            _ => Action::Continue,
        }
    }

    /// Its answer has come: the limits' headers go with it. An upstream that limits too keeps its word: the
    /// draft's headers are lists, and of the older ones the stricter stays.
    pub(crate) fn response_headers(&mut self, root: &mut Root) {
        let Some(request) = &mut self.request else { return };
        let upstream_remaining = || host::header(Map::Response, LEGACY_REMAINING);
        for AnswerHeader { name, value, replaces } in request.answer_headers(&upstream_remaining) {
            let removed = if *replaces { host::remove_header(Map::Response, name) } else { Ok(()) };
            if let Err(error) = removed.and_then(|()| host::add_header(Map::Response, name, value.as_bytes()))
            {
                host::log(Level::Warn, &format!("lanekeeper cannot write {name}: {error}"));
            }
        }
        let from_upstream = || code_details().as_deref() == Some(VIA_UPSTREAM);
        // a breaker asks for several: all at once cost the host as much as one
        let all = if request.is_guarded() { host::headers(Map::Response).ok().flatten() } else { None };
        let header = |name: &str| match &all {
            Some(all) => all.first(name).map(<[u8]>::to_vec),
            None => host::header(Map::Response, name),
        };
        let facts = AnswerFacts { from_upstream: &from_upstream, header: &header, now: &host::now };
        charge(root, request.answer_began(&facts));
    }

    /// The trailers of its answer have come.
    pub(crate) fn response_trailers(&mut self) {
        if let Some(request) = &mut self.request {
            request.answer_trailers(&|name| host::header(Map::ResponseTrailers, name));
        }
    }

    /// It is over.
    pub(crate) fn done(mut self, root: &mut Root) {
        let Some(request) = &mut self.request else { return };
        charge(root, request.ended(&end));
        if let Some(active) = root.active() {
            leave(request, active);
        }
    }

    /// Something is known now of what it waits for; from a callback of the root. `hear` gives no step when it is to wait
    /// for more.
    pub(crate) fn hear(
        &mut self,
        id: u32,
        active: &mut Active,
        hear: impl FnOnce(&mut Active, &mut Request) -> Option<Step>,
        now: Timestamp,
    ) {
        let Some(request) = self.request.as_mut().filter(|request| request.is_pending()) else { return };
        let Some(step) = hear(active, request) else { return };
        let verdict = settle(id, request, active, step, now);
        // a stream whose context is gone has nobody left to answer
        if host::set_effective_context(id).is_err() {
            return;
        }
        match verdict {
            Verdict::Pass => {
                if let Err(error) = host::resume_request() {
                    host::log(Level::Error, &format!("lanekeeper cannot resume a request: {error}"));
                }
            }
            Verdict::Refused(reply) => send(&reply),
            Verdict::Waits => {}
        }
    }
}

/// Follows a request's steps as far as they go now.
fn settle(id: u32, request: &mut Request, active: &mut Active, step: Step, now: Timestamp) -> Verdict {
    let mut step = step;
    let verdict = loop {
        step = match step {
            Step::Continue => break Verdict::Pass,
            Step::Reply(reply) => break Verdict::Refused(reply),
            Step::Ask => match active.seek(id, request, now) {
                Some(step) => step,
                None => break Verdict::Waits,
            },
            Step::Count => active.count(request, now),
        };
    };
    if matches!(verdict, Verdict::Refused(_)) {
        // the call does not go: another may have its place
        leave(request, active);
    }
    for tally in request.take_tallies() {
        active.metrics.decision(&active.policy, request.lane(), tally);
    }
    verdict
}

/// Tells the request's breaker what came of it.
fn leave(request: &mut Request, active: &mut Active) {
    active.leave(request, &EndFacts { details: &code_details, client_left: &client_left });
}

/// Charges for an answer that has succeeded.
fn charge(root: &mut Root, charges: Vec<Charge>) {
    if let (Some(active), false) = (root.active(), charges.is_empty()) {
        active.charge(charges, host::now());
    }
}

/// The bits of Envoy's response flags that put the end down to the client: its connection ended (DC), it broke the
/// protocol (DPE), it reset the stream (DR).
const CLIENT_LEFT: i64 = 1 << 14 | 1 << 18 | 1 << 28;

fn code_details() -> Option<Vec<u8>> {
    host::property(&["response", "code_details"])
}

fn client_left() -> bool {
    let flags = host::property(&["response", "flags"]).and_then(|flags| flags.try_into().ok());
    flags.map_or(0, i64::from_le_bytes) & CLIENT_LEFT != 0
}

/// How the stream of the running callback has ended.
fn end() -> End {
    if client_left() {
        End::ClientLeft
    } else if code_details().as_deref() == Some(VIA_UPSTREAM) {
        End::Complete
    } else {
        End::CutOff
    }
}

fn apply(edit: &HeaderEdit) -> Result<(), HostError> {
    host::remove_header(Map::Request, &edit.name)?;
    edit.lines.iter().try_for_each(|line| host::add_header(Map::Request, &edit.name, line))
}

fn send(reply: &Reply) {
    let headers: Vec<(&str, &str)> =
        reply.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let sent =
        host::send_local_response(reply.status, reply.grpc_status, reply.details, &headers, &reply.body);
    if let Err(error) = sent {
        host::log(Level::Error, &format!("lanekeeper cannot refuse a request: {error}"));
    }
}
