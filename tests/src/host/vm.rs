//! One VM: an instance of the plugin on one thread, its contexts, and the way a callback runs in it.
//!
//! A callback is not over when the VM returns. What it asked for with `proxy_continue_stream` and
//! `proxy_send_local_response` happens afterwards, one after the other, and what happens so may call the VM again,
//! which then works off the rest of the list before it returns: the nesting that [`VmState::depth`] counts.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::rc::{Rc, Weak};

use wasmtime::{Func, Memory, Store, Val};

use super::VmId;
use super::context::{Context, Root, RootLife, StreamCell};
use super::flow::Side;
use super::metrics::MetricIds;
use super::process::Process;
use super::reply::LocalReply;
use super::watch::Trap;

/// What a VM may call at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// In `_initialize`: next to nothing.
    Starting,
    /// In the allocator, on behalf of the host: even less.
    Allocating,
    /// Everything.
    Running,
}

/// What happens after the VM has returned.
pub(super) enum Deferred {
    Resume(StreamCell, Side),
    Reply(StreamCell, LocalReply),
    Reset(StreamCell),
    DeleteRoot(Rc<Root>),
}

/// How a callback went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answered {
    /// The plugin has no such callback.
    Missing,
    /// The VM has failed, now or earlier.
    Failed,
    /// The plugin returned `value`. When `stopped`, a local reply to whatever stream stops the one at hand.
    Returned { value: u32, stopped: bool },
}

/// The host's side of a VM, which host calls can reach while the VM runs.
pub(super) struct VmState {
    pub(super) id: VmId,
    pub(super) contexts: RefCell<BTreeMap<u32, Context>>,
    /// Contexts that are deleted in the VM, and that the host drops when time moves on.
    pub(super) deleted: RefCell<Vec<u32>>,
    next_context: Cell<u32>,
    current: Cell<u32>,
    pub(super) effective: Cell<u32>,
    pub(super) phase: Cell<Phase>,
    pub(super) stop_iteration: Cell<bool>,
    pub(super) deferred: RefCell<VecDeque<Deferred>>,
    pub(super) depth: Cell<u32>,
    pub(super) deepest: Cell<u32>,
    pub(super) failed: Cell<bool>,
    pub(super) metric_ids: RefCell<MetricIds>,
    pub(super) last_token: Cell<u32>,
    random: Cell<u64>,
}

/// What the store of a VM carries, for its host calls.
pub(super) struct Guest {
    pub(super) process: Weak<Process>,
    pub(super) vm: Rc<VmState>,
}

pub(super) struct Vm {
    pub(super) state: Rc<VmState>,
    process: Weak<Process>,
    store: RefCell<Store<Guest>>,
    exports: HashMap<String, Func>,
    memory: Option<Memory>,
}

impl Vm {
    /// Starts an instance and lets it initialize itself.
    pub(super) fn start(process: &Rc<Process>, id: VmId) -> Rc<Self> {
        let seed = process.settings.seed.wrapping_add(process.reloads.get());
        let state = Rc::new(VmState::new(id, seed));
        let guest = Guest { process: Rc::downgrade(process), vm: state.clone() };
        let mut store = Store::new(&process.plugin.engine, guest);
        if process.plugin.metered {
            store.set_fuel(u64::MAX).expect("the engine counts fuel");
        }
        let instance = process.plugin.instances.instantiate(&mut store).expect("imports were linked before");
        let exports: Vec<_> =
            instance.exports(&mut store).map(|e| (e.name().to_owned(), e.into_func())).collect();
        let exports = exports.into_iter().filter_map(|(name, func)| Some((name, func?))).collect();
        let memory = instance.get_memory(&mut store, "memory");
        let process = Rc::downgrade(process);
        let vm = Rc::new(Self { state, process, store: RefCell::new(store), exports, memory });
        // A reactor has the first, a command the second.
        for start in ["_initialize", "_start"] {
            vm.callback(0, start, &[]);
        }
        vm.state.phase.set(Phase::Running);
        vm
    }

    pub(super) fn process(&self) -> Rc<Process> {
        self.process.upgrade().expect("a VM does not outlive its process")
    }

    /// Runs a callback for `context`, and then what it asked for.
    pub(super) fn callback(&self, context: u32, name: &'static str, arguments: &[u32]) -> Answered {
        if self.state.failed.get() {
            return Answered::Failed;
        }
        let Some(export) = self.exports.get(name) else {
            return Answered::Missing;
        };
        self.state.enter();
        let returned = self.invoke(context, name, *export, arguments);
        let stopped = self.state.stop_iteration.replace(false);
        self.run_deferred();
        self.state.leave();
        returned.map_or(Answered::Failed, |value| Answered::Returned { value, stopped })
    }

    fn run_deferred(&self) {
        loop {
            let next = self.state.deferred.borrow_mut().pop_front();
            match next {
                Some(Deferred::Resume(stream, side)) => self.resume(&stream, side),
                Some(Deferred::Reply(stream, reply)) => self.local_reply(&stream, reply),
                Some(Deferred::Reset(stream)) => self.reset(&stream),
                Some(Deferred::DeleteRoot(root)) => self.delete_root(&root),
                None => return,
            }
        }
    }

    fn invoke(&self, context: u32, name: &'static str, export: Func, arguments: &[u32]) -> Option<u32> {
        let Ok(mut store) = self.store.try_borrow_mut() else {
            panic!("{} is inside a callback: a hook may drive the other VMs only", self.state.id);
        };
        let (current, effective) = (self.state.current.replace(context), self.state.effective.replace(0));
        let arguments: Vec<_> = arguments.iter().map(|argument| Val::I32(*argument as i32)).collect();
        let mut results = vec![Val::I32(0); export.ty(&*store).results().len()];
        let before = store.get_fuel().ok();
        let called = export.call(&mut *store, &arguments, &mut results);
        let spent = before.and_then(|before| Some(before - store.get_fuel().ok()?));
        drop(store);
        self.state.current.set(current);
        self.state.effective.set(effective);
        if let Some(spent) = spent {
            self.process().watch.borrow_mut().spend(name, spent);
        }
        match called {
            Ok(()) => Some(results.first().and_then(Val::i32).unwrap_or_default() as u32),
            Err(trap) => {
                self.fail(name, format!("{trap:?}"));
                None
            }
        }
    }

    /// How long its linear memory is.
    pub(super) fn memory_bytes(&self) -> usize {
        self.memory.map_or(0, |memory| memory.data_size(&*self.store.borrow()))
    }

    /// Marks the VM as failed: it gets no callback any more.
    pub(super) fn fail(&self, callback: &'static str, message: String) {
        self.state.failed.set(true);
        let trap = Trap { vm: self.state.id, callback, message };
        self.process().traps.borrow_mut().push(trap);
    }

    /// The root of the newest configuration.
    pub(super) fn active_root(&self) -> Option<Rc<Root>> {
        let contexts = self.state.contexts.borrow();
        contexts.values().rev().find_map(|context| match context {
            Context::Root(root) if root.life.get() == RootLife::Active => Some(root.clone()),
            _ => None,
        })
    }

    pub(super) fn root(&self, id: u32) -> Option<Rc<Root>> {
        match self.state.contexts.borrow().get(&id) {
            Some(Context::Root(root)) if root.life.get() != RootLife::Gone => Some(root.clone()),
            _ => None,
        }
    }
}

impl VmState {
    fn new(id: VmId, seed: u64) -> Self {
        Self {
            id,
            contexts: RefCell::default(),
            deleted: RefCell::default(),
            next_context: Cell::new(1),
            current: Cell::new(0),
            effective: Cell::new(0),
            phase: Cell::new(Phase::Starting),
            stop_iteration: Cell::new(false),
            deferred: RefCell::default(),
            depth: Cell::new(0),
            deepest: Cell::new(0),
            failed: Cell::new(false),
            metric_ids: RefCell::default(),
            last_token: Cell::new(0),
            random: Cell::new(seed.wrapping_add(id.number().wrapping_mul(0x9e37_79b9_7f4a_7c15))),
        }
    }

    /// An id that no context had before.
    pub(super) fn new_context_id(&self) -> u32 {
        self.next_context.replace(self.next_context.get() + 1)
    }

    /// The context that host calls are for.
    pub(super) fn acting_context(&self) -> Option<Context> {
        let contexts = self.contexts.borrow();
        let effective = contexts.get(&self.effective.get());
        effective.or_else(|| contexts.get(&self.current.get())).cloned()
    }

    /// A token that no callout of this VM had before; they go up by four, as Envoy keeps gRPC's in between.
    pub(super) fn new_token(&self) -> u32 {
        self.last_token.set(self.last_token.get() + 4);
        self.last_token.get()
    }

    /// One byte of chance (SplitMix64), the same in every run with the same seed.
    pub(super) fn random_byte(&self) -> u8 {
        let state = self.random.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.random.set(state);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) as u8
    }

    fn enter(&self) {
        self.depth.set(self.depth.get() + 1);
        self.deepest.set(self.deepest.get().max(self.depth.get()));
    }

    fn leave(&self) {
        self.depth.set(self.depth.get() - 1);
    }
}
