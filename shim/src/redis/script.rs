//! What a check is on the wire to Redis: the scripts, their arguments and what they return.

use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lanekeeper_engine::counter::STORE_BUCKETS;
use lanekeeper_engine::lease::Lease;
use lanekeeper_engine::units::{Timestamp, micros};
use lanekeeper_engine::window::{Calendar, Unit, Window, Zone};
use lanekeeper_engine::wire::{Check, CheckAnswer, KeyAnswer, KeySpent, Operation, StoreError, WindowAnswer};
use redis::{Cmd, Value};

use super::Taken;
use super::room::Admits;
use crate::store::SPENT_WITHIN;

/// What a user of Redis Cluster needs beyond [`ACL_RULES`].
pub const CLUSTER_ACL_RULES: &str = "+cluster|slots +asking";

/// What a user of Redis needs beyond [`ACL_RULES`] where Sentinel names the master.
pub const SENTINEL_ACL_RULES: &str = "+role";

/// What a user of Redis needs beyond [`ACL_RULES`] where answers wait for replicas.
pub const WAIT_ACL_RULES: &str = "+wait";

/// All that a Redis user needs for the shim's work, as `ACL SETUSER` takes it; the keys are added to it. Redis holds
/// a script to what its user may do, so the commands of the scripts are among them.
pub const ACL_RULES: &str = "+ping +select +evalsha +script|load +info +time +hmget +hget +hset +hdel +pexpireat +unlink \
    +zadd +zremrangebyscore +zcard +pexpire";

/// Decides, and charges what is allowed.
pub(super) static TAKE: LazyLock<Script> = LazyLock::new(|| {
    Script::of(concat!(
        include_str!("../../../lua/buckets.lua"),
        include_str!("../../../lua/windows.lua"),
        include_str!("../../../lua/subject.lua"),
        include_str!("../../../lua/lease.lua"),
        include_str!("../../../lua/take.lua")
    ))
});
/// Takes back what runs of [`TAKE`] charged.
pub(super) static GIVE_BACK: LazyLock<Script> = LazyLock::new(|| {
    Script::of(concat!(
        include_str!("../../../lua/buckets.lua"),
        include_str!("../../../lua/windows.lua"),
        include_str!("../../../lua/subject.lua"),
        include_str!("../../../lua/give_back.lua")
    ))
});
/// Counts what was spent without asking.
pub(super) static SPENT: LazyLock<Script> = LazyLock::new(|| {
    Script::of(concat!(
        include_str!("../../../lua/buckets.lua"),
        include_str!("../../../lua/windows.lua"),
        include_str!("../../../lua/subject.lua"),
        include_str!("../../../lua/spent.lua")
    ))
});
/// Forgets subjects.
pub(super) static RESET: LazyLock<Script> =
    LazyLock::new(|| Script::of(include_str!("../../../lua/reset.lua")));

/// Counts the nodes.
pub(super) static NODES: LazyLock<Script> =
    LazyLock::new(|| Script::of(include_str!("../../../lua/nodes.lua")));
/// Where the nodes are kept.
pub(super) const NODES_KEY: &str = "lanekeeper:{nodes}";

/// A script, under the name that Redis knows it by once it was loaded.
pub(super) struct Script {
    script: redis::Script,
    code: &'static str,
}

impl Script {
    fn of(code: &'static str) -> Self {
        Self { script: redis::Script::new(code), code }
    }

    pub(super) fn load(&self) -> Cmd {
        let mut command = redis::cmd("SCRIPT");
        command.arg("LOAD").arg(self.code);
        command
    }

    /// A run over `keys`, without its arguments.
    fn run<'a>(&self, keys: impl ExactSizeIterator<Item = &'a str>) -> Cmd {
        let mut command = redis::cmd("EVALSHA");
        command.arg(self.script.get_hash()).arg(keys.len());
        for key in keys {
            command.arg(key);
        }
        command
    }
}

pub(super) fn take_command(check: &Check, spend_within: Duration, admits: Admits) -> Cmd {
    let mut command = TAKE.run(check.keys.iter().map(|key| key.key.as_str()));
    command.arg(micros(spend_within)).arg(match admits {
        Admits::All => "all",
        Admits::Known => "known",
    });
    for key in &check.keys {
        let ask = key.ask();
        command.arg(match ask.operation {
            Operation::Take => "take",
            Operation::Peek => "peek",
        });
        command.arg(ask.cost).arg(ask.at_least);
        match ask.lease {
            Some(lease) => command.arg(&[lease.tokens, lease.life_ms, lease.drift, lease.nodes]),
            None => command.arg(0),
        };
        add_windows(&mut command, &key.windows);
    }
    command
}

/// Tokens of one key that go back.
pub(super) struct GiveBack<'a> {
    pub(super) key: &'a str,
    pub(super) windows: &'a [Window],
    pub(super) tokens: u32,
    /// Until when they could be spent, by the key's own time.
    pub(super) dated: Timestamp,
    /// What the return is known by; none where nobody was granted these tokens.
    pub(super) id: Option<u64>,
}

/// Gives tokens back; all keys are in one place.
pub(super) fn give_back_command(returns: &[GiveBack<'_>]) -> Cmd {
    let mut command = GIVE_BACK.run(returns.iter().map(|give_back| give_back.key));
    for give_back in returns {
        let id = give_back.id.map(|id| id.to_string()).unwrap_or_default();
        command.arg(give_back.dated.as_micros()).arg(id).arg(give_back.tokens);
        add_windows(&mut command, give_back.windows);
    }
    command
}

/// Counts what a report says.
pub(super) fn spent_command(report: &KeySpent) -> Cmd {
    let mut command = SPENT.run(std::iter::once(report.key.as_str()));
    command.arg(report.id).arg(report.slices.len());
    for slice in &report.slices {
        command.arg(slice.age_us).arg(slice.tokens);
    }
    add_windows(&mut command, &report.windows);
    command
}

/// Forgets one key.
pub(super) fn reset_command(key: &str) -> Cmd {
    let mut command = RESET.run(std::iter::once(key));
    command.arg(micros(SPENT_WITHIN));
    command
}

/// Tells of `nodes`, and counts those that were told of within `life`.
pub(super) fn nodes_command(nodes: &[u64], life: Duration) -> Cmd {
    let mut command = NODES.run(std::iter::once(NODES_KEY));
    command.arg(micros(life)).arg(nodes);
    command
}

fn add_windows(command: &mut Cmd, windows: &[Window]) {
    command.arg(windows.len());
    for (window, name) in windows.iter().zip(names(windows)) {
        command.arg(name).arg(window.capacity());
        match window.unit() {
            Unit::Bucket { per } => command.arg(micros(per)).arg(STORE_BUCKETS),
            Unit::Entry { per } | Unit::Weighted { per } => command.arg(micros(per)).arg(0),
            Unit::Calendar { per, shift } => command.arg(micros(per)).arg(micros(shift)),
            Unit::Zoned { per, zone } => command.arg(micros(per)).arg(shifts(per, zone)),
            Unit::Debt { token, rate } => command.arg(token).arg(rate),
        };
    }
}

/// What `subject.lua` asks of a fixed window in a named zone. This clock only says which years of the zone are worth
/// sending; where in them it is now is Redis's to say.
fn shifts(per: Duration, zone: Zone) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let calendar = Calendar::of(per, zone.into()).around(Timestamp::default().plus(now));
    let shifts = calendar.shifts().enumerate().map(|(at, (from, shift))| match at {
        0 => shift.to_string(),
        _ => format!(" {} {shift}", from.as_micros()),
    });
    shifts.collect()
}

/// What the fields of each window begin with: its unit, and which of those with that unit it is. Every subject holds
/// them, so they are short.
fn names(windows: &[Window]) -> impl Iterator<Item = String> {
    windows.iter().enumerate().map(|(at, window)| {
        let unit = window.unit();
        let name = match unit {
            Unit::Bucket { per } => format!("s{}", span(per)),
            Unit::Entry { per } => format!("l{}", span(per)),
            Unit::Weighted { per } => format!("c{}", span(per)),
            Unit::Calendar { per, shift } if shift.is_zero() => format!("f{}", span(per)),
            Unit::Calendar { per, shift } => format!("f{}+{}", span(per), span(shift)),
            Unit::Zoned { per, zone } => format!("f{}@{}", span(per), zone.name()),
            Unit::Debt { token, rate } => format!("b{token}/{rate}"),
        };
        match windows.iter().take(at).filter(|earlier| earlier.unit() == unit).count() {
            0 => name,
            earlier => format!("{name}.{earlier}"),
        }
    })
}

/// A span in the largest unit that it is a whole number of; one name for each.
fn span(span: Duration) -> String {
    let ms = span.as_millis();
    for (unit, name) in [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s")] {
        if ms.is_multiple_of(unit) {
            return format!("{}{name}", ms / unit);
        }
    }
    format!("{ms}ms")
}

pub(super) fn decode(check: &Check, answer: Value) -> Result<Taken, StoreError> {
    let numbers = numbers(answer)?;
    read(check, &mut numbers.into_iter()).unwrap_or(Err(StoreError::Malformed))
}

/// When `give_back.lua` ran for one key, and how many tokens went back; or `spent.lua`, and whether the report is new.
pub(super) fn decode_given(answer: Value) -> Result<(Timestamp, u32), StoreError> {
    let mut numbers = numbers(answer)?.into_iter();
    let mut read = || Some((Timestamp::from_micros(next(&mut numbers)?), next(&mut numbers)?));
    let given = read().filter(|_| numbers.next().is_none());
    given.ok_or(StoreError::Malformed)
}

fn numbers(answer: Value) -> Result<Vec<Value>, StoreError> {
    match answer {
        Value::Array(values) => Ok(values),
        Value::ServerError(_) => Err(StoreError::Refused),
        _ => Err(StoreError::Malformed),
    }
}

/// Reads what `take.lua` returns, as its head says; `None` when it does not fit the check.
fn read(check: &Check, numbers: &mut dyn Iterator<Item = Value>) -> Option<Result<Taken, StoreError>> {
    let at = Timestamp::from_micros(next(numbers)?);
    let allowed = match next::<i64>(numbers)? {
        0 => false,
        1 => true,
        -1 => return numbers.next().is_none().then_some(Err(StoreError::Full)),
        _ => return None,
    };
    let mut keys = Vec::with_capacity(check.keys.len());
    for key in &check.keys {
        let (at_us, granted) = (next(numbers)?, next::<u32>(numbers)?);
        let may_be_granted = if allowed { key.ask().at_least.min(key.cost)..=key.cost } else { 0..=0 };
        if !may_be_granted.contains(&granted) {
            return None;
        }
        let lease = match (next(numbers)?, next(numbers)?) {
            (0, 0) => None,
            (tokens, life_ms) => Some(Lease { tokens, life_ms }),
        };
        let may_be_leased = |lease: Lease| allowed && key.lease.is_some_and(|ask| lease.fits(ask));
        if !lease.is_none_or(may_be_leased) {
            return None;
        }
        let mut windows = Vec::with_capacity(key.windows.len());
        for window in key.windows.iter() {
            let (remaining, reset_us, wait_us) = (next(numbers)?, next(numbers)?, next(numbers)?);
            if remaining > window.capacity() {
                return None;
            }
            windows.push(WindowAnswer { remaining, reset_us, wait_us });
        }
        keys.push(KeyAnswer { granted, at_us, shard: 0, lease, windows });
    }
    let answer = if allowed { CheckAnswer::Allowed { keys } } else { CheckAnswer::Rejected { keys } };
    numbers.next().is_none().then_some(Ok(Taken { at, answer }))
}

fn next<T: TryFrom<i64>>(numbers: &mut dyn Iterator<Item = Value>) -> Option<T> {
    match numbers.next()? {
        Value::Int(number) => number.try_into().ok(),
        _ => None,
    }
}
