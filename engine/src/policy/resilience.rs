//! From the entries of `resilience` to the breakers of each lane.
//!
//! An entry is named like the command that it guards, `<lane>.<command>` is a lane's version of it, and `default`
//! is what all of them inherit from; written, it gives a breaker to every command. As with limits values are
//! inherited and state never is, unless the lane says `fallback: share`.
//!
//! An entry for a command that is not named in `commands` guards nothing. That is no reason to refuse the policy,
//! for commands are often taken out first; it is one to warn.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::lanes::{Fallback, LaneDraft};
use super::names::command_entry_name;
use super::read::Node;
use super::words::did_you_mean;
use super::{Lane, NORMAL, breakers};
use crate::breaker::Settings;

/// The most entries in `resilience`.
const MAX_ENTRIES: usize = 1000;
/// The most breakers over all lanes: twice as many as the node has slots for their state, of which each holds
/// sixteen, so that none has to make room for another.
const MAX_BREAKERS: usize = 2048;

/// The entry that the others inherit from.
const DEFAULT: &str = "default";

/// The breaker of a command as it stands in one lane.
#[derive(Clone, Debug)]
pub struct Breaker {
    /// The command that it guards.
    pub command: String,
    /// Its name in this lane: `<lane>.<command>`, or the command's own in the normal lane. Clients, logs and
    /// metrics see it.
    pub title: String,
    /// Whose state it is: the lane's own, unless the lane shares the normal lane's. Breakers with the same owner
    /// trip together.
    pub owner: String,
    /// What it does with the command's calls.
    pub verdict: BreakerVerdict,
}

/// What a breaker does with the calls of its command.
#[derive(Clone, Debug)]
pub enum BreakerVerdict {
    /// Guards them.
    Guard(Arc<Settings>),
    /// Turns them away: the lane has no entry of its own and `fallback: reject`.
    TurnAway,
}

impl Lane {
    /// Where in [`Lane::breakers`] the breaker of `command` stands, if it has one.
    pub fn breaker(&self, command: &str) -> Option<usize> {
        self.breakers.binary_search_by(|breaker| breaker.command.as_str().cmp(command)).ok()
    }
}

/// Reads `resilience` and gives every lane its breakers, the normal lane first. `commands` are the names there
/// are, in their order, and `places` is where they stand.
pub(super) fn read<'a>(
    node: &Node<'a>,
    lanes: &[LaneDraft<'a>],
    commands: &[&'a str],
    places: &[Node<'a>],
) -> Option<Vec<Vec<Breaker>>> {
    let mut entries = Entries::default();
    for (name, entry) in node.entries(MAX_ENTRIES)? {
        entries.sort_in(name, entry, lanes, commands);
    }
    refuse_two_meanings(lanes, places);
    let resolver = entries.read(commands);
    let lanes = std::iter::once(None).chain(lanes.iter().map(Some));
    let breakers: Vec<Vec<Breaker>> = lanes.map(|lane| resolver.breakers(lane)).collect();
    let most = format_args!("makes more than {MAX_BREAKERS} breakers: commands x lanes");
    node.demand(breakers.iter().map(Vec::len).sum::<usize>() <= MAX_BREAKERS, most)?;
    Some(breakers)
}

/// Refuses commands whose names could also mean a lane's version of another: their breakers would be one.
fn refuse_two_meanings(lanes: &[LaneDraft<'_>], places: &[Node<'_>]) {
    for place in places {
        let name = place.value().as_str().unwrap_or_default();
        if let Some((lane, command)) = of_lane(name, lanes) {
            place.note(format_args!(
                "has an overlapping name: in resilience it is also the breaker of `{command}` in lanes.{lane}; \
                 give the command or the lane another name"
            ));
        }
    }
}

/// The lane and the command of `<lane>.<command>`.
fn of_lane<'n>(name: &'n str, lanes: &[LaneDraft<'_>]) -> Option<(&'n str, &'n str)> {
    name.split_once('.').filter(|(lane, _)| lanes.iter().any(|draft| draft.name == *lane))
}

/// The entries, by whose they are.
#[derive(Default)]
struct Entries<'a> {
    default: Option<Node<'a>>,
    /// By their commands.
    normal: BTreeMap<&'a str, Node<'a>>,
    /// By lane and command.
    own: BTreeMap<(&'a str, &'a str), Node<'a>>,
}

impl<'a> Entries<'a> {
    /// Puts the entry in its place, and says if it guards nothing.
    fn sort_in(&mut self, name: &'a str, node: Node<'a>, lanes: &[LaneDraft<'_>], commands: &[&str]) {
        if name == DEFAULT {
            if commands.is_empty() {
                node.warn("guards nothing: `commands` names nothing");
            }
            self.default = Some(node);
            return;
        }
        let lane = of_lane(name, lanes);
        let command = lane.map_or(name, |(_, command)| command);
        if command_entry_name(command, &node).is_some() && !commands.contains(&command) {
            if command == DEFAULT {
                node.note("must be left out: there is one default for all lanes");
            } else {
                let hint = hint(command, commands);
                node.warn(format_args!("guards nothing: `commands` does not name `{command}`{hint}"));
            }
        }
        match lane {
            Some(own) => self.own.insert(own, node),
            None => self.normal.insert(name, node),
        };
    }

    fn read(self, commands: &'a [&'a str]) -> Resolver<'a> {
        let of = |node: &Node<'a>, bases: [Option<&Node<'a>>; 2]| {
            let bases: Vec<&Node<'a>> = bases.into_iter().flatten().collect();
            breakers::read(node, &bases).map(Arc::new)
        };
        let default = self.default.as_ref();
        let normal = self.normal.iter();
        let own = self.own.iter();
        Resolver {
            commands,
            default: default.and_then(|node| of(node, [None, None])),
            normal: normal.filter_map(|(name, node)| Some((*name, of(node, [None, default])?))).collect(),
            own: own
                .filter_map(|(name, node)| Some((*name, of(node, [self.normal.get(name.1), default])?)))
                .collect(),
        }
    }
}

/// What an entry for a command that nobody knows was likely meant to be.
fn hint(command: &str, commands: &[&str]) -> String {
    match command.split_once('.') {
        Some((NORMAL, known)) if commands.contains(&known) => {
            format!("; the normal lane's entry is `{known}`")
        }
        Some((lane, known)) if commands.contains(&known) => format!("; no lane is called `{lane}`"),
        _ => did_you_mean(command, commands.iter().copied()),
    }
}

/// The entries that are free of errors, and the commands that they may guard.
struct Resolver<'a> {
    commands: &'a [&'a str],
    default: Option<Arc<Settings>>,
    normal: BTreeMap<&'a str, Arc<Settings>>,
    own: BTreeMap<(&'a str, &'a str), Arc<Settings>>,
}

impl Resolver<'_> {
    /// The breakers of a lane, in the order of their commands.
    fn breakers(&self, lane: Option<&LaneDraft<'_>>) -> Vec<Breaker> {
        self.commands.iter().filter_map(|command| self.breaker(command, lane)).collect()
    }

    fn breaker(&self, command: &str, lane: Option<&LaneDraft<'_>>) -> Option<Breaker> {
        let normal = self.normal.get(command).or(self.default.as_ref());
        let own = lane.and_then(|lane| self.own.get(&(lane.name, command)));
        let title = in_lane(command, lane);
        let (owner, verdict) = match (own, lane.map(LaneDraft::fallback)) {
            (Some(own), _) => (title.clone(), guard(own)),
            (None, Some(Fallback::Reject)) => (title.clone(), normal.map(|_| BreakerVerdict::TurnAway)?),
            (None, Some(Fallback::Share)) => (command.to_owned(), guard(normal?)),
            (None, _) => (title.clone(), guard(normal?)),
        };
        Some(Breaker { command: command.to_owned(), title, owner, verdict })
    }
}

fn guard(settings: &Arc<Settings>) -> BreakerVerdict {
    BreakerVerdict::Guard(Arc::clone(settings))
}

/// `command`, or `<lane>.<command>`.
fn in_lane(command: &str, lane: Option<&LaneDraft<'_>>) -> String {
    lane.map_or_else(|| command.to_owned(), |lane| format!("{}.{command}", lane.name))
}
