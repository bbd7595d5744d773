//! From entries to the limits of each lane: whose version an entry is, and what a lane without one gets.
//!
//! An entry `<lane>_<limit>` is the lane's version of `<limit>`; what it leaves out is the normal entry's.
//! Values are inherited, counters never: a lane counts under a prefix of its own, unless it says
//! `fallback: share`. An entry that begins like a lane's and is a version of nothing is refused, because a
//! slip in its name would silently leave the lane with the normal values.

use std::collections::{BTreeMap, BTreeSet};

use super::duration::written;
use super::lanes::{Fallback, LaneDraft};
use super::limits::{self, Rule, Surroundings};
use super::names::entry_name;
use super::read::Node;
use super::words::{did_you_mean, listed};
use super::{Count, Key, Lane, Limit, LimitVerdict, NORMAL, PolicyItem};
use crate::window::Window;

/// The most entries in `rate_limits`.
const MAX_LIMITS: usize = 1000;
/// The most counters a policy may name: keys x windows over all limits of all lanes. Each takes some hundred
/// bytes of every worker's memory.
const MAX_COUNTERS: usize = 65_536;

/// The name that `<lane>_<OLD>` had before limits had names.
const OLD: &str = "rate_limit";
/// What it is a version of.
const NEW: &str = "default_rate_limit";

/// The entries, by whose version they are.
struct Versions<'a> {
    /// By their names.
    normal: BTreeMap<&'a str, Node<'a>>,
    /// By lane and the name of the normal entry.
    own: BTreeMap<(&'a str, &'a str), Node<'a>>,
}

/// An entry without errors, and where it stands.
struct Entry<'a> {
    node: Node<'a>,
    rule: Rule<'a>,
}

/// Reads `rate_limits` and hands every lane its limits; the normal lane comes first.
pub(super) fn read<'a>(
    node: Option<&Node<'a>>,
    drafts: Vec<LaneDraft<'a>>,
    around: &Surroundings<'_>,
) -> Option<Vec<Lane>> {
    let entries = node.map_or(Some(Vec::new()), |node| node.entries(MAX_LIMITS))?;
    for (name, entry) in &entries {
        entry_name(name, entry);
    }
    let names: Vec<&str> = drafts.iter().map(|draft| draft.name).collect();
    let versions = sort_out(entries, &names);
    let resolver = Resolver {
        normal: versions
            .normal
            .iter()
            .filter_map(|(name, node)| Some((*name, Entry::read(node, None, around)?)))
            .collect(),
        own: versions
            .own
            .iter()
            .filter_map(|(of, node)| Some((*of, Entry::read(node, versions.normal.get(of.1), around)?)))
            .collect(),
    };
    if let Some(node) = node {
        let most = format_args!("names more than {MAX_COUNTERS} counters: keys x windows, over all lanes");
        node.demand(resolver.counters(&drafts) <= MAX_COUNTERS, most)?;
    }
    resolver.refuse_shared_store_keys(&drafts);
    let normal =
        Lane { name: NORMAL.to_owned(), entry: None, limits: resolver.limits(None), breakers: Vec::new() };
    let named = drafts.into_iter().map(|draft| {
        let limits = resolver.limits(Some(&draft));
        let lane =
            |entry| Lane { name: draft.name.to_owned(), entry: Some(entry), limits, breakers: Vec::new() };
        draft.checked.map(|(entry, _)| lane(entry))
    });
    std::iter::once(Some(normal)).chain(named).collect()
}

/// Tells the lanes' versions from the normal entries.
fn sort_out<'a>(entries: Vec<(&'a str, Node<'a>)>, lanes: &[&'a str]) -> Versions<'a> {
    let names: BTreeSet<&str> = entries.iter().map(|(name, _)| *name).collect();
    let is_of_lane = |name: &str| lanes.iter().any(|lane| after_lane(name, lane).is_some());
    let (mut of_lanes, normal): (BTreeMap<_, _>, BTreeMap<_, _>) =
        entries.into_iter().partition(|(name, _)| is_of_lane(name));
    let mut own = BTreeMap::new();
    for lane in lanes {
        for limit in normal.keys() {
            let version = own_version(lane, limit, |name| names.contains(name));
            if let Some(node) = version.and_then(|name| of_lanes.remove(name.as_str())) {
                own.insert((*lane, *limit), node);
            }
        }
    }
    let versions = Versions { normal, own };
    for (name, node) in of_lanes {
        let lane_of = |lane: &&'a str| Some((*lane, after_lane(name, lane)?));
        if let Some((lane, limit)) = lanes.iter().find_map(lane_of) {
            refuse_orphan(&node, lane, limit, &versions);
        }
    }
    versions
}

/// What follows `<lane>_` in `name`.
fn after_lane<'n>(name: &'n str, lane: &str) -> Option<&'n str> {
    name.strip_prefix(lane)?.strip_prefix('_')
}

/// The name of the entry of `rate_limits` that is the lane's own version of `limit`, if there is one.
pub fn own_version(lane: &str, limit: &str, is_entry: impl Fn(&str) -> bool) -> Option<String> {
    let older = (limit == NEW && !is_entry(OLD)).then(|| in_lane(OLD, Some(lane)));
    [Some(in_lane(limit, Some(lane))), older].into_iter().flatten().find(|name| is_entry(name))
}

fn refuse_orphan(node: &Node<'_>, lane: &str, limit: &str, versions: &Versions<'_>) {
    if limit == OLD && versions.own.contains_key(&(lane, NEW)) {
        return node.note(format_args!(
            "has an overlapping name: it is the older name of `{lane}_{NEW}`, which is there too"
        ));
    }
    let normal: Vec<&str> = versions.normal.keys().copied().collect();
    let hint = did_you_mean(limit, normal.iter().copied());
    let entries = match listed(&normal) {
        none if none.is_empty() => "there is no other entry".to_owned(),
        names => format!("the entries are {names}"),
    };
    node.note(format_args!(
        "is by its name the lane `{lane}`'s version of `{limit}`, which is no entry; {entries}{hint}"
    ));
}

impl<'a> Entry<'a> {
    fn read(node: &Node<'a>, base: Option<&Node<'a>>, around: &Surroundings<'_>) -> Option<Self> {
        Some(Self { rule: limits::read(node, base, around)?, node: node.clone() })
    }

    /// What its store keys begin with, in the lane of this name.
    fn prefix(&self, name: &str, lane: Option<&str>) -> String {
        let prefix = self.rule.key_prefix.as_ref().map_or(name, |(prefix, _)| prefix);
        in_lane(prefix, lane)
    }
}

/// `name`, or `<lane>_<name>`.
fn in_lane(name: &str, lane: Option<&str>) -> String {
    lane.map_or_else(|| name.to_owned(), |lane| format!("{lane}_{name}"))
}

/// The entries that are free of errors, by their names.
struct Resolver<'a> {
    normal: BTreeMap<&'a str, Entry<'a>>,
    own: BTreeMap<(&'a str, &'a str), Entry<'a>>,
}

impl<'a> Resolver<'a> {
    /// The entry that counts for the limit `name` with counters of the lane's own, if one does.
    fn own_counters(&self, name: &'a str, lane: Option<&LaneDraft<'a>>) -> Option<&Entry<'a>> {
        let Some(lane) = lane else { return self.normal.get(name) };
        let own = self.own.get(&(lane.name, name));
        own.or_else(|| self.normal.get(name).filter(|_| lane.fallback() == Fallback::Values))
    }

    /// The limits of a lane, in the order of their names.
    fn limits(&self, lane: Option<&LaneDraft<'a>>) -> Vec<Limit> {
        let limits = self.normal.iter().map(|(name, normal)| {
            let lane_name = lane.map(|lane| lane.name);
            match (self.own_counters(name, lane), lane.map(LaneDraft::fallback)) {
                (Some(entry), _) => limit(entry, name, lane_name, count),
                (None, Some(Fallback::Reject)) => {
                    limit(normal, name, lane_name, |_, _| LimitVerdict::TurnAway)
                }
                (None, _) => limit(normal, name, None, count),
            }
        });
        limits.collect()
    }

    /// How many counters all lanes name together.
    fn counters(&self, lanes: &[LaneDraft<'a>]) -> usize {
        let lanes = || std::iter::once(None).chain(lanes.iter().map(Some));
        let owners = self.normal.keys().flat_map(|name| lanes().filter_map(|l| self.own_counters(name, l)));
        owners.map(|entry| entry.rule.keys.len() * entry.rule.windows.len()).sum()
    }

    /// Refuses limits that would count in each other's store keys.
    fn refuse_shared_store_keys(&self, lanes: &[LaneDraft<'a>]) {
        let mut owners: BTreeMap<(String, &str), (&Entry<'a>, Option<&str>)> = BTreeMap::new();
        for lane in std::iter::once(None).chain(lanes.iter().map(Some)) {
            let lane_name = lane.map(|lane| lane.name);
            for name in self.normal.keys() {
                let Some(entry) = self.own_counters(name, lane) else { continue };
                let prefix = entry.prefix(name, lane_name);
                for key in &entry.rule.keys {
                    let this = (entry, lane_name);
                    if let Some(other) = owners.insert((prefix.clone(), &key.name), this) {
                        refuse_shared(this, other);
                    }
                }
            }
        }
    }
}

/// Notes at the entry that says its prefix that it counts where the other does.
fn refuse_shared<'a>(this: (&Entry<'a>, Option<&str>), that: (&Entry<'a>, Option<&str>)) {
    let ((entry, lane), (other, other_lane)) =
        if this.0.rule.key_prefix.is_some() { (this, that) } else { (that, this) };
    let at = entry.rule.key_prefix.as_ref().map_or(&entry.node, |(_, at)| at);
    let in_lane = match other_lane {
        Some(name) if lane != other_lane => format!(" in the lane `{name}`"),
        _ => String::new(),
    };
    let other = other.node.path();
    at.note(format_args!(
        "overlaps: {other} counts in the same store keys{in_lane}; give one another key_prefix"
    ));
}

fn limit(
    entry: &Entry<'_>,
    name: &str,
    lane: Option<&str>,
    verdict: impl FnOnce(&Rule<'_>, &str) -> LimitVerdict,
) -> Limit {
    let title = in_lane(name, lane);
    Limit {
        name: name.to_owned(),
        key_prefix: entry.prefix(name, lane),
        matches: entry.rule.matches.clone(),
        except: entry.rule.except.clone(),
        verdict: verdict(&entry.rule, &title),
        title,
    }
}

fn count(rule: &Rule<'_>, title: &str) -> LimitVerdict {
    LimitVerdict::Count(Count {
        keys: rule.keys.clone(),
        windows: rule.windows.as_slice().into(),
        policy_items: policy_items(title, &rule.keys, &rule.windows),
        hash_tag: rule.hash_tag.clone(),
        cost: rule.cost.clone(),
        shards: rule.shards,
        consume: rule.consume,
        on_missing_key: rule.on_missing_key,
        enforce: rule.enforce,
        on_failure: rule.on_failure,
    })
}

/// For each key and window, how clients get to see it.
fn policy_items(title: &str, keys: &[Key], windows: &[Window]) -> Vec<Vec<PolicyItem>> {
    let of_key = |key: &Key| {
        let key = if keys.len() > 1 { format!(":{}", key.name) } else { String::new() };
        let items = windows.iter().map(|window| {
            let per = window.per();
            let length = if windows.len() > 1 { format!(":{}", written(per)) } else { String::new() };
            let name = format!("{title}{key}{length}");
            let seconds = match (per.as_secs(), per.subsec_nanos()) {
                (seconds @ 1.., 0) => format!(";w={seconds}"),
                _ => String::new(),
            };
            PolicyItem { item: format!("\"{name}\";q={}{seconds}", window.limit()), name }
        });
        items.collect()
    };
    keys.iter().map(of_key).collect()
}
