//! One configuration of the filter, and the way from its streams to the store.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::rc::Rc;
use std::time::Duration;

use lanekeeper_engine::batch::{Batches, Call, Load, MAX_STREAMS, Waiter};
use lanekeeper_engine::circuit::Circuit;
use lanekeeper_engine::local::LocalCounters;
use lanekeeper_engine::policy::{Policy, Store};
use lanekeeper_engine::refusals::Refusals;
use lanekeeper_engine::request::{Judge, Request, Step};
use lanekeeper_engine::units::Timestamp;
use lanekeeper_engine::wire::{Check, CheckAnswer};

use crate::asking::{self, Asking};
use crate::cells::{SharedCells, shared_key};
use crate::host::{self, Buffer, HostError};
use crate::metrics::{CallEnd, Metrics};
use crate::stream::Stream;

mod charges;

/// While streams wait and no callout will call back, the timer does, this often.
const HASTE: Duration = Duration::from_millis(1);

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
}

/// A root with a policy.
pub(crate) struct Active {
    pub(crate) policy: Rc<Policy>,
    pub(crate) metrics: Metrics,
    counters: LocalCounters,
    store: Option<StoreLink>,
    /// What the store refused and need not be asked again.
    refusals: Refusals,
    /// How many nodes there are, as the store said last.
    nodes: NonZeroU32,
}

struct StoreLink {
    asking: Asking,
    circuit: Circuit,
    batches: Batches,
    tick: Duration,
    /// The period that the host's timer has now.
    timer: Option<Duration>,
}

/// What the store said to a stream.
enum Heard {
    Answers(Vec<CheckAnswer>),
    Nothing,
}

impl Root {
    pub(crate) fn new(context: u32) -> Self {
        Self { context, active: None, is_leaving: false }
    }

    /// The policy and what runs under it; none before it is configured.
    pub(crate) fn active(&mut self) -> Option<&mut Active> {
        self.active.as_mut()
    }

    /// Reads the configuration. Nothing changes when it is refused.
    pub(crate) fn configure(&mut self) -> Result<(), Vec<String>> {
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
        let active = Active {
            policy: Rc::new(policy),
            metrics: Metrics::default(),
            counters,
            store,
            refusals: Refusals::new(secret),
            nodes: NonZeroU32::MIN,
        };
        self.active = Some(active);
        Ok(())
    }

    /// The timer: what the host forgot, and who has waited too long.
    pub(crate) fn tick(&mut self, streams: &mut BTreeMap<u32, Stream>) {
        let now = host::now();
        if let Some(active) = &mut self.active {
            let mut answering = Answering { context: self.context, streams, budget: MAX_STREAMS };
            active.give_up_lost(now, &mut answering);
            active.pump(now, &mut answering);
            active.rest();
            answering.end();
        }
        self.leave_if_done();
    }

    /// Its streams have ended, and nobody begins another one. `false` while charges are under way: then it says
    /// itself when they have ended.
    pub(crate) fn done(&mut self) -> bool {
        self.is_leaving = self.active.as_ref().is_some_and(Active::is_busy);
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

    /// A callout has ended.
    pub(crate) fn call_ended(&mut self, streams: &mut BTreeMap<u32, Stream>, call: u32, has_headers: bool) {
        let now = host::now();
        if let Some(active) = &mut self.active {
            let mut answering = Answering { context: self.context, streams, budget: MAX_STREAMS };
            active.call_ended(now, call, has_headers, &mut answering);
            active.pump(now, &mut answering);
            answering.end();
        }
        self.leave_if_done();
    }
}

/// The streams, from within a callback of the root: only here may one stream's answer be given while another's
/// callback is not running, and only so many in one callback.
struct Answering<'a> {
    context: u32,
    streams: &'a mut BTreeMap<u32, Stream>,
    budget: usize,
}

impl Answering<'_> {
    fn tell(&mut self, active: &mut Active, id: u32, heard: Heard, now: Timestamp) {
        self.budget = self.budget.saturating_sub(1);
        if let Some(stream) = self.streams.get_mut(&id) {
            let policy = Rc::clone(&active.policy);
            let hear = |request: &mut Request| match heard {
                Heard::Answers(answers) => request.answered(&policy, Judge::Store, answers),
                Heard::Nothing => request.store_failed(&policy),
            };
            stream.hear(id, active, hear, now);
        }
    }

    fn end(self) {
        // the host resets it by itself when the callback returns; a refusal changes nothing
        let _ = host::set_effective_context(self.context);
    }
}

impl Active {
    /// What need not be asked again.
    pub(crate) fn recall(&self, request: &mut Request, now: Timestamp) -> Option<Step> {
        request.recall(&self.policy, &self.refusals, now)
    }

    /// Brings a question on its way. `false` when the store is not asked.
    pub(crate) fn ask(&mut self, stream: u32, request: &Request, now: Timestamp) -> bool {
        let Some(store) = &mut self.store else { return false };
        if !store.circuit.lets_through(now) {
            return false;
        }
        store.pace();
        let waiter = Waiter { stream, checks: request.checks().cloned().collect(), since: now };
        if !store.batches.has_room() {
            store.batches.wait(waiter);
            return true;
        }
        let load = store.batches.with(waiter);
        self.send(load, now).is_ok()
    }

    /// Sends one callout. When the host will not, its streams come back.
    fn send(&mut self, load: Load, now: Timestamp) -> Result<(), Vec<Waiter>> {
        let Some(store) = &mut self.store else { return Err(load.streams) };
        let call = load.into_call(store.asking.node, store.asking.timeout, now);
        if let Ok(number) = store.asking.send(&call) {
            store.batches.sent(number, call);
            return Ok(());
        }
        store.circuit.failed(now);
        let unsent = call.into_load();
        self.metrics.call(CallEnd::NotSent);
        for charge in unsent.charges {
            self.charge_elsewhere(charge.account, &charge.check, now);
        }
        Err(unsent.streams)
    }

    /// Whether anything is under way to the store, or waits to be.
    fn is_busy(&self) -> bool {
        self.store.as_ref().is_some_and(|store| !store.batches.is_idle())
    }

    /// Stops the timer when it has nothing left to watch over. Only the timer itself does, so that a busy root
    /// does not set it anew with every callout.
    fn rest(&mut self) {
        if let Some(store) = self.store.as_mut().filter(|store| store.batches.is_idle()) {
            store.set_timer(None);
        }
    }

    /// Counts a request's checks on this node.
    pub(crate) fn count(&mut self, request: &mut Request, now: Timestamp) -> Step {
        let answers = request.checks().map(|check| self.decide_here(check, now)).collect();
        request.answered(&self.policy, Judge::Local, answers)
    }

    /// Decides by this node's counters: in the store's place against its share of the limits, and against all of
    /// them where there is no store.
    fn decide_here(&self, check: &Check, now: Timestamp) -> CheckAnswer {
        let nodes = if self.store.is_some() { self.nodes } else { NonZeroU32::MIN };
        self.counters.decide(&SharedCells, check, nodes, now)
    }

    fn call_ended(&mut self, now: Timestamp, call: u32, has_headers: bool, answering: &mut Answering<'_>) {
        // a callout given up before its end is nobody's any more
        let Some(store) = &mut self.store else { return };
        let Some(call) = store.batches.end(call) else { return };
        let age = now.since(call.asked_at());
        let is_late = age > store.asking.timeout;
        let heard = asking::read(&call, has_headers);
        if let Ok(heard) = &heard {
            for (check, answer) in call.checks().iter().zip(heard.answers()) {
                self.refusals.remember(check, answer, call.asked_at());
            }
            self.nodes = heard.nodes.unwrap_or(self.nodes);
        }
        match heard {
            Ok(heard) if !is_late => {
                store.circuit.answered(now, age);
                self.metrics.call(CallEnd::Answered);
                for (stream, answers) in heard.streams {
                    answering.tell(self, stream, Heard::Answers(answers), now);
                }
                self.settle(call, heard.charges, now);
            }
            // what was granted may not be spent any more; what was charged is charged
            Ok(heard) => self.call_failed(now, call, CallEnd::Late, heard.charges, answering),
            Err(end) => self.call_failed(now, call, end, Vec::new(), answering),
        }
    }

    /// A callout has no answer that its streams can use. `charged` is what it said of its charges, if anything.
    fn call_failed(
        &mut self,
        now: Timestamp,
        call: Call,
        end: CallEnd,
        charged: Vec<CheckAnswer>,
        answering: &mut Answering<'_>,
    ) {
        if let Some(store) = &mut self.store {
            store.circuit.failed(now);
        }
        self.metrics.call(end);
        for stream in call.streams() {
            answering.tell(self, stream, Heard::Nothing, now);
        }
        self.settle(call, charged, now);
    }

    /// Gives up one callout that the host should have ended long ago; the next tick gives up the next.
    fn give_up_lost(&mut self, now: Timestamp, answering: &mut Answering<'_>) {
        let Some(store) = &mut self.store else { return };
        let patience = store.asking.timeout + store.tick;
        let lost = store.batches.lost_before(before(now, patience));
        if let Some(call) = lost {
            self.call_failed(now, call, CallEnd::TimedOut, Vec::new(), answering);
        }
    }

    /// Lets go of streams that the store will not be asked for. `false` when this callback may answer no more of
    /// them: the others wait for the next.
    fn let_go(&mut self, unsent: Vec<Waiter>, now: Timestamp, answering: &mut Answering<'_>) -> bool {
        let mut unsent = unsent.into_iter();
        for waiter in unsent.by_ref().take(answering.budget) {
            answering.tell(self, waiter.stream, Heard::Nothing, now);
        }
        let left: Vec<Waiter> = unsent.collect();
        let all = left.is_empty();
        if let Some(store) = &mut self.store {
            left.into_iter().rev().for_each(|waiter| store.batches.wait_on(waiter));
        }
        all
    }

    /// Sends what waits, and lets go of whoever has waited too long.
    fn pump(&mut self, now: Timestamp, answering: &mut Answering<'_>) {
        while let Some(store) = &mut self.store {
            let late =
                store.batches.waiting_since_before(before(now, store.asking.timeout), answering.budget);
            if late.is_empty() {
                break;
            }
            for waiter in late {
                answering.tell(self, waiter.stream, Heard::Nothing, now);
            }
        }
        while let Some(store) = self.store.as_mut().filter(|store| store.batches.has_room()) {
            let Some(load) = store.batches.next(|waiter| answering.streams.contains_key(&waiter.stream))
            else {
                break;
            };
            if let Err(unsent) = self.send(load, now)
                && !self.let_go(unsent, now, answering)
            {
                break;
            }
        }
        if let Some(store) = &mut self.store {
            store.pace();
        }
    }
}

impl StoreLink {
    fn new(store: &Store, node: u64) -> Result<Self, String> {
        let token = store.token_env.as_ref().map(|name| {
            let token = host::environment(name).filter(|token| !token.is_empty());
            token.ok_or_else(|| {
                format!("store.token_env: {name} is not set; list it in vm_config.environment_variables")
            })
        });
        let authorization = token.transpose()?.map(|token| format!("Bearer {token}"));
        Ok(Self {
            asking: Asking { cluster: store.cluster.clone(), timeout: store.timeout, authorization, node },
            circuit: Circuit::new(store.circuit),
            batches: Batches::default(),
            tick: store.timeout.clamp(Duration::from_millis(10), Duration::from_millis(100)),
            timer: None,
        })
    }

    /// Lets the timer watch over what is under way: hastily while streams wait and no callout will call back.
    fn pace(&mut self) {
        self.set_timer(Some(if self.batches.is_stuck() { HASTE } else { self.tick }));
    }

    fn set_timer(&mut self, period: Option<Duration>) {
        if period != self.timer && host::set_tick_period(period).is_ok() {
            self.timer = period;
        }
    }
}

/// The secret under which this node's subjects find their slots: drawn by the first VM, read by the others.
fn node_secret() -> Result<(u64, u64), HostError> {
    let key = shared_key("secret", 0);
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

fn before(now: Timestamp, span: Duration) -> Timestamp {
    Timestamp::from_micros(now.as_micros().saturating_sub(lanekeeper_engine::units::micros(span)))
}
