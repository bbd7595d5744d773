//! Host calls about the stream at hand: going on, replying, and its bodies.

use super::call::Call;
use super::flow::Side;
use super::headers::Headers;
use super::reply::LocalReply;
use super::status::{Outcome, Status};
use super::vm::Deferred;

/// Buffers, as the ABI numbers them.
const REQUEST_BODY: u32 = 0;
const RESPONSE_BODY: u32 = 1;
const CALLOUT_BODY: u32 = 4;
const VM_CONFIGURATION: u32 = 6;
const PLUGIN_CONFIGURATION: u32 = 7;
const LAST_BUFFER: u32 = 8;

fn side(stream_type: u32) -> Result<Side, Status> {
    match stream_type {
        0 => Ok(Side::Request),
        1 => Ok(Side::Response),
        _ => Err(Status::BadArgument),
    }
}

pub(super) fn continue_stream(call: &mut Call<'_, '_>) -> Outcome {
    let side = side(call.u32())?;
    if let Some(stream) = call.stream() {
        // The request's maps are gone from here on, whichever side goes on, though the stream goes on later.
        stream.borrow_mut().request.close();
        call.vm.deferred.borrow_mut().push_back(Deferred::Resume(stream, side));
    }
    Ok(())
}

pub(super) fn close_stream(call: &mut Call<'_, '_>) -> Outcome {
    side(call.u32())?;
    if let Some(stream) = call.stream() {
        call.vm.deferred.borrow_mut().push_back(Deferred::Reset(stream));
    }
    Ok(())
}

/// The stop flag is the VM's: the stream whose callback is running stops, whichever stream the reply is for.
pub(super) fn send_local_response(call: &mut Call<'_, '_>) -> Outcome {
    let status = call.u32();
    let (details, body, headers) = (call.bytes()?, call.bytes()?, call.bytes()?);
    let grpc_status = call.u32();
    if let Some(stream) = call.stream() {
        let again = std::mem::replace(&mut stream.borrow_mut().reply_asked, true);
        if again {
            let what = format!("replies to stream {} more than once", stream.borrow().id);
            call.process.misuse(call.vm.id, &what);
        } else {
            let reply =
                LocalReply::asked(status, Headers::decode(&headers), body.into(), grpc_status, &details);
            call.vm.deferred.borrow_mut().push_back(Deferred::Reply(stream, reply));
        }
    }
    call.vm.stop_iteration.set(true);
    Ok(())
}

/// The bytes of a buffer that is there at the moment.
fn buffer(call: &Call<'_, '_>, kind: u32) -> Result<Vec<u8>, Status> {
    let of_stream = |side: Side| {
        let stream = call.stream()?;
        let mut stream = stream.borrow_mut();
        let half = stream.half(side);
        Some(if half.body_open { half.body.to_vec() } else { Vec::new() })
    };
    match kind {
        REQUEST_BODY => of_stream(Side::Request),
        RESPONSE_BODY => of_stream(Side::Response),
        CALLOUT_BODY => call.root()?.reception.borrow().as_ref().map(|reception| reception.body.to_vec()),
        VM_CONFIGURATION => Some(call.process.settings.vm_configuration.clone()),
        PLUGIN_CONFIGURATION => {
            Some(call.root()?).filter(|r| r.configuring.get()).map(|r| r.configuration.borrow().clone())
        }
        kind if kind > LAST_BUFFER => return Err(Status::BadArgument),
        _ => None,
    }
    .ok_or(Status::NotFound)
}

/// A length that is too long is cut, and a start past the end gives nothing: the VM's pointers stay as they are.
pub(super) fn buffer_bytes(call: &mut Call<'_, '_>) -> Outcome {
    let (kind, start, length) = (call.u32(), call.u32(), call.u32());
    let bytes_to = call.place();
    let bytes = buffer(call, kind)?;
    let end = start.checked_add(length).ok_or(Status::BadArgument)? as usize;
    match bytes.get(start as usize..end.min(bytes.len())) {
        Some([]) | None => Ok(()),
        Some(part) => call.give(bytes_to, part),
    }
}

pub(super) fn buffer_status(call: &mut Call<'_, '_>) -> Outcome {
    let (kind, size_to, flags_to) = (call.u32(), call.u32(), call.u32());
    let size = buffer(call, kind)?.len() as u32;
    call.put_u32(size_to, size)?;
    call.put_u32(flags_to, 0)
}

/// Envoy can prepend, replace the whole, or append.
pub(super) fn set_buffer_bytes(call: &mut Call<'_, '_>) -> Outcome {
    let (kind, start, length) = (call.u32(), call.u32() as usize, call.u32() as usize);
    let bytes = call.bytes()?;
    let side = side(kind)?;
    let stream = call.stream().ok_or(Status::NotFound)?;
    let mut stream = stream.borrow_mut();
    let half = stream.half(side);
    if !half.body_open {
        return Err(Status::NotFound);
    }
    match (start, length) {
        (0, 0) => drop(half.body.splice(0..0, bytes)),
        (0, length) if length >= half.body.len() => half.body = bytes.into(),
        (start, _) if start != 0 && start >= half.body.len() => half.body.extend(bytes),
        _ => return Err(Status::BadArgument),
    }
    Ok(())
}
