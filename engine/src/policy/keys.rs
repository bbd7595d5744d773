//! The keys of a limit and the sources of their subjects.

use super::names::entry_name;
use super::read::{Node, all, unsupported};
use super::words::{did_you_mean, listed};
use super::{Key, Source};

/// The most parts of a composite subject.
const MAX_SOURCES: usize = 16;
/// The most keys of one limit.
const MAX_KEYS: usize = 64;
/// A customer with IPv6 is given a /64 or more: who counts single addresses gives everybody a fresh count for
/// each of 2^64 of them.
const V6_PREFIX: u8 = 64;

const SOURCES: [&str; 8] = ["header", "ip", "path", "method", "host", "command", "constant", "api_key"];
const LATER: [&str; 5] = ["cookie", "query", "jwt", "principal", "property"];

/// Reads `keys`: 1 to [`MAX_KEYS`], in the order of their names.
pub(super) fn read(node: &Node<'_>) -> Option<Vec<Key>> {
    all(node.entries(MAX_KEYS)?.into_iter().map(|(name, node)| {
        let named = entry_name(name, &node);
        let sources = sources(&node);
        named.and_then(|()| Some(Key { name: name.to_owned(), sources: sources? }))
    }))
}

/// One source, or a list of them that make a composite.
pub(super) fn sources(node: &Node<'_>) -> Option<Vec<Source>> {
    if node.value().is_array() {
        return node.set_of(MAX_SOURCES, source);
    }
    source(node).map(|source| vec![source])
}

fn source(node: &Node<'_>) -> Option<Source> {
    if let Some(word) = node.value().as_str() {
        return bare(node, word);
    }
    let Some(map) = node.value().as_object() else {
        return node.refuse(format_args!("must be a source: {}", listed(&SOURCES)));
    };
    if map.keys().any(|name| LATER.contains(&name.as_str())) {
        return node.refuse(unsupported(&SOURCES));
    }
    if map.contains_key("hash") {
        return node.refuse(
            "has `hash`, which is not supported by this version; supported: api_key, which leaves the proxy hashed",
        );
    }
    let (Some((name, _)), 1) = (map.iter().next(), map.len()) else {
        return node.refuse(format_args!(
            "must be exactly one of {}; several sources make a list of objects",
            listed(&SOURCES)
        ));
    };
    let fields = node.fields(&SOURCES, &[])?;
    let value = fields.get(name)?;
    match name.as_str() {
        "header" => value.header_name().map(Source::Header),
        "api_key" => value.header_name().map(Source::ApiKey),
        "constant" => value.text().map(|text| Source::Constant(text.to_owned())),
        "ip" => ip(&value),
        "path" => {
            value.refuse("is not supported by this version (path templates); supported: the word `path`")
        }
        "method" | "host" | "command" => value.refuse(format_args!("takes nothing: write the word `{name}`")),
        // An unknown field, which is noted already.
        _ => None,
    }
}

/// A source that takes nothing, by its word alone.
fn bare(node: &Node<'_>, word: &str) -> Option<Source> {
    match word {
        "ip" => Some(Source::Ip { v6_prefix: V6_PREFIX }),
        "path" => Some(Source::Path),
        "method" => Some(Source::Method),
        "host" => Some(Source::Host),
        "command" => Some(Source::Command),
        "header" | "api_key" => node.refuse(format_args!("needs a header's name: {{{word}: x-name}}")),
        "constant" | "global" => node.refuse("needs a text: {constant: global}"),
        _ if LATER.contains(&word) => node.refuse(unsupported(&SOURCES)),
        _ => {
            let hint = did_you_mean(word, SOURCES.into_iter());
            node.refuse(format_args!("must be a source: {}{hint}", listed(&SOURCES)))
        }
    }
}

fn ip(node: &Node<'_>) -> Option<Source> {
    let fields = node.fields(&["v6_prefix"], &[])?;
    let bits = fields.or("v6_prefix", u32::from(V6_PREFIX), |bits| bits.whole(1..=128))?;
    u8::try_from(bits).ok().map(|v6_prefix| Source::Ip { v6_prefix })
}
