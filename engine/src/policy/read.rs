//! A cursor over the document that knows where it is, and notes errors instead of returning at the first.
//!
//! serde's derived readers stop at the first error and name no path. Here every reading function returns an
//! `Option`: `None` means that what is wrong has been noted, so callers read all they can before they give up.
//! Nothing recurses: each function descends only where the policy language does.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fmt::Display;
use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use super::PolicyError;
use super::words::{did_you_mean, listed, shown};

/// The longest text that a policy may hold, in bytes.
pub(super) const MAX_TEXT: usize = 1024;

/// What was found so far.
#[derive(Default)]
pub(super) struct Report {
    errors: Cell<Vec<PolicyError>>,
    warnings: Cell<Vec<PolicyError>>,
}

impl Report {
    /// All errors, and all warnings.
    pub(super) fn into_findings(self) -> (Vec<PolicyError>, Vec<PolicyError>) {
        (each_once(self.errors.into_inner()), each_once(self.warnings.into_inner()))
    }
}

fn add(findings: &Cell<Vec<PolicyError>>, finding: PolicyError) {
    let mut all = findings.take();
    all.push(finding);
    findings.set(all);
}

/// A field that others inherit is read once for each of them.
fn each_once(mut findings: Vec<PolicyError>) -> Vec<PolicyError> {
    let mut seen = BTreeSet::new();
    findings.retain(|finding| seen.insert(finding.clone()));
    findings
}

/// The path of the field `name` of the object at `path`, as errors write it.
pub fn field_path(path: &str, name: &str) -> String {
    let plain = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    match (path, plain) {
        ("", true) => name.to_owned(),
        (_, true) => format!("{path}.{name}"),
        (_, false) => format!("{path}[{}]", shown(&Value::from(name))),
    }
}

/// The path of the item `index` of the list at `path`, as errors write it.
pub fn item_path(path: &str, index: usize) -> String {
    format!("{path}[{index}]")
}

/// A value of the document and its place.
#[derive(Clone)]
pub(super) struct Node<'a> {
    value: &'a Value,
    path: String,
    report: &'a Report,
}

impl<'a> Node<'a> {
    pub(super) fn root(value: &'a Value, report: &'a Report) -> Self {
        Self { value, path: String::new(), report }
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// The value without judging it.
    pub(super) fn value(&self) -> &'a Value {
        self.value
    }

    /// Notes what is wrong with this value.
    pub(super) fn note(&self, problem: impl Display) {
        add(&self.report.errors, self.finding(problem));
    }

    /// Notes what is likely wrong with this value.
    pub(super) fn warn(&self, problem: impl Display) {
        add(&self.report.warnings, self.finding(problem));
    }

    fn finding(&self, problem: impl Display) -> PolicyError {
        PolicyError { path: self.path.clone(), value: shown(self.value), problem: problem.to_string() }
    }

    /// Notes what is wrong with this value, and gives up on it.
    pub(super) fn refuse<T>(&self, problem: impl Display) -> Option<T> {
        self.note(problem);
        None
    }

    /// This value if `good`; else notes `problem`.
    pub(super) fn demand(&self, good: bool, problem: impl Display) -> Option<()> {
        if good { Some(()) } else { self.refuse(problem) }
    }

    fn child(&self, value: &'a Value, path: String) -> Node<'a> {
        Node { value, path, report: self.report }
    }

    /// An object with fields of these names and no others. `later` names fields of the language that this
    /// version does not have.
    pub(super) fn fields(&self, allowed: &'static [&'static str], later: &[&str]) -> Option<Fields<'a>> {
        let Value::Object(map) = self.value else {
            return self.refuse(format_args!("must be an object with the fields {}", listed(allowed)));
        };
        let mut strange = false;
        for (name, value) in sorted(map) {
            strange |= !allowed.contains(&name);
            let child = || self.child(value, field_path(&self.path, name));
            if later.contains(&name) {
                child().note(unsupported(allowed));
            } else if !allowed.contains(&name) {
                let hint = did_you_mean(name, allowed.iter().copied());
                child().note(format_args!("is an unknown field; allowed: {}{hint}", listed(allowed)));
            }
        }
        Some(Fields { node: self.clone(), map, bases: Vec::new(), strange })
    }

    /// The entries of an object whose field names the operator chose: 1 to `most`, in the order of their names.
    pub(super) fn entries(&self, most: usize) -> Option<Vec<(&'a str, Node<'a>)>> {
        let Value::Object(map) = self.value else {
            return self.refuse("must be an object of named entries");
        };
        self.demand(!map.is_empty(), "must not be empty: write an entry, or leave it out")?;
        self.demand(map.len() <= most, format_args!("must have at most {most} entries"))?;
        let entries =
            sorted(map).map(|(name, value)| (name, self.child(value, field_path(&self.path, name))));
        Some(entries.collect())
    }

    /// The items of a list: 1 to `most`.
    pub(super) fn list(&self, most: usize) -> Option<Vec<Node<'a>>> {
        let Value::Array(items) = self.value else {
            return self.refuse("must be a list");
        };
        self.demand(!items.is_empty(), "must not be empty: write an item, or leave it out")?;
        self.demand(items.len() <= most, format_args!("must have at most {most} items"))?;
        let items = items.iter().enumerate();
        Some(items.map(|(index, item)| self.child(item, item_path(&self.path, index))).collect())
    }

    /// A list of 1 to `most` items, all of which `read` accepts.
    pub(super) fn list_of<T>(&self, most: usize, read: impl FnMut(&Node<'a>) -> Option<T>) -> Option<Vec<T>> {
        all(self.list(most)?.iter().map(read))
    }

    /// As [`Node::list_of`], with no item twice.
    pub(super) fn set_of<T: PartialEq>(
        &self,
        most: usize,
        read: impl Fn(&Node<'a>) -> Option<T>,
    ) -> Option<Vec<T>> {
        let mut set = Vec::new();
        self.list_of(most, |item| {
            let value = read(item)?;
            item.demand(!set.contains(&value), "stands in this list twice")?;
            set.push(value);
            Some(())
        })?;
        Some(set)
    }

    /// A text of 1 to [`MAX_TEXT`] bytes without control characters.
    pub(super) fn text(&self) -> Option<&'a str> {
        let text = match self.value {
            Value::String(text) => text,
            Value::Number(_) | Value::Bool(_) => return self.refuse("must be a text: write it in quotes"),
            _ => return self.refuse("must be a text"),
        };
        self.demand(!text.is_empty(), "must not be empty")?;
        self.demand(text.len() <= MAX_TEXT, format_args!("must be at most {MAX_TEXT} bytes long"))?;
        self.demand(!text.chars().any(char::is_control), "must not hold control characters")?;
        Some(text)
    }

    /// `true` or `false`.
    pub(super) fn truth(&self) -> Option<bool> {
        self.value.as_bool().or_else(|| self.refuse("must be true or false"))
    }

    /// A whole number within `range`. `10.0` is 10: Envoy hands numbers over as doubles.
    pub(super) fn whole(&self, range: RangeInclusive<u32>) -> Option<u32> {
        self.whole_and(range, "")
    }

    /// As [`Node::whole`]; `because` stands behind the range in the error.
    pub(super) fn whole_and(&self, range: RangeInclusive<u32>, because: &str) -> Option<u32> {
        whole(self.value).filter(|number| range.contains(number)).or_else(|| {
            let quoted = if self.value.is_string() { "; write it without quotes" } else { "" };
            let (from, to) = (range.start(), range.end());
            let range =
                if from == to { format!("{from}") } else { format!("a whole number from {from} to {to}") };
            self.refuse(format_args!("must be {range}{because}{quoted}"))
        })
    }

    /// One of these words. `later` are words of the language that this version does not have.
    pub(super) fn one_of<T: Clone>(&self, words: &[(&str, T)], later: &[&str]) -> Option<T> {
        let written = self.value.as_str().unwrap_or_default();
        if let Some((_, meant)) = words.iter().find(|(word, _)| *word == written) {
            return Some(meant.clone());
        }
        let names: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        if later.contains(&written) {
            return self.refuse(unsupported(&names));
        }
        let hint = did_you_mean(written, names.iter().copied());
        self.refuse(format_args!("must be one of {}{hint}", listed(&names)))
    }
}

/// Everything, if nothing is missing. Unlike `collect` it does not stop at the first that is.
pub(super) fn all<T>(values: impl ExactSizeIterator<Item = Option<T>>) -> Option<Vec<T>> {
    let count = values.len();
    let there: Vec<T> = values.flatten().collect();
    (there.len() == count).then_some(there)
}

/// What is said of a part of the language that this version does not have.
pub(super) fn unsupported(supported: &[&str]) -> String {
    format!("is not supported by this version; supported: {}", listed(supported))
}

/// In the order of their names, whatever order serde_json's map was built to keep.
fn sorted(map: &Map<String, Value>) -> impl Iterator<Item = (&str, &Value)> {
    let mut entries: Vec<_> = map.iter().map(|(name, value)| (name.as_str(), value)).collect();
    entries.sort_unstable_by_key(|(name, _)| *name);
    entries.into_iter()
}

fn whole(value: &Value) -> Option<u32> {
    if let Some(number) = value.as_u64() {
        return u32::try_from(number).ok();
    }
    let number = value.as_f64()?;
    let fits = number.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&number);
    // The conversion is exact: the number is whole and within u32.
    fits.then_some(number as u32)
}

/// The fields of an object.
pub(super) struct Fields<'a> {
    node: Node<'a>,
    map: &'a Map<String, Value>,
    /// What they inherit from, the nearest first.
    bases: Vec<(Node<'a>, &'a Map<String, Value>)>,
    /// Some fields do not belong here, which is noted.
    strange: bool,
}

impl<'a> Fields<'a> {
    /// Takes what these fields, and what they inherit from already, leave out from `base`, if that is an object.
    pub(super) fn inherit(mut self, base: &Node<'a>) -> Self {
        self.bases.extend(base.value.as_object().map(|map| (base.clone(), map)));
        self
    }

    /// The object itself.
    pub(super) fn node(&self) -> &Node<'a> {
        &self.node
    }

    /// The field, where it is written: here, or else in what these fields inherit from.
    pub(super) fn get(&self, name: &str) -> Option<Node<'a>> {
        self.places(name).next()
    }

    /// Everywhere the field is written: here, and then in what these fields inherit from.
    fn places(&self, name: &str) -> impl Iterator<Item = Node<'a>> {
        let bases = self.bases.iter().map(|(node, map)| (node, *map));
        std::iter::once((&self.node, self.map)).chain(bases).filter_map(move |(node, map)| {
            map.get(name).map(|value| node.child(value, field_path(&node.path, name)))
        })
    }

    /// The fields of the object that is the field `name`, if it is there. What it leaves out, it takes from the
    /// object of that name in what these fields inherit from.
    pub(super) fn inner(&self, name: &str, allowed: &'static [&'static str]) -> Option<Option<Fields<'a>>> {
        let mut places = self.places(name);
        let Some(own) = places.next() else { return Some(None) };
        let own = own.fields(allowed, &[])?;
        Some(Some(places.fold(own, |fields, base| fields.inherit(&base))))
    }

    /// A field that must be there; `hint` ends the error when it is not.
    pub(super) fn need(&self, name: &str, hint: &str) -> Option<Node<'a>> {
        self.get(name).or_else(|| {
            let owner = self.bases.last().map_or(&self.node, |(base, _)| base);
            let problem = format!("is required{hint}");
            let path = field_path(&owner.path, name);
            add(&owner.report.errors, PolicyError { path, value: String::new(), problem });
            None
        })
    }

    /// The only one of these fields that is there.
    pub(super) fn only_one(&self, names: &[&'static str]) -> Option<(&'static str, Node<'a>)> {
        let mut written = names.iter().filter_map(|name| Some((*name, self.get(name)?)));
        match (written.next(), written.next()) {
            (Some(found), None) => Some(found),
            // The strange field was to be the one.
            (None, _) if self.strange => None,
            _ => self.node.refuse(format_args!("must have exactly one of {}", listed(names))),
        }
    }

    /// What `read` makes of the field, or `default` when it is left out.
    pub(super) fn or<T>(
        &self,
        name: &str,
        default: T,
        read: impl FnOnce(Node<'a>) -> Option<T>,
    ) -> Option<T> {
        self.get(name).map_or(Some(default), read)
    }

    /// What `read` makes of the field, if it is there.
    pub(super) fn maybe<T>(&self, name: &str, read: impl FnOnce(Node<'a>) -> Option<T>) -> Option<Option<T>> {
        self.get(name).map_or(Some(None), |node| read(node).map(Some))
    }
}
