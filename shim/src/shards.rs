//! Hot keys, spread over several store keys.
//!
//! A key that every request meets, such as `global`, would have one server do the work of all. Spread over `n` store
//! keys, each holds its part of every window's limit, so the sum never exceeds it and no shard needs to know the
//! others. What that costs is a request that meets a full shard while another one has room: it is asked again there.
//!
//! ```text
//! check ---> a shard not known to be full --- allowed, or rejected by another key as well ---> its answer
//!               ^                  |
//!               |                  | rejected by that shard alone
//!               |                  v
//!               +-- one has room -- the shards that nothing is known of are looked at -- none has --> its answer
//! ```
//!
//! What a shard said is remembered until the moment it named, before which no more can be left: over the limit a
//! request costs one question, as it does without shards.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lanekeeper_engine::window::Window;
use lanekeeper_engine::wire::{
    Check, CheckAnswer, KeyAnswer, KeyCheck, KeyReturn, KeySpent, Recorded, Returned, StoreError,
};
use tokio::time::Instant;

use crate::store::{Answering, NotReady, Store};

mod memory;
mod spent;

use memory::Memory;

/// How often one check is asked elsewhere. Once is enough unless others take what was seen to be left.
const MOST_ROUNDS: usize = 4;

/// A store in which keys can be spread.
pub struct Sharded {
    store: Box<dyn Store>,
    /// What its shards said last. It only saves questions: no decision is made from it.
    memory: Mutex<Memory>,
    /// Counts checks, so that each begins at another shard.
    turn: AtomicUsize,
}

/// A check on its way to its answer.
struct Run<'a> {
    check: &'a Check,
    /// Which shard each key is asked at now; nothing for a key in one piece.
    shards: Vec<Option<u16>>,
    /// At which of its shards it begins.
    turn: usize,
    answer: Option<CheckAnswer>,
}

impl Sharded {
    /// A store in which keys are spread over `store`.
    pub fn new(store: impl Store) -> Self {
        Self { store: Box::new(store), memory: Mutex::default(), turn: AtomicUsize::new(0) }
    }

    async fn decide_spread(&self, checks: &[Check], spend_within: Duration) -> Vec<CheckAnswer> {
        let turn = || self.turn.fetch_add(1, Ordering::Relaxed);
        let mut runs: Vec<Run<'_>> = checks.iter().map(|check| Run::new(check, turn())).collect();
        for _ in 0..MOST_ROUNDS {
            let full = self.ask(&mut runs, spend_within).await;
            if full.is_empty() {
                break;
            }
            self.look_around(&full).await;
            let (memory, now) = (self.memory(), Instant::now());
            for run in &mut runs {
                run.reopen(&memory, now);
            }
        }
        let (memory, now) = (self.memory(), Instant::now());
        runs.into_iter().map(|run| run.end(&memory, now)).collect()
    }

    /// Asks for the checks that have no answer yet; returns the spread keys that were full where they were asked.
    async fn ask<'a>(&self, runs: &mut [Run<'a>], spend_within: Duration) -> Vec<&'a KeyCheck> {
        let now = Instant::now();
        let (mut open, asked): (Vec<&mut Run<'a>>, Vec<Check>) = {
            let memory = self.memory();
            let open = runs.iter_mut().filter(|run| run.is_open());
            open.filter_map(|run| run.ask(&memory, now).map(|check| (run, check))).unzip()
        };
        if asked.is_empty() {
            return Vec::new();
        }
        let answers = self.store.decide(&asked, spend_within).await;
        let mut memory = self.memory();
        for (run, answer) in open.iter_mut().zip(answers) {
            run.hear(answer, &mut memory, now);
        }
        open.iter().flat_map(|run| run.full_keys()).collect()
    }

    /// Looks at those shards of full keys that nothing is known of.
    async fn look_around(&self, full: &[&KeyCheck]) {
        let now = Instant::now();
        let (unknown, looks): (Vec<(&KeyCheck, u16)>, Vec<Check>) = {
            let memory = self.memory();
            let shards = full.iter().flat_map(|key| (0..key.shards).map(move |shard| (*key, shard)));
            let mut named = BTreeSet::new();
            let unknown = shards.filter(|(key, shard)| !memory.knows(key, *shard, now));
            let once = unknown.filter(|(key, shard)| named.insert((key.key.as_str(), *shard)));
            once.filter_map(|(key, shard)| {
                Some(((key, shard), Check { keys: vec![part(key, shard)?.peek()] }))
            })
            .unzip()
        };
        if looks.is_empty() {
            return;
        }
        let answers = self.store.decide(&looks, Duration::ZERO).await;
        let mut memory = self.memory();
        for ((key, shard), answer) in unknown.into_iter().zip(&answers) {
            if let CheckAnswer::Allowed { keys } | CheckAnswer::Rejected { keys } = answer {
                keys.iter().for_each(|answer| memory.learn(key, shard, &answer.windows, now));
            }
        }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for Sharded {
    fn decide<'a>(&'a self, checks: &'a [Check], spend_within: Duration) -> Answering<'a, Vec<CheckAnswer>> {
        if checks.iter().flat_map(|check| &check.keys).all(|key| key.shards == 1) {
            return self.store.decide(checks, spend_within);
        }
        Box::pin(self.decide_spread(checks, spend_within))
    }

    fn record<'a>(&'a self, reports: &'a [KeySpent]) -> Answering<'a, Vec<Recorded>> {
        if reports.iter().all(|report| report.shards == 1) {
            return self.store.record(reports);
        }
        Box::pin(async move {
            let cut: Vec<Option<Vec<KeySpent>>> = reports.iter().map(spent::parts_of_report).collect();
            let asked: Vec<KeySpent> = cut.iter().flatten().flatten().cloned().collect();
            let mut answers = self.store.record(&asked).await.into_iter();
            let answer = |parts: &Option<Vec<KeySpent>>| match parts {
                Some(parts) => spent::together(answers.by_ref().take(parts.len())),
                None => spent::UNCUT,
            };
            cut.iter().map(answer).collect()
        })
    }

    fn give_back<'a>(&'a self, returns: &'a [KeyReturn]) -> Answering<'a, Vec<Returned>> {
        Box::pin(async move {
            let of_part: Vec<Option<KeyReturn>> = returns.iter().map(part_of_return).collect();
            let asked: Vec<KeyReturn> = of_part.iter().flatten().cloned().collect();
            let mut answers = self.store.give_back(&asked).await.into_iter();
            let mut memory = self.memory();
            returns.iter().for_each(|key| memory.forget_shard(&key.key, key.shard));
            let answer = |part: &Option<KeyReturn>| part.as_ref().and_then(|_| answers.next());
            let failed = Returned::Failed(StoreError::Malformed);
            of_part.iter().map(answer).map(|answer| answer.unwrap_or(failed)).collect()
        })
    }

    fn reset<'a>(&'a self, keys: &'a [String]) -> Answering<'a, Result<(), StoreError>> {
        self.memory().forget();
        self.store.reset(keys)
    }

    fn count_nodes<'a>(&'a self, nodes: &'a [u64], life: Duration) -> Answering<'a, Result<u32, StoreError>> {
        self.store.count_nodes(nodes, life)
    }

    fn ready(&self) -> Answering<'_, Result<(), NotReady>> {
        self.store.ready()
    }

    fn is_away(&self) -> bool {
        self.store.is_away()
    }
}

impl<'a> Run<'a> {
    fn new(check: &'a Check, turn: usize) -> Self {
        Self { check, shards: vec![None; check.keys.len()], turn, answer: None }
    }

    fn is_open(&self) -> bool {
        self.answer.is_none()
    }

    /// Its check, each spread key at one of its shards; `None` when a part of a window cannot be counted, which a
    /// validated batch does not ask for.
    fn ask(&mut self, memory: &Memory, now: Instant) -> Option<Check> {
        let turn = self.turn;
        let ask = |(key, shard): (&KeyCheck, &mut Option<u16>)| {
            if key.shards == 1 {
                return Some(key.clone());
            }
            let chosen = memory.choose(key, turn, now);
            *shard = Some(chosen);
            part(key, chosen)
        };
        let keys: Option<Vec<KeyCheck>> = self.check.keys.iter().zip(&mut self.shards).map(ask).collect();
        if keys.is_none() {
            self.answer = Some(CheckAnswer::Failed { error: StoreError::Malformed });
        }
        keys.map(|keys| Check { keys })
    }

    /// Notes the answer to what it asked, and in `memory` what its shards said.
    fn hear(&mut self, answer: CheckAnswer, memory: &mut Memory, asked_at: Instant) {
        if let CheckAnswer::Allowed { keys } | CheckAnswer::Rejected { keys } = &answer {
            for ((key, shard), answer) in self.check.keys.iter().zip(&self.shards).zip(keys) {
                if let Some(shard) = shard {
                    memory.learn(key, *shard, &answer.windows, asked_at);
                }
            }
        }
        self.answer = Some(answer);
    }

    /// The spread keys that rejected it at the shards it asked, if nothing else did.
    fn full_keys(&self) -> Vec<&'a KeyCheck> {
        let Some(CheckAnswer::Rejected { keys }) = &self.answer else { return Vec::new() };
        let rejects = |answer: &KeyAnswer| answer.windows.iter().any(|window| window.wait_us > 0);
        let rejecting = || self.check.keys.iter().zip(keys).filter(|(_, answer)| rejects(answer));
        if rejecting().any(|(key, _)| key.shards == 1) {
            return Vec::new();
        }
        rejecting().map(|(key, _)| key).collect()
    }

    /// Asks again, if every key that rejected it may have room at another shard.
    fn reopen(&mut self, memory: &Memory, now: Instant) {
        let full = self.full_keys();
        if !full.is_empty() && full.iter().all(|key| memory.may_have_room(key, now)) {
            self.answer = None;
        }
    }

    /// Its answer, in which a spread key speaks for all of its shards.
    fn end(self, memory: &Memory, now: Instant) -> CheckAnswer {
        // it asked as often as one may, and others were always faster
        let mut answer = self.answer.unwrap_or(CheckAnswer::Failed { error: StoreError::Timeout });
        if let CheckAnswer::Allowed { keys } | CheckAnswer::Rejected { keys } = &mut answer {
            for ((key, shard), answer) in self.check.keys.iter().zip(&self.shards).zip(keys) {
                if let Some(shard) = shard {
                    answer.shard = *shard;
                    memory.speak_for_all(key, &mut answer.windows, now);
                }
            }
        }
        answer
    }
}

/// Each shard has a hash tag of its own, so that a cluster spreads them over its nodes.
fn store_key(key: &str, shard: u16) -> String {
    match key.find('}') {
        Some(end) => format!("{}#{shard}{}", &key[..end], &key[end..]),
        None => format!("{key}#{shard}"),
    }
}

/// Every store key that a key is spread over.
pub(crate) fn store_keys(key: &str, shards: u16) -> Vec<String> {
    match shards {
        1 => vec![key.to_owned()],
        shards => (0..shards).map(|shard| store_key(key, shard)).collect(),
    }
}

/// What is asked of one shard.
fn part(key: &KeyCheck, shard: u16) -> Option<KeyCheck> {
    let windows = parts(&key.windows, key.shards, shard)?;
    Some(KeyCheck { key: store_key(&key.key, shard), shards: 1, windows, ..key.clone() })
}

fn part_of_return(key: &KeyReturn) -> Option<KeyReturn> {
    if key.shards == 1 {
        return Some(key.clone());
    }
    let windows = parts(&key.windows, key.shards, key.shard)?;
    Some(KeyReturn { key: store_key(&key.key, key.shard), shards: 1, shard: 0, windows, ..key.clone() })
}

fn parts(windows: &[Window], shards: u16, shard: u16) -> Option<Arc<[Window]>> {
    windows.iter().map(|window| window.part(shards, shard).ok()).collect()
}
