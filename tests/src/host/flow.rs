//! How a stream goes through the filter: Envoy's filter chain, as far as one filter can tell.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::context::{Context, Root, StreamCell};
use super::half::{Half, Pause};
use super::headers::Headers;
use super::property::Properties;
use super::reply::LocalReply;
use super::vm::{Answered, Vm};

/// A direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Request,
    Response,
}

impl Side {
    fn on_headers(self) -> &'static str {
        match self {
            Side::Request => "proxy_on_request_headers",
            Side::Response => "proxy_on_response_headers",
        }
    }

    fn on_body(self) -> &'static str {
        match self {
            Side::Request => "proxy_on_request_body",
            Side::Response => "proxy_on_response_body",
        }
    }

    fn on_trailers(self) -> &'static str {
        match self {
            Side::Request => "proxy_on_request_trailers",
            Side::Response => "proxy_on_response_trailers",
        }
    }
}

/// Why a stream is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Completed,
    Reset,
    Failed,
}

/// A stream as the host holds it.
pub(super) struct StreamState {
    pub(super) id: u32,
    pub(super) root: Rc<Root>,
    pub(super) request: Half,
    pub(super) response: Half,
    /// Set when the reply is on its way; its headers are final when the response has passed.
    pub(super) reply: Option<LocalReply>,
    /// The filter has asked for a reply, which it can do once.
    pub(super) reply_asked: bool,
    pub(super) end: Option<End>,
    /// In `proxy_on_log`, where all headers can be read.
    pub(super) logging: bool,
    pub(super) properties: Properties,
    pub(super) filter_state: BTreeMap<String, Vec<u8>>,
}

impl StreamState {
    pub(super) fn half(&mut self, side: Side) -> &mut Half {
        match side {
            Side::Request => &mut self.request,
            Side::Response => &mut self.response,
        }
    }

    /// Whether this direction goes no further through the filter.
    fn is_cut(&self, side: Side) -> bool {
        self.end.is_some() || (side == Side::Request && self.reply.is_some())
    }
}

impl Vm {
    /// A stream comes to life in the VM, under the newest configuration.
    pub(super) fn open(&self, properties: Properties) -> StreamCell {
        let root = self.active_root().expect("a started VM has a root");
        let id = self.state.new_context_id();
        root.streams.set(root.streams.get() + 1);
        let parent = root.id;
        let stream = StreamState {
            id,
            root,
            request: Half::default(),
            response: Half::default(),
            reply: None,
            reply_asked: false,
            end: None,
            logging: false,
            properties,
            filter_state: BTreeMap::new(),
        };
        let stream = Rc::new(stream.into());
        self.state.contexts.borrow_mut().insert(id, Context::Stream(Rc::clone(&stream)));
        self.callback(id, "proxy_on_context_create", &[id, parent]);
        stream
    }

    pub(super) fn headers_in(&self, stream: &StreamCell, side: Side, headers: Headers, end: bool) {
        let count = headers.len() as u32;
        if stream.borrow().is_cut(side) {
            return;
        }
        stream.borrow_mut().half(side).start(headers, end);
        let id = stream.borrow().id;
        let answered = self.callback(id, side.on_headers(), &[id, count, end.into()]);
        let mut state = stream.borrow_mut();
        if state.is_cut(side) || state.half(side).passed.headers.is_some() {
            return;
        }
        let half = state.half(side);
        match answered {
            Answered::Missing | Answered::Returned { value: 0, stopped: false } => {
                half.headers_open = false;
                half.release();
            }
            Answered::Returned { value: 1, stopped: false } if self.may_stop_at_headers() => {
                half.hold(Pause::Headers);
            }
            Answered::Returned { .. } => half.hold(Pause::All),
            Answered::Failed => {
                drop(state);
                self.fail_stream(stream);
            }
        }
    }

    pub(super) fn body_in(&self, stream: &StreamCell, side: Side, bytes: &[u8], end: bool) {
        let (id, size) = {
            let mut state = stream.borrow_mut();
            if state.is_cut(side) || !state.half(side).take_body(bytes, end) {
                return;
            }
            (state.id, state.half(side).body.len() as u32)
        };
        let answered = self.callback(id, side.on_body(), &[id, size, end.into()]);
        let mut state = stream.borrow_mut();
        if state.is_cut(side) {
            return;
        }
        let half = state.half(side);
        match answered {
            Answered::Missing | Answered::Returned { value: 0, stopped: false } => {
                half.body_open = false;
                half.release();
            }
            Answered::Returned { value: 1 | 2, stopped: false } => half.keep_body(),
            Answered::Returned { .. } => half.drop_body(),
            Answered::Failed => {
                drop(state);
                self.fail_stream(stream);
            }
        }
    }

    pub(super) fn trailers_in(&self, stream: &StreamCell, side: Side, trailers: Headers) {
        let count = trailers.len() as u32;
        {
            let mut state = stream.borrow_mut();
            if state.is_cut(side) || !state.half(side).take_trailers(trailers) {
                return;
            }
        }
        let id = stream.borrow().id;
        let answered = self.callback(id, side.on_trailers(), &[id, count]);
        let mut state = stream.borrow_mut();
        if state.is_cut(side) {
            return;
        }
        let half = state.half(side);
        match answered {
            Answered::Missing | Answered::Returned { value: 0, stopped: false } => {
                half.trailers_open = false;
                half.release();
            }
            Answered::Returned { .. } => half.hold(Pause::Trailers),
            Answered::Failed => {
                drop(state);
                self.fail_stream(stream);
            }
        }
    }

    /// What `proxy_continue_stream` asked for.
    pub(super) fn resume(&self, stream: &StreamCell, side: Side) {
        let unseen = {
            let mut state = stream.borrow_mut();
            let id = state.id;
            let half_pause = state.half(side).pause;
            if state.is_cut(side) || half_pause == Pause::None {
                let why = if state.end.is_some() { "has ended" } else { "is not paused" };
                drop(state);
                return self.process().misuse(self.state.id, &format!("resumes stream {id}, which {why}"));
            }
            let half = state.half(side);
            half.release();
            std::mem::take(&mut half.unseen)
        };
        if let Some(body) = unseen.body {
            self.body_in(stream, side, &body, unseen.end);
        }
        if let Some(trailers) = unseen.trailers {
            self.trailers_in(stream, side, trailers);
        }
        if side == Side::Response {
            self.finish_reply(stream);
        }
    }

    /// The stream is over: it is logged, told that it is done, and deleted.
    pub(super) fn finish(&self, stream: &StreamCell, end: End) {
        let (id, root) = {
            let mut state = stream.borrow_mut();
            if state.end.is_some() {
                return;
            }
            state.end = Some(end);
            state.logging = true;
            state.request.close();
            state.response.close();
            (state.id, state.root.clone())
        };
        self.callback(id, "proxy_on_log", &[id]);
        stream.borrow_mut().logging = false;
        self.callback(id, "proxy_on_done", &[id]);
        self.callback(id, "proxy_on_delete", &[id]);
        self.state.deleted.borrow_mut().push(id);
        root.streams.set(root.streams.get() - 1);
        self.retire(&root);
    }

    /// The stream is cut off, by the client or by the filter.
    pub(super) fn reset(&self, stream: &StreamCell) {
        self.finish(stream, End::Reset);
    }

    fn may_stop_at_headers(&self) -> bool {
        self.process().settings.allow_on_headers_stop_iteration
    }
}
