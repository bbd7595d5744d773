//! The rules of the protocol, each of which can be left out, and how much happens in one exploration.

use std::time::Duration;

use lanekeeper_engine::units::Timestamp;
use lanekeeper_engine::window::{Algorithm, Window};

/// A moment or a span in whole ticks.
pub(crate) type Ticks = u8;

/// What a tick is to the store: long enough that no lease of a tick is too short to be granted.
const TICK: Duration = Duration::from_millis(100);

/// What every clock shows at first: late enough that one which falls back still shows a moment after the epoch.
pub(crate) const FIRST: Ticks = 2;

/// The moment so many ticks after the epoch.
pub(crate) fn moment(ticks: Ticks) -> Timestamp {
    Timestamp::default().plus(span(ticks))
}

/// So many ticks.
pub(crate) fn span(ticks: Ticks) -> Duration {
    TICK * ticks.into()
}

/// How many whole ticks a span has.
pub(crate) fn whole_ticks(span: Duration) -> Ticks {
    Ticks::try_from(span.as_millis() / TICK.as_millis()).unwrap()
}

/// What store and nodes keep to. The promise needs each of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// A token is spent only after the store has charged it.
    ChargedBeforeUse,
    /// A charge is dated at the last moment at which it may be spent.
    DatedAtItsEnd,
    /// A life counts from the moment the node asked, not from when it heard.
    LifeFromTheAsking,
    /// A life is cut by as much as the node's clock may be slower than the store's.
    LifeCutForSlowClocks,
    /// So is the time in which an answer's own token may be used.
    TimeoutCutForSlowClocks,
    /// After its life a lease is not spent.
    DeadLeasesUnspent,
    /// The store refuses what comes back after its lease's life.
    ReturnedInTime,
    /// What is given back is taken out of the ledger first.
    TakenOutBeforeReturned,
    /// A return has an id, and the store accepts an id once.
    ReturnedOnce,
    /// A token whose answer comes after the timeout is not used.
    LateAnswersUnused,
    /// An answer is heard by the question that is open, once.
    AnswersHeardOnce,
    /// What may have been charged, and was never heard of, is not given back.
    LostChargesStay,
    /// Workers take from their node's pool by compare-and-swap.
    TakenBySwap,
    /// A lease dies with its node.
    DiesWithItsNode,
    /// The time of a subject's counters never runs backwards.
    TimeNeverBackwards,
    /// Nothing is answered before the replica has it.
    AnsweredWhenReplicated,
}

/// What there is, and how much of each thing may happen. All that may happen does, in every order.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Configuration {
    /// Nodes, each with a clock and a pool of its own.
    pub(crate) nodes: usize,
    /// Workers of each node. One alone takes from the pool in one step, since nobody can come between.
    pub(crate) workers: usize,
    /// Requests that any trailing window may admit.
    pub(crate) limit: u32,
    /// The window.
    pub(crate) per: Ticks,
    /// For how long a request's own token may be used, as the node tells the store.
    pub(crate) within: Ticks,
    /// As many tokens as a node asks for.
    pub(crate) lease: u32,
    /// As many of them as a worker takes at once.
    pub(crate) chunk: u32,
    /// For how long it asks for them.
    pub(crate) life: Ticks,
    /// How long it all lasts.
    pub(crate) lasts: Ticks,
    /// Requests that come, to any worker.
    pub(crate) requests: u8,
    /// Leases that a worker asks for while its node still has one, for no request.
    pub(crate) renewals: u8,
    /// Pools that are given back.
    pub(crate) returns: u8,
    /// Messages that arrive once more.
    pub(crate) copies: u8,
    /// Ticks that one of the nodes' clocks misses. One is what lives are cut by.
    pub(crate) lags: u8,
    /// Nodes that crash and start again.
    pub(crate) crashes: u8,
    /// Times that the replica takes over.
    pub(crate) failovers: u8,
    /// Times that the store's clock falls back by a tick: set back, or another server's.
    pub(crate) setbacks: u8,
    /// Times that it leaps ahead by one.
    pub(crate) leaps: u8,
}

impl Configuration {
    /// The subject's only window.
    pub(crate) fn window(&self) -> Window {
        Window::new(self.limit, span(self.per), Algorithm::SlidingWindow).unwrap()
    }

    /// Into how many buckets it is divided: one for each tick.
    pub(crate) fn buckets(&self) -> u32 {
        self.per.into()
    }
}

/// The protocol, of which one rule may be left out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Protocol {
    /// How much happens.
    pub(crate) configuration: Configuration,
    /// The rule nobody keeps to.
    pub(crate) without: Option<Rule>,
}

impl Protocol {
    /// Whether store and nodes keep to a rule.
    pub(crate) fn keeps(&self, rule: Rule) -> bool {
        self.without != Some(rule)
    }

    /// For how long after it asked a node may use a request's own token, by the node's clock.
    pub(crate) fn usable(&self) -> Ticks {
        self.configuration.within - Ticks::from(self.keeps(Rule::TimeoutCutForSlowClocks))
    }

    /// For how long a node may spend a lease of this life, by the node's clock.
    pub(crate) fn spendable(&self, life: Ticks) -> Ticks {
        life.saturating_sub(Ticks::from(self.keeps(Rule::LifeCutForSlowClocks)))
    }
}
