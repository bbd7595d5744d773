//! What a check is on the wire to Redis: the scripts, their arguments and what they return.

use std::sync::LazyLock;
use std::time::Duration;

use lanekeeper_engine::counter::STORE_BUCKETS;
use lanekeeper_engine::units::{Timestamp, micros};
use lanekeeper_engine::window::{Unit, Window};
use lanekeeper_engine::wire::{Check, CheckAnswer, KeyAnswer, Operation, StoreError, WindowAnswer};
use redis::{Cmd, Value};
use tracing::warn;

use super::Taken;

/// What a user of Redis Cluster needs beyond [`ACL_RULES`].
pub const CLUSTER_ACL_RULES: &str = "+cluster|slots +asking";

/// What a user of Redis needs beyond [`ACL_RULES`] where Sentinel names the master.
pub const SENTINEL_ACL_RULES: &str = "+role";

/// All that a Redis user needs for the shim's work, as `ACL SETUSER` takes it; the keys are added to it. Redis holds
/// a script to what its user may do, so the commands of the scripts are among them.
pub const ACL_RULES: &str =
    "+ping +select +evalsha +script|load +time +hmget +hget +hset +hincrby +hkeys +hdel +pexpireat";

/// Decides, and charges what is allowed.
pub(super) static TAKE: LazyLock<Script> = LazyLock::new(|| {
    Script::of(concat!(include_str!("../../../lua/windows.lua"), include_str!("../../../lua/take.lua")))
});
/// Takes back what one run of [`TAKE`] charged.
pub(super) static GIVE_BACK: LazyLock<Script> =
    LazyLock::new(|| Script::of(include_str!("../../../lua/give_back.lua")));

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

    /// A run over the keys of `check`, without its arguments.
    fn run(&self, check: &Check) -> Cmd {
        let mut command = redis::cmd("EVALSHA");
        command.arg(self.script.get_hash()).arg(check.keys.len());
        for key in &check.keys {
            command.arg(&key.key);
        }
        command
    }
}

pub(super) fn take_command(check: &Check, spend_within: Duration) -> Cmd {
    let mut command = TAKE.run(check);
    command.arg(match check.operation {
        Operation::Take => "take",
        Operation::Peek => "peek",
    });
    command.arg(micros(spend_within));
    add_keys(&mut command, check);
    command
}

/// Takes back what a take of `check` charged that was decided at `taken_at`.
pub(super) fn give_back_command(check: &Check, taken_at: Timestamp, spend_within: Duration) -> Cmd {
    let mut command = GIVE_BACK.run(check);
    command.arg(taken_at.as_micros()).arg(micros(spend_within));
    add_keys(&mut command, check);
    command
}

fn add_keys(command: &mut Cmd, check: &Check) {
    for key in &check.keys {
        command.arg(key.cost).arg(key.windows.len());
        for (window, name) in key.windows.iter().zip(names(&key.windows)) {
            command.arg(name).arg(window.capacity());
            match window.unit() {
                Unit::Bucket { per } => command.arg(micros(per)).arg(STORE_BUCKETS),
                Unit::Entry { per } | Unit::Weighted { per } => command.arg(micros(per)).arg(0),
                Unit::Calendar { per, shift } => command.arg(micros(per)).arg(micros(shift)),
                Unit::Debt { token, rate } => command.arg(token).arg(rate),
            };
        }
    }
}

/// What the fields of each window begin with: its unit, and which of those with that unit it is.
fn names(windows: &[Window]) -> impl Iterator<Item = String> {
    windows.iter().enumerate().map(|(at, window)| {
        let unit = window.unit();
        let name = match unit {
            Unit::Bucket { per } => format!("s{}", per.as_millis()),
            Unit::Entry { per } => format!("l{}", per.as_millis()),
            Unit::Weighted { per } => format!("c{}", per.as_millis()),
            Unit::Calendar { per, shift } => format!("f{}+{}", per.as_millis(), shift.as_millis()),
            Unit::Debt { token, rate } => format!("b{token}/{rate}"),
        };
        match windows.iter().take(at).filter(|earlier| earlier.unit() == unit).count() {
            0 => name,
            earlier => format!("{name}.{earlier}"),
        }
    })
}

pub(super) fn decode(check: &Check, answer: Value) -> Result<Taken, StoreError> {
    let numbers = match answer {
        Value::Array(values) => values,
        Value::ServerError(error) => {
            warn!(%error, "redis refused a check");
            return Err(StoreError::Refused);
        }
        _ => return Err(StoreError::Malformed),
    };
    read(check, &mut numbers.into_iter()).ok_or(StoreError::Malformed)
}

/// Reads what `take.lua` returns, as its head says; `None` when it does not fit the check.
fn read(check: &Check, numbers: &mut dyn Iterator<Item = Value>) -> Option<Taken> {
    let at = Timestamp::from_micros(next(numbers)?);
    let allowed = match next::<u64>(numbers)? {
        0 => false,
        1 => true,
        _ => return None,
    };
    let mut keys = Vec::with_capacity(check.keys.len());
    for key in &check.keys {
        let mut windows = Vec::with_capacity(key.windows.len());
        for _ in &key.windows {
            let (remaining, reset_us, wait_us) = (next(numbers)?, next(numbers)?, next(numbers)?);
            windows.push(WindowAnswer { remaining, reset_us, wait_us });
        }
        keys.push(KeyAnswer { windows });
    }
    let answer = if allowed { CheckAnswer::Allowed { keys } } else { CheckAnswer::Rejected { keys } };
    numbers.next().is_none().then_some(Taken { at, answer })
}

fn next<T: TryFrom<i64>>(numbers: &mut dyn Iterator<Item = Value>) -> Option<T> {
    match numbers.next()? {
        Value::Int(number) => number.try_into().ok(),
        _ => None,
    }
}
