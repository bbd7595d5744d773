//! One call out of a VM: its arguments, the caller's memory, and what happens around every call - counting,
//! hooks, faults, and the phases in which a VM may call next to nothing.

use std::rc::Rc;
use std::slice;

use wasmtime::{Caller, Extern, Val, bail};

use super::Host;
use super::abi::Import;
use super::context::{Context, Root, StreamCell};
use super::process::Process;
use super::status::Status;
use super::vm::{Guest, Phase, VmState};

/// A call in progress. Arguments are taken one after the other, in the ABI's order.
pub(super) struct Call<'a, 'c> {
    caller: &'a mut Caller<'c, Guest>,
    arguments: slice::Iter<'a, Val>,
    trap: Option<wasmtime::Error>,
    pub(super) process: Rc<Process>,
    pub(super) vm: Rc<VmState>,
}

/// Where the VM wants to find a pointer to bytes, and their length.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pointer_at: u32,
    length_at: u32,
}

/// Runs `import` for a VM and gives the status that the VM sees.
pub(super) fn dispatch(
    import: &Import,
    caller: &mut Caller<'_, Guest>,
    arguments: &[Val],
) -> wasmtime::Result<u32> {
    let (Some(process), vm) = (caller.data().process.upgrade(), caller.data().vm.clone()) else {
        bail!("the process is gone");
    };
    if !import.allowed_in(vm.phase.get()) {
        bail!("restricted_callback: {} is not allowed while {:?}", import.name, vm.phase.get());
    }
    process.watch.borrow_mut().count(import.name);
    let hook = process.watch.borrow_mut().take_hook(vm.id, import.name);
    if let Some(hook) = hook {
        // A hook is a turn of its own: what it drives on other threads runs to its end before the call does.
        let turn = process.turn.replace(0);
        hook(&Host(process.clone()));
        process.turn.set(turn);
    }
    if let Some(status) = process.watch.borrow_mut().fault(import.name) {
        return Ok(status);
    }
    let mut call = Call { caller, arguments: arguments.iter(), trap: None, process, vm };
    let answer = (import.run)(&mut call);
    call.trap.take().map_or(Ok(answer), Err)
}

impl Call<'_, '_> {
    /// The next argument, a number.
    pub(super) fn u32(&mut self) -> u32 {
        self.arguments.next().and_then(Val::i32).unwrap_or_default() as u32
    }

    /// The next argument, a long number.
    pub(super) fn i64(&mut self) -> i64 {
        self.arguments.next().and_then(Val::i64).unwrap_or_default()
    }

    /// The next two arguments, a pointer to bytes and their length.
    pub(super) fn bytes(&mut self) -> Result<Vec<u8>, Status> {
        let (at, length) = (self.u32(), self.u32());
        self.read(at, length)
    }

    /// The next two arguments, where to put a pointer and a length.
    pub(super) fn place(&mut self) -> Place {
        Place { pointer_at: self.u32(), length_at: self.u32() }
    }

    /// Bytes of the VM.
    pub(super) fn read(&mut self, at: u32, length: u32) -> Result<Vec<u8>, Status> {
        let memory = self.memory()?;
        let (from, to) = (at as usize, at as usize + length as usize);
        memory.data(&self.caller).get(from..to).map(<[u8]>::to_vec).ok_or(Status::InvalidMemoryAccess)
    }

    /// Writes into the VM.
    pub(super) fn write(&mut self, at: u32, bytes: &[u8]) -> Result<(), Status> {
        let memory = self.memory()?;
        memory.write(&mut self.caller, at as usize, bytes).map_err(|_| Status::InvalidMemoryAccess)
    }

    /// Writes a number into the VM.
    pub(super) fn put_u32(&mut self, at: u32, value: u32) -> Result<(), Status> {
        self.write(at, &value.to_le_bytes())
    }

    /// Writes a long number into the VM.
    pub(super) fn put_u64(&mut self, at: u32, value: u64) -> Result<(), Status> {
        self.write(at, &value.to_le_bytes())
    }

    /// Hands bytes over: the VM allocates, the host fills. Nothing is allocated for no bytes.
    pub(super) fn give(&mut self, place: Place, bytes: &[u8]) -> Result<(), Status> {
        let at = if bytes.is_empty() { 0 } else { self.allocate(bytes.len() as u32)? };
        self.write(at, bytes)?;
        self.put_u32(place.pointer_at, at)?;
        self.put_u32(place.length_at, bytes.len() as u32)
    }

    /// The context the call is for: the effective one if the VM chose one that lives, else the callback's own.
    pub(super) fn context(&self) -> Result<Context, Status> {
        self.vm.acting_context().ok_or(Status::BadArgument)
    }

    /// The root of the context the call is for.
    pub(super) fn root(&self) -> Result<Rc<Root>, Status> {
        match self.context()? {
            Context::Root(root) => Ok(root),
            Context::Stream(stream) => Ok(stream.borrow().root.clone()),
        }
    }

    /// The stream the call is for, if it is for one.
    pub(super) fn stream(&self) -> Option<StreamCell> {
        match self.context() {
            Ok(Context::Stream(stream)) => Some(stream),
            _ => None,
        }
    }

    fn memory(&mut self) -> Result<wasmtime::Memory, Status> {
        match self.caller.get_export("memory") {
            Some(Extern::Memory(memory)) => Ok(memory),
            _ => Err(Status::InvalidMemoryAccess),
        }
    }

    fn allocate(&mut self, length: u32) -> Result<u32, Status> {
        let allocator = ["proxy_on_memory_allocate", "malloc"]
            .into_iter()
            .find_map(|name| self.caller.get_export(name)?.into_func())
            .ok_or(Status::InvalidMemoryAccess)?;
        let allocator = allocator.typed::<u32, u32>(&self.caller).map_err(|_| Status::InvalidMemoryAccess)?;
        let phase = self.vm.phase.replace(Phase::Allocating);
        let allocated = allocator.call(&mut self.caller, length);
        self.vm.phase.set(phase);
        match allocated {
            Ok(0) => Err(Status::InvalidMemoryAccess),
            Ok(at) => Ok(at),
            Err(trap) => {
                self.trap = Some(trap);
                Err(Status::InvalidMemoryAccess)
            }
        }
    }
}
