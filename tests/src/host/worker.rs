//! One thread of the process, with its VM.

use std::rc::Rc;

use super::context::Context;
use super::flow::Side;
use super::process::Process;
use super::stream::{Request, Stream};
use super::vm::Vm;

/// A thread with its VM.
#[derive(Clone)]
pub struct Worker {
    pub(super) process: Rc<Process>,
    pub(super) vm: Rc<Vm>,
}

impl Worker {
    /// A client sends a request.
    pub fn request(&self, request: impl Into<Request>) -> Stream {
        let Request { headers, properties, end } = request.into();
        self.process.in_turn(|| {
            let cell = self.vm.open(properties);
            self.vm.headers_in(&cell, Side::Request, headers, end);
            Stream { process: self.process.clone(), vm: self.vm.clone(), cell }
        })
    }

    /// Whether the VM has failed.
    pub fn has_failed(&self) -> bool {
        self.vm.state.failed.get()
    }

    /// The VM is gone from one moment to the next, without a word. [`Host::traps`] does not name it.
    ///
    /// [`Host::traps`]: super::Host::traps
    pub fn crash(&self) {
        self.process.in_turn(|| self.vm.crash());
    }

    /// How many roots and streams live in the VM.
    pub fn contexts(&self) -> (usize, usize) {
        let deleted = self.vm.state.deleted.borrow();
        let contexts = self.vm.state.contexts.borrow();
        let (roots, streams): (Vec<_>, Vec<_>) = contexts
            .iter()
            .filter(|(id, _)| !deleted.contains(id))
            .partition(|(_, context)| matches!(context, Context::Root(_)));
        (roots.len(), streams.len())
    }

    /// How deep callbacks have nested through deferred resumes and replies: 1 is a callback that led to no other.
    /// In Envoy each level stands on the thread's stack.
    pub fn deepest_nesting(&self) -> u32 {
        self.vm.state.deepest.get()
    }

    /// How many ids of metrics the VM has been given. A metric that is defined again gets another one.
    pub fn metric_ids(&self) -> usize {
        self.vm.state.metric_ids.borrow().len()
    }

    /// How long the VM's linear memory is, in bytes. It is never shortened.
    pub fn memory_bytes(&self) -> usize {
        self.vm.memory_bytes()
    }

    /// Runs a callback with arguments of the test's choice, the context's id first, as a host must not.
    pub fn force(&self, callback: &'static str, arguments: &[u32]) {
        let context = arguments.first().copied().unwrap_or_default();
        self.process.in_turn(|| self.vm.callback(context, callback, arguments));
    }
}
