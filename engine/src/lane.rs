//! Which lane a request drives in, decided once, at its headers.
//!
//! The danger is uneven: a forged flag lets a client past the limits of real users, a lost one lets test load
//! on to them. So the flag counts only from those who may set it; from anybody else it is removed from
//! every carrier before a service downstream can read it, whatever its value, also when the lane is disabled.

use std::borrow::Cow;
use std::net::IpAddr;

use crate::headers::Headers;
use crate::policy::{LaneEntry, Policy, Truster, Untrusted};

mod carrier;

use carrier::Lines;

/// The index of the normal lane in [`Policy::lanes`].
pub const NORMAL_LANE: usize = 0;

/// A header that must have exactly these lines from now on; none when it must be gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderEdit {
    /// Its lower-case name.
    pub name: String,
    /// Its values, line by line.
    pub lines: Vec<Vec<u8>>,
}

/// What the flags in a request's headers come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sorting {
    /// The lane, as an index into [`Policy::lanes`].
    pub lane: usize,
    /// What must change in the headers.
    pub edits: Vec<HeaderEdit>,
    /// Lanes whose flag came from somebody who may not set it.
    pub forged: Vec<usize>,
    /// The policy answers such a flag with 403 (`untrusted: reject`).
    pub turned_away: bool,
}

/// Sorts a request into its lane. `source` is the client's trusted address; it is only asked for where a flag
/// and a rule need it. Of several lanes whose flags count, the first in the order of their names has it.
pub fn sort(policy: &Policy, headers: &Headers, source: &dyn Fn() -> Option<IpAddr>) -> Sorting {
    let mut sorting = Sorting::default();
    let mut draft = Draft { headers, touched: Vec::new() };
    for (index, lane) in policy.lanes.iter().enumerate() {
        let Some(entry) = &lane.entry else { continue };
        match draft.look_for(entry) {
            Found::Nothing => {}
            found if entry.trusts(source) => {
                let enters = entry.enabled && found == Found::Flag && sorting.lane == NORMAL_LANE;
                if enters {
                    sorting.lane = index;
                    draft.propagate(entry);
                }
            }
            found => {
                sorting.turned_away |= found == Found::Flag && entry.untrusted == Untrusted::Reject;
                if found == Found::Flag {
                    sorting.forged.push(index);
                }
                draft.strip(entry);
            }
        }
    }
    sorting.edits = draft.into_edits();
    sorting
}

/// Reads the `source.address` of a proxy-wasm host: `1.2.3.4:0`, `[2001:db8::1]:80`, or an address alone.
/// An IPv4 address in IPv6 clothes is the IPv4 address.
pub fn parse_source(address: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(address).ok()?;
    let socket = text.parse::<std::net::SocketAddr>().map(|socket| socket.ip());
    socket.or_else(|_| text.parse()).ok().map(|ip| ip.to_canonical())
}

impl LaneEntry {
    fn trusts(&self, source: &dyn Fn() -> Option<IpAddr>) -> bool {
        self.trust.iter().any(|truster| match truster {
            Truster::Everyone => true,
            Truster::SourceCidr(networks) => {
                source().is_some_and(|ip| networks.iter().any(|network| network.contains(&ip)))
            }
        })
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Found {
    /// No carrier has the flag's name.
    Nothing,
    /// A carrier has its name at a value that marks no request.
    OtherValue,
    /// The request is marked.
    Flag,
}

/// The headers with the edits so far.
struct Draft<'a> {
    headers: &'a Headers,
    touched: Vec<(String, Lines<'static>)>,
}

impl<'a> Draft<'a> {
    fn lines(&self, name: &str) -> Lines<'_> {
        match self.touched.iter().find(|(touched, _)| touched == name) {
            Some((_, lines)) => lines.iter().map(|line| Cow::Borrowed(line.as_ref())).collect(),
            None => {
                let of_name = self.headers.iter().filter(|(n, _)| *n == name.as_bytes());
                of_name.map(|(_, value)| Cow::Borrowed(value)).collect()
            }
        }
    }

    fn put(&mut self, name: &str, lines: Lines<'static>) {
        match self.touched.iter_mut().find(|(touched, _)| touched == name) {
            Some((_, old)) => *old = lines,
            None => self.touched.push((name.to_owned(), lines)),
        }
    }

    fn look_for(&self, entry: &LaneEntry) -> Found {
        let mut found = Found::Nothing;
        for flag in &entry.flags {
            let lines = self.lines(&flag.carrier.header());
            for value in flag.carrier.values(&lines) {
                let marks = flag.values.iter().any(|wanted| wanted.as_bytes() == value.as_ref());
                if marks && flag.carrier.readable(self.headers) {
                    return Found::Flag;
                }
                found = Found::OtherValue;
            }
        }
        found
    }

    fn strip(&mut self, entry: &LaneEntry) {
        let read = entry.flags.iter().map(|flag| &flag.carrier);
        let written = entry.propagate.iter().map(|mark| &mark.carrier);
        for carrier in read.chain(written) {
            let name = carrier.header();
            if let Some(rest) = carrier.without(&self.lines(&name)) {
                self.put(&name, rest);
            }
        }
    }

    fn propagate(&mut self, entry: &LaneEntry) {
        for mark in &entry.propagate {
            let name = mark.carrier.header();
            let lines = self.lines(&name);
            let mut values = mark.carrier.values(&lines);
            let stands_already = values.next().is_some_and(|value| value.as_ref() == mark.value.as_bytes());
            let alone = values.next().is_none();
            drop(values);
            if !(stands_already && alone) {
                let lines = mark.carrier.with(&lines, &mark.value);
                self.put(&name, lines);
            }
        }
    }

    fn into_edits(self) -> Vec<HeaderEdit> {
        let edit = |(name, lines): (String, Lines<'static>)| HeaderEdit {
            name,
            lines: lines.into_iter().map(Cow::into_owned).collect(),
        };
        self.touched.into_iter().map(edit).collect()
    }
}

#[cfg(test)]
mod tests;
