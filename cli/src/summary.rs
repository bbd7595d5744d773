//! What a good policy says, in a few lines: its limits and breakers, and what each lane makes of them.

use std::io::{self, Write};

use lanekeeper_engine::policy::{Consume, Count, Lane, Limit, LimitVerdict, Policy, own_version, written};
use serde_json::Value;

mod breakers;

/// Writes the summary of `policy`, which was read from `document`.
pub(crate) fn write(name: &str, document: &Value, policy: &Policy, out: &mut impl Write) -> io::Result<()> {
    let Some((normal, lanes)) = policy.lanes.split_first() else { return Ok(()) };
    let limits = counted(normal.limits.len(), "limit");
    let commands = counted(policy.commands.len(), "command");
    let names: Vec<&str> = policy.lanes.iter().map(|lane| lane.name.as_str()).collect();
    let breakers = breakers::counted(&policy.lanes);
    writeln!(out, "{name}: good: lanes {}; {limits}, {commands}{breakers}", names.join(", "))?;
    for limit in &normal.limits {
        writeln!(out, "  {}: {}", limit.name, verdict(limit))?;
        for lane in lanes {
            if let Some(version) = lane.limits.iter().find(|version| version.name == limit.name) {
                writeln!(out, "    {}: {}", lane.name, origin(lane, version, limit, document))?;
            }
        }
    }
    breakers::write(&policy.lanes, document, out)
}

/// Where a lane's version of a limit comes from.
fn origin(lane: &Lane, version: &Limit, normal: &Limit, document: &Value) -> String {
    let entries = document.get("rate_limits");
    let own = own_version(&lane.name, &version.name, |name| entries.is_some_and(|e| e.get(name).is_some()));
    let origin = match own {
        Some(entry) => format!("{entry}: {}", verdict(version)),
        None if version.key_prefix == normal.key_prefix => {
            "shares the normal limit and its counters".to_owned()
        }
        None if matches!(version.verdict, LimitVerdict::TurnAway) => verdict(version),
        None => "normal values, own counters".to_owned(),
    };
    format!("{origin}{}", disabled(lane))
}

fn disabled(lane: &Lane) -> &'static str {
    match &lane.entry {
        Some(entry) if !entry.enabled => " (the lane is disabled)",
        _ => "",
    }
}

fn verdict(limit: &Limit) -> String {
    match &limit.verdict {
        LimitVerdict::Count(count) => counting(count),
        LimitVerdict::TurnAway => "turned away".to_owned(),
    }
}

/// `100 per 1m and 1000 per 1h by per_shop, per_user, in 8 shards, charged on success`.
fn counting(count: &Count) -> String {
    let windows: Vec<String> =
        count.windows.iter().map(|w| format!("{} per {}", w.limit(), written(w.per()))).collect();
    let keys: Vec<&str> = count.keys.iter().map(|key| key.name.as_str()).collect();
    let shards = if count.shards > 1 { format!(", in {} shards", count.shards) } else { String::new() };
    let consume = match count.consume {
        Consume::OnRequest => "",
        Consume::OnSuccess => ", charged on success",
    };
    format!("{} by {}{shards}{consume}", windows.join(" and "), keys.join(", "))
}

/// `1 limit`, `2 limits`.
pub(crate) fn counted(count: usize, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{plural}")
}
