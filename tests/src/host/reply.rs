//! Answers that do not come from the upstream: the filter's own, and those that Envoy makes when a VM has failed.

use super::body::Body;
use super::context::StreamCell;
use super::flow::{End, Side};
use super::headers::Headers;
use super::vm::Vm;

/// A reply that the filter, or Envoy, sent by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalReply {
    /// As asked for. A gRPC client sees 200 in `headers`, and this one translated in `grpc-status`.
    pub status: u32,
    /// What the client gets, after the filter's own `on_response_headers`.
    pub headers: Headers,
    /// What the client gets; for a gRPC client it stands in `grpc-message` instead.
    pub body: Body,
    /// As asked for, if it is a gRPC status.
    pub grpc_status: Option<u32>,
    /// `%RESPONSE_CODE_DETAILS%` in access logs.
    pub details: String,
}

impl LocalReply {
    /// A reply with the headers that were asked for. Envoy takes no gRPC status beyond 16, and no spaces in details.
    pub(super) fn asked(status: u32, headers: Headers, body: Body, grpc: u32, details: &[u8]) -> Self {
        let details = String::from_utf8_lossy(details).replace(' ', "_");
        Self { status, headers, body, grpc_status: Some(grpc).filter(|grpc| *grpc <= 16), details }
    }

    fn of_failed_vm() -> Self {
        Self::asked(503, Headers::default(), Body::default(), 14, b"wasm_fail_stream")
    }

    /// The reply in the form that this client understands.
    fn made_for(mut self, request: &Headers) -> Self {
        let asked = std::mem::take(&mut self.headers);
        if is_grpc(request) {
            let grpc = self.grpc_status.unwrap_or_else(|| grpc_status_of(self.status));
            self.headers = Headers::from([(":status", "200"), ("content-type", "application/grpc")]);
            self.headers.add("grpc-status", grpc.to_string());
            if !self.body.is_empty() {
                self.headers.add("grpc-message", percent_encoded(&self.body));
            }
            self.body.clear();
        } else {
            self.headers.add(":status", self.status.to_string());
        }
        for (name, value) in asked.iter() {
            self.headers.add(name, value);
        }
        if !self.body.is_empty() {
            self.headers.replace("content-length", self.body.len().to_string());
            if self.headers.get("content-type").is_none() {
                self.headers.add("content-type", "text/plain");
            }
        } else if !is_grpc(request) {
            self.headers.remove("content-length");
            self.headers.remove("content-type");
        }
        self
    }
}

impl Vm {
    /// Sends a reply, past the filter's own response callbacks like any response, and ends the stream with it.
    pub(super) fn local_reply(&self, stream: &StreamCell, reply: LocalReply) {
        let (over, passed, started) = {
            let state = stream.borrow();
            (state.end.is_some(), state.response.passed.headers.is_some(), state.response.started)
        };
        if over {
            let id = stream.borrow().id;
            self.process().misuse(self.state.id, &format!("replies to stream {id}, which has ended"));
        } else if passed {
            self.reset(stream);
        } else if started {
            self.direct_reply(stream, reply, End::Completed);
        } else {
            self.chained_reply(stream, reply);
        }
    }

    /// A stream whose VM has failed: its client gets a 503, or a reset once the response has begun.
    pub(super) fn fail_stream(&self, stream: &StreamCell) {
        if stream.borrow().response.passed.headers.is_some() {
            self.finish(stream, End::Failed);
        } else {
            self.direct_reply(stream, LocalReply::of_failed_vm(), End::Failed);
        }
    }

    /// Ends the stream when its local reply has gone out.
    pub(super) fn finish_reply(&self, stream: &StreamCell) {
        let is_out = {
            let mut state = stream.borrow_mut();
            let passed = state.response.passed.clone();
            match (&mut state.reply, passed.headers) {
                (Some(reply), Some(headers)) if passed.complete => {
                    reply.headers = headers;
                    reply.body = passed.body;
                    true
                }
                _ => false,
            }
        };
        if is_out {
            self.finish(stream, End::Completed);
        }
    }

    fn chained_reply(&self, stream: &StreamCell, reply: LocalReply) {
        let reply = reply.made_for(&stream.borrow().request.headers);
        let (headers, body) = (reply.headers.clone(), reply.body.clone());
        {
            let mut state = stream.borrow_mut();
            state.note_response(&headers, &reply.details);
            state.reply = Some(reply);
        }
        self.headers_in(stream, Side::Response, headers, body.is_empty());
        if !body.is_empty() {
            self.body_in(stream, Side::Response, &body, true);
        }
        self.finish_reply(stream);
    }

    /// A reply that no filter sees.
    fn direct_reply(&self, stream: &StreamCell, reply: LocalReply, end: End) {
        {
            let mut state = stream.borrow_mut();
            let reply = reply.made_for(&state.request.headers);
            state.note_response(&reply.headers, &reply.details);
            state.response.headers = reply.headers.clone();
            state.response.body = reply.body.clone();
            state.response.started = true;
            state.response.ended = true;
            state.response.release();
            state.reply = Some(reply);
        }
        self.finish(stream, end);
    }
}

fn is_grpc(request: &Headers) -> bool {
    let kind = request.get("content-type").and_then(|kind| kind.strip_prefix(b"application/grpc"));
    kind.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"+"))
}

/// Envoy's translation of an HTTP status.
fn grpc_status_of(status: u32) -> u32 {
    match status {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502 | 503 | 504 => 14,
        _ => 2,
    }
}

fn percent_encoded(text: &[u8]) -> String {
    let encode = |byte: &u8| match byte {
        0x20..=0x7e if *byte != b'%' => char::from(*byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.iter().map(encode).collect()
}
