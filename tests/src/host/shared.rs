//! What all VMs of the process share under one vm_id: data with compare-and-swap, and queues.

use std::collections::{BTreeMap, VecDeque};

use super::VmId;
use super::call::Call;
use super::clock::Event;
use super::status::{Outcome, Status};

/// Keys and values. One counter serves all keys, so a cas is unique per write; it starts at 1, and 0 means "none".
#[derive(Debug, Default)]
pub(super) struct SharedData {
    values: BTreeMap<Vec<u8>, (Vec<u8>, u32)>,
    writes: u32,
}

impl SharedData {
    /// The value and its cas.
    pub(super) fn get(&self, key: &[u8]) -> Option<(&[u8], u32)> {
        self.values.get(key).map(|(value, cas)| (value.as_slice(), *cas))
    }

    /// Writes. A `cas` of 0 overwrites; another must be the current one, but creates a key that is missing.
    pub(super) fn set(&mut self, key: &[u8], value: &[u8], cas: u32) -> Outcome {
        let held = self.values.get(key);
        if cas != 0 && held.is_some_and(|(_, current)| *current != cas) {
            return Err(Status::CasMismatch);
        }
        self.writes = self.writes.wrapping_add(1).max(1);
        self.values.insert(key.to_vec(), (value.to_vec(), self.writes));
        Ok(())
    }

    /// All keys, in order. Nothing ever takes one away.
    pub(super) fn keys(&self) -> Vec<Vec<u8>> {
        self.values.keys().cloned().collect()
    }

    /// Bytes in keys and values.
    pub(super) fn bytes(&self) -> usize {
        self.values.iter().map(|(key, (value, _))| key.len() + value.len()).sum()
    }
}

/// Queues by name; the token is the place in the list, plus one.
#[derive(Debug, Default)]
pub(super) struct SharedQueues(Vec<Queue>);

#[derive(Debug)]
struct Queue {
    vm_id: Vec<u8>,
    name: Vec<u8>,
    owner: (VmId, u32),
    messages: VecDeque<Vec<u8>>,
}

impl SharedQueues {
    /// The queue's token. Whoever registers last owns it.
    fn register(&mut self, vm_id: &[u8], name: &[u8], owner: (VmId, u32)) -> u32 {
        let token = self.resolve(vm_id, name).unwrap_or_else(|| {
            let (vm_id, name) = (vm_id.to_vec(), name.to_vec());
            self.0.push(Queue { vm_id, name, owner, messages: VecDeque::new() });
            self.0.len() as u32
        });
        if let Some(queue) = self.find(token) {
            queue.owner = owner;
        }
        token
    }

    fn resolve(&self, vm_id: &[u8], name: &[u8]) -> Option<u32> {
        let at = self.0.iter().position(|queue| queue.vm_id == vm_id && queue.name == name)?;
        Some(at as u32 + 1)
    }

    fn find(&mut self, token: u32) -> Option<&mut Queue> {
        self.0.get_mut((token as usize).checked_sub(1)?)
    }

    /// Registered queues as (name, messages in it).
    pub(super) fn lengths(&self) -> Vec<(String, usize)> {
        let name = |queue: &Queue| String::from_utf8_lossy(&queue.name).into_owned();
        self.0.iter().map(|queue| (name(queue), queue.messages.len())).collect()
    }
}

pub(super) fn get_data(call: &mut Call<'_, '_>) -> Outcome {
    let key = call.bytes()?;
    let value_to = call.place();
    let cas_to = call.u32();
    let found = call.process.shared.borrow().get(&key).map(|(value, cas)| (value.to_vec(), cas));
    let (value, cas) = found.ok_or(Status::NotFound)?;
    call.give(value_to, &value)?;
    call.put_u32(cas_to, cas)
}

pub(super) fn set_data(call: &mut Call<'_, '_>) -> Outcome {
    let (key, value) = (call.bytes()?, call.bytes()?);
    let cas = call.u32();
    call.process.shared.borrow_mut().set(&key, &value, cas)
}

pub(super) fn register_queue(call: &mut Call<'_, '_>) -> Outcome {
    let name = call.bytes()?;
    let token_to = call.u32();
    let owner = (call.vm.id, call.root()?.id);
    let token = call.process.queues.borrow_mut().register(&call.process.settings.vm_id, &name, owner);
    call.put_u32(token_to, token)
}

pub(super) fn resolve_queue(call: &mut Call<'_, '_>) -> Outcome {
    let (vm_id, name) = (call.bytes()?, call.bytes()?);
    let token_to = call.u32();
    let vm_id = if vm_id.is_empty() { call.process.settings.vm_id.clone() } else { vm_id };
    let token = call.process.queues.borrow().resolve(&vm_id, &name).ok_or(Status::NotFound)?;
    call.put_u32(token_to, token)
}

/// The owner hears of it in a later turn of its own event loop, also when it is the sender.
pub(super) fn enqueue(call: &mut Call<'_, '_>) -> Outcome {
    let token = call.u32();
    let message = call.bytes()?;
    let (vm, root) = {
        let mut queues = call.process.queues.borrow_mut();
        let queue = queues.find(token).ok_or(Status::NotFound)?;
        queue.messages.push_back(message);
        queue.owner
    };
    // The canary's thread is the main one, where its key now finds the VM that stayed.
    let vm = if vm == VmId::Canary { VmId::Main } else { vm };
    call.process.post(Event::QueueReady { vm, root, queue: token });
    Ok(())
}

pub(super) fn dequeue(call: &mut Call<'_, '_>) -> Outcome {
    let token = call.u32();
    let message_to = call.place();
    let message = {
        let mut queues = call.process.queues.borrow_mut();
        let queue = queues.find(token).ok_or(Status::NotFound)?;
        queue.messages.pop_front().ok_or(Status::Empty)?
    };
    call.give(message_to, &message)
}
