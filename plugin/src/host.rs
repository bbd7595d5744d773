//! What the host offers, as functions that return [`Result`] and cannot panic.
//!
//! This is the only file that knows host calls (proxy-wasm ABI 0.2.1 and WASI preview 1). A status is a number,
//! not an enum, because hosts return statuses that no list has; values are bytes, not text, because clients
//! send bytes.
#![allow(unsafe_code, reason = "host calls take pointers, and hand over memory that this module allocated")]

use std::alloc::Layout;
use std::time::Duration;

use lanekeeper_engine::headers::Headers;
use lanekeeper_engine::units::Timestamp;

/// A host call that did not do what it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{call} returned status {status}")]
pub(crate) struct HostError {
    call: &'static str,
    status: u32,
}

type HostResult<T> = Result<T, HostError>;

const OK: u32 = 0;
const NOT_FOUND: u32 = 1;
const CAS_MISMATCH: u32 = 8;

/// Header maps.
#[derive(Clone, Copy)]
pub(crate) enum Map {
    Request = 0,
    Response = 2,
    ResponseTrailers = 3,
    CalloutResponse = 6,
}

/// Buffers.
#[derive(Clone, Copy)]
pub(crate) enum Buffer {
    CalloutResponse = 4,
    PluginConfiguration = 7,
}

/// Log levels.
#[derive(Clone, Copy)]
pub(crate) enum Level {
    Info = 2,
    Warn = 3,
    Error = 4,
}

#[link(wasm_import_module = "env")]
unsafe extern "C" {
    fn proxy_log(level: u32, message: *const u8, size: usize) -> u32;
    fn proxy_set_tick_period_milliseconds(period: u32) -> u32;
    fn proxy_set_effective_context(context: u32) -> u32;
    fn proxy_done() -> u32;
    fn proxy_get_buffer_bytes(
        buffer: u32,
        start: usize,
        most: usize,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> u32;
    fn proxy_get_header_map_pairs(map: u32, data: *mut *mut u8, size: *mut usize) -> u32;
    fn proxy_get_header_map_value(
        map: u32,
        name: *const u8,
        name_size: usize,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> u32;
    fn proxy_add_header_map_value(
        map: u32,
        name: *const u8,
        name_size: usize,
        value: *const u8,
        value_size: usize,
    ) -> u32;
    fn proxy_remove_header_map_value(map: u32, name: *const u8, name_size: usize) -> u32;
    fn proxy_continue_stream(stream: u32) -> u32;
    fn proxy_send_local_response(
        status: u32,
        details: *const u8,
        details_size: usize,
        body: *const u8,
        body_size: usize,
        headers: *const u8,
        headers_size: usize,
        grpc_status: u32,
    ) -> u32;
    fn proxy_http_call(
        cluster: *const u8,
        cluster_size: usize,
        headers: *const u8,
        headers_size: usize,
        body: *const u8,
        body_size: usize,
        trailers: *const u8,
        trailers_size: usize,
        timeout_ms: u32,
        call: *mut u32,
    ) -> u32;
    fn proxy_get_shared_data(
        key: *const u8,
        key_size: usize,
        data: *mut *mut u8,
        size: *mut usize,
        version: *mut u32,
    ) -> u32;
    fn proxy_set_shared_data(
        key: *const u8,
        key_size: usize,
        value: *const u8,
        value_size: usize,
        version: u32,
    ) -> u32;
    fn proxy_get_property(path: *const u8, path_size: usize, data: *mut *mut u8, size: *mut usize) -> u32;
    fn proxy_define_metric(kind: u32, name: *const u8, name_size: usize, metric: *mut u32) -> u32;
    fn proxy_increment_metric(metric: u32, by: i64) -> u32;
    fn proxy_record_metric(metric: u32, value: u64) -> u32;
}

#[link(wasm_import_module = "wasi_snapshot_preview1")]
unsafe extern "C" {
    fn clock_time_get(clock: u32, precision: u64, nanoseconds: *mut u64) -> u32;
    fn environ_sizes_get(count: *mut usize, size: *mut usize) -> u32;
    fn environ_get(lines: *mut *const u8, text: *mut u8) -> u32;
}

/// The host asks for memory in which it hands something over. Whoever takes it over frees it.
#[unsafe(no_mangle)]
extern "C" fn proxy_on_memory_allocate(size: usize) -> *mut u8 {
    match Layout::array::<u8>(size) {
        // SAFETY: the layout is not empty
        Ok(layout) if layout.size() > 0 => unsafe { std::alloc::alloc(layout) },
        _ => std::ptr::null_mut(),
    }
}

fn check(call: &'static str, status: u32) -> HostResult<()> {
    if status == OK { Ok(()) } else { Err(HostError { call, status }) }
}

/// Runs a call that hands over bytes, and takes them over.
fn received(call: &'static str, run: impl FnOnce(*mut *mut u8, *mut usize) -> u32) -> HostResult<Vec<u8>> {
    let (mut data, mut size) = (std::ptr::null_mut::<u8>(), 0_usize);
    let status = run(&raw mut data, &raw mut size);
    let bytes = if data.is_null() || size == 0 {
        Vec::new()
    } else {
        // SAFETY: the host allocated exactly `size` bytes by `proxy_on_memory_allocate` and gave them to us
        unsafe { Vec::from_raw_parts(data, size, size) }
    };
    check(call, status).map(|()| bytes)
}

/// Writes a line to the proxy's log.
pub(crate) fn log(level: Level, line: &str) {
    // SAFETY: pointer and size are those of a live slice. A log that fails has nobody to tell.
    let _ = unsafe { proxy_log(level as u32, line.as_ptr(), line.len()) };
}

/// The node's monotonic clock, which all workers share. A clock that fails stands still: then nothing comes
/// back that was charged, and nothing is admitted too often.
pub(crate) fn now() -> Timestamp {
    let mut nanoseconds = 0_u64;
    // SAFETY: the pointer is that of a live number
    let status = unsafe { clock_time_get(1, 1, &raw mut nanoseconds) };
    Timestamp::from_micros(if status == OK { nanoseconds / 1000 } else { 0 })
}

/// A variable of the VM's environment. Not by `std::env`, which ends the process when the host hands none over.
pub(crate) fn environment(name: &str) -> Option<String> {
    let (mut count, mut size) = (0_usize, 0_usize);
    // SAFETY: the pointers are those of live numbers
    let status = unsafe { environ_sizes_get(&raw mut count, &raw mut size) };
    if status != OK {
        return None;
    }
    let (mut lines, mut text) = (vec![std::ptr::null(); count], vec![0_u8; size]);
    // SAFETY: the host writes as many pointers and bytes as it has just said
    let status = unsafe { environ_get(lines.as_mut_ptr(), text.as_mut_ptr()) };
    let line =
        |line: &[u8]| Some(std::str::from_utf8(line).ok()?.strip_prefix(name)?.strip_prefix('=')?.to_owned());
    // each line ends with a NUL
    (status == OK).then(|| text.split(|byte| *byte == 0).find_map(line)).flatten()
}

/// Calls `proxy_on_tick` this often; whole milliseconds, at least one. `None`: not at all.
pub(crate) fn set_tick_period(period: Option<Duration>) -> HostResult<()> {
    // SAFETY: plain numbers
    check("set_tick_period", unsafe { proxy_set_tick_period_milliseconds(period.map_or(0, whole_millis)) })
}

/// From here to the end of the callback, calls are about this context.
pub(crate) fn set_effective_context(context: u32) -> HostResult<()> {
    // SAFETY: plain numbers
    check("set_effective_context", unsafe { proxy_set_effective_context(context) })
}

/// The root of this callback has nothing left to wait for: the host may delete it.
pub(crate) fn done() -> HostResult<()> {
    // SAFETY: no argument
    check("done", unsafe { proxy_done() })
}

/// A buffer, whole.
pub(crate) fn buffer(buffer: Buffer) -> HostResult<Vec<u8>> {
    // SAFETY: the pointers are those of live variables
    received("get_buffer_bytes", |data, size| unsafe {
        proxy_get_buffer_bytes(buffer as u32, 0, usize::MAX >> 1, data, size)
    })
}

/// A header map, whole. `None` when the host hands over something else.
pub(crate) fn headers(map: Map) -> HostResult<Option<Headers>> {
    // SAFETY: the pointers are those of live variables
    let bytes = received("get_header_map_pairs", |data, size| unsafe {
        proxy_get_header_map_pairs(map as u32, data, size)
    });
    bytes.map(Headers::parse)
}

/// The first value of a header.
pub(crate) fn header(map: Map, name: &str) -> Option<Vec<u8>> {
    // SAFETY: the pointers are those of live variables and a live slice
    received("get_header_map_value", |data, size| unsafe {
        proxy_get_header_map_value(map as u32, name.as_ptr(), name.len(), data, size)
    })
    .ok()
    .filter(|value| !value.is_empty())
}

/// Adds a line to a header map.
pub(crate) fn add_header(map: Map, name: &str, value: &[u8]) -> HostResult<()> {
    // SAFETY: pointers and sizes are those of live slices
    check("add_header_map_value", unsafe {
        proxy_add_header_map_value(map as u32, name.as_ptr(), name.len(), value.as_ptr(), value.len())
    })
}

/// Removes every line of this name from a header map.
pub(crate) fn remove_header(map: Map, name: &str) -> HostResult<()> {
    // SAFETY: pointers and sizes are those of live slices
    check("remove_header_map_value", unsafe {
        proxy_remove_header_map_value(map as u32, name.as_ptr(), name.len())
    })
}

/// Lets the paused request of the effective context go on, once the callback has returned.
pub(crate) fn resume_request() -> HostResult<()> {
    // SAFETY: plain numbers
    check("continue_stream", unsafe { proxy_continue_stream(0) })
}

/// Answers the request of the effective context, once the callback has returned.
pub(crate) fn send_local_response(
    status: u16,
    grpc_status: u32,
    details: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> HostResult<()> {
    let headers = pairs(headers);
    // SAFETY: pointers and sizes are those of live slices
    check("send_local_response", unsafe {
        proxy_send_local_response(
            u32::from(status),
            details.as_ptr(),
            details.len(),
            body.as_ptr(),
            body.len(),
            headers.as_ptr(),
            headers.len(),
            grpc_status,
        )
    })
}

/// Sends a request to a cluster. The answer comes to `proxy_on_http_call_response` of the root context, under the
/// number that is returned; a timeout and a refused connection come as answers too.
pub(crate) fn http_call(
    cluster: &str,
    headers: &[(&str, &str)],
    body: &[u8],
    timeout: Duration,
) -> HostResult<u32> {
    let (headers, trailers, mut call) = (pairs(headers), pairs(&[]), 0_u32);
    // SAFETY: pointers and sizes are those of live slices and a live number
    let status = unsafe {
        proxy_http_call(
            cluster.as_ptr(),
            cluster.len(),
            headers.as_ptr(),
            headers.len(),
            body.as_ptr(),
            body.len(),
            trailers.as_ptr(),
            trailers.len(),
            whole_millis(timeout),
            &raw mut call,
        )
    };
    check("http_call", status).map(|()| call)
}

/// A property of the effective context, by its path.
pub(crate) fn property(path: &[&str]) -> Option<Vec<u8>> {
    let path = path.join("\0");
    // SAFETY: pointers and sizes are those of live variables and a live slice
    received("get_property", |data, size| unsafe {
        proxy_get_property(path.as_ptr(), path.len(), data, size)
    })
    .ok()
    .filter(|value| !value.is_empty())
}

/// Shared data: the bytes and their version, no version where the key was never written.
pub(crate) fn shared_data(key: &str) -> HostResult<(Vec<u8>, Option<u32>)> {
    let mut version = 0_u32;
    // SAFETY: pointers and sizes are those of live variables and a live slice
    let bytes = received("get_shared_data", |data, size| unsafe {
        proxy_get_shared_data(key.as_ptr(), key.len(), data, size, &raw mut version)
    });
    match bytes {
        Ok(bytes) => Ok((bytes, Some(version))),
        Err(HostError { status: NOT_FOUND, .. }) => Ok((Vec::new(), None)),
        Err(error) => Err(error),
    }
}

/// A version that no entry has: hosts count versions up from 1. On a key that is there it never matches, and
/// on one that is not it does not matter, so that a write under it creates and never overwrites.
const NEVER_WRITTEN: u32 = u32::MAX;

/// Writes shared data if its version is still this one. `false` when somebody else has written it.
pub(crate) fn set_shared_data(key: &str, value: &[u8], version: Option<u32>) -> HostResult<bool> {
    // version 0 would overwrite whatever is there
    let version = version.filter(|version| *version != 0).unwrap_or(NEVER_WRITTEN);
    // SAFETY: pointers and sizes are those of live slices
    let status =
        unsafe { proxy_set_shared_data(key.as_ptr(), key.len(), value.as_ptr(), value.len(), version) };
    match status {
        CAS_MISMATCH => Ok(false),
        status => check("set_shared_data", status).map(|()| true),
    }
}

/// A counter of this name, the same in every VM. Each call makes another number for it: keep the first.
pub(crate) fn define_counter(name: &str) -> HostResult<u32> {
    define_metric(0, name)
}

/// The same for a gauge.
pub(crate) fn define_gauge(name: &str) -> HostResult<u32> {
    define_metric(1, name)
}

/// Sets a gauge.
pub(crate) fn record(gauge: u32, value: u64) -> HostResult<()> {
    // SAFETY: plain numbers
    check("record_metric", unsafe { proxy_record_metric(gauge, value) })
}

fn define_metric(kind: u32, name: &str) -> HostResult<u32> {
    let mut metric = 0_u32;
    // SAFETY: pointers and sizes are those of a live slice and a live number
    let status = unsafe { proxy_define_metric(kind, name.as_ptr(), name.len(), &raw mut metric) };
    check("define_metric", status).map(|()| metric)
}

/// Counts so many more.
pub(crate) fn increment(counter: u32, more: u32) -> HostResult<()> {
    // SAFETY: plain numbers
    check("increment_metric", unsafe { proxy_increment_metric(counter, more.into()) })
}

/// A duration for the host, which takes 0 for "never": at least one millisecond.
fn whole_millis(span: Duration) -> u32 {
    u32::try_from(span.as_millis()).unwrap_or(u32::MAX).max(1)
}

/// The layout of a map (see [`Headers::parse`]).
fn pairs(pairs: &[(&str, &str)]) -> Vec<u8> {
    let number = |len: usize| u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes();
    let mut out = Vec::with_capacity(4 + pairs.iter().map(|(n, v)| n.len() + v.len() + 10).sum::<usize>());
    out.extend(number(pairs.len()));
    for (name, value) in pairs {
        out.extend(number(name.len()));
        out.extend(number(value.len()));
    }
    for (name, value) in pairs {
        out.extend_from_slice(name.as_bytes());
        out.push(0);
        out.extend_from_slice(value.as_bytes());
        out.push(0);
    }
    out
}
