//! One direction of a stream: what came, what the filter holds back, and what went on.
//!
//! ```text
//!           Continue from headers                     Continue from body or trailers
//!  arrives ----------------------> Pause::None --------------------------------------> passed on
//!     |                                ^  |  Pause from body: Pause::Body, from trailers: Pause::Trailers
//!     |  Pause from headers            |  v
//!     +------> Pause::All -- resumed --+      nothing reaches the filter: what comes waits unseen
//!     +------> Pause::Headers ---------+      with allow_on_headers_stop_iteration: body callbacks come, and
//!                                             a Continue from one of them lets the headers go, too
//! ```

use super::body::Body;
use super::headers::Headers;

/// Why a direction stands still.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Pause {
    #[default]
    None,
    All,
    Headers,
    Body,
    Trailers,
}

/// What has gone past the filter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// As the filter left them; none while they are held back.
    pub headers: Option<Headers>,
    /// The part of the body that went on.
    pub body: Body,
    /// If there were any.
    pub trailers: Option<Headers>,
    /// Whether this is all.
    pub complete: bool,
}

/// What arrived while everything was paused.
#[derive(Debug, Default)]
pub(super) struct Unseen {
    pub(super) body: Option<Body>,
    pub(super) trailers: Option<Headers>,
    pub(super) end: bool,
}

#[derive(Debug, Default)]
pub(super) struct Half {
    /// Headers have arrived.
    pub(super) started: bool,
    pub(super) headers: Headers,
    pub(super) body: Body,
    pub(super) trailers: Option<Headers>,
    /// Which of them a host call can reach: each from its callback on, until the stream goes on.
    pub(super) headers_open: bool,
    pub(super) body_open: bool,
    pub(super) trailers_open: bool,
    pub(super) pause: Pause,
    /// The body so far was kept: the next callback sees all of it.
    pub(super) buffering: bool,
    pub(super) unseen: Unseen,
    /// The filter has seen the end.
    pub(super) ended: bool,
    pub(super) passed: Message,
}

impl Half {
    pub(super) fn start(&mut self, headers: Headers, end: bool) {
        self.started = true;
        self.headers = headers;
        self.headers_open = true;
        self.ended = end;
    }

    /// Takes a part of the body in. False when it has to wait unseen.
    pub(super) fn take_body(&mut self, bytes: &[u8], end: bool) -> bool {
        if self.pause == Pause::All {
            self.unseen.body.get_or_insert_default().extend(bytes);
            self.unseen.end |= end;
            return false;
        }
        if !self.buffering {
            self.body.clear();
        }
        self.body.extend(bytes);
        self.body_open = true;
        self.ended = end;
        true
    }

    /// Takes the trailers in. False when they have to wait unseen.
    pub(super) fn take_trailers(&mut self, trailers: Headers) -> bool {
        if self.pause == Pause::All {
            self.unseen.trailers = Some(trailers);
            return false;
        }
        self.trailers = Some(trailers);
        self.trailers_open = true;
        self.ended = true;
        true
    }

    /// Stands still, unless it does already.
    pub(super) fn hold(&mut self, pause: Pause) {
        if self.pause == Pause::None {
            self.pause = pause;
        }
    }

    /// The filter keeps what it has seen of the body.
    pub(super) fn keep_body(&mut self) {
        self.buffering = true;
        self.hold(Pause::Body);
    }

    /// The filter stops without keeping this part of the body.
    pub(super) fn drop_body(&mut self) {
        self.body.clear();
        self.buffering = false;
        self.hold(Pause::Body);
    }

    /// Lets everything that the filter has seen go on.
    pub(super) fn release(&mut self) {
        self.pause = Pause::None;
        self.buffering = false;
        self.passed.headers.get_or_insert_with(|| self.headers.clone());
        self.passed.body.append(&mut self.body);
        self.passed.trailers.clone_from(&self.trailers);
        self.passed.complete = self.ended;
    }

    pub(super) fn close(&mut self) {
        self.headers_open = false;
        self.body_open = false;
        self.trailers_open = false;
    }
}
