//! The windows of a limit and what a request costs in them.

use std::num::NonZeroU32;

use super::Cost;
use super::duration::written;
use super::read::Node;
use crate::window::{Algorithm, MAX_LIMIT, MAX_PER, MIN_PER, Window, WindowError};
use crate::wire::MAX_WINDOWS;

/// An algorithm by its name.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    SlidingWindow,
    TokenBucket,
}

/// Reads `algorithm`.
pub(super) fn kind(node: &Node<'_>) -> Option<Kind> {
    let words = [("sliding_window", Kind::SlidingWindow), ("token_bucket", Kind::TokenBucket)];
    node.one_of(&words, &["sliding_log", "sliding_counter", "fixed_window"])
}

/// Reads `windows`: 1 to [`MAX_WINDOWS`], no two of the same length. `algorithm` is where their algorithm is
/// written, if it is.
pub(super) fn read(node: &Node<'_>, kind: Option<Kind>, algorithm: Option<&Node<'_>>) -> Option<Vec<Window>> {
    let mut lengths = Vec::new();
    node.list_of(MAX_WINDOWS, |item| {
        let window = read_window(item, kind, algorithm)?;
        let twice = format_args!("has the length {} of a window before it", written(window.per()));
        item.demand(!lengths.contains(&window.per()), twice)?;
        lengths.push(window.per());
        Some(window)
    })
}

fn read_window(node: &Node<'_>, kind: Option<Kind>, algorithm: Option<&Node<'_>>) -> Option<Window> {
    let fields = node.fields(&["limit", "per", "burst"], &["timezone"])?;
    let limit = fields.need("limit", ": how many requests").and_then(|node| node.whole(1..=MAX_LIMIT));
    let per =
        fields.need("per", ": how long it counts for").and_then(|node| node.duration(MIN_PER..=MAX_PER));
    let burst = fields.maybe("burst", |node| match kind {
        Some(Kind::SlidingWindow) => node.refuse(match algorithm {
            Some(at) => format!("needs `algorithm: token_bucket`; {} says otherwise", at.path()),
            None => "needs `algorithm: token_bucket`".to_owned(),
        }),
        _ => node.whole(1..=MAX_LIMIT),
    });
    let (limit, per, burst) = (limit?, per?, burst?);
    let algorithm = match kind? {
        Kind::SlidingWindow => Algorithm::SlidingWindow,
        Kind::TokenBucket => Algorithm::TokenBucket { burst: NonZeroU32::new(burst.unwrap_or(limit))? },
    };
    Window::new(limit, per, algorithm)
        .map_or_else(|error: WindowError| node.refuse(format_args!("makes no window: {error}")), Some)
}

/// Reads `cost`. `windows` are those it is charged to, as far as they are known, and where they are written.
pub(super) fn cost(node: &Node<'_>, windows: Option<(&[Window], &Node<'_>)>) -> Option<Cost> {
    let most =
        windows.and_then(|(windows, _)| windows.iter().map(Window::capacity).min()).unwrap_or(MAX_LIMIT);
    let because = windows.map_or_else(String::new, |(_, at)| {
        format!(", the most that an empty window of {} admits", at.path())
    });
    if node.value().is_number() {
        return node.whole_and(1..=most, &because).map(Cost::Fixed);
    }
    if !node.value().is_object() {
        return node.refuse("must be a whole number, or {header: x-cost, max: 100}");
    }
    let fields = node.fields(&["header", "max"], &[])?;
    let name = fields.need("header", ": the header that says the cost").and_then(|node| node.header_name());
    let max = fields.need("max", ": the most it may say").and_then(|node| node.whole_and(1..=most, &because));
    Some(Cost::Header { name: name?, max: max? })
}
