//! What the pages in docs show of recorded runs, with names that a reader understands.

use super::{percent, quoted, table};
use crate::record::Record;

/// The figures of a recorded run, with names that a reader understands.
pub fn accuracy(record: &Record) -> String {
    let mut table = table(&[
        "algorithm",
        "wrongly allowed",
        "wrongly rejected",
        "most admitted / allowed",
        "refused at full demand",
    ]);
    for row in &record.rows {
        table.add_row([
            quoted(&row.case),
            percent(row.figure("wrongly_allowed"), 2),
            percent(row.figure("wrongly_rejected"), 2),
            format!("{:.2}", row.figure("max_admitted_ratio")),
            percent(row.figure("under_admission"), 2),
        ]);
    }
    table.to_string()
}

/// The same of the store's.
pub fn store(record: &Record) -> String {
    let mut table = table(&[
        "algorithm, store",
        "decisions/s",
        "of Redis alone",
        "p50 / p99 at half load",
        "bytes, one request",
        "bytes, 1000 requests",
    ]);
    for row in &record.rows {
        let busy =
            row.figures.get("bytes_per_busy_subject").map_or(String::new(), |bytes| format!("{bytes:.0}"));
        table.add_row([
            row.case.split_once('/').map_or_else(String::new, |(name, store)| format!("`{name}`, {store}")),
            format!("{:.0}", row.figure("decisions_per_sec")),
            format!("{:.2}", row.figure("ceiling_ratio")),
            format!("{:.2} / {:.2} ms", row.figure("p50_ms"), row.figure("p99_ms")),
            format!("{:.0}", row.figure("bytes_per_subject")),
            busy,
        ]);
    }
    table.to_string()
}

/// The same of what subjects take.
pub fn memory(record: &Record) -> String {
    super::subjects(&record.rows)
}

/// The same of what requests take.
pub fn work(record: &Record) -> String {
    let mut table = table(&["one request", "host calls", "instructions"]);
    for row in &record.rows {
        table.add_row([
            quoted(&row.case),
            row.figure("host_calls").to_string(),
            format!("{:.0}", row.figure("fuel")),
        ]);
    }
    table.to_string()
}

/// The same of requests among faults.
pub fn endurance(record: &Record) -> String {
    super::endured(&record.rows)
}

/// The same of the production load.
pub fn load(record: &Record) -> String {
    super::load(&record.rows)
}

/// The same of the simulations.
pub fn sim(record: &Record) -> String {
    let mut table = table(&[
        "scenario",
        "requests",
        "over-admission",
        "under-admission",
        "decided on the node",
        "commands for a decision",
        "messages/s",
        "requests that wait",
        "mean / longest wait",
    ]);
    for row in &record.rows {
        table.add_row([
            quoted(&row.case),
            format!("{:.0}", row.figure("requests")),
            percent(row.figure("over_admission"), 2),
            percent(row.figure("under_admission"), 2),
            percent(row.figure("local_share"), 2),
            format!("{:.4}", row.figure("store_commands_per_decision")),
            format!("{:.0}", row.figure("store_calls_per_sec")),
            percent(row.figure("waited_share"), 2),
            format!("{:.1} / {:.0} ms", row.figure("mean_wait_ms"), row.figure("max_wait_ms")),
        ]);
    }
    table.to_string()
}

/// The same of what was broken.
pub fn chaos(record: &Record) -> String {
    let mut table = table(&[
        "fault",
        "requests",
        "lost, hung, 5xx",
        "slow answers of the store",
        "nobody waits for it after",
        "longest added wait",
        "it decides again after",
        "over-admission, and of it after",
        "under-admission",
    ]);
    for row in &record.rows {
        let ms = |figure| row.figures.get(figure).map_or_else(String::new, |ms| format!("{ms:.0} ms"));
        let [lost, hung, failed] = ["lost", "hung", "ours_5xx"].map(|figure| row.figure(figure));
        table.add_row([
            quoted(&row.case),
            format!("{:.0}", row.figure("sent")),
            format!("{lost:.0}, {hung:.0}, {failed:.0}"),
            format!("{:.0}", row.figure("fallback_after")),
            ms("fallback_after_ms"),
            ms("max_added_wait_ms"),
            ms("back_after_ms"),
            ["over_admission", "over_admission_after"]
                .map(|figure| percent(row.figure(figure), 0))
                .join(", "),
            percent(row.figure("under_admission"), 1),
        ]);
    }
    table.to_string()
}

/// The same of a real Envoy: what each case gives, and where the processor's time goes.
pub fn envoy(record: &Record) -> String {
    let mut speeds = table(&[
        "case",
        "requests/s",
        "/ `empty_wasm`",
        "/ `local_ratelimit`",
        "p50 / p99 at half load",
        "p99 added: busy / other users",
    ]);
    let mut costs = table(&[
        "CPU for one request",
        "all",
        "more than `none`",
        "Envoy",
        "shim",
        "Redis",
        "client",
        "scripts/decision",
    ]);
    for row in &record.rows {
        let us = |figure| format!("{:.1} us", row.figure(figure));
        speeds.add_row([
            quoted(&row.case),
            format!("{:.0}", row.figure("rps")),
            format!("{:.2}", row.figure("ratio_to_empty")),
            format!("{:.2}", row.figure("ratio_to_local_ratelimit")),
            format!("{:.2} / {:.2} ms", row.figure("p50_ms"), row.figure("p99_ms")),
            format!("{:.2} / {:.2} ms", row.figure("busy_p99_added_ms"), row.figure("others_p99_added_ms")),
        ]);
        costs.add_row([
            quoted(&row.case),
            us("cpu_us_per_request"),
            us("cpu_added_us"),
            us("envoy_us"),
            us("shim_us"),
            us("redis_us"),
            us("load_us"),
            format!("{:.3}", row.figure("store_commands_per_decision")),
        ]);
    }
    format!("{speeds}\n\n{costs}")
}
