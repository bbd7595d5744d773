//! HTTP callouts: a filter's own requests to the proxy's clusters.
//!
//! A callout belongs to the root context and waits until a test answers it, until the installed answerer does, or
//! until its timeout, which the filter sees as a 504 of Envoy's own making.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use super::VmId;
use super::body::Body;
use super::call::Call;
use super::clock::Event;
use super::context::{Context, Root};
use super::headers::Headers;
use super::process::Process;
use super::status::{Outcome, Status};
use super::vm::Vm;

/// A callout that has been sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Callout {
    /// Tells it from all others of the process.
    pub id: u64,
    /// Who sent it.
    pub vm: VmId,
    /// The root context it belongs to.
    pub root: u32,
    /// The number by which the VM knows it.
    pub token: u32,
    /// Whereto.
    pub cluster: String,
    /// Its headers, with those that Envoy adds.
    pub headers: Headers,
    /// Its body.
    pub body: Body,
    /// After which Envoy gives it up. None: never.
    pub timeout: Option<Duration>,
    /// The monotonic moment of its start.
    pub sent_at: Duration,
}

/// What comes back for a callout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    content: Option<Reception>,
    after: Duration,
}

/// A response that the filter can read during its callback.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Reception {
    pub(super) headers: Headers,
    pub(super) body: Body,
    pub(super) trailers: Headers,
}

pub(super) type Answerer = Box<dyn FnMut(&Callout) -> Option<Answer>>;

/// Callouts without an answer, by id.
#[derive(Debug, Default)]
pub(super) struct Callouts {
    pub(super) pending: BTreeMap<u64, Callout>,
    sent: u64,
}

impl Answer {
    /// A response; `:status` is put in front of `headers`.
    pub fn response(status: u16, headers: impl Into<Headers>, body: impl Into<Body>) -> Self {
        let mut all = Headers::from([(":status", status.to_string())]);
        for (name, value) in headers.into().iter() {
            all.add(name, value);
        }
        Self::raw(all, body)
    }

    /// A response with exactly these headers, `:status` or not.
    pub fn raw(headers: impl Into<Headers>, body: impl Into<Body>) -> Self {
        let trailers = Headers::default();
        let content = Reception { headers: headers.into(), body: body.into(), trailers };
        Self { content: Some(content), after: Duration::ZERO }
    }

    /// Envoy's own 503, when no connection could be made or it broke before an answer.
    pub fn connect_failure() -> Self {
        let body =
            "upstream connect error or disconnect/reset before headers. reset reason: connection failure";
        Self::by_envoy(503, body)
    }

    /// Envoy's own 504, when the timeout is over.
    pub fn timeout() -> Self {
        Self::by_envoy(504, "upstream request timeout")
    }

    /// No answer at all: the filter gets zero headers. Envoy does so when the connection breaks amid a response.
    pub fn reset() -> Self {
        Self { content: None, after: Duration::ZERO }
    }

    /// The same, `span` later.
    #[must_use]
    pub fn after(self, span: Duration) -> Self {
        Self { after: span, ..self }
    }

    fn by_envoy(status: u16, body: &str) -> Self {
        let headers = [("content-length", body.len().to_string()), ("content-type", "text/plain".into())];
        Self::response(status, headers, body)
    }
}

impl Process {
    /// Answers a callout, at once or when its span has passed. False when nobody waits for it any more.
    pub(super) fn answer(&self, id: u64, answer: Answer) -> bool {
        let Some(vm) = self.callouts.borrow().pending.get(&id).map(|callout| callout.vm) else {
            return false;
        };
        if answer.after.is_zero() {
            return self.deliver(id, answer);
        }
        self.schedule(answer.after, Event::Answered { vm, id, answer });
        true
    }

    /// Takes a callout from the pending ones and hands its answer to the VM.
    pub(super) fn deliver(&self, id: u64, answer: Answer) -> bool {
        let Some(callout) = self.callouts.borrow_mut().pending.remove(&id) else {
            return false;
        };
        if let Some(vm) = self.vm(callout.vm) {
            vm.callout_response(callout.root, callout.token, answer);
        }
        true
    }

    /// Asks the installed answerer for an answer.
    pub(super) fn ask_answerer(&self, id: u64) {
        let Some(callout) = self.callouts.borrow().pending.get(&id).cloned() else {
            return;
        };
        let Some(mut answerer) = self.answerer.borrow_mut().take() else {
            return;
        };
        let answer = answerer(&callout);
        self.answerer.borrow_mut().get_or_insert(answerer);
        if let Some(answer) = answer {
            self.answer(id, answer);
        }
    }

    /// Forgets the callouts of a VM's root; nobody hears of them again.
    pub(super) fn cancel_callouts(&self, vm: VmId, root: u32) {
        self.callouts.borrow_mut().pending.retain(|_, callout| (callout.vm, callout.root) != (vm, root));
    }
}

impl Vm {
    /// Runs the callback for a callout's answer, in whose course it can be read.
    pub(super) fn callout_response(&self, root: u32, token: u32, answer: Answer) {
        let context = self.state.contexts.borrow().get(&root).cloned();
        let content = answer.content;
        let counts = content.as_ref().map(|r| [r.headers.len(), r.body.len(), r.trailers.len()]);
        let [headers, body, trailers] = counts.unwrap_or_default().map(|count| count as u32);
        let root_context: Option<Rc<Root>> = match context {
            Some(Context::Root(root)) => Some(root),
            _ => None,
        };
        if let Some(root) = &root_context {
            root.failure.set(content.is_none().then_some("reset"));
            *root.reception.borrow_mut() = content;
        }
        self.callback(root, "proxy_on_http_call_response", &[root, token, headers, body, trailers]);
        if let Some(root) = root_context {
            root.failure.set(None);
            *root.reception.borrow_mut() = None;
        }
    }
}

pub(super) fn http_call(call: &mut Call<'_, '_>) -> Outcome {
    let (cluster, headers, body) = (call.bytes()?, call.bytes()?, call.bytes()?);
    let _trailers_are_not_sent = call.bytes()?;
    let (timeout, token_to) = (call.u32(), call.u32());
    call.put_u32(token_to, 0)?;
    let cluster = String::from_utf8_lossy(&cluster).into_owned();
    let mut headers = Headers::decode(&headers);
    let is_addressed = [":method", ":path", ":authority"].iter().all(|name| headers.get(name).is_some());
    if timeout > i32::MAX as u32 || !is_addressed || !call.process.clusters.borrow().contains(&cluster) {
        return Err(Status::BadArgument);
    }
    if !body.is_empty() {
        headers.replace("content-length", body.len().to_string());
    }
    headers.replace("x-envoy-internal", "true");
    let timeout = Some(Duration::from_millis(timeout.into())).filter(|timeout| !timeout.is_zero());
    let root = call.root()?.id;
    let (vm, token) = (call.vm.id, call.vm.new_token());
    let process = call.process.clone();
    let body = body.into();
    let id = {
        let mut callouts = process.callouts.borrow_mut();
        callouts.sent += 1;
        let (id, sent_at) = (callouts.sent, process.now());
        let callout = Callout { id, vm, root, token, cluster, headers, body, timeout, sent_at };
        callouts.pending.insert(id, callout);
        id
    };
    process.post(Event::CalloutSent { vm, id });
    if let Some(timeout) = timeout {
        process.schedule(timeout, Event::Answered { vm, id, answer: Answer::timeout() });
    }
    call.put_u32(token_to, token)
}
