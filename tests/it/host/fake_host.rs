//! The fake host under a filter that is built on the SDK: see `tests/sdk-probe`.

mod callouts;
mod life;
mod sdk;
mod sharing;
mod streams;

use std::path::PathBuf;

use lanekeeper_tests::host::{Builder, Host, LogLine, VmId, built_module};

fn probe_path() -> PathBuf {
    built_module("LANEKEEPER_SDK_PROBE_WASM", "sdk_probe.wasm", &["release", "debug"])
        .expect("no built probe: run `cargo xtask test`, or `cargo build -p sdk-probe --target wasm32-wasip1 --release`")
}

/// A host that is about to run the probe.
fn builder() -> Builder {
    Host::builder().plugin(probe_path())
}

/// A host that runs the probe in one worker.
fn probe(words: &str) -> Host {
    builder().start(words).unwrap()
}

/// What one VM logged.
fn lines_of(host: &Host, vm: VmId) -> Vec<String> {
    let of_vm = |line: &LogLine| line.vm == vm;
    host.log().into_iter().filter(of_vm).map(|line| line.text).collect()
}

/// What the first worker logged after it was configured.
fn lines(host: &Host) -> Vec<String> {
    lines_of(host, VmId::Worker(0)).into_iter().skip(1).collect()
}
