//! Looking at host calls and meddling with them: counts, work, faults, hooks.

use std::collections::{BTreeMap, HashMap};

use super::{Host, VmId};

/// A failed VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trap {
    /// Which one.
    pub vm: VmId,
    /// In which callback.
    pub callback: &'static str,
    /// What the engine says of it.
    pub message: String,
}

/// What the calls of one callback took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// How often it ran.
    pub calls: u64,
    /// Fuel over all calls: about one unit per wasm instruction.
    pub fuel: u64,
}

/// For how long a host call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Times {
    /// For that many calls, by any VM.
    Next(u32),
    /// Until it is healed.
    Always,
}

type Hook = Box<dyn FnOnce(&Host)>;

#[derive(Default)]
pub(super) struct Watch {
    calls: BTreeMap<&'static str, u64>,
    work: BTreeMap<&'static str, Work>,
    faults: HashMap<String, (u32, Times)>,
    hooks: Vec<(VmId, String, Hook)>,
}

impl Watch {
    pub(super) fn count(&mut self, call: &'static str) {
        *self.calls.entry(call).or_default() += 1;
    }

    pub(super) fn spend(&mut self, callback: &'static str, fuel: u64) {
        let work = self.work.entry(callback).or_default();
        work.calls += 1;
        work.fuel += fuel;
    }

    pub(super) fn reset(&mut self) {
        self.calls.clear();
        self.work.clear();
    }

    pub(super) fn calls(&self) -> BTreeMap<&'static str, u64> {
        self.calls.clone()
    }

    pub(super) fn work(&self) -> BTreeMap<&'static str, Work> {
        self.work.clone()
    }

    pub(super) fn set_fault(&mut self, call: &str, status: u32, times: Times) {
        self.faults.insert(call.to_owned(), (status, times));
    }

    pub(super) fn heal(&mut self, call: &str) {
        self.faults.remove(call);
    }

    /// The status to give instead of running `call`.
    pub(super) fn fault(&mut self, call: &str) -> Option<u32> {
        let (status, times) = self.faults.get_mut(call)?;
        match times {
            Times::Always | Times::Next(1..) => {}
            Times::Next(0) => return None,
        }
        if let Times::Next(left) = times {
            *left -= 1;
        }
        Some(*status)
    }

    pub(super) fn add_hook(&mut self, vm: VmId, call: &str, hook: Hook) {
        self.hooks.push((vm, call.to_owned(), hook));
    }

    pub(super) fn take_hook(&mut self, vm: VmId, call: &str) -> Option<Hook> {
        let at = self.hooks.iter().position(|(on, name, _)| *on == vm && name == call)?;
        Some(self.hooks.remove(at).2)
    }
}
