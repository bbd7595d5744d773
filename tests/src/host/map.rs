//! Host calls about header maps.
//!
//! A map is there from its callback on until the stream goes on; a paused stream keeps it. In `proxy_on_log` all of
//! them can be read once more, and none be changed.

use super::call::Call;
use super::flow::{Side, StreamState};
use super::headers::Headers;
use super::status::{Outcome, Status};

/// Maps, as the ABI numbers them.
const REQUEST_HEADERS: u32 = 0;
const REQUEST_TRAILERS: u32 = 1;
const RESPONSE_HEADERS: u32 = 2;
const RESPONSE_TRAILERS: u32 = 3;
const CALLOUT_HEADERS: u32 = 6;
const CALLOUT_TRAILERS: u32 = 7;
const LAST_MAP: u32 = 7;

/// A copy of the map, if it is there.
fn read(call: &Call<'_, '_>, map: u32) -> Result<Option<Headers>, Status> {
    if map > LAST_MAP {
        return Err(Status::BadArgument);
    }
    if let CALLOUT_HEADERS | CALLOUT_TRAILERS = map {
        let root = call.root()?;
        let reception = root.reception.borrow();
        let headers =
            reception.as_ref().map(|r| if map == CALLOUT_HEADERS { &r.headers } else { &r.trailers });
        return Ok(headers.cloned());
    }
    let Some(stream) = call.stream() else {
        return Ok(None);
    };
    let mut stream = stream.borrow_mut();
    if stream.logging {
        return Ok(logged(&stream, map));
    }
    Ok(open(&mut stream, map).cloned())
}

/// The map as `proxy_on_log` sees it.
fn logged(stream: &StreamState, map: u32) -> Option<Headers> {
    match map {
        REQUEST_HEADERS => Some(stream.request.headers.clone()),
        RESPONSE_HEADERS => Some(stream.response.headers.clone()).filter(|_| stream.response.started),
        RESPONSE_TRAILERS => stream.response.trailers.clone(),
        _ => None,
    }
}

/// The map while it can be changed.
fn open(stream: &mut StreamState, map: u32) -> Option<&mut Headers> {
    let side = if let REQUEST_HEADERS | REQUEST_TRAILERS = map { Side::Request } else { Side::Response };
    let half = stream.half(side);
    match map {
        REQUEST_HEADERS | RESPONSE_HEADERS => Some(&mut half.headers).filter(|_| half.headers_open),
        REQUEST_TRAILERS | RESPONSE_TRAILERS => half.trailers.as_mut().filter(|_| half.trailers_open),
        _ => None,
    }
}

/// Changes the map, if it is there.
fn change(call: &mut Call<'_, '_>, map: u32, change: impl FnOnce(&mut Headers)) -> Outcome {
    let stream = call.stream().ok_or(Status::BadArgument)?;
    let mut stream = stream.borrow_mut();
    open(&mut stream, map).map(change).ok_or(Status::BadArgument)
}

pub(super) fn value(call: &mut Call<'_, '_>) -> Outcome {
    let map = call.u32();
    let name = call.bytes()?;
    let value_to = call.place();
    let Some(headers) = read(call, map)? else {
        let logging = call.stream().is_some_and(|stream| stream.borrow().logging);
        return Err(if logging { Status::NotFound } else { Status::BadArgument });
    };
    let value = headers.values_of(&name).next().ok_or(Status::NotFound)?;
    call.give(value_to, value)
}

/// The pairs of a map that is not there are none, which Envoy does not call an error.
pub(super) fn pairs(call: &mut Call<'_, '_>) -> Outcome {
    let map = call.u32();
    let pairs_to = call.place();
    let headers = read(call, map)?.unwrap_or_default();
    let encoded = if headers.is_empty() { Vec::new() } else { headers.encode() };
    call.give(pairs_to, &encoded)
}

pub(super) fn size(call: &mut Call<'_, '_>) -> Outcome {
    let (map, size_to) = (call.u32(), call.u32());
    let size = read(call, map)?.ok_or(Status::BadArgument)?.byte_size();
    call.put_u32(size_to, size as u32)
}

pub(super) fn set_pairs(call: &mut Call<'_, '_>) -> Outcome {
    let map = call.u32();
    let headers = Headers::decode(&call.bytes()?);
    change(call, map, |held| *held = headers)
}

pub(super) fn add(call: &mut Call<'_, '_>) -> Outcome {
    let map = call.u32();
    let (name, value) = header(call)?;
    change(call, map, |held| held.add(name, value))
}

pub(super) fn replace(call: &mut Call<'_, '_>) -> Outcome {
    let map = call.u32();
    let (name, value) = header(call)?;
    change(call, map, |held| held.replace(name, value))
}

pub(super) fn remove(call: &mut Call<'_, '_>) -> Outcome {
    let map = call.u32();
    let name = call.bytes()?;
    change(call, map, |held| held.remove(name))
}

/// A name and a value. Envoy takes what would split a header, and only its codec stumbles over it.
fn header(call: &mut Call<'_, '_>) -> Result<(Vec<u8>, Vec<u8>), Status> {
    let (name, value) = (call.bytes()?, call.bytes()?);
    if name.iter().chain(&value).any(|byte| matches!(byte, 0 | b'\r' | b'\n')) {
        let name = name.escape_ascii();
        call.process.misuse(call.vm.id, &format!("writes a control character into header {name}"));
    }
    Ok((name, value))
}
