//! What an operator wants of one breaker and its bulkhead.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::policy::Share;

/// The values of one entry of `resilience`, with what it leaves out filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The trailing time that counts: 1 s to 1 h.
    pub window: Duration,
    /// Fewer calls than this in the window trip nothing: at least 1.
    pub min_calls: u32,
    /// Trips when this share of the calls failed, or more: above 0.
    pub failure_rate: Share,
    /// Trips when too many calls were slow.
    pub slow_call: SlowCall,
    /// Trips after so many failures in a row, whatever their share.
    pub consecutive_failures: Option<NonZeroU32>,
    /// How long it stays open the first time: 10 ms to 1 h.
    pub open_for: Duration,
    /// How that grows while probes fail.
    pub backoff: Backoff,
    /// How many probes decide, and how many may be under way at once over the whole node: at least 1.
    pub half_open_calls: u32,
    /// How many calls may be under way at once over the whole node; none for any number.
    pub max_concurrent: Option<NonZeroU32>,
    /// What counts as a failure.
    pub failures: Failures,
    /// What the operator has decided for it.
    pub control: Control,
    /// The share of calls that are turned away when it says so; the others are a dry run.
    pub enforce: Share,
}

/// Calls that take too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlowCall {
    /// A call is slow when it took longer than this.
    pub over: Duration,
    /// Trips when this share of the calls was slow, or more: above 0.
    pub rate: Share,
}

/// How the time in Open grows from one trip to the next, until the breaker closes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    /// What it is multiplied by: 1 to 10, in thousandths.
    pub factor_thousandths: u32,
    /// Where that ends; at least `open_for`.
    pub max: Duration,
}

/// What counts as a failure of the upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failures {
    /// An answer with a status from 500 on.
    pub server_errors: bool,
    /// No connection.
    pub connect: bool,
    /// A connection or a stream that broke.
    pub reset: bool,
    /// No answer in time.
    pub timeout: bool,
    /// The gRPC statuses that count, each 1 to 16.
    pub grpc: Vec<u8>,
}

/// What an operator has decided for a breaker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Control {
    /// Nothing: it follows what it sees.
    #[default]
    Automatic,
    /// Every call is turned away.
    ForceOpen,
    /// Every call passes, and is counted.
    ForceClosed,
    /// Every call passes, and nothing is counted, concurrency neither.
    Disabled,
}
