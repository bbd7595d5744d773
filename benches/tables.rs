//! What a run says to people.

pub mod recorded;

use comfy_table::presets::ASCII_MARKDOWN;
use comfy_table::{CellAlignment, Table};

use crate::accuracy::{Accuracy, CLOUDFLARE_WRONG, Demand};
#[cfg(feature = "fake-host")]
use crate::endurance::Endurance;
use crate::memory::Memory;
use crate::record::Row;
use crate::sim::Figures;
use crate::store::Speed;
#[cfg(feature = "fake-host")]
use crate::work::Work;

/// What each algorithm got wrong.
pub fn accuracy(measured: &[Accuracy]) -> String {
    let Some(first) = measured.first() else { return String::new() };
    let mut judged = table(&["algorithm", "admitted", "wrongly allowed", "wrongly rejected", "most / limit"]);
    let mut pressed = table(&["of what an exact log admits, refused under"]);
    pressed
        .set_header(std::iter::once("algorithm".to_owned()).chain(Demand::ALL.iter().map(Demand::to_string)));
    right(&mut pressed);
    for accuracy in measured {
        judged.add_row([
            accuracy.algorithm.clone(),
            percent(accuracy.share(accuracy.admitted), 1),
            percent(accuracy.share(accuracy.wrongly_allowed), 4),
            percent(accuracy.share(accuracy.wrongly_rejected), 4),
            format!("{:.3}", accuracy.max_admitted_ratio),
        ]);
        let under = accuracy.under_admission.iter().map(|(_, under)| percent(*under, 3));
        pressed.add_row(std::iter::once(accuracy.algorithm.clone()).chain(under));
    }
    format!(
        "A trace of {} requests, judged by an exact log of what was admitted:\n\n{judged}\n\n\
         Cloudflare's figure for its sliding counter, on traffic of its own: {} wrong in all.\n\n\
         One source that asks for ten times its limit and more, and what it was refused of that which an exact log \
         admits:\n\n{pressed}\n",
        first.requests,
        percent(CLOUDFLARE_WRONG, 3),
    )
}

/// How fast the shim is.
pub fn store(measured: &[Speed]) -> String {
    let mut table =
        table(&["algorithm/backend", "decisions/s", "of Redis alone", "p50 ms", "p99 ms", "bytes/subject"]);
    for row in measured.iter().map(Speed::row) {
        table.add_row([
            row.case.clone(),
            format!("{:.0}", row.figure("decisions_per_sec")),
            format!("{:.2}", row.figure("ceiling_ratio")),
            format!("{:.2}", row.figure("p50_ms")),
            format!("{:.2}", row.figure("p99_ms")),
            format!("{:.0}", row.figure("bytes_per_subject")),
        ]);
    }
    format!(
        "The shim on one core, asked in batches of 64, four under way; one limit of two windows, 100/1m and 1000/1h.\n\
         Times are at half of that rate, bytes for a subject with one request.\n\n{table}\n"
    )
}

/// What became of requests among faults, and of memory.
#[cfg(feature = "fake-host")]
pub fn endurance(measured: &Endurance) -> String {
    endured(&[measured.row()])
}

fn endured(rows: &[Row]) -> String {
    let mut table = table(&[
        "requests",
        "went on",
        "answered by the filter",
        "reset",
        "policies",
        "longest pause",
        "memory",
        "grown with a million",
    ]);
    for row in rows {
        table.add_row([
            format!("{:.0}", row.figure("requests")),
            percent(row.figure("passed_share"), 1),
            percent(row.figure("replied_share"), 1),
            percent(row.figure("reset_share"), 1),
            format!("{:.0}", row.figure("reloads")),
            format!("{:.1} ms", row.figure("longest_pause_ms")),
            format!("{:.0} KiB", row.figure("memory_kib")),
            format!("{:.1} KiB", row.figure("memory_slope_kib_per_million")),
        ]);
    }
    table.to_string()
}

/// How the load was carried, and what ten machines would ask.
pub fn load(rows: &[Row]) -> String {
    let (predicted, carried): (Vec<&Row>, Vec<&Row>) =
        rows.iter().partition(|row| row.figures.contains_key("local_share"));
    let mut loads = table(&[
        "filter",
        "requests",
        "requests/s",
        "p50 ms",
        "p99 ms",
        "p99.9 ms",
        "errors",
        "refused",
        "by a fallback",
        "Redis, of a core",
        "memory, KiB/min",
    ]);
    for row in carried {
        loads.add_row([
            row.case.clone(),
            format!("{:.0}", row.figure("requests")),
            format!("{:.0}", row.figure("rps")),
            format!("{:.2}", row.figure("p50_ms")),
            format!("{:.2}", row.figure("p99_ms")),
            format!("{:.2}", row.figure("p999_ms")),
            format!("{:.0}", row.figure("errors")),
            percent(row.figure("refused_share"), 2),
            percent(row.figure("fallback_share"), 3),
            percent(row.figure("store_cpu_share"), 1),
            format!("{:.0}", row.figure("memory_slope_kib_per_min")),
        ]);
    }
    let mut forecast =
        table(&["simulated", "decided on the node", "messages/s to the store", "commands for a decision"]);
    for row in predicted {
        forecast.add_row([
            row.case.replace('_', " "),
            percent(row.figure("local_share"), 1),
            format!("{:.0}", row.figure("store_calls_per_sec")),
            format!("{:.3}", row.figure("store_commands_per_decision")),
        ]);
    }
    format!("{loads}\n\n{forecast}")
}

/// What each case in a real Envoy comes to.
pub fn envoy(rows: &[Row]) -> String {
    let header = |first: &[&'static str], figures: &[(&'static str, &str, usize)]| {
        table(&[first, &figures.iter().map(|(title, ..)| *title).collect::<Vec<_>>()].concat())
    };
    let fill = |table: &mut Table, figures: &[(&str, &str, usize)]| {
        for row in rows {
            let of =
                |(_, figure, digits): &(&str, &str, usize)| format!("{:.*}", *digits, row.figure(figure));
            table.add_row(std::iter::once(row.case.clone()).chain(figures.iter().map(of)));
        }
    };
    let speed = [
        ("requests/s", "rps", 0),
        ("/ empty", "ratio_to_empty", 3),
        ("/ local", "ratio_to_local_ratelimit", 3),
        ("p50 ms", "p50_ms", 2),
        ("p99 ms", "p99_ms", 2),
        ("busy p99 added ms", "busy_p99_added_ms", 2),
        ("others p99 added ms", "others_p99_added_ms", 2),
    ];
    let cost = [
        ("CPU us", "cpu_us_per_request", 1),
        ("added", "cpu_added_us", 1),
        ("envoy", "envoy_us", 1),
        ("shim", "shim_us", 1),
        ("redis", "redis_us", 1),
        ("load", "load_us", 1),
        ("upstream", "upstream_us", 1),
        ("scripts/decision", "store_commands_per_decision", 3),
    ];
    let (mut speeds, mut costs) = (header(&["case"], &speed), header(&["case"], &cost));
    fill(&mut speeds, &speed);
    fill(&mut costs, &cost);
    format!(
        "Envoy with one worker on one core, everybody else on another; medians of the rounds, ratios within them.\n\
         Times are at half load.\n\n{speeds}\n\n\
         What a request costs at full load; CPU is all but the upstream's:\n\n{costs}\n"
    )
}

/// What users saw of each fault.
pub fn chaos(rows: &[Row]) -> String {
    let mut table = table(&[
        "fault",
        "sent",
        "lost",
        "hung",
        "5xx",
        "refused below limit",
        "slow answers",
        "waited in vain",
        "without store",
        "fallback ms",
        "back ms",
        "longest ms",
        "added ms",
        "over-admitted",
        "of it after",
        "under-admitted",
    ]);
    for row in rows {
        let count = |figure| format!("{:.0}", row.figure(figure));
        let ms = |figure| row.figures.get(figure).map_or_else(|| "-".to_owned(), |ms| format!("{ms:.0}"));
        table.add_row([
            row.case.clone(),
            count("sent"),
            count("lost"),
            count("hung"),
            count("ours_5xx"),
            count("refused_below_limit"),
            count("fallback_after"),
            count("waited_in_vain"),
            count("without_store"),
            ms("fallback_after_ms"),
            ms("back_after_ms"),
            ms("longest_ms"),
            ms("max_added_wait_ms"),
            percent(row.figure("over_admission"), 0),
            percent(row.figure("over_admission_after"), 0),
            percent(row.figure("under_admission"), 1),
        ]);
    }
    table.to_string()
}

/// What subjects take.
pub fn memory(measured: &[Memory]) -> String {
    let rows: Vec<Row> = measured.iter().map(Memory::row).collect();
    format!(
        "One limit of two windows, 100/1m and 1000/1h, of which each subject used little.\n\n{}\n",
        subjects(&rows)
    )
}

/// What requests take, with the names of their host calls.
#[cfg(feature = "fake-host")]
pub fn work(measured: &[Work]) -> String {
    let mut table = table(&["one request", "host calls", "instructions", "which host calls"]);
    for (work, row) in measured.iter().map(|work| (work, work.row())) {
        let call = |(name, count): (&&str, &u64)| {
            let count = (work.per_request(*count) * 1000.0).round() / 1000.0;
            let name = name.trim_start_matches("proxy_");
            if count == 1.0 { name.to_owned() } else { format!("{count} {name}") }
        };
        let calls: Vec<String> = work.calls.iter().map(call).collect();
        table.add_row([
            row.case.clone(),
            row.figure("host_calls").to_string(),
            format!("{:.0}", row.figure("fuel")),
            calls.join(", "),
        ]);
    }
    if let Some(column) = table.column_mut(3) {
        column.set_cell_alignment(CellAlignment::Left);
    }
    table.to_string()
}

/// What leases cost, and whether they kept the promise.
pub fn sim(simulated: &[Figures]) -> String {
    let mut table = table(&[
        "scenario",
        "requests",
        "admitted",
        "over-admitted",
        "under-admitted",
        "stranded",
        "local",
        "calls/s",
        "commands/decision",
        "of them returns",
        "waited",
        "wait ms, mean / max",
        "failed",
        "requests/s simulated",
    ]);
    for figures in simulated {
        table.add_row([
            figures.scenario.name.clone(),
            figures.requests.to_string(),
            percent(figures.admitted_share, 1),
            percent(figures.over_admission, 3),
            percent(figures.under_admission, 3),
            percent(figures.stranded_share, 3),
            percent(figures.local_share, 3),
            format!("{:.0}", figures.store_calls_per_sec),
            format!("{:.4}", figures.commands),
            format!("{:.4}", figures.returns),
            percent(figures.waited_share, 3),
            format!("{:.1} / {:.1}", figures.mean_wait_ms, figures.max_wait_ms),
            percent(figures.failed_share, 3),
            format!("{:.0}", figures.requests as f64 / figures.took.as_secs_f64()),
        ]);
    }
    let lost = simulated.iter().filter(|figures| figures.lost > 0).map(|figures| {
        format!(
            "{}: the failovers lost charges of {} tokens, and no subject was admitted more beyond its limit than it lost.\n",
            figures.scenario.name, figures.lost
        )
    });
    format!("{table}\n{}", lost.collect::<String>())
}

fn subjects(rows: &[Row]) -> String {
    let mut table = table(&["algorithm", "subjects", "`used_memory`, MB", "bytes per subject"]);
    for row in rows {
        table.add_row([
            quoted(&row.case),
            format!("{:.0}", row.figure("subjects")),
            format!("{:.1}", row.figure("used_memory_mb")),
            format!("{:.0}", row.figure("bytes_per_subject")),
        ]);
    }
    table.to_string()
}

fn quoted(name: &str) -> String {
    format!("`{name}`")
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN).set_header(header);
    right(&mut table);
    table
}

/// Numbers stand to the right.
fn right(table: &mut Table) {
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
}

fn percent(share: f64, digits: usize) -> String {
    format!("{:.digits$} %", share * 100.0)
}
