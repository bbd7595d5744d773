//! The breakers of a good policy: what opens each, and what each lane makes of it.

use std::collections::BTreeSet;
use std::io::{self, Write};

use lanekeeper_engine::breaker::{Control, Settings};
use lanekeeper_engine::policy::{Breaker, BreakerVerdict, Lane, Share, written};
use serde_json::Value;

use super::disabled;

/// How many commands have a breaker, if any has: `, 2 breakers`.
pub(super) fn counted(lanes: &[Lane]) -> String {
    match commands(lanes).len() {
        0 => String::new(),
        count => format!(", {}", super::counted(count, "breaker")),
    }
}

/// Writes the breakers of `lanes`, the first of which is the normal one.
pub(super) fn write(lanes: &[Lane], document: &Value, out: &mut impl Write) -> io::Result<()> {
    let Some((normal, others)) = lanes.split_first() else { return Ok(()) };
    for command in commands(lanes) {
        let usual = of(normal, command);
        writeln!(out, "  breaker {command}: {}", usual.map_or_else(|| "none".to_owned(), verdict))?;
        for lane in others {
            let version = of(lane, command);
            let origin =
                version.map_or_else(|| "none".to_owned(), |version| origin(version, usual, document));
            writeln!(out, "    {}: {origin}{}", lane.name, disabled(lane))?;
        }
    }
    Ok(())
}

/// The commands that have a breaker in any lane.
fn commands(lanes: &[Lane]) -> BTreeSet<&str> {
    lanes.iter().flat_map(|lane| &lane.breakers).map(|breaker| breaker.command.as_str()).collect()
}

fn of<'l>(lane: &'l Lane, command: &str) -> Option<&'l Breaker> {
    lane.breakers.get(lane.breaker(command)?)
}

/// Where a lane's version of a breaker comes from.
fn origin(version: &Breaker, usual: Option<&Breaker>, document: &Value) -> String {
    let is_entry = document.get("resilience").is_some_and(|entries| entries.get(&version.title).is_some());
    if is_entry {
        return format!("{}: {}", version.title, verdict(version));
    }
    match version.verdict {
        BreakerVerdict::TurnAway => verdict(version),
        BreakerVerdict::Guard(_) if usual.is_some_and(|usual| usual.owner == version.owner) => {
            "shares the normal breaker and its state".to_owned()
        }
        BreakerVerdict::Guard(_) => "normal values, own state".to_owned(),
    }
}

fn verdict(breaker: &Breaker) -> String {
    match &breaker.verdict {
        BreakerVerdict::TurnAway => "turned away".to_owned(),
        BreakerVerdict::Guard(settings) => guarding(settings),
    }
}

/// `opens for 5s when 50% failed or 80% took over 2s of at least 20 calls in 10s, or 9 failed in a row; at most 200 at once`.
fn guarding(settings: &Settings) -> String {
    let run =
        settings.consecutive_failures.map_or_else(String::new, |run| format!(", or {run} failed in a row"));
    let opens = format!(
        "opens for {} when {} failed or {} took over {} of at least {} in {}{run}",
        written(settings.open_for),
        percent(settings.failure_rate),
        percent(settings.slow_call.rate),
        written(settings.slow_call.over),
        super::counted(settings.min_calls as usize, "call"),
        written(settings.window),
    );
    let at_once =
        settings.max_concurrent.map_or_else(String::new, |most| format!("; at most {most} at once"));
    match settings.control {
        Control::Automatic => format!("{opens}{at_once}"),
        Control::ForceOpen => "forced open".to_owned(),
        Control::ForceClosed => format!("forced closed{at_once}"),
        Control::Disabled => "disabled".to_owned(),
    }
}

/// `50%`.
fn percent(share: Share) -> String {
    format!("{}%", f64::from(share.millionths()) / 10_000.0)
}
