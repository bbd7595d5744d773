//! One entry of `resilience`, with what it leaves out taken from the entries that it inherits from.

use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::Share;
use super::duration::written;
use super::failures;
use super::read::{Fields, Node};
use crate::breaker::{Backoff, Control, Settings, SlowCall};

const FIELDS: &[&str] = &[
    "window",
    "min_calls",
    "failure_rate",
    "slow_call",
    "consecutive_failures",
    "open_for",
    "backoff",
    "half_open_calls",
    "max_concurrent",
    "failures",
    "enforce",
    "force_open",
    "force_closed",
    "disabled",
];

const CONTROLS: [(&str, Control); 3] = [
    ("force_open", Control::ForceOpen),
    ("force_closed", Control::ForceClosed),
    ("disabled", Control::Disabled),
];

/// Long enough to hold the minimum of calls of a quiet command, short enough to forget a failure that is over.
const WINDOW: Duration = Duration::from_secs(10);
/// A tenth of a window is its step, and workers tell each other what they saw ten times a second.
const WINDOWS: RangeInclusive<Duration> = Duration::from_secs(1)..=HOUR;
/// Two failures of three calls are chance.
const MIN_CALLS: u32 = 20;
const FAILURE_RATE: Share = Share::from_millionths(500_000);
const SLOW_CALL: SlowCall = SlowCall { over: Duration::from_secs(2), rate: Share::from_millionths(800_000) };
const SLOW: RangeInclusive<Duration> = Duration::from_millis(1)..=HOUR;
const OPEN_FOR: Duration = Duration::from_secs(5);
const OPEN: RangeInclusive<Duration> = Duration::from_millis(10)..=HOUR;
const BACKOFF: Backoff = Backoff { factor_thousandths: 2000, max: Duration::from_secs(60) };
const HALF_OPEN_CALLS: u32 = 5;
const HOUR: Duration = Duration::from_secs(3600);
/// The most calls that a number may speak of.
const MAX_CALLS: u32 = 1_000_000;
/// The most probes: each may meet an upstream that is down.
const MAX_PROBES: u32 = 10_000;

/// Reads the entry at `node`; what it leaves out, it takes from the first of `bases` that says it.
pub(super) fn read<'a>(node: &Node<'a>, bases: &[&Node<'a>]) -> Option<Settings> {
    let own = node.fields(FIELDS, &[])?;
    let fields = bases.iter().fold(own, |fields, base| fields.inherit(base));
    let window = fields.or("window", WINDOW, |node| node.duration(WINDOWS));
    let min_calls = fields.or("min_calls", MIN_CALLS, |node| node.whole(1..=MAX_CALLS));
    let failure_rate = fields.or("failure_rate", FAILURE_RATE, |node| node.rate());
    let slow_call = slow_call(&fields);
    let consecutive_failures = number_or_none(&fields, "consecutive_failures");
    let open_for = fields.or("open_for", OPEN_FOR, |node| node.duration(OPEN));
    let backoff = backoff(&fields, open_for);
    let half_open_calls = fields.or("half_open_calls", HALF_OPEN_CALLS, |node| node.whole(1..=MAX_PROBES));
    let max_concurrent = number_or_none(&fields, "max_concurrent");
    let failures = fields.maybe("failures", |node| failures::read(&node));
    let enforce = fields.or("enforce", Share::ALL, |node| node.percent());
    let control = control(&fields);
    Some(Settings {
        window: window?,
        min_calls: min_calls?,
        failure_rate: failure_rate?,
        slow_call: slow_call?,
        consecutive_failures: consecutive_failures?,
        open_for: open_for?,
        backoff: backoff?,
        half_open_calls: half_open_calls?,
        max_concurrent: max_concurrent?,
        failures: failures?.unwrap_or_else(failures::usual),
        control: control?,
        enforce: enforce?,
    })
}

/// A number of calls; 0 is none, so that an entry can take back what it would inherit.
fn number_or_none(fields: &Fields<'_>, name: &str) -> Option<Option<NonZeroU32>> {
    fields.or(name, None, |node| node.whole(0..=MAX_CALLS).map(NonZeroU32::new))
}

fn slow_call(fields: &Fields<'_>) -> Option<SlowCall> {
    let Some(fields) = fields.inner("slow_call", &["over", "rate"])? else { return Some(SLOW_CALL) };
    let over = fields.or("over", SLOW_CALL.over, |node| node.duration(SLOW));
    let rate = fields.or("rate", SLOW_CALL.rate, |node| node.rate());
    Some(SlowCall { over: over?, rate: rate? })
}

/// Reads `backoff`. Nobody has to lengthen a `max` that nobody has written.
fn backoff(fields: &Fields<'_>, open_for: Option<Duration>) -> Option<Backoff> {
    let open_for_at = fields.get("open_for");
    let least = open_for.unwrap_or(*OPEN.start());
    let usual = Backoff { max: BACKOFF.max.max(least), ..BACKOFF };
    let Some(fields) = fields.inner("backoff", &["factor", "max"])? else { return Some(usual) };
    let factor = fields.or("factor", usual.factor_thousandths, |node| factor_thousandths(&node));
    let max = fields.or("max", usual.max, |node| {
        let max = node.duration(OPEN)?;
        let of = open_for_at
            .map_or_else(|| "open_for where nothing is said".to_owned(), |at| at.path().to_owned());
        node.demand(max >= least, format_args!("must be at least {}, which is {of}", written(least)))?;
        Some(max)
    });
    Some(Backoff { factor_thousandths: factor?, max: max? })
}

fn factor_thousandths(node: &Node<'_>) -> Option<u32> {
    let factor = node.value().as_f64().filter(|factor| (1.0..=10.0).contains(factor));
    // The nearest whole number of thousandths, and whether it is the same number.
    let thousandths = factor.map(|factor| (factor, (factor * 1000.0).round()));
    let exact = thousandths.filter(|(factor, thousandths)| thousandths / 1000.0 == *factor);
    // From 1000 to 10,000, and whole.
    exact.map(|(_, thousandths)| thousandths as u32).or_else(|| {
        node.refuse("must be a number from 1 to 10 with at most three decimals, such as 2 or 1.5")
    })
}

fn control(fields: &Fields<'_>) -> Option<Control> {
    let mut all_read = true;
    let mut said: Vec<(Control, Node<'_>)> = Vec::new();
    for (name, control) in CONTROLS {
        let Some(node) = fields.get(name) else { continue };
        match node.truth() {
            Some(true) => said.push((control, node)),
            Some(false) => {}
            None => all_read = false,
        }
    }
    match said.as_slice() {
        _ if !all_read => None,
        [] => Some(Control::Automatic),
        [(control, _)] => Some(*control),
        [(_, first), others @ ..] => {
            let others: Vec<&str> = others.iter().map(|(_, node)| node.path()).collect();
            first.refuse(format_args!(
                "overlaps with {}: only one of force_open, force_closed and disabled may be true, and false takes back \
                 what is inherited",
                others.join(" and ")
            ))
        }
    }
}
