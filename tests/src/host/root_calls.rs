//! Host calls about the VM and its roots: the log, the clock, the timer, who is meant.

use std::time::Duration;

use super::call::Call;
use super::clock::Event;
use super::context::{RootLife, Timer};
use super::log::Level;
use super::status::{Outcome, Status};
use super::vm::Deferred;

pub(super) fn log(call: &mut Call<'_, '_>) -> Outcome {
    let level = Level::from_number(call.u32()).ok_or(Status::BadArgument)?;
    let text = call.bytes()?;
    call.process.log(call.vm.id, level, &text);
    Ok(())
}

pub(super) fn log_level(call: &mut Call<'_, '_>) -> Outcome {
    let to = call.u32();
    call.put_u32(to, call.process.settings.log_level as u32)
}

pub(super) fn current_time(call: &mut Call<'_, '_>) -> Outcome {
    let to = call.u32();
    let wall = call.process.clock.borrow().wall;
    call.put_u64(to, wall.as_nanos() as u64)
}

/// Sets the root's timer. The first arming of each VM is staggered, if the test wants that.
pub(super) fn set_tick_period(call: &mut Call<'_, '_>) -> Outcome {
    let period = Duration::from_millis(call.u32().into());
    let root = call.root()?;
    let arming = root.timer.get().arming + 1;
    root.timer.set(Timer { period, arming });
    if !period.is_zero() {
        let stagger = call.process.settings.stagger * call.vm.id.number() as u32;
        let first = if arming == 1 { stagger } else { Duration::ZERO };
        call.process.schedule(first + period, Event::Tick { vm: call.vm.id, root: root.id, arming });
    }
    Ok(())
}

/// 0 is the VM's own context, which stands for "as before".
pub(super) fn set_effective_context(call: &mut Call<'_, '_>) -> Outcome {
    let id = call.u32();
    if id != 0 && !call.vm.contexts.borrow().contains_key(&id) {
        return Err(Status::BadArgument);
    }
    call.vm.effective.set(id);
    Ok(())
}

pub(super) fn done(call: &mut Call<'_, '_>) -> Outcome {
    let root = call.root()?;
    if root.life.get() != RootLife::Finishing {
        return Err(Status::NotFound);
    }
    call.vm.deferred.borrow_mut().push_back(Deferred::DeleteRoot(root));
    Ok(())
}

/// Why the callout failed whose callback is running.
pub(super) fn status(call: &mut Call<'_, '_>) -> Outcome {
    let code_to = call.u32();
    let message_to = call.place();
    let failure = call.root()?.failure.get();
    let code = failure.map_or(Status::Ok, |_| Status::BrokenConnection);
    call.put_u32(code_to, code as u32)?;
    call.give(message_to, failure.unwrap_or_default().as_bytes())
}

/// There is none in this host.
pub(super) fn foreign_function(_: &mut Call<'_, '_>) -> Outcome {
    Err(Status::NotFound)
}
