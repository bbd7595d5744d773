//! The windows of a limit and what a request costs in them.

use std::num::NonZeroU32;

use super::Cost;
use super::duration::written;
use super::read::{Fields, Node};
use super::words::did_you_mean;
use crate::window::{
    Algorithm, MAX_LIMIT, MAX_LOG_LIMIT, MAX_PER, MIN_PER, Offset, Timezone, Window, WindowError, Zone,
};
use crate::wire::{MAX_SHARDS, MAX_WINDOWS};

/// An algorithm by its name.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    SlidingWindow,
    SlidingLog,
    SlidingCounter,
    FixedWindow,
    TokenBucket,
}

/// How the windows of a limit are kept, and where it is written.
pub(super) struct Keeping<'a> {
    /// `algorithm`, if it is written.
    pub(super) algorithm: Option<Node<'a>>,
    /// Nothing when errors were noted.
    pub(super) kind: Option<Kind>,
    /// Of fixed windows. Nothing when errors were noted.
    timezone: Option<Timezone>,
}

/// Reads `algorithm` and `timezone`.
pub(super) fn keeping<'a>(fields: &Fields<'a>) -> Keeping<'a> {
    let words = [
        ("sliding_window", Kind::SlidingWindow),
        ("sliding_log", Kind::SlidingLog),
        ("sliding_counter", Kind::SlidingCounter),
        ("fixed_window", Kind::FixedWindow),
        ("token_bucket", Kind::TokenBucket),
    ];
    let algorithm = fields.get("algorithm");
    let kind = fields.or("algorithm", Kind::SlidingWindow, |node| node.one_of(&words, &[]));
    let mut keeping = Keeping { algorithm, kind, timezone: Some(Offset::default().into()) };
    if let Some(node) = fields.get("timezone") {
        keeping.timezone = keeping.only_of(Kind::FixedWindow, &node).and_then(|()| timezone(&node));
    }
    keeping
}

impl Keeping<'_> {
    /// Refuses `node` unless the algorithm is `kind`, the only one that it belongs to.
    fn only_of(&self, kind: Kind, node: &Node<'_>) -> Option<()> {
        if self.kind.is_none_or(|known| known == kind) {
            return Some(());
        }
        let name = if kind == Kind::FixedWindow { "fixed_window" } else { "token_bucket" };
        let because = match &self.algorithm {
            Some(at) => format!("; {} says otherwise", at.path()),
            None => String::new(),
        };
        node.refuse(format_args!("needs `algorithm: {name}`{because}"))
    }
}

/// Reads `timezone`.
fn timezone(node: &Node<'_>) -> Option<Timezone> {
    let text = node.text()?;
    let offset = text.parse().ok().map(|offset: Offset| offset.into());
    offset.or_else(|| Zone::named(text).map(Timezone::from)).or_else(|| {
        let near = did_you_mean(text, Zone::names());
        node.refuse(format_args!(
            "must be UTC, an offset from -12:00 to +14:00, such as +08:00, or a name of the IANA time zone database, \
             such as Europe/Berlin{near}"
        ))
    })
}

/// Reads `windows`: 1 to [`MAX_WINDOWS`], no two of the same length.
pub(super) fn read(node: &Node<'_>, keeping: &Keeping<'_>) -> Option<Vec<Window>> {
    let mut lengths = Vec::new();
    node.list_of(MAX_WINDOWS, |item| {
        let window = read_window(item, keeping)?;
        let twice = format_args!("has the length {} of a window before it", written(window.per()));
        item.demand(!lengths.contains(&window.per()), twice)?;
        lengths.push(window.per());
        Some(window)
    })
}

fn read_window(node: &Node<'_>, keeping: &Keeping<'_>) -> Option<Window> {
    let fields = node.fields(&["limit", "per", "burst"], &[])?;
    let limit = fields.need("limit", ": how many requests").and_then(|node| match keeping.kind {
        Some(Kind::SlidingLog) => {
            node.whole_and(1..=MAX_LOG_LIMIT, " for a sliding_log, which keeps an entry for each request")
        }
        _ => node.whole(1..=MAX_LIMIT),
    });
    let per =
        fields.need("per", ": how long it counts for").and_then(|node| node.duration(MIN_PER..=MAX_PER));
    let burst = fields.maybe("burst", |node| {
        keeping.only_of(Kind::TokenBucket, &node)?;
        node.whole(1..=MAX_LIMIT)
    });
    let (limit, per, burst) = (limit?, per?, burst?);
    let algorithm = match keeping.kind? {
        Kind::SlidingWindow => Algorithm::SlidingWindow,
        Kind::SlidingLog => Algorithm::SlidingLog,
        Kind::SlidingCounter => Algorithm::SlidingCounter,
        Kind::FixedWindow => Algorithm::FixedWindow { timezone: keeping.timezone? },
        Kind::TokenBucket => Algorithm::TokenBucket { burst: NonZeroU32::new(burst.unwrap_or(limit))? },
    };
    Window::new(limit, per, algorithm)
        .map_or_else(|error: WindowError| node.refuse(format_args!("makes no window: {error}")), Some)
}

/// Reads `shards`. `windows` are those that are spread, as far as they are known, and where they are written. Each
/// shard holds its part of every window, and a part of nothing would refuse for ever.
pub(super) fn shards(node: &Node<'_>, windows: Option<(&[Window], &Node<'_>)>) -> Option<u16> {
    let smallest = |windows: &[Window]| windows.iter().map(|w| w.limit().min(w.capacity())).min();
    let smallest = windows.and_then(|(windows, at)| Some((smallest(windows)?, at)));
    let (most, because) = match smallest {
        Some((least, at)) if least < MAX_SHARDS.into() => (
            least,
            format!(", the smallest limit or burst of {}, of which each shard holds its part", at.path()),
        ),
        _ => (MAX_SHARDS.into(), String::new()),
    };
    let shards = u16::try_from(node.whole_and(1..=most, &because)?).ok()?;
    // the first part is the largest, the last one the smallest
    let parts = |window: &Window| window.part(shards, 0).and(window.part(shards, shards - 1));
    match windows.and_then(|(windows, _)| windows.iter().find_map(|window| parts(window).err())) {
        Some(error) => node.refuse(format_args!("makes parts of windows that are none: {error}")),
        None => Some(shards),
    }
}

/// Reads `cost`. `windows` are those it is charged to, as far as they are known, and where they are written. A
/// request is charged to one of their `shards`.
pub(super) fn cost(node: &Node<'_>, windows: Option<(&[Window], &Node<'_>)>, shards: u16) -> Option<Cost> {
    let capacity = |windows: &[Window]| windows.iter().map(Window::capacity).min();
    let most = windows.and_then(|(windows, _)| capacity(windows)).unwrap_or(MAX_LIMIT) / u32::from(shards);
    let because = windows.map_or_else(String::new, |(_, at)| {
        let part = if shards > 1 { format!("one of the {shards} shards of ") } else { String::new() };
        format!(", the most that {part}an empty window of {} admits", at.path())
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
