//! One configuration of the filter, and what runs under it.

use std::collections::BTreeMap;
use std::mem;
use std::num::NonZeroU32;
use std::rc::Rc;

use lanekeeper_engine::breaker::{Breakers, Reports};
use lanekeeper_engine::ledger::{Counted, Ledger};
use lanekeeper_engine::local::LocalCounters;
use lanekeeper_engine::outage::Outage;
use lanekeeper_engine::policy::Policy;
use lanekeeper_engine::refusals::Refusals;
use lanekeeper_engine::request::{Request, Step};
use lanekeeper_engine::units::Timestamp;
use lanekeeper_engine::wire::{Check, CheckAnswer, KeyCheck};

use crate::cells::{COUNTERS, LEASES, secret_key};
use crate::host::{self, Buffer, HostError, Level};
use crate::metrics::Metrics;
use crate::stream::Stream;

mod answering;
mod breakers;
mod charges;
mod circuit;
mod leases;
mod outage;
mod store;
mod timer;

use answering::Answering;
use store::StoreLink;
use timer::Timer;

/// How the first field of a protobuf `Struct` begins. Envoy 1.40 hands one over as it is, and not as JSON.
const PROTOBUF_STRUCT: &[u8] = b"\x0a";
const NOT_A_STRUCT: &str = "if this configuration is a google.protobuf.Struct, write the policy as JSON in a google.protobuf.StringValue";

/// A root context.
pub(crate) struct Root {
    context: u32,
    /// None until it is configured.
    active: Option<Active>,
    /// The host wants it to end, and waits for its word.
    is_leaving: bool,
    turn: u64,
}

/// A root with a policy.
pub(crate) struct Active {
    /// The filter's name in the proxy, if the host tells it.
    name: Option<Vec<u8>>,
    pub(crate) policy: Rc<Policy>,
    pub(crate) metrics: Metrics,
    counters: LocalCounters,
    breakers: Breakers,
    /// What the shim was told of them.
    reports: Reports,
    /// The latest moment that the clock was read.
    last_seen: Timestamp,
    timer: Timer,
    store: Option<StoreLink>,
    /// What need not be asked, since the store has charged it in advance. None where each decision is the store's.
    ledger: Option<Ledger>,
    /// What the store refused and need not be asked again.
    refusals: Refusals,
    /// What was admitted in the store's place, and it has not been told. None where it is not to be.
    outage: Option<Outage>,
    /// How many nodes there are, as the store said last.
    nodes: NonZeroU32,
}

impl Root {
    pub(crate) fn new(context: u32) -> Self {
        Self { context, active: None, is_leaving: false, turn: 0 }
    }

    /// The policy and what runs under it; none before it is configured.
    pub(crate) fn active(&mut self) -> Option<&mut Active> {
        self.active.as_mut()
    }

    /// Reads the configuration, this VM's of this number. Nothing changes when it is refused.
    pub(crate) fn configure(&mut self, turn: u64) -> Result<(), Vec<String>> {
        let one = |problem: String| vec![problem];
        let bytes = host::buffer(Buffer::PluginConfiguration).map_err(|e| one(e.to_string()))?;
        let policy = Policy::from_json(&bytes).map_err(|errors| {
            let hint = bytes.starts_with(PROTOBUF_STRUCT).then(|| NOT_A_STRUCT.to_owned());
            errors.iter().map(ToString::to_string).chain(hint).collect::<Vec<_>>()
        })?;
        let secret = node_secret()
            .map_err(|error| one(format!("this node's workers cannot share counters: {error}")))?;
        let counters = LocalCounters::new(secret);
        let link = |store| StoreLink::new(store, counters.node());
        let store = policy.store.as_ref().map(link).transpose().map_err(one)?;
        let drift = policy.store.as_ref().and_then(|store| NonZeroU32::new(store.max_drift.millionths()));
        let cluster = policy.store.as_ref().map(|store| store.cluster.as_str());
        let subjects = counters.secret_of_store(cluster.unwrap_or_default());
        // what is charged in advance goes back under numbers that no other worker draws; without chance nothing is
        let ledger = drift.and_then(|drift| Some(Ledger::new(subjects, getrandom::u64().ok()?, drift)));
        // without chance two workers' reports would be taken for one
        let outage = policy.store.as_ref().and_then(|_| Some(Outage::new(subjects, getrandom::u64().ok()?)));
        for warning in &policy.warnings {
            host::log(Level::Warn, &format!("lanekeeper: {warning}"));
        }
        // without chance two workers have one number, and together the places of one
        let breakers = Breakers::new(secret, getrandom::u64().unwrap_or_default());
        let mut active = Active {
            name: host::property(&["plugin_name"]),
            policy: Rc::new(policy),
            metrics: Metrics::default(),
            counters,
            breakers,
            reports: Reports::default(),
            last_seen: Timestamp::default(),
            timer: Timer::default(),
            store,
            ledger,
            refusals: Refusals::new(subjects),
            outage,
            nodes: NonZeroU32::MIN,
        };
        if let Some(mut before) = self.active.take() {
            if active.cluster() == before.cluster() {
                active.follow(&mut before);
            }
            // calls that are under way have their permits from the breakers that were there before
            active.breakers = before.breakers;
        }
        self.active = Some(active);
        self.turn = turn;
        Ok(())
    }

    /// Whether `next` may be the same filter's, with a new policy: by its name in the proxy and its store.
    pub(crate) fn may_precede(&self, next: &Root) -> bool {
        let (Some(active), Some(next)) = (&self.active, &next.active) else { return false };
        active.store.is_some() && active.cluster() == next.cluster() && active.name == next.name
    }

    /// Takes over from the root that was configured before this one.
    pub(crate) fn follow(&mut self, before: &mut Root) {
        if let (Some(active), Some(before)) = (&mut self.active, &mut before.active) {
            active.follow(before);
        }
    }

    /// Which configuration of this VM it runs under, counted from 1; 0 before it is configured.
    pub(crate) fn turn(&self) -> u64 {
        self.turn
    }

    /// The timer: what the host forgot, what leases are due, and who has waited too long.
    pub(crate) fn tick(&mut self, streams: &mut BTreeMap<u32, Stream>) {
        let now = host::now();
        if let Some(active) = &mut self.active {
            let mut answering = Answering::new(self.context, streams);
            active.look_after_breakers(now);
            active.give_up(now, &mut answering);
            active.pump(now, &mut answering);
            active.rest();
            answering.end();
        }
        self.leave_if_done();
    }

    /// A callout has ended.
    pub(crate) fn call_ended(&mut self, streams: &mut BTreeMap<u32, Stream>, call: u32, has_headers: bool) {
        let now = host::now();
        if let Some(active) = &mut self.active {
            let mut answering = Answering::new(self.context, streams);
            active.call_ended(now, call, has_headers, &mut answering);
            active.pump(now, &mut answering);
            answering.end();
        }
        self.leave_if_done();
    }

    /// Its streams have ended, and nobody begins another one. `false` while charges are under way: then it says
    /// itself when they have ended. It waits for no lease: what it holds of them goes into the pool.
    pub(crate) fn done(&mut self) -> bool {
        if let Some(active) = &mut self.active {
            if let Some(ledger) = &mut active.ledger {
                ledger.retire(&LEASES, host::now());
            }
            active.retire_breakers();
            self.is_leaving = active.is_busy();
        }
        if !self.is_leaving {
            // a timer outlives its root otherwise
            let _ = host::set_tick_period(None);
        }
        !self.is_leaving
    }

    fn leave_if_done(&mut self) {
        if self.is_leaving && self.done() {
            // a host that does not wait has deleted it before
            let _ = host::done();
        }
    }
}

impl Active {
    /// Takes over what the policy before knew of the same store. Its requests that are under way go on with what is left
    /// to it: the node's pool, and answers to what it has asked. Counters and circuits are the node's anyway.
    fn follow(&mut self, before: &mut Active) {
        if let (Some(ledger), Some(held)) = (&mut self.ledger, &mut before.ledger) {
            ledger.take_over(held, Counted::by(&self.policy));
        }
        mem::swap(&mut self.refusals, &mut before.refusals);
        if let (Some(outage), Some(untold)) = (&mut self.outage, &mut before.outage) {
            outage.take_over(untold, host::now());
        }
        self.nodes = before.nodes;
        self.pace();
    }

    fn cluster(&self) -> Option<&str> {
        self.policy.store.as_ref().map(|store| store.cluster.as_str())
    }

    /// Counts a request's checks on this node.
    pub(crate) fn count(&mut self, request: &mut Request, now: Timestamp) -> Step {
        let answers = request.checks().map(|check| self.decide_here(check, now)).collect();
        request.counted(&self.policy, answers)
    }

    /// Decides by this node's counters: in the store's place against its share of the limits, and against all of
    /// them where there is no store.
    fn decide_here(&mut self, check: &Check, now: Timestamp) -> CheckAnswer {
        let answer = self.count_here(check, now);
        self.note_admitted(check, &answer, now);
        answer
    }

    /// What this node's counters say, and count.
    fn count_here(&self, check: &Check, now: Timestamp) -> CheckAnswer {
        let nodes = if self.store.is_some() { self.nodes } else { NonZeroU32::MIN };
        let last_answer = |key: &KeyCheck, since| self.ledger.as_ref()?.last_answer(&LEASES, key, since);
        self.counters.decide_after(&COUNTERS, check, nodes, now, &last_answer)
    }
}

/// The secret under which this node's subjects find their slots: drawn by the first VM, read by the others.
fn node_secret() -> Result<(u64, u64), HostError> {
    let key = secret_key();
    let (mut bytes, version) = host::shared_data(&key)?;
    if bytes.len() != 16 {
        let mut drawn = [0_u8; 16];
        // without chance the slots are known to all, which costs fairness under attack and nothing else
        let _ = getrandom::fill(&mut drawn);
        host::set_shared_data(&key, &drawn, version)?;
        (bytes, _) = host::shared_data(&key)?;
    }
    let half = |at: usize| {
        let bytes = bytes.get(at..at + 8).and_then(|half| half.try_into().ok());
        bytes.map_or(0, u64::from_le_bytes)
    };
    Ok((half(0), half(8)))
}
