//! What counts as a failure of the upstream.

use super::read::Node;
use super::words::{did_you_mean, listed};
use crate::breaker::Failures;

/// The gRPC statuses but OK, in the order of their numbers from 1 on.
const STATUSES: [&str; 16] = [
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// Four words and the object.
const MAX_ITEMS: usize = 5;

/// What counts where nothing is said: all that is not the caller's fault.
pub(super) fn usual() -> Failures {
    let grpc = [4, 13, 14].into();
    Failures { server_errors: true, connect: true, reset: true, timeout: true, grpc }
}

/// Reads `failures`.
pub(super) fn read(node: &Node<'_>) -> Option<Failures> {
    let mut failures =
        Failures { server_errors: false, connect: false, reset: false, timeout: false, grpc: Vec::new() };
    node.list_of(MAX_ITEMS, |item| add(item, &mut failures))?;
    Some(failures)
}

fn add(item: &Node<'_>, failures: &mut Failures) -> Option<()> {
    const TWICE: &str = "stands in this list twice";
    let counts = match item.value().as_str() {
        Some("5xx") => &mut failures.server_errors,
        Some("connect") => &mut failures.connect,
        Some("reset") => &mut failures.reset,
        Some("timeout") => &mut failures.timeout,
        None if item.value().is_object() => {
            let statuses = item.fields(&["grpc"], &[])?.need("grpc", ": a list of gRPC statuses")?;
            let statuses = statuses.set_of(STATUSES.len(), status)?;
            item.demand(failures.grpc.is_empty(), TWICE)?;
            failures.grpc = statuses;
            failures.grpc.sort_unstable();
            return Some(());
        }
        _ => return item.refuse("must be one of 5xx, connect, reset, timeout, {grpc: [UNAVAILABLE, ...]}"),
    };
    item.demand(!*counts, TWICE)?;
    *counts = true;
    Some(())
}

/// The number of a gRPC status.
fn status(node: &Node<'_>) -> Option<u8> {
    let name = node.text()?;
    let number = (1..).zip(STATUSES).find(|(_, status)| *status == name);
    number.map(|(number, _)| number).or_else(|| {
        let hint = did_you_mean(&name.to_ascii_uppercase(), STATUSES.into_iter());
        node.refuse(format_args!("must be a gRPC status other than OK, such as {}{hint}", listed(&STATUSES)))
    })
}
