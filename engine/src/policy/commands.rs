//! The commands: business names for what is called.

use super::read::Node;
use super::{Command, matches};

/// The most entries. Each request is held against them in turn.
const MAX_COMMANDS: usize = 1000;

const FIELDS: &[&str] = &["command", "match"];

/// Reads `commands`. A name may stand there more than once, for requests that come in several forms.
pub(super) fn read(node: &Node<'_>) -> Option<Vec<Command>> {
    node.list_of(MAX_COMMANDS, read_command)
}

fn read_command(node: &Node<'_>) -> Option<Command> {
    let fields = node.fields(FIELDS, &[])?;
    let name = fields.need("command", ": the name").and_then(|node| node.command_name());
    let matches = fields.need("match", ": the requests it names").and_then(|node| matches::of_command(&node));
    Some(Command { name: name?.to_owned(), matches: matches? })
}

/// Every name that stands in `commands`, each once, also of entries that are wrong in another way.
pub(super) fn names<'a>(node: Option<&Node<'a>>) -> Vec<&'a str> {
    let items = node.and_then(|node| node.value().as_array()).into_iter().flatten();
    let mut names: Vec<&str> = items.filter_map(|item| item.get("command")?.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// The places of the names in `commands`.
pub(super) fn places<'a>(node: Option<&Node<'a>>) -> Vec<Node<'a>> {
    let items = node.and_then(|node| node.list(MAX_COMMANDS)).into_iter().flatten();
    items.filter_map(|item| item.fields(FIELDS, &[])?.get("command")).collect()
}
