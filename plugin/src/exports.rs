//! What the host calls: the proxy-wasm ABI 0.2.1, with names for its positional numbers.
#![allow(unsafe_code, reason = "exported functions have the names that the ABI gives them")]

use crate::stream::Action;
use crate::vm::{self, Vm};

unsafe extern "C" {
    fn __wasm_call_ctors();
}

/// Says which version of the ABI this module speaks.
#[unsafe(no_mangle)]
extern "C" fn proxy_abi_version_0_2_1() {}

/// Called once, before everything else. It makes the module a reactor, whose exports may be called many times.
#[unsafe(no_mangle)]
extern "C" fn _initialize() {
    // SAFETY: the linker makes this function, and this is its one call
    unsafe { __wasm_call_ctors() };
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_context_create(context: u32, parent: u32) {
    vm::with((), |vm| vm.create(context, parent));
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_vm_start(_root: u32, _configuration_size: usize) -> u32 {
    1
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_configure(root: u32, _configuration_size: usize) -> u32 {
    u32::from(vm::with(false, |vm| vm.configure(root)))
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_tick(root: u32) {
    vm::with((), |vm| vm.tick(root));
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_http_call_response(
    root: u32,
    call: u32,
    headers: u32,
    _body_size: usize,
    _trailers: u32,
) {
    vm::with((), |vm| vm.call_ended(root, call, headers > 0));
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_request_headers(stream: u32, _headers: u32, _end: u32) -> u32 {
    #[cfg(feature = "trap")]
    crate::trap::if_asked_for();
    vm::with(None, |vm| vm.request_headers(stream)).unwrap_or_else(Vm::refuse_blindly) as u32
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_request_body(stream: u32, _size: usize, _end: u32) -> u32 {
    vm::with(Action::Pause, |vm| vm.request_goes_on(stream)) as u32
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_request_trailers(stream: u32, _trailers: u32) -> u32 {
    vm::with(Action::Pause, |vm| vm.request_goes_on(stream)) as u32
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_response_headers(stream: u32, _headers: u32, _end: u32) -> u32 {
    vm::with((), |vm| vm.response_headers(stream));
    Action::Continue as u32
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_response_trailers(stream: u32, _trailers: u32) -> u32 {
    vm::with((), |vm| vm.response_trailers(stream));
    Action::Continue as u32
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_done(context: u32) -> u32 {
    u32::from(vm::with(true, |vm| vm.done(context)))
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_delete(context: u32) {
    vm::with((), |vm| vm.delete(context));
}
