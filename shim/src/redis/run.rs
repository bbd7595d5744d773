//! A check on its way through the servers, which may hold its keys in several places.
//!
//! Keys in one place are one script. Those in several cannot be, so the check goes through its places one by one:
//! what is taken in one is given back when a later one refuses. Every check goes through the places in the same
//! order, so that two checks of the same keys do not refuse each other for what neither keeps. A charge that may
//! have been made, and of which nothing was heard, is never given back: it would be, if it was not made, a token
//! too many.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use lanekeeper_engine::units::Timestamp;
use lanekeeper_engine::wire::{Check, CheckAnswer, KeyAnswer, KeyCheck, Operation, StoreError};
use redis::Value;

use super::Taken;
use super::room::Admits;
use super::script::{GIVE_BACK, GiveBack, TAKE, decode, give_back_command, take_command};
use super::servers::{Call, Servers};

/// A check, part by part.
pub(super) struct Run<'a> {
    spend_within: Duration,
    parts: Vec<Part<'a>>,
    /// The answers so far, in the order of the parts. All but the last allow.
    taken: Vec<Taken>,
    failed: Option<StoreError>,
}

/// The keys of a check that are in one place.
struct Part<'a> {
    slot: Option<u16>,
    /// Which keys of the check these are.
    places: Vec<usize>,
    check: Cow<'a, Check>,
}

impl Part<'_> {
    /// What it charged, if that is what `taken` says: costs, and what was leased beside them.
    fn charged(&self, taken: &Taken, spend_within: Duration) -> Vec<GiveBack<'_>> {
        let CheckAnswer::Allowed { keys } = &taken.answer else { return Vec::new() };
        let is_taken = |(key, _): &(&KeyCheck, &KeyAnswer)| key.operation == Operation::Take;
        let charged = self.check.keys.iter().zip(keys).filter(is_taken);
        charged
            .flat_map(|(key, answer)| {
                let cost = (answer.granted, spend_within);
                let lease = answer.lease.map(|lease| (lease.tokens, lease.life()));
                let charges = [Some(cost).filter(|(tokens, _)| *tokens > 0), lease].into_iter().flatten();
                charges.map(|(tokens, lasts)| GiveBack {
                    key: &key.key,
                    windows: &key.windows,
                    tokens,
                    dated: Timestamp::from_micros(answer.at_us).plus(lasts),
                    id: None,
                })
            })
            .collect()
    }
}

impl<'a> Run<'a> {
    pub(super) fn new(check: &'a Check, spend_within: Duration, servers: &Servers) -> Self {
        Self { spend_within, parts: parts(check, servers), taken: Vec::new(), failed: None }
    }

    /// What it asks next; none when it is decided.
    pub(super) fn next(&self, servers: &Servers) -> Option<Call> {
        if self.failed.is_some() || self.is_rejected() {
            return None;
        }
        let part = self.parts.get(self.taken.len())?;
        let admits = servers.admits(part.slot);
        let command = take_command(&part.check, self.spend_within, admits);
        Some(Call { slot: part.slot, script: &TAKE, command })
    }

    /// The answer to what [`next`](Self::next) asked.
    pub(super) fn hear(&mut self, answer: Result<Value, StoreError>) {
        let Some(part) = self.parts.get(self.taken.len()) else { return };
        match answer.and_then(|answer| decode(&part.check, answer)) {
            Ok(taken) => self.taken.push(taken),
            Err(error) => self.failed = Some(error),
        }
    }

    /// What gives back the parts that were charged, when not all of them were. Once it is decided.
    pub(super) fn give_back(&self) -> Vec<Call> {
        if !(self.is_rejected() || self.failed.is_some()) {
            return Vec::new();
        }
        let give_back = |(part, taken): (&Part<'_>, &Taken)| {
            let returns = part.charged(taken, self.spend_within);
            let command = || give_back_command(&returns);
            (!returns.is_empty()).then(|| Call { slot: part.slot, script: &GIVE_BACK, command: command() })
        };
        self.parts.iter().zip(&self.taken).filter_map(give_back).collect()
    }

    /// What asks the parts that did not reject for their numbers, once what was charged is given back.
    pub(super) fn look(&self) -> Vec<Call> {
        if !self.is_rejected() {
            return Vec::new();
        }
        let look = |part: &Part<'_>| {
            let keys = part.check.keys.iter().cloned().map(KeyCheck::peek).collect();
            let check = Check { keys };
            let command = take_command(&check, self.spend_within, Admits::All);
            Call { slot: part.slot, script: &TAKE, command }
        };
        self.others().map(|(_, part)| look(part)).collect()
    }

    /// The decision, with the answers to what [`look`](Self::look) asked.
    pub(super) fn end(
        self,
        looks: &mut dyn Iterator<Item = Result<Value, StoreError>>,
    ) -> Result<Taken, StoreError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let is_rejected = self.is_rejected();
        let at = self.taken.last().ok_or(StoreError::Malformed)?.at;
        let mut answers: Vec<Option<CheckAnswer>> = vec![None; self.parts.len()];
        for (slot, taken) in answers.iter_mut().zip(&self.taken) {
            *slot = Some(taken.answer.clone());
        }
        if is_rejected {
            // All of them, before any is looked at: the next check's follow.
            let looked: Vec<_> = self.others().zip(looks).collect();
            for ((at, part), answer) in looked {
                if let Some(slot) = answers.get_mut(at) {
                    *slot = Some(decode(&part.check, answer?)?.answer);
                }
            }
        }
        let mut keys: BTreeMap<usize, KeyAnswer> = BTreeMap::new();
        for (part, answer) in self.parts.iter().zip(answers) {
            keys.extend(part.places.iter().copied().zip(key_answers(answer.ok_or(StoreError::Malformed)?)));
        }
        let mut keys: Vec<KeyAnswer> = keys.into_values().collect();
        if is_rejected {
            // a look says what would be granted
            keys.iter_mut().for_each(|key| key.granted = 0);
        }
        let answer = if is_rejected { CheckAnswer::Rejected { keys } } else { CheckAnswer::Allowed { keys } };
        Ok(Taken { at, answer })
    }

    fn is_rejected(&self) -> bool {
        self.taken.last().is_some_and(|taken| !is_allowed(taken))
    }

    /// The parts but the one that rejected, which is the last that was heard of.
    fn others(&self) -> impl Iterator<Item = (usize, &Part<'a>)> {
        self.parts.iter().enumerate().filter(|(at, _)| at + 1 != self.taken.len())
    }
}

/// The parts of a check, in the order of their slots.
fn parts<'a>(check: &'a Check, servers: &Servers) -> Vec<Part<'a>> {
    let mut by_slot: BTreeMap<Option<u16>, Vec<usize>> = BTreeMap::new();
    for (at, key) in check.keys.iter().enumerate() {
        by_slot.entry(servers.slot(&key.key)).or_default().push(at);
    }
    let is_whole = by_slot.len() == 1;
    let part = |(slot, places): (Option<u16>, Vec<usize>)| {
        let keys = || places.iter().filter_map(|at| check.keys.get(*at)).cloned().collect();
        let check = if is_whole { Cow::Borrowed(check) } else { Cow::Owned(Check { keys: keys() }) };
        Part { slot, places, check }
    };
    by_slot.into_iter().map(part).collect()
}

fn is_allowed(taken: &Taken) -> bool {
    matches!(taken.answer, CheckAnswer::Allowed { .. })
}

fn key_answers(answer: CheckAnswer) -> Vec<KeyAnswer> {
    match answer {
        CheckAnswer::Allowed { keys } | CheckAnswer::Rejected { keys } => keys,
        CheckAnswer::Failed { .. } => Vec::new(),
    }
}
