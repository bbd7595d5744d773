//! The lanes: how requests come into them, who may bring them there, and what goes downstream.

use std::collections::BTreeMap;

use ipnet::IpNet;

use super::names::entry_name;
use super::read::{Fields, Node, unsupported};
use super::{Carrier, Flag, LaneEntry, Mark, NORMAL, Truster, Untrusted};

/// The most lanes beside the normal one. Each holds all limits, with counters of its own.
pub(super) const MAX_LANES: usize = 64;
const MAX_ITEMS: usize = 64;
/// The longest value of a flag, in bytes: SkyWalking asks for less than 128, and others set no limit.
const MAX_VALUE: usize = 128;

const CARRIERS: &[&str] = &["baggage", "header", "jaeger_baggage", "skywalking", "tracestate"];

/// What a lane does for a limit that it has no entry of its own for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fallback {
    /// The normal values, with counters of its own.
    Values,
    /// The normal lane's limit and its counters.
    Share,
    /// Turns the request away.
    Reject,
}

/// A lane before it gets its limits.
pub(super) struct LaneDraft<'a> {
    pub(super) name: &'a str,
    /// Nothing when errors were noted.
    pub(super) checked: Option<(LaneEntry, Fallback)>,
}

impl LaneDraft<'_> {
    /// What it does for a limit that it has no entry of its own for.
    pub(super) fn fallback(&self) -> Fallback {
        self.checked.as_ref().map_or(Fallback::Values, |(_, fallback)| *fallback)
    }
}

/// Reads `lanes`.
pub(super) fn read<'a>(node: &Node<'a>) -> Vec<LaneDraft<'a>> {
    let entries = node.entries(MAX_LANES).unwrap_or_default();
    for (name, lane) in &entries {
        check_name(name, lane, entries.iter().map(|(name, _)| *name));
    }
    let mut taken = BTreeMap::new();
    entries
        .into_iter()
        .map(|(name, lane)| LaneDraft { name, checked: read_lane(name, &lane, &mut taken) })
        .collect()
}

fn check_name<'n>(name: &str, lane: &Node<'_>, mut others: impl Iterator<Item = &'n str>) {
    if name == NORMAL {
        lane.note("needs another name: `normal` is the lane of everything else and has no flag");
    }
    entry_name(name, lane);
    // Limits named `a_b_…` could otherwise belong to the lane `a` as well as to `a_b`.
    if let Some(other) = others.find(|o| name.strip_prefix(o).is_some_and(|rest| rest.starts_with('_'))) {
        lane.note(format_args!(
            "has an overlapping name: limits that begin with `{name}_` also begin with `{other}_`, \
             which marks the limits of the lane `{other}`"
        ));
    }
}

/// Which lane a carrier's value leads to.
type Taken<'a> = BTreeMap<(String, String), &'a str>;

fn read_lane<'a>(name: &'a str, node: &Node<'a>, taken: &mut Taken<'a>) -> Option<(LaneEntry, Fallback)> {
    let fields = node.fields(&["flag", "trust", "untrusted", "propagate", "fallback", "enabled"], &[])?;
    let flags = fields.need("flag", ": what marks the requests of this lane").and_then(|node| {
        let items = node.list(MAX_ITEMS)?;
        items.iter().map(|item| read_flag(item, name, taken)).collect::<Vec<_>>().into_iter().collect()
    });
    let trust = fields
        .need("trust", ": who may set the flag; `[everyone]` has to be written out")
        .and_then(|node| node.list_of(MAX_ITEMS, read_truster));
    let untrusted = fields.or("untrusted", Untrusted::Strip, |node| {
        node.one_of(&[("strip", Untrusted::Strip), ("reject", Untrusted::Reject)], &[])
    });
    let propagate = fields.or("propagate", Vec::new(), |node| read_marks(&node));
    let fallback = fields.or("fallback", Fallback::Values, |node| {
        let words = [("values", Fallback::Values), ("share", Fallback::Share), ("reject", Fallback::Reject)];
        node.one_of(&words, &[])
    });
    let enabled = fields.or("enabled", true, |node| node.truth());
    let entry = LaneEntry {
        flags: flags?,
        trust: trust?,
        untrusted: untrusted?,
        propagate: propagate?,
        enabled: enabled?,
    };
    Some((entry, fallback?))
}

fn read_flag<'a>(node: &Node<'a>, lane: &'a str, taken: &mut Taken<'a>) -> Option<Flag> {
    let fields =
        node.fields(&["baggage", "header", "jaeger_baggage", "skywalking", "tracestate", "values"], &[])?;
    let carrier = read_carrier(&fields);
    let values = fields.need("values", ": the values that mark a request, such as [\"true\", \"1\"]");
    let values = values.and_then(|values| {
        let carrier = carrier.as_ref();
        values.list_of(MAX_ITEMS, |value| read_value(value, carrier))
    });
    let flag = Flag { carrier: carrier?, values: values? };
    for value in &flag.values {
        let place = (format!("{:?}", flag.carrier), value.clone());
        match taken.insert(place, lane) {
            Some(other) if other == lane => return node.refuse("has a value that this lane has already"),
            Some(other) => {
                return node.refuse(format_args!(
                    "has a value that leads to the lane `{other}` already: a request has one lane only"
                ));
            }
            None => {}
        }
    }
    Some(flag)
}

fn read_marks(node: &Node<'_>) -> Option<Vec<Mark>> {
    let marks: Option<Vec<(Mark, Node<'_>)>> = {
        let items = node.list(MAX_ITEMS)?;
        let read: Vec<_> = items.iter().map(|item| Some((read_mark(item)?, item.clone()))).collect();
        read.into_iter().collect()
    };
    let mut good: Vec<Mark> = Vec::new();
    for (mark, node) in marks? {
        if good.iter().any(|other| other.carrier == mark.carrier) {
            return node.refuse("writes what an item before it writes too");
        }
        good.push(mark);
    }
    Some(good)
}

fn read_mark(node: &Node<'_>) -> Option<Mark> {
    let fields =
        node.fields(&["baggage", "header", "jaeger_baggage", "skywalking", "tracestate", "value"], &[])?;
    let carrier = read_carrier(&fields);
    let value = fields.need("value", ": what to write");
    let value = value.and_then(|value| read_value(&value, carrier.as_ref()));
    if let Some(tracestate) = fields.get("tracestate") {
        return tracestate.refuse(
            "cannot be written: only a tracer, which makes a new parent id in traceparent, may change tracestate; \
             use baggage or header",
        );
    }
    Some(Mark { carrier: carrier?, value: value? })
}

/// The one carrier among `fields`.
fn read_carrier(fields: &Fields<'_>) -> Option<Carrier> {
    let (name, key) = fields.only_one(CARRIERS)?;
    match name {
        "baggage" => key.token().map(Carrier::Baggage),
        "header" => key.own_header_name().map(Carrier::Header),
        // The key ends a header's name, and those are lower-case.
        "jaeger_baggage" => key.header_name().map(Carrier::JaegerBaggage),
        "skywalking" => key.text().map(|key| Carrier::SkyWalking(key.to_owned())),
        _ => key.tracestate_key().map(Carrier::Tracestate),
    }
}

/// A value that `carrier` can carry.
fn read_value(node: &Node<'_>, carrier: Option<&Carrier>) -> Option<String> {
    let value = node.text()?;
    node.demand(value.len() <= MAX_VALUE, format_args!("must be at most {MAX_VALUE} bytes long"))?;
    node.demand(value.trim() == value, "must not begin or end with a space")?;
    let printable = value.bytes().all(|b| (b' '..=b'~').contains(&b));
    match carrier {
        Some(Carrier::Header(_)) => node.demand(printable, "must be printable ASCII, as headers are")?,
        Some(Carrier::Tracestate(_)) => {
            let good = printable && !value.contains([',', '=']);
            node.demand(good, "must be printable ASCII without , and =, as tracestate is")?;
        }
        _ => {}
    }
    Some(value.to_owned())
}

fn read_truster(node: &Node<'_>) -> Option<Truster> {
    const KINDS: [&str; 2] = ["everyone", "{source_cidr: [...]}"];
    if node.value().as_str() == Some("everyone") {
        return Some(Truster::Everyone);
    }
    let Some(map) = node.value().as_object() else {
        return node.refuse(format_args!("must be one of {}", KINDS.join(", ")));
    };
    if map.contains_key("peer_principal") || map.contains_key("signature") {
        return node.refuse(unsupported(&KINDS));
    }
    let networks = node.fields(&["source_cidr"], &[])?.need("source_cidr", ": a list of networks")?;
    networks.list_of(1024, read_network).map(Truster::SourceCidr)
}

fn read_network(node: &Node<'_>) -> Option<IpNet> {
    let Some(network) = node.value().as_str().and_then(|text| text.parse::<IpNet>().ok()) else {
        return node.refuse("must be a network such as 10.0.0.0/8 or fd00::/8; one address is 10.0.0.1/32");
    };
    let base = network.trunc();
    node.demand(base == network, format_args!("has bits beyond its prefix: write {base}"))?;
    node.demand(network.prefix_len() > 0, "is everyone: write `everyone` instead of the network")?;
    Some(network)
}
