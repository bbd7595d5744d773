//! One entry of `rate_limits`, with what it leaves out taken from the entry it is a version of.

use super::Cost;
use super::matches::{self, Known};
use super::read::Node;
use super::{Consume, Key, Match, OnFailure, OnMissingKey, Share, Source, keys, store, windows};
use crate::window::Window;

const FIELDS: &[&str] = &[
    "match",
    "except",
    "key_prefix",
    "keys",
    "hash_tag",
    "windows",
    "algorithm",
    "cost",
    "consume",
    "on_missing_key",
    "enforce",
    "shards",
    "on_failure",
    "timezone",
];

/// What an entry says, before it is a limit of a lane.
pub(super) struct Rule<'a> {
    /// As written, and where; nothing for the limit's name.
    pub(super) key_prefix: Option<(&'a str, Node<'a>)>,
    pub(super) matches: Match,
    pub(super) except: Option<Match>,
    pub(super) keys: Vec<Key>,
    pub(super) windows: Vec<Window>,
    pub(super) hash_tag: Option<Vec<Source>>,
    pub(super) cost: Cost,
    pub(super) shards: u16,
    pub(super) consume: Consume,
    pub(super) on_missing_key: OnMissingKey,
    pub(super) enforce: Share,
    pub(super) on_failure: OnFailure,
}

/// What entries refer to outside themselves.
pub(super) struct Surroundings<'a> {
    pub(super) commands: Known<'a>,
    /// What limits do by default while the store cannot decide.
    pub(super) on_failure: OnFailure,
}

/// Reads the entry at `node`; what it leaves out, it takes from `base`.
pub(super) fn read<'a>(
    node: &Node<'a>,
    base: Option<&Node<'a>>,
    around: &Surroundings<'_>,
) -> Option<Rule<'a>> {
    let own = node.fields(FIELDS, &[])?;
    let fields = match base {
        Some(base) => own.inherit(base),
        None => own,
    };
    let commands = &around.commands;
    let matches = fields.or("match", Match::default(), |node| matches::of_limit(&node, commands));
    let except = fields.maybe("except", |node| matches::of_limit(&node, commands));
    let key_prefix = fields.maybe("key_prefix", |node| Some((node.name()?, node)));
    let keys = fields
        .need("keys", ": what is counted; {everyone: {constant: global}} counts all requests together")
        .and_then(|node| keys::read(&node));
    let hash_tag = fields.maybe("hash_tag", |node| keys::sources(&node));

    let keeping = windows::keeping(&fields);
    let windows_at = fields.need("windows", ": how many requests in how long, as in [{limit: 100, per: 1m}]");
    let windows = windows_at.as_ref().and_then(|node| windows::read(node, &keeping));
    let charged = windows.as_deref().zip(windows_at.as_ref());
    let shards = fields.or("shards", 1, |node| windows::shards(&node, charged));
    let cost = fields.or("cost", Cost::Fixed(1), |node| windows::cost(&node, charged, shards.unwrap_or(1)));

    let consume = fields.or("consume", Consume::OnRequest, |node| {
        node.one_of(&[("on_request", Consume::OnRequest), ("on_success", Consume::OnSuccess)], &[])
    });
    let on_missing_key = fields.or("on_missing_key", OnMissingKey::Skip, |node| {
        node.one_of(&[("skip", OnMissingKey::Skip), ("reject", OnMissingKey::Reject)], &[])
    });
    let enforce = fields.or("enforce", Share::ALL, |node| node.percent());
    let on_failure = fields.or("on_failure", around.on_failure, |node| store::on_failure(&node));
    Some(Rule {
        key_prefix: key_prefix?,
        matches: matches?,
        except: except?,
        keys: keys?,
        windows: windows?,
        hash_tag: hash_tag?,
        cost: cost?,
        shards: shards?,
        consume: consume?,
        on_missing_key: on_missing_key?,
        enforce: enforce?,
        on_failure: on_failure?,
    })
}
