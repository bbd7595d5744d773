//! The import table: every function of ABI 0.2.1 that a filter may import, with its parameters. What each one
//! does stands with the noun it is about.

use wasmtime::{Engine, FuncType, Linker, Val, ValType};

use super::call::{Call, dispatch};
use super::status::{Outcome, Status};
use super::vm::{Guest, Phase};
use super::{callout, map, metrics, property, root_calls, shared, stream_calls, wasi};

/// One function that a VM may import.
pub(super) struct Import {
    pub(super) name: &'static str,
    module: &'static str,
    /// `i` is an i32, `I` an i64.
    parameters: &'static str,
    /// Gives the number that the VM gets.
    pub(super) run: Run,
}

type Run = Box<dyn Fn(&mut Call<'_, '_>) -> u32 + Send + Sync>;

impl Import {
    /// While a VM starts it has WASI and the log; while it allocates for the host, the log and the clock.
    pub(super) fn allowed_in(&self, phase: Phase) -> bool {
        match phase {
            Phase::Running => true,
            Phase::Starting => self.module != "env" || self.name == "proxy_log",
            Phase::Allocating => {
                matches!(self.name, "proxy_log" | "fd_write" | "clock_time_get" | "poll_oneoff")
            }
        }
    }

    fn proxy(name: &'static str, parameters: &'static str, run: fn(&mut Call<'_, '_>) -> Outcome) -> Self {
        let run = move |call: &mut Call<'_, '_>| run(call).err().unwrap_or(Status::Ok) as u32;
        Self { name, module: "env", parameters, run: Box::new(run) }
    }

    fn wasi(name: &'static str, parameters: &'static str, run: fn(&mut Call<'_, '_>) -> wasi::Errno) -> Self {
        let run = move |call: &mut Call<'_, '_>| run(call).0;
        Self { name, module: "wasi_snapshot_preview1", parameters, run: Box::new(run) }
    }

    fn type_in(&self, engine: &Engine) -> FuncType {
        let parameters = self.parameters.chars().map(|c| if c == 'I' { ValType::I64 } else { ValType::I32 });
        let returns = if self.name == "proc_exit" { None } else { Some(ValType::I32) };
        FuncType::new(engine, parameters, returns)
    }
}

fn not_in_this_host(_: &mut Call<'_, '_>) -> Outcome {
    Err(Status::Unimplemented)
}

/// All imports, ready to be linked.
pub(super) fn linker(engine: &Engine) -> wasmtime::Result<Linker<Guest>> {
    let mut linker = Linker::new(engine);
    for import in proxy_functions().into_iter().chain(wasi_functions()) {
        let (module, name, signature) = (import.module, import.name, import.type_in(engine));
        linker.func_new(module, name, signature, move |mut caller, arguments, results| {
            let answer = dispatch(&import, &mut caller, arguments)?;
            if let Some(result) = results.first_mut() {
                *result = Val::I32(answer as i32);
            }
            Ok(())
        })?;
    }
    Ok(linker)
}

fn proxy_functions() -> Vec<Import> {
    let f = Import::proxy;
    vec![
        // the VM and its root
        f("proxy_log", "iii", root_calls::log),
        f("proxy_get_log_level", "i", root_calls::log_level),
        f("proxy_get_current_time_nanoseconds", "i", root_calls::current_time),
        f("proxy_set_tick_period_milliseconds", "i", root_calls::set_tick_period),
        f("proxy_set_effective_context", "i", root_calls::set_effective_context),
        f("proxy_done", "", root_calls::done),
        f("proxy_get_status", "iii", root_calls::status),
        f("proxy_call_foreign_function", "iiiiii", root_calls::foreign_function),
        // maps, buffers, streams
        f("proxy_get_header_map_size", "ii", map::size),
        f("proxy_get_header_map_pairs", "iii", map::pairs),
        f("proxy_set_header_map_pairs", "iii", map::set_pairs),
        f("proxy_get_header_map_value", "iiiii", map::value),
        f("proxy_add_header_map_value", "iiiii", map::add),
        f("proxy_replace_header_map_value", "iiiii", map::replace),
        f("proxy_remove_header_map_value", "iii", map::remove),
        f("proxy_get_buffer_bytes", "iiiii", stream_calls::buffer_bytes),
        f("proxy_get_buffer_status", "iii", stream_calls::buffer_status),
        f("proxy_set_buffer_bytes", "iiiii", stream_calls::set_buffer_bytes),
        f("proxy_continue_stream", "i", stream_calls::continue_stream),
        f("proxy_close_stream", "i", stream_calls::close_stream),
        f("proxy_send_local_response", "iiiiiiii", stream_calls::send_local_response),
        f("proxy_get_property", "iiii", property::get),
        f("proxy_set_property", "iiii", property::set),
        // callouts
        f("proxy_http_call", "iiiiiiiiii", callout::http_call),
        f("proxy_grpc_call", "iiiiiiiiiiii", not_in_this_host),
        f("proxy_grpc_stream", "iiiiiiiii", not_in_this_host),
        f("proxy_grpc_send", "iiii", not_in_this_host),
        f("proxy_grpc_cancel", "i", not_in_this_host),
        f("proxy_grpc_close", "i", not_in_this_host),
        // what VMs share
        f("proxy_get_shared_data", "iiiii", shared::get_data),
        f("proxy_set_shared_data", "iiiii", shared::set_data),
        f("proxy_register_shared_queue", "iii", shared::register_queue),
        f("proxy_resolve_shared_queue", "iiiii", shared::resolve_queue),
        f("proxy_enqueue_shared_queue", "iii", shared::enqueue),
        f("proxy_dequeue_shared_queue", "iii", shared::dequeue),
        f("proxy_define_metric", "iiii", metrics::define),
        f("proxy_increment_metric", "iI", metrics::increment),
        f("proxy_record_metric", "iI", metrics::record),
        f("proxy_get_metric", "ii", metrics::get),
    ]
}

fn wasi_functions() -> Vec<Import> {
    let f = Import::wasi;
    vec![
        f("clock_time_get", "iIi", wasi::clock_time_get),
        f("clock_res_get", "ii", wasi::clock_res_get),
        f("random_get", "ii", wasi::random_get),
        f("environ_get", "ii", wasi::environ_get),
        f("environ_sizes_get", "ii", wasi::environ_sizes_get),
        f("args_get", "ii", wasi::args_get),
        f("args_sizes_get", "ii", wasi::args_sizes_get),
        f("fd_write", "iiii", wasi::fd_write),
        f("fd_read", "iiii", wasi::not_supported),
        f("fd_seek", "iIii", wasi::not_supported),
        f("fd_close", "i", wasi::not_supported),
        f("fd_fdstat_get", "ii", wasi::not_supported),
        f("fd_prestat_get", "ii", wasi::no_such_file),
        f("fd_prestat_dir_name", "iii", wasi::no_such_file),
        f("path_open", "iiiiiIIii", wasi::not_supported),
        f("poll_oneoff", "iiii", wasi::not_supported),
        f("sched_yield", "", wasi::sched_yield),
        f("proc_exit", "i", wasi::proc_exit),
    ]
}
