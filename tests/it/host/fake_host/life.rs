//! VMs and roots: canary, start, change, end.

use std::time::Duration;

use lanekeeper_tests::host::{Host, Refused, Request, State, VmId};

use super::{builder, lines, lines_of, probe};

/// A host that runs a module in the text format.
fn run_text(module: &str) -> Result<Host, Refused> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("filter.wasm");
    std::fs::write(&path, wat::parse_str(module).unwrap()).unwrap();
    Host::builder().plugin(&path).start("anything")
}

#[test]
fn a_canary_the_main_thread_and_each_worker_are_configured() {
    let host = builder().workers(2).environment("PROBE_NAME", "p").start("").unwrap();
    let configured: Vec<_> = host.log().into_iter().map(|line| (line.vm, line.text)).collect();
    let text = "configured as Ok(\"p\")".to_owned();
    let vms = [VmId::Canary, VmId::Main, VmId::Worker(0), VmId::Worker(1)];
    assert_eq!(configured, vms.map(|vm| (vm, text.clone())));
}

#[test]
fn a_refused_configuration_says_why_in_the_log() {
    let refused = builder().start("refuse").err().unwrap();
    assert_eq!(refused.log.len(), 1);
    assert_eq!(refused.trap, None);
}

#[test]
fn what_a_canary_shared_stays() {
    let host = probe("tick=1000");
    let (_, before) = host.shared_data("configured").unwrap();
    assert!(host.reconfigure("refuse").is_err());
    assert_eq!(host.shared_data("configured"), Some((b"refuse".to_vec(), before + 1)));
}

#[test]
fn a_refused_change_keeps_the_old_configuration() {
    let host = probe("callout");
    assert!(host.reconfigure("refuse").is_err());
    assert_eq!(host.worker(0).contexts(), (1, 0));
    assert_eq!(host.worker(0).request(Request::get("/")).state(), State::Paused);
}

#[test]
fn an_old_root_lives_until_its_last_stream_ends() {
    let host = probe("callout");
    let old = host.worker(0).request(Request::get("/"));
    host.reconfigure("").unwrap();
    assert_eq!(host.worker(0).contexts(), (2, 1));
    assert_eq!(host.worker(0).request(Request::get("/")).state(), State::Continued);
    old.end();
    assert_eq!(host.worker(0).contexts(), (1, 1));
    assert_eq!(lines(&host).last().unwrap(), "root done");
}

#[test]
fn callouts_of_an_ended_root_are_cancelled() {
    let host = probe("callout");
    let old = host.worker(0).request(Request::get("/"));
    host.reconfigure("").unwrap();
    assert_eq!(host.callouts().len(), 1);
    old.end();
    assert_eq!(host.callouts(), []);
}

#[test]
fn a_root_that_asks_for_time_is_deleted_when_it_says_so() {
    let host = probe("linger tick=100");
    host.reconfigure("").unwrap();
    assert_eq!(host.worker(0).contexts().0, 2);
    host.advance(Duration::from_millis(100));
    assert_eq!(host.worker(0).contexts().0, 1);
    // its timer is heard no more
    let ticks = lines(&host);
    host.advance(Duration::from_secs(1));
    assert_eq!(lines(&host), ticks);
}

#[test]
fn timers_run_on_the_main_thread_and_on_workers_each_in_its_own_phase() {
    let host = builder().workers(2).stagger(Duration::from_millis(10)).start("tick=100").unwrap();
    let ticks = |vm| lines_of(&host, vm).iter().filter(|line| *line == "tick").count();
    host.advance(Duration::from_millis(119));
    assert_eq!([VmId::Main, VmId::Worker(0), VmId::Worker(1)].map(ticks), [1, 1, 0]);
    host.advance(Duration::from_millis(82));
    assert_eq!([VmId::Main, VmId::Worker(0), VmId::Worker(1)].map(ticks), [2, 1, 1]);
    assert_eq!(ticks(VmId::Canary), 0);
}

#[test]
fn a_filter_without_callbacks_lets_everything_through() {
    let host = run_text(r#"(module (memory (export "memory") 1))"#).unwrap();
    let stream = host.worker(0).request(Request::post("/").open());
    stream.send_body("body", false);
    stream.send_trailers([("t", "1")]);
    assert_eq!(stream.state(), State::Continued);
    assert_eq!((stream.upstream().body, stream.upstream().complete), ("body".into(), true));
    assert_eq!(stream.respond([(":status", "200")]).unwrap().text(":status").unwrap(), "200");
    stream.end();
    assert_eq!(host.traps(), []);
}

#[test]
fn a_vm_that_calls_the_host_while_it_initializes_fails() {
    let refused = run_text(
        r#"(module
            (import "env" "proxy_set_tick_period_milliseconds" (func $tick (param i32) (result i32)))
            (memory (export "memory") 1)
            (func (export "_initialize") (drop (call $tick (i32.const 10)))))"#,
    );
    assert!(refused.err().unwrap().trap.unwrap().contains("restricted_callback"));
}

#[test]
fn a_pointer_outside_the_memory_is_an_invalid_access() {
    // on_configure takes the configuration only if the status is 6
    let host = run_text(
        r#"(module
            (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
            (memory (export "memory") 1)
            (func (export "proxy_on_configure") (param i32 i32) (result i32)
                (i32.eq (i32.const 6) (call $log (i32.const 2) (i32.const 65535) (i32.const 2)))))"#,
    );
    assert_eq!(host.unwrap().log(), []);
}
