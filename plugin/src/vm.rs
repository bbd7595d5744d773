//! The contexts of this VM: which root or stream a callback is about.
//!
//! A callback about a context that is not known, or no more, is nothing: hosts log a stream after its
//! deletion (HTTP/3), and answers come for roots that have gone.

use std::cell::RefCell;
use std::collections::BTreeMap;

use crate::host::{self, Level};
use crate::root::Root;
use crate::stream::{Action, Stream};

thread_local! {
    static VM: RefCell<Vm> = RefCell::new(Vm::default());
}

/// Everything this VM keeps.
#[derive(Default)]
pub(crate) struct Vm {
    roots: BTreeMap<u32, Root>,
    streams: BTreeMap<u32, Stream>,
    /// How many configurations it has taken.
    turns: u64,
}

/// Runs `f` on the VM. A host that calls back from within a host call, as none should, gets `otherwise`.
pub(crate) fn with<T>(otherwise: T, f: impl FnOnce(&mut Vm) -> T) -> T {
    VM.with(|vm| match vm.try_borrow_mut() {
        Ok(mut vm) => f(&mut vm),
        Err(_) => otherwise,
    })
}

impl Vm {
    /// A context begins: a root when it has no parent, else a stream of that root.
    pub(crate) fn create(&mut self, context: u32, parent: u32) {
        if parent == 0 {
            self.roots.insert(context, Root::new(context));
        } else {
            self.streams.insert(context, Stream::new(parent));
        }
    }

    /// A root's configuration has come. `false` refuses it.
    pub(crate) fn configure(&mut self, root: u32) -> bool {
        let Some(mut configured) = self.roots.remove(&root) else { return false };
        let outcome = configured.configure(self.turns + 1);
        if outcome.is_ok() {
            self.turns += 1;
            let before = self.roots.values_mut().filter(|other| other.may_precede(&configured));
            if let Some(before) = before.max_by_key(|other| other.turn()) {
                configured.follow(before);
            }
        }
        self.roots.insert(root, configured);
        match outcome {
            Ok(()) => true,
            Err(problems) => {
                for problem in problems {
                    host::log(Level::Error, &format!("lanekeeper refuses this policy: {problem}"));
                }
                false
            }
        }
    }

    /// A root's timer.
    pub(crate) fn tick(&mut self, root: u32) {
        if let Some(root) = self.roots.get_mut(&root) {
            root.tick(&mut self.streams);
        }
    }

    /// A root's question has an answer, or, without headers, none.
    pub(crate) fn call_ended(&mut self, root: u32, call: u32, has_headers: bool) {
        if let Some(root) = self.roots.get_mut(&root) {
            root.call_ended(&mut self.streams, call, has_headers);
        }
    }

    /// A request's headers. `None` when nothing here can judge them.
    pub(crate) fn request_headers(&mut self, stream: u32) -> Option<Action> {
        let id = stream;
        let stream = self.streams.get_mut(&id)?;
        let root = self.roots.get_mut(&stream.root())?;
        stream.request_headers(id, root)
    }

    /// More of a request's body, or its trailers.
    pub(crate) fn request_goes_on(&mut self, stream: u32) -> Action {
        self.streams.get(&stream).map_or(Action::Continue, Stream::request_goes_on)
    }

    /// The headers of an answer, from upstream or made by any filter.
    pub(crate) fn response_headers(&mut self, stream: u32) {
        if let Some(stream) = self.streams.get_mut(&stream)
            && let Some(root) = self.roots.get_mut(&stream.root())
        {
            stream.response_headers(root);
        }
    }

    /// The trailers of an answer.
    pub(crate) fn response_trailers(&mut self, stream: u32) {
        if let Some(stream) = self.streams.get_mut(&stream) {
            stream.response_trailers();
        }
    }

    /// A context ends. A stream that waits is forgotten: what was charged for it stays charged. `false` from a root
    /// that has something under way, and will say when it has not.
    pub(crate) fn done(&mut self, context: u32) -> bool {
        self.stream_done(context);
        self.roots.get_mut(&context).is_none_or(Root::done)
    }

    fn stream_done(&mut self, context: u32) {
        if let Some(stream) = self.streams.remove(&context)
            && let Some(root) = self.roots.get_mut(&stream.root())
        {
            stream.done(root);
        }
    }

    /// A context is gone. A host that said nothing of its end says so now.
    pub(crate) fn delete(&mut self, context: u32) {
        self.stream_done(context);
        self.roots.remove(&context);
    }

    /// Answers a request that nothing here can judge: no policy has said that it may pass.
    pub(crate) fn refuse_blindly() -> Action {
        let body = "the limits of this request cannot be checked";
        match host::send_local_response(503, 14, "lanekeeper_unreadable_request", &[], body) {
            Ok(()) => {}
            Err(error) => host::log(Level::Error, &format!("lanekeeper cannot refuse a request: {error}")),
        }
        Action::Pause
    }
}
