//! What one Envoy process has once: its clock, its event loops' agenda, and what its VMs share.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use super::VmId;
use super::callout::{Answerer, Callouts};
use super::clock::{Agenda, Clock, Event};
use super::log::{Level, LogLine};
use super::metrics::Metrics;
use super::module::Plugin;
use super::property::Properties;
use super::shared::{SharedData, SharedQueues};
use super::vm::Vm;
use super::watch::{Trap, Watch};

/// Events at one moment after which an event loop counts as running in circles.
const RESTLESS_AFTER: u32 = 100_000;

/// What a test settles before the start.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) workers: usize,
    pub(super) environment: BTreeMap<String, String>,
    pub(super) vm_id: Vec<u8>,
    pub(super) vm_configuration: Vec<u8>,
    pub(super) allow_on_headers_stop_iteration: bool,
    pub(super) log_level: Level,
    pub(super) seed: u64,
    pub(super) stagger: Duration,
}

pub(super) struct Process {
    pub(super) plugin: Plugin,
    pub(super) settings: Settings,
    /// The main thread's VM, then the workers'.
    pub(super) vms: RefCell<Vec<Rc<Vm>>>,
    pub(super) clock: RefCell<Clock>,
    pub(super) agenda: RefCell<Agenda>,
    pub(super) shared: RefCell<SharedData>,
    pub(super) queues: RefCell<SharedQueues>,
    pub(super) metrics: RefCell<Metrics>,
    pub(super) clusters: RefCell<BTreeSet<String>>,
    pub(super) callouts: RefCell<Callouts>,
    pub(super) answerer: RefCell<Option<Answerer>>,
    pub(super) properties: RefCell<Properties>,
    pub(super) watch: RefCell<Watch>,
    pub(super) log: RefCell<Vec<LogLine>>,
    pub(super) traps: RefCell<Vec<Trap>>,
    pub(super) misuses: RefCell<Vec<String>>,
    /// How many drivers are at work; the event loops run when the last one is done.
    pub(super) turn: Cell<u32>,
    /// How many VMs were replaced. Each new one has a chance of its own.
    pub(super) reloads: Cell<u64>,
}

impl Process {
    pub(super) fn new(plugin: Plugin, settings: Settings, clusters: BTreeSet<String>) -> Rc<Self> {
        Rc::new(Self {
            plugin,
            settings,
            vms: RefCell::default(),
            clock: RefCell::default(),
            agenda: RefCell::default(),
            shared: RefCell::default(),
            queues: RefCell::default(),
            metrics: RefCell::default(),
            clusters: RefCell::new(clusters),
            callouts: RefCell::default(),
            answerer: RefCell::default(),
            properties: RefCell::default(),
            watch: RefCell::default(),
            log: RefCell::default(),
            traps: RefCell::default(),
            misuses: RefCell::default(),
            turn: Cell::new(0),
            reloads: Cell::new(0),
        })
    }

    /// The monotonic moment.
    pub(super) fn now(&self) -> Duration {
        self.clock.borrow().monotonic
    }

    /// The VM that runs under `id`. The canary never does.
    pub(super) fn vm(&self, id: VmId) -> Option<Rc<Vm>> {
        self.vms.borrow().iter().find(|vm| vm.state.id == id).cloned()
    }

    /// Writes a line to the log, unless its level is turned off.
    pub(super) fn log(&self, vm: VmId, level: Level, text: &[u8]) {
        if level >= self.settings.log_level {
            let text = String::from_utf8_lossy(text).into_owned();
            self.log.borrow_mut().push(LogLine { vm, level, text });
        }
    }

    /// Notes what a filter must not do, and what Envoy would answer with an assertion or a hung stream.
    pub(super) fn misuse(&self, vm: VmId, what: &str) {
        self.misuses.borrow_mut().push(format!("{vm}: {what}"));
    }

    /// Has an event happen in the next turn of its event loop.
    pub(super) fn post(&self, event: Event) {
        self.schedule(Duration::ZERO, event);
    }

    /// Has an event happen after `span`.
    pub(super) fn schedule(&self, span: Duration, event: Event) {
        self.agenda.borrow_mut().add(self.now() + span, event);
    }

    /// Runs `drive`, and after the outermost of nested drivers the event loops.
    pub(super) fn in_turn<R>(&self, drive: impl FnOnce() -> R) -> R {
        self.turn.set(self.turn.get() + 1);
        let result = drive();
        self.turn.set(self.turn.get() - 1);
        if self.turn.get() == 0 {
            self.run_until(self.now());
        }
        result
    }

    /// Runs what is due until `end`, in the order of time, and leaves the clock there.
    pub(super) fn run_until(&self, end: Duration) {
        let mut at_this_moment = 0;
        while let Some(due) = self.next_due().filter(|due| *due <= end) {
            at_this_moment = if due > self.now() { 0 } else { at_this_moment + 1 };
            assert!(at_this_moment < RESTLESS_AFTER, "the event loops do not come to rest");
            self.clock.borrow_mut().advance_to(due);
            let event = self.agenda.borrow_mut().take_due(self.now(), |vm| self.is_busy(vm));
            if let Some(event) = event {
                self.turn.set(self.turn.get() + 1);
                self.run(event);
                self.turn.set(self.turn.get() - 1);
            }
        }
        self.clock.borrow_mut().advance_to(end);
    }

    fn next_due(&self) -> Option<Duration> {
        self.agenda.borrow().next_due(|vm| self.is_busy(vm))
    }

    /// Whether the thread of `vm` is inside a callback: then it runs no event.
    fn is_busy(&self, vm: VmId) -> bool {
        self.vm(vm).is_some_and(|vm| vm.state.depth.get() > 0)
    }

    fn run(&self, event: Event) {
        let Some(vm) = self.vm(event.vm()) else {
            return;
        };
        match event {
            Event::Tick { root, arming, .. } => vm.tick(root, arming),
            Event::QueueReady { root, queue, .. } => vm.queue_ready(root, queue),
            Event::CalloutSent { id, .. } => self.ask_answerer(id),
            Event::Answered { id, answer, .. } => {
                self.deliver(id, answer);
            }
        }
    }
}
