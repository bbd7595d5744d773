//! Which requests: the conditions of commands and limits.

use regex_lite::{Regex, RegexBuilder};

use super::read::{Fields, Node};
use super::words::{did_you_mean, listed};
use super::{HeaderMatch, HeaderTest, Match, StringMatch};

/// The most items of one list in a condition.
const MAX_ITEMS: usize = 256;
/// The most memory that one expression may take, in bytes: policies hold many, and every worker holds a policy.
const MAX_REGEX: usize = 64 * 1024;

/// The names that `match.command` may say.
pub(super) struct Known<'a>(pub(super) Vec<&'a str>);

/// Reads the condition of a command.
pub(super) fn of_command(node: &Node<'_>) -> Option<Match> {
    let fields = node.fields(&["grpc", "path", "methods", "headers"], &[])?;
    let mut matches = shared_parts(&fields);
    if let Some(grpc) = fields.get("grpc") {
        for name in ["path", "methods"] {
            if let Some(field) = fields.get(name) {
                field.note("must be left out: `grpc` says the path and the method");
                matches = None;
            }
        }
        let path = grpc_path(&grpc);
        let matches = matches.as_mut()?;
        matches.path = Some(StringMatch::Exact(path?));
        matches.methods = vec!["POST".to_owned()];
    }
    something(&fields)?;
    matches
}

/// Reads the condition of a limit.
pub(super) fn of_limit(node: &Node<'_>, known: &Known<'_>) -> Option<Match> {
    let fields = node.fields(&["command", "methods", "path", "headers"], &[])?;
    let commands =
        fields.or("command", Vec::new(), |node| node.list_of(MAX_ITEMS, |name| known_command(name, known)));
    let matches = shared_parts(&fields);
    something(&fields)?;
    Some(Match { commands: commands?, ..matches? })
}

fn something(fields: &Fields<'_>) -> Option<()> {
    let empty = fields.node().value().as_object().is_none_or(serde_json::Map::is_empty);
    fields.node().demand(!empty, "must not be empty: say which requests, or leave it out")
}

fn shared_parts(fields: &Fields<'_>) -> Option<Match> {
    let methods = fields.or("methods", Vec::new(), |node| node.list_of(MAX_ITEMS, Node::method));
    let path = fields.maybe("path", |node| read_path(&node));
    let headers = fields.or("headers", Vec::new(), |node| {
        let items = node.list(MAX_ITEMS)?;
        items.iter().map(read_header).collect::<Vec<_>>().into_iter().collect()
    });
    Some(Match { commands: Vec::new(), methods: methods?, path: path?, headers: headers? })
}

fn known_command(node: &Node<'_>, known: &Known<'_>) -> Option<String> {
    let name = node.text()?;
    if known.0.contains(&name) {
        return Some(name.to_owned());
    }
    if known.0.is_empty() {
        return node.refuse("is not a known command: `commands` names none");
    }
    let hint = did_you_mean(name, known.0.iter().copied());
    node.refuse(format_args!("is not a known command; `commands` names {}{hint}", listed(&known.0)))
}

/// `package.Service/Method`, as the path that gRPC makes of it.
fn grpc_path(node: &Node<'_>) -> Option<String> {
    let name = node.text()?;
    let identifier = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
            && !part.starts_with(|first: char| first.is_ascii_digit())
    };
    let good = name
        .split_once('/')
        .is_some_and(|(service, method)| service.split('.').all(identifier) && identifier(method));
    node.demand(good, "must be package.Service/Method")?;
    Some(format!("/{name}"))
}

fn read_path(node: &Node<'_>) -> Option<StringMatch> {
    let fields = node.fields(&["exact", "prefix", "suffix", "regex"], &["template"])?;
    let (kind, value) = fields.only_one(&["exact", "prefix", "suffix", "regex"])?;
    if matches!(kind, "exact" | "prefix") {
        let path = value.text()?;
        value.demand(path.starts_with('/'), "must begin with /, as every path does")?;
    }
    if kind != "regex" {
        let path = value.text()?;
        value.demand(!path.contains(['?', '#']), "must not hold ? or #: the path ends before its query")?;
    }
    string_match(kind, &value)
}

fn read_header(node: &Node<'_>) -> Option<HeaderMatch> {
    let fields = node.fields(&["name", "exact", "prefix", "suffix", "regex", "present"], &[])?;
    let name = fields.need("name", ": the header's name").and_then(|node| node.header_name());
    let (kind, value) = fields.only_one(&["exact", "prefix", "suffix", "regex", "present"])?;
    let value = match kind {
        "present" => value.truth().map(HeaderTest::Present),
        _ => string_match(kind, &value).map(HeaderTest::Value),
    };
    Some(HeaderMatch { name: name?, value: value? })
}

fn string_match(kind: &str, value: &Node<'_>) -> Option<StringMatch> {
    match kind {
        "exact" => value.text().map(|text| StringMatch::Exact(text.to_owned())),
        "prefix" => value.text().map(|text| StringMatch::Prefix(text.to_owned())),
        "suffix" => value.text().map(|text| StringMatch::Suffix(text.to_owned())),
        _ => regex(value).map(StringMatch::Regex),
    }
}

fn regex(node: &Node<'_>) -> Option<Regex> {
    let text = node.text()?;
    let compile = |text: &str| RegexBuilder::new(text).size_limit(MAX_REGEX).build();
    // By itself first: `a)|(b` would only become an expression through the anchors' parentheses.
    compile(text)
        .and_then(|_| compile(&format!("^(?:{text})$")))
        .map_or_else(|error| node.refuse(format_args!("must be a regular expression: {error}")), Some)
}
