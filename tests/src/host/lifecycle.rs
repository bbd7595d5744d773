//! The life of VMs and roots: the canary, the start, a change of configuration, the end of an old one.

use std::fmt;
use std::rc::Rc;

use super::VmId;
use super::clock::Event;
use super::context::{Context, Root, RootLife};
use super::log::LogLine;
use super::process::Process;
use super::vm::{Answered, Vm};

/// A configuration that the plugin did not take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// What the plugin logged meanwhile.
    pub log: Vec<LogLine>,
    /// The trap, if it trapped instead of refusing.
    pub trap: Option<String>,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.trap.is_some() { "the plugin trapped" } else { "the plugin refused" })?;
        for text in self.log.iter().map(|line| &line.text).chain(&self.trap) {
            write!(f, "\n{text}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Refused {}

impl Process {
    /// Tries a configuration in a VM that is thrown away. What it wrote to shared data, queues and metrics stays.
    pub(super) fn try_in_canary(self: &Rc<Self>, configuration: &[u8]) -> Result<(), Refused> {
        let (lines, traps) = (self.log.borrow().len(), self.traps.borrow().len());
        let canary = Vm::start(self, VmId::Canary);
        let taken = canary.configure(configuration);
        self.callouts.borrow_mut().pending.retain(|_, callout| callout.vm != VmId::Canary);
        self.agenda.borrow_mut().forget(|event| event.vm() == VmId::Canary);
        if taken {
            return Ok(());
        }
        let log = self.log.borrow().iter().skip(lines).cloned().collect();
        let trap = self.traps.borrow().get(traps).map(|trap| trap.message.clone());
        Err(Refused { log, trap })
    }

    /// Starts the main thread's VM and the workers', each with its root.
    pub(super) fn start_vms(self: &Rc<Self>, configuration: &[u8]) {
        let workers = (0..self.settings.workers).map(VmId::Worker);
        for id in std::iter::once(VmId::Main).chain(workers) {
            let vm = Vm::start(self, id);
            self.vms.borrow_mut().push(vm.clone());
            vm.configure_or_fail(configuration);
        }
    }

    /// Configures every VM's root once more.
    pub(super) fn configure_again(&self, configuration: &[u8]) {
        let vms = self.vms.borrow().clone();
        for (vm, root) in vms.iter().filter_map(|vm| Some((vm, vm.active_root()?))) {
            *root.configuration.borrow_mut() = configuration.to_vec();
            vm.take_or_fail(&root);
        }
    }

    /// Puts a new VM in the place of one, under the same configuration.
    pub(super) fn reload(self: &Rc<Self>, old: &Rc<Vm>) {
        let id = old.state.id;
        let configuration = old.active_root().map(|root| root.configuration.borrow().clone());
        old.crash();
        self.agenda.borrow_mut().forget(|event| event.vm() == id);
        self.callouts.borrow_mut().pending.retain(|_, callout| callout.vm != id);
        self.reloads.set(self.reloads.get() + 1);
        let new = Vm::start(self, id);
        for vm in self.vms.borrow_mut().iter_mut().filter(|vm| Rc::ptr_eq(vm, old)) {
            *vm = new.clone();
        }
        new.configure_or_fail(&configuration.unwrap_or_default());
    }

    /// Gives every VM a second root, and sends off the first one when its streams are gone.
    pub(super) fn reconfigure_vms(&self, configuration: &[u8]) {
        let vms = self.vms.borrow().clone();
        for vm in vms {
            let old = vm.active_root();
            vm.configure_or_fail(configuration);
            if let Some(old) = old {
                old.life.set(RootLife::Superseded);
                vm.retire(&old);
            }
        }
    }
}

impl Vm {
    /// Creates a root with this configuration. False when the plugin refused it, or trapped.
    fn configure(&self, configuration: &[u8]) -> bool {
        let root = Root::new(self.state.new_context_id(), configuration);
        self.state.contexts.borrow_mut().insert(root.id, Context::Root(root.clone()));
        root.configuring.set(true);
        self.callback(root.id, "proxy_on_context_create", &[root.id, 0]);
        self.takes(&root)
    }

    /// Whether the root starts with its configuration.
    fn takes(&self, root: &Root) -> bool {
        root.configuring.set(true);
        let size = self.process().settings.vm_configuration.len() as u32;
        let started = self.says_yes(root, "proxy_on_vm_start", size);
        let size = root.configuration.borrow().len() as u32;
        let taken = started && self.says_yes(root, "proxy_on_configure", size);
        root.configuring.set(false);
        taken && !self.state.failed.get()
    }

    /// A VM that does not take what the canary took is as failed as one that trapped.
    fn configure_or_fail(&self, configuration: &[u8]) {
        let taken = self.configure(configuration);
        self.fail_unless(taken);
    }

    fn take_or_fail(&self, root: &Root) {
        let taken = self.takes(root);
        self.fail_unless(taken);
    }

    fn fail_unless(&self, taken: bool) {
        if !taken && !self.state.failed.get() {
            self.fail("proxy_on_configure", "refused what the canary took".to_owned());
        }
    }

    /// The VM is gone from one moment to the next, and its streams are lost.
    pub(super) fn crash(&self) {
        self.state.failed.set(true);
        let contexts: Vec<Context> = self.state.contexts.borrow().values().cloned().collect();
        for context in contexts {
            if let Context::Stream(stream) = context
                && stream.borrow().end.is_none()
            {
                self.fail_stream(&stream);
            }
        }
    }

    fn says_yes(&self, root: &Root, callback: &'static str, size: u32) -> bool {
        match self.callback(root.id, callback, &[root.id, size]) {
            Answered::Missing => true,
            Answered::Failed => false,
            Answered::Returned { value, .. } => value != 0,
        }
    }

    /// Ends a superseded root without streams. It may ask for time until it calls `proxy_done`.
    pub(super) fn retire(&self, root: &Rc<Root>) {
        if root.life.get() != RootLife::Superseded || root.streams.get() > 0 {
            return;
        }
        root.life.set(RootLife::Finishing);
        let answered = self.callback(root.id, "proxy_on_done", &[root.id]);
        if !matches!(answered, Answered::Returned { value: 0, .. }) {
            self.delete_root(root);
        }
    }

    /// Deletes a root that is done. Its callouts are cancelled, and its timer runs on without anyone to hear it.
    pub(super) fn delete_root(&self, root: &Rc<Root>) {
        if root.life.replace(RootLife::Gone) == RootLife::Gone {
            return;
        }
        self.callback(root.id, "proxy_on_delete", &[root.id]);
        self.process().cancel_callouts(self.state.id, root.id);
        self.state.deleted.borrow_mut().push(root.id);
    }

    /// Drops what has been deleted, so that its ids lead nowhere any more.
    pub(super) fn drop_deleted(&self) {
        let deleted = self.state.deleted.take();
        self.state.contexts.borrow_mut().retain(|id, _| !deleted.contains(id));
    }

    /// The root's timer runs out, and starts again when the callback is over.
    pub(super) fn tick(&self, root: u32, arming: u64) {
        let Some(root) = self.root(root).filter(|root| root.timer.get().arming == arming) else {
            return;
        };
        self.callback(root.id, "proxy_on_tick", &[root.id]);
        let mut timer = root.timer.get();
        if !timer.period.is_zero() {
            timer.arming += 1;
            root.timer.set(timer);
            let tick = Event::Tick { vm: self.state.id, root: root.id, arming: timer.arming };
            self.process().schedule(timer.period, tick);
        }
    }

    pub(super) fn queue_ready(&self, root: u32, queue: u32) {
        if let Some(root) = self.root(root) {
            self.callback(root.id, "proxy_on_queue_ready", &[root.id, queue]);
        }
    }
}
