//! A check as a request asks it: what the store gets to see, and which limit each key came from.

use crate::answer::ShownWindow;
use crate::policy::{Consume, Count};
use crate::wire::{Check, KeyAnswer, KeyCheck, Operation, WindowAnswer};

/// A check and where its keys come from.
#[derive(Clone, Debug)]
pub(super) struct Question {
    pub(super) check: Check,
    /// For each key of the check: the limit, as an index into the lane's, and the key, into the limit's.
    pub(super) origins: Vec<(usize, usize)>,
    pub(super) dry_run: bool,
}

impl Question {
    pub(super) fn empty(dry_run: bool) -> Self {
        Self { check: Check { keys: Vec::new() }, origins: Vec::new(), dry_run }
    }

    pub(super) fn add(&mut self, limit: usize, count: &Count, keys: Vec<(usize, String)>, cost: u32) {
        let operation = match count.consume {
            Consume::OnRequest => Operation::Take,
            Consume::OnSuccess => Operation::Peek,
        };
        for (index, key) in keys {
            let check = KeyCheck::take(key, cost, count.windows.clone());
            self.check.keys.push(KeyCheck { operation, shards: count.shards, ..check });
            self.origins.push((limit, index));
        }
    }

    /// The limits it asks about, each once.
    pub(super) fn limits(&self) -> impl Iterator<Item = usize> + '_ {
        let mut last = None;
        // the keys of one limit stand together
        self.origins
            .iter()
            .filter_map(move |(limit, _)| (last.replace(*limit) != Some(*limit)).then_some(*limit))
    }

    /// Whether a key is only looked at.
    pub(super) fn leaves_something_owed(&self) -> bool {
        self.check.keys.iter().any(|key| key.operation == Operation::Peek)
    }

    /// The keys that were only looked at, to be taken, each with its limit.
    pub(super) fn into_owed(self) -> impl Iterator<Item = (usize, KeyCheck)> {
        let keys = self.origins.into_iter().zip(self.check.keys);
        keys.filter(|(_, key)| key.operation == Operation::Peek)
            .map(|((limit, _), key)| (limit, KeyCheck { operation: Operation::Take, ..key }))
    }

    /// Two questions: about the limits that `keep` names, and about the others.
    pub(super) fn split(self, keep: impl Fn(usize) -> bool) -> (Self, Self) {
        let (mut kept, mut others) = (Self::empty(self.dry_run), Self::empty(self.dry_run));
        for (key, origin) in self.check.keys.into_iter().zip(self.origins) {
            let side = if keep(origin.0) { &mut kept } else { &mut others };
            side.check.keys.push(key);
            side.origins.push(origin);
        }
        (kept, others)
    }

    /// The windows it asks about, with what `keys` says of each.
    pub(super) fn windows(&self, keys: &[KeyAnswer]) -> Vec<ShownWindow> {
        let mut shown = Vec::with_capacity(keys.iter().map(|key| key.windows.len()).sum());
        for ((limit, at), key) in self.origins.iter().zip(keys) {
            // what was charged in advance is still to be spent
            let leased = key.lease.map_or(0, |lease| lease.tokens);
            for (window, answer) in key.windows.iter().enumerate() {
                let answer = WindowAnswer { remaining: answer.remaining.saturating_add(leased), ..*answer };
                shown.push(ShownWindow::new(*limit, *at, window, answer.into()));
            }
        }
        shown
    }
}
