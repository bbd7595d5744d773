//! A node: a clock, a pool that its workers share, and what each worker is at.

use lanekeeper_engine::units::Timestamp;

use crate::message::Leased;
use crate::protocol::{Protocol, Rule, Ticks};

/// Tokens in one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Lease {
    pub(crate) tokens: u32,
    /// When its charge is dated, by the store's clock.
    pub(crate) dated: Timestamp,
    /// The last moment to spend it, by the node's clock.
    until: Ticks,
}

impl Lease {
    fn lives(&self, protocol: &Protocol, clock: Ticks) -> bool {
        clock <= self.until || !protocol.keeps(Rule::DeadLeasesUnspent)
    }

    /// Takes as many tokens out as there are, up to `most`; none stay behind as a lease.
    fn split(from: &mut Option<Self>, most: u32) -> Option<Self> {
        let lease = (*from)?;
        let taken = Self { tokens: lease.tokens.min(most), ..lease };
        let left = Self { tokens: lease.tokens - taken.tokens, ..lease };
        *from = Some(left).filter(|left| left.tokens > 0);
        Some(taken)
    }
}

/// A question that waits for its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Question {
    id: u8,
    /// When it was asked, by the node's clock.
    pub(crate) asked: Ticks,
    /// Requests that wait for it: one, or none for a renewal.
    pub(crate) cost: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Worker {
    pub(crate) question: Option<Question>,
    /// The pool as the worker saw it, which it is about to take from.
    pub(crate) looked: Option<Lease>,
    /// Its own tokens.
    pub(crate) chunk: Option<Lease>,
    /// Questions so far: their ids.
    questions: u8,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Node {
    pub(crate) pool: Option<Lease>,
    pub(crate) workers: Vec<Worker>,
    pub(crate) restarts: u8,
    /// Ticks that its clock missed.
    missed: Ticks,
    /// Returns so far: their ids.
    returns: u64,
    /// What a node that does not forget finds again when it restarts.
    on_disk: Option<Lease>,
}

impl Node {
    /// The node at `place`, whose returns have ids of their own.
    pub(crate) fn new(place: u64, workers: usize) -> Self {
        Self { workers: vec![Worker::default(); workers], returns: place << 8, ..Self::default() }
    }

    /// What its monotonic clock shows, which never runs faster than time here: that would only end lives sooner.
    fn clock(&self, now: Ticks) -> Ticks {
        now - self.missed
    }

    /// Its clock does not show this tick.
    pub(crate) fn miss_a_tick(&mut self) {
        self.missed += 1;
    }

    /// A worker asks for `cost` requests; returns the question's id.
    pub(crate) fn ask(&mut self, worker: usize, cost: u32, now: Ticks) -> u8 {
        let asked = self.clock(now);
        let worker = &mut self.workers[worker];
        worker.questions += 1;
        worker.question = Some(Question { id: worker.questions, asked, cost });
        worker.questions
    }

    /// Spends a token of a worker's chunk, if there is one that lives.
    pub(crate) fn spend(&mut self, protocol: &Protocol, worker: usize, now: Ticks) -> bool {
        let clock = self.clock(now);
        let chunk = &mut self.workers[worker].chunk;
        chunk.is_some_and(|chunk| chunk.lives(protocol, clock)) && Lease::split(chunk, 1).is_some()
    }

    /// A worker takes a chunk out of the pool and spends a token of it.
    pub(crate) fn take(&mut self, protocol: &Protocol, worker: usize, now: Ticks) -> bool {
        self.workers[worker].chunk = Lease::split(&mut self.pool, protocol.configuration.chunk);
        self.spend(protocol, worker, now)
    }

    /// The same from the pool as the worker saw it, which takes nothing if the pool has changed since.
    pub(crate) fn swap(&mut self, protocol: &Protocol, worker: usize, now: Ticks) -> bool {
        let looked = self.workers[worker].looked.take();
        if self.pool != looked && protocol.keeps(Rule::TakenBySwap) {
            return false;
        }
        self.pool = looked;
        self.take(protocol, worker, now)
    }

    /// Hears an answer, if its question is open; returns how many requests it admits. A newer lease takes the
    /// place of an older one, whose tokens are lost.
    pub(crate) fn hear(
        &mut self,
        protocol: &Protocol,
        worker: usize,
        id: u8,
        (allowed, leased): (bool, Option<Leased>),
        now: Ticks,
    ) -> u32 {
        let clock = self.clock(now);
        let open = &mut self.workers[worker].question;
        let Some(question) = open.filter(|question| question.id == id) else { return 0 };
        if protocol.keeps(Rule::AnswersHeardOnce) {
            *open = None;
        }
        if !allowed {
            return 0;
        }
        let counted_from = if protocol.keeps(Rule::LifeFromTheAsking) { question.asked } else { clock };
        let lease = leased.map(|Leased { tokens, life, dated }| Lease {
            tokens,
            dated,
            until: counted_from + protocol.spendable(life),
        });
        if lease.is_some_and(|lease| lease.lives(protocol, clock)) {
            self.pool = lease;
            if !protocol.keeps(Rule::DiesWithItsNode) {
                self.on_disk = lease;
            }
        }
        let in_time = clock <= question.asked + protocol.usable();
        if in_time || !protocol.keeps(Rule::LateAnswersUnused) { question.cost } else { 0 }
    }

    /// Takes all tokens out of the pool to give them back, under an id.
    pub(crate) fn take_out(&mut self, protocol: &Protocol) -> Option<(u64, Lease)> {
        let lease = self.pool?;
        if protocol.keeps(Rule::TakenOutBeforeReturned) {
            self.pool = None;
        }
        Some((self.next_return(), lease))
    }

    /// The id of the next return.
    pub(crate) fn next_return(&mut self) -> u64 {
        self.returns += 1;
        self.returns
    }

    /// Forgets all but which ids it has used, which are never used again.
    pub(crate) fn crash(&mut self) {
        self.pool = self.on_disk;
        self.restarts += 1;
        for worker in &mut self.workers {
            *worker = Worker { questions: worker.questions, ..Worker::default() };
        }
    }

    /// Lets go of leases that are dead, and of questions whose answers are of no use any more; returns those.
    pub(crate) fn let_go(&mut self, protocol: &Protocol, now: Ticks) -> Vec<Question> {
        let clock = self.clock(now);
        let chunks = self.workers.iter_mut().map(|worker| &mut worker.chunk);
        for tokens in chunks.chain([&mut self.pool]) {
            tokens.take_if(|lease| !lease.lives(protocol, clock));
        }
        let waits_for = match protocol.without {
            Some(Rule::LateAnswersUnused | Rule::LifeFromTheAsking) => return Vec::new(),
            Some(Rule::LostChargesStay) => protocol.usable(),
            _ => protocol.usable().max(protocol.spendable(protocol.configuration.life)),
        };
        let is_over = |question: &mut Question| question.asked + waits_for < clock;
        self.workers.iter_mut().filter_map(|worker| worker.question.take_if(is_over)).collect()
    }

    pub(crate) fn waits_for(&self, worker: usize, id: u8) -> bool {
        self.workers[worker].question.is_some_and(|question| question.id == id)
    }
}
