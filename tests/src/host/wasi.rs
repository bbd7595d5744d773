//! The part of WASI that Envoy gives a filter: clocks, chance, environment, and two files that are the log.

use super::call::Call;
use super::log::Level;

/// A WASI error number; 0 is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Errno(pub(super) u32);

const SUCCESS: Errno = Errno(0);
const BADF: Errno = Errno(8);
const FAULT: Errno = Errno(21);
const INVAL: Errno = Errno(28);
const NOSYS: Errno = Errno(52);
const NOTSUP: Errno = Errno(58);

/// Envoy gives no more random bytes than this at once.
const MAX_RANDOM_BYTES: u32 = 64 * 1024;

type Wasi = Result<(), Errno>;

fn errno(result: Wasi) -> Errno {
    result.err().unwrap_or(SUCCESS)
}

pub(super) fn clock_time_get(call: &mut Call<'_, '_>) -> Errno {
    let (clock, _precision, to) = (call.u32(), call.i64(), call.u32());
    let now = *call.process.clock.borrow();
    let time = match clock {
        0 => now.wall,
        1 => now.monotonic,
        _ => return NOTSUP,
    };
    errno(call.put_u64(to, time.as_nanos() as u64).map_err(|_| FAULT))
}

pub(super) fn clock_res_get(call: &mut Call<'_, '_>) -> Errno {
    let (clock, to) = (call.u32(), call.u32());
    if clock > 1 { NOTSUP } else { errno(call.put_u64(to, 1).map_err(|_| FAULT)) }
}

pub(super) fn random_get(call: &mut Call<'_, '_>) -> Errno {
    let (to, length) = (call.u32(), call.u32());
    if length > MAX_RANDOM_BYTES {
        return INVAL;
    }
    let bytes: Vec<u8> = (0..length).map(|_| call.vm.random_byte()).collect();
    errno(call.write(to, &bytes).map_err(|_| FAULT))
}

pub(super) fn environ_sizes_get(call: &mut Call<'_, '_>) -> Errno {
    let (count_to, size_to) = (call.u32(), call.u32());
    let lines = environment(call);
    let size: usize = lines.iter().map(Vec::len).sum();
    errno(put_pair(call, (count_to, lines.len() as u32), (size_to, size as u32)))
}

pub(super) fn environ_get(call: &mut Call<'_, '_>) -> Errno {
    let (mut pointer_to, mut text_to) = (call.u32(), call.u32());
    for line in environment(call) {
        if call.put_u32(pointer_to, text_to).and_then(|()| call.write(text_to, &line)).is_err() {
            return FAULT;
        }
        pointer_to += 4;
        text_to += line.len() as u32;
    }
    SUCCESS
}

pub(super) fn args_get(_: &mut Call<'_, '_>) -> Errno {
    SUCCESS
}

pub(super) fn args_sizes_get(call: &mut Call<'_, '_>) -> Errno {
    let (count_to, size_to) = (call.u32(), call.u32());
    errno(put_pair(call, (count_to, 0), (size_to, 0)))
}

pub(super) fn fd_write(call: &mut Call<'_, '_>) -> Errno {
    let (file, slices, count, written_to) = (call.u32(), call.u32(), call.u32(), call.u32());
    let level = match file {
        1 => Level::Info,
        2 => Level::Error,
        _ => return BADF,
    };
    let Some(text) = gather(call, slices, count) else {
        return FAULT;
    };
    if call.put_u32(written_to, text.len() as u32).is_err() {
        return FAULT;
    }
    let line = text.strip_suffix(b"\n").unwrap_or(&text);
    if !line.is_empty() {
        call.process.log(call.vm.id, level, line);
    }
    SUCCESS
}

/// Ends the VM, since Envoy returns to a caller that counts on never being returned to.
pub(super) fn proc_exit(_: &mut Call<'_, '_>) -> Errno {
    SUCCESS
}

pub(super) fn sched_yield(_: &mut Call<'_, '_>) -> Errno {
    SUCCESS
}

pub(super) fn not_supported(_: &mut Call<'_, '_>) -> Errno {
    NOSYS
}

pub(super) fn no_such_file(_: &mut Call<'_, '_>) -> Errno {
    BADF
}

fn environment(call: &Call<'_, '_>) -> Vec<Vec<u8>> {
    let variables = &call.process.settings.environment;
    variables.iter().map(|(name, value)| format!("{name}={value}\0").into_bytes()).collect()
}

fn put_pair(call: &mut Call<'_, '_>, first: (u32, u32), second: (u32, u32)) -> Wasi {
    call.put_u32(first.0, first.1).and_then(|()| call.put_u32(second.0, second.1)).map_err(|_| FAULT)
}

/// The bytes of a list of slices, each an address and a length.
fn gather(call: &mut Call<'_, '_>, slices: u32, count: u32) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    for at in (0..count).map(|index| slices + index * 8) {
        let slice = call.read(at, 8).ok()?;
        let (address, length) = slice.split_first_chunk::<4>()?;
        let length = length.first_chunk::<4>()?;
        text.extend(call.read(u32::from_le_bytes(*address), u32::from_le_bytes(*length)).ok()?);
    }
    Some(text)
}
