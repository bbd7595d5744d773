//! A stream in a test's hands.

use std::rc::Rc;

use super::body::Body;
use super::context::StreamCell;
use super::flow::{End, Side, StreamState};
use super::half::{Message, Pause};
use super::headers::Headers;
use super::process::Process;
use super::property::Properties;
use super::reply::LocalReply;
use super::status::Status;
use super::vm::Vm;

/// Envoy's response flags, each a bit.
const UPSTREAM_TERMINATION: i64 = 1 << 6;
const DOWNSTREAM_TERMINATION: i64 = 1 << 14;
const DOWNSTREAM_REMOTE_RESET: i64 = 1 << 28;

/// A request to be sent. Header arrays turn into one, for requests that are all header.
#[derive(Clone, Debug)]
pub struct Request {
    pub(super) headers: Headers,
    pub(super) properties: Properties,
    pub(super) end: bool,
}

impl Request {
    /// A GET for `path`, complete with its headers.
    pub fn get(path: &str) -> Self {
        Self::with_method("GET", path)
    }

    /// A POST to `path`, complete with its headers unless [`open`](Self::open).
    pub fn post(path: &str) -> Self {
        Self::with_method("POST", path)
    }

    /// With one more header; its value may be any bytes.
    #[must_use]
    pub fn header(mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Self {
        self.headers.add(name, value);
        self
    }

    /// With an attribute, such as `["source", "address"]`. Numbers are eight bytes, the lowest first.
    #[must_use]
    pub fn property(mut self, path: &[&str], value: impl AsRef<[u8]>) -> Self {
        self.properties.set(path, Ok(value.as_ref().to_vec()));
        self
    }

    /// With an attribute that answers `status` when asked for.
    #[must_use]
    pub fn bad_property(mut self, path: &[&str], status: Status) -> Self {
        self.properties.set(path, Err(status));
        self
    }

    /// Not complete: a body or trailers follow.
    #[must_use]
    pub fn open(mut self) -> Self {
        self.end = false;
        self
    }

    fn with_method(method: &str, path: &str) -> Self {
        let authority = (":authority", "service.test");
        Self::from([(":method", method), (":scheme", "http"), authority, (":path", path)])
    }
}

impl<H: Into<Headers>> From<H> for Request {
    fn from(headers: H) -> Self {
        Self { headers: headers.into(), properties: StreamState::first_properties(), end: true }
    }
}

/// Where a request stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// The filter holds something of it back.
    Paused,
    /// On its way to the upstream.
    Continued,
    /// Answered by the filter, or by Envoy itself.
    Replied(LocalReply),
    /// Cut off.
    Reset,
    /// Lost to a failed VM.
    Failed,
}

/// A stream of one worker. It can be asked after its end, too.
#[derive(Clone)]
pub struct Stream {
    pub(super) process: Rc<Process>,
    pub(super) vm: Rc<Vm>,
    pub(super) cell: StreamCell,
}

impl Stream {
    /// The id of its context in the VM.
    pub fn id(&self) -> u32 {
        self.cell.borrow().id
    }

    /// Where the request stands.
    pub fn state(&self) -> State {
        let stream = self.cell.borrow();
        match (stream.end, &stream.reply, stream.request.pause) {
            (Some(End::Failed), ..) => State::Failed,
            (Some(End::Reset), ..) => State::Reset,
            (_, Some(reply), _) => State::Replied(reply.clone()),
            (_, None, Pause::None) => State::Continued,
            _ => State::Paused,
        }
    }

    /// The reply that the filter or Envoy gave, if one did.
    pub fn reply(&self) -> Option<LocalReply> {
        self.cell.borrow().reply.clone()
    }

    /// Whether the stream is logged, done and deleted.
    pub fn is_over(&self) -> bool {
        self.cell.borrow().end.is_some()
    }

    /// The request's headers as they are now, edits included, wherever they are.
    pub fn request_headers(&self) -> Headers {
        self.cell.borrow().request.headers.clone()
    }

    /// What the upstream has got.
    pub fn upstream(&self) -> Message {
        self.cell.borrow().request.passed.clone()
    }

    /// What the client has got.
    pub fn downstream(&self) -> Message {
        self.cell.borrow().response.passed.clone()
    }

    /// What the filter wrote with `proxy_set_property`, under the name without `wasm.`.
    pub fn filter_state(&self, name: &str) -> Option<Vec<u8>> {
        self.cell.borrow().filter_state.get(name).cloned()
    }

    /// Sets an attribute, from now on.
    pub fn set_property(&self, path: &[&str], value: impl AsRef<[u8]>) {
        self.cell.borrow_mut().properties.set(path, Ok(value.as_ref().to_vec()));
    }

    /// The client sends a part of the body.
    pub fn send_body(&self, bytes: impl AsRef<[u8]>, end: bool) {
        self.drive(|| self.vm.body_in(&self.cell, Side::Request, bytes.as_ref(), end));
    }

    /// The client ends the request with trailers.
    pub fn send_trailers(&self, trailers: impl Into<Headers>) {
        self.drive(|| self.vm.trailers_in(&self.cell, Side::Request, trailers.into()));
    }

    /// The upstream answers. Gives the headers that the client gets; none while the filter holds them back.
    pub fn respond(&self, headers: impl Into<Headers>) -> Option<Headers> {
        self.respond_with(headers.into(), false)
    }

    /// The upstream answers with headers alone, such as a gRPC error, and the stream ends.
    pub fn respond_and_end(&self, headers: impl Into<Headers>) -> Option<Headers> {
        let passed = self.respond_with(headers.into(), true);
        self.end();
        passed
    }

    /// The upstream sends a part of the response's body.
    pub fn respond_body(&self, bytes: impl AsRef<[u8]>, end: bool) {
        self.drive(|| self.vm.body_in(&self.cell, Side::Response, bytes.as_ref(), end));
    }

    /// The upstream ends the response with trailers.
    pub fn respond_trailers(&self, trailers: impl Into<Headers>) {
        self.drive(|| self.vm.trailers_in(&self.cell, Side::Response, trailers.into()));
    }

    /// Envoy answers instead of the upstream, for instance with 503 and `no_healthy_upstream`.
    pub fn respond_by_envoy(&self, status: u32, details: &str) {
        let reply =
            LocalReply::asked(status, Headers::default(), Body::default(), u32::MAX, details.as_bytes());
        self.drive(|| self.vm.local_reply(&self.cell, reply));
    }

    /// The stream is over: it is logged, done and deleted, in this order. Nothing happens if it was over before.
    pub fn end(&self) {
        self.drive(|| self.vm.finish(&self.cell, End::Completed));
    }

    /// The client goes away.
    pub fn reset(&self) {
        self.cut("downstream_remote_disconnect", DOWNSTREAM_TERMINATION);
    }

    /// The client resets its stream, as HTTP/2 can.
    pub fn reset_by_client(&self) {
        self.cut("http2.remote_reset", DOWNSTREAM_REMOTE_RESET);
    }

    /// The upstream breaks off its response.
    pub fn break_off(&self) {
        self.cut("upstream_reset_after_response_started{connection_termination}", UPSTREAM_TERMINATION);
    }

    fn cut(&self, details: &str, flag: i64) {
        self.set_property(&["response", "code_details"], details);
        self.set_property(&["response", "flags"], flag.to_le_bytes());
        self.drive(|| self.vm.reset(&self.cell));
    }

    /// Runs a callback of this stream whatever state it is in, also after its end, as a host must not.
    pub fn force(&self, callback: &'static str, arguments: &[u32]) {
        let id = self.id();
        let arguments: Vec<_> = std::iter::once(id).chain(arguments.iter().copied()).collect();
        self.drive(|| self.vm.callback(id, callback, &arguments));
    }

    fn respond_with(&self, headers: Headers, end: bool) -> Option<Headers> {
        self.drive(|| {
            if !self.is_over() {
                self.cell.borrow_mut().note_response(&headers, "via_upstream");
                self.vm.headers_in(&self.cell, Side::Response, headers, end);
            }
        });
        self.downstream().headers
    }

    fn drive<R>(&self, drive: impl FnOnce() -> R) -> R {
        self.process.in_turn(drive)
    }
}
