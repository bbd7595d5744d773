//! The way from the streams to the store.

use std::time::Duration;

use lanekeeper_engine::batch::{Batches, Call, Followers, Load, Waiter};
use lanekeeper_engine::circuit::{Circuit, Phase};
use lanekeeper_engine::lease;
use lanekeeper_engine::ledger::LOOK_EVERY;
use lanekeeper_engine::policy::Store;
use lanekeeper_engine::request::Request;
use lanekeeper_engine::units::{Timestamp, micros};
use lanekeeper_engine::wire::CheckAnswer;

use super::Active;
use super::answering::{Answering, Heard};
use crate::asking::{self, Asking};
use crate::host;
use crate::metrics::CallEnd;

/// After all moments.
const NEVER: Timestamp = Timestamp::from_micros(u64::MAX);
/// While streams wait, the timer looks this often whether it has been too long: a request is held for the timeout and
/// 5 ms more at most, of which 2 are the host's.
const WATCH: Duration = Duration::from_millis(3);
/// While streams wait for a store that may be failing, or no callout will call back, or some have waited for too long
/// and there was no more room in this callback, the timer calls this often.
const HASTE: Duration = Duration::from_millis(1);

/// A worker's link to the store.
pub(super) struct StoreLink {
    asking: Asking,
    pub(super) circuit: Circuit,
    pub(super) batches: Batches,
    pub(super) followers: Followers,
    /// How long after its timeout a callout is given up that the host has not ended.
    grace: Duration,
    /// Whether streams that have waited for too long are left over for the next callback.
    is_behind: bool,
}

impl Active {
    /// Brings a question on its way. `false` when the store is not asked.
    pub(super) fn ask(&mut self, stream: u32, request: &Request, since: Timestamp, now: Timestamp) -> bool {
        if !self.may_ask(now) {
            return false;
        }
        let mut checks: Vec<_> = request.checks().cloned().collect();
        self.ask_for_leases(&mut checks, now);
        let waiter = Waiter { stream, checks, since };
        let Some(store) = &mut self.store else { return false };
        let asked = if store.batches.has_room(store.circuit.is_in_doubt()) {
            let load = store.batches.with(waiter);
            let load = self.laden(load, now);
            self.send(load, now).is_ok()
        } else {
            store.batches.wait(waiter);
            true
        };
        self.pace();
        asked
    }

    /// Sends one callout. When the host will not, its streams come back.
    pub(super) fn send(&mut self, load: Load, now: Timestamp) -> Result<(), Vec<Waiter>> {
        let Some(store) = &mut self.store else { return Err(load.streams) };
        let call = load.into_call(store.asking.node, store.asking.timeout, now);
        if let Ok(number) = store.asking.send(&call) {
            self.metrics.leases(&call);
            store.batches.sent(number, call);
            return Ok(());
        }
        self.store_failed(now, now);
        self.metrics.call(CallEnd::NotSent);
        self.unheard(call.checks(), false);
        self.reports_unheard(&call, false, now);
        let unsent = call.into_load();
        for charge in unsent.charges {
            self.charge_elsewhere(charge.account, &charge.check, now);
        }
        Err(unsent.streams)
    }

    /// Whether anything is under way to the store, or waits to be.
    pub(super) fn is_busy(&self) -> bool {
        self.store.as_ref().is_some_and(|store| !store.is_idle())
    }

    pub(super) fn call_ended(
        &mut self,
        now: Timestamp,
        call: u32,
        has_headers: bool,
        answering: &mut Answering<'_>,
    ) {
        // a callout given up before its end is nobody's any more
        let Some(store) = &mut self.store else { return };
        let Some(call) = store.batches.end(call) else { return };
        let in_time = now.since(call.asked_at()) <= lease::surely_within(store.asking.timeout);
        let heard = asking::read(&call, has_headers);
        match heard {
            Ok(heard) if in_time => {
                if heard.away {
                    self.store_failed(call.asked_at(), now);
                    self.metrics.call(CallEnd::Away);
                } else {
                    self.store_answered(call.asked_at(), now);
                    self.metrics.call(CallEnd::Answered);
                }
                self.hear(&call, &heard, in_time, now);
                for ((stream, mut answers), checks) in heard.streams.into_iter().zip(call.checks_of_streams())
                {
                    self.confirm(checks, &mut answers, now);
                    answering.tell(self, stream, Heard::Answers(answers), now);
                }
                self.settle(call, heard.charges, now);
            }
            // what was granted may not be spent any more; what was charged is charged
            Ok(heard) => {
                self.hear(&call, &heard, in_time, now);
                self.call_failed(now, call, CallEnd::Late, heard.charges, answering);
            }
            Err(end) => {
                self.unheard(call.checks(), false);
                self.reports_unheard(&call, end == CallEnd::Refused, now);
                self.call_failed(now, call, end, Vec::new(), answering);
            }
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
        self.store_failed(call.asked_at(), now);
        self.metrics.call(end);
        for stream in call.streams() {
            answering.tell(self, stream, Heard::Nothing, now);
        }
        self.settle(call, charged, now);
    }

    /// Lets go of whoever has waited too long, also if part of it was for another's question. When nobody has, gives up
    /// one callout that the host should have ended long ago; the next tick gives up the next.
    pub(super) fn give_up(&mut self, now: Timestamp, answering: &mut Answering<'_>) {
        let Some(store) = &mut self.store else { return };
        let moment = before(now, store.asking.timeout);
        store.followers.free_since_before(moment);
        let outwaited = store.batches.outwaited(moment, answering.budget);
        if !outwaited.is_empty() {
            for stream in outwaited {
                answering.tell(self, stream, Heard::Nothing, now);
            }
            return;
        }
        let patience = store.asking.timeout + store.grace;
        let lost = store.batches.lost_before(before(now, patience));
        if let Some(call) = lost {
            self.unheard(call.checks(), false);
            self.reports_unheard(&call, false, now);
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

    /// Judges whoever waits no more, sends what waits, and lets go of whoever has waited too long.
    pub(super) fn pump(&mut self, now: Timestamp, answering: &mut Answering<'_>) {
        self.judge_freed(now, answering);
        while let Some(store) = &mut self.store {
            // while the store is left alone nobody waits to ask it
            let is_left_alone = store.circuit.phase() == Phase::Open;
            let moment = if is_left_alone { NEVER } else { before(now, store.asking.timeout) };
            let late = store.batches.waiting_since_before(moment, answering.budget);
            if late.is_empty() {
                break;
            }
            for waiter in late {
                self.unheard(&waiter.checks, false);
                answering.tell(self, waiter.stream, Heard::Nothing, now);
            }
        }
        while let Some(load) = self.next_load(now, answering) {
            if let Err(unsent) = self.send(load, now)
                && !self.let_go(unsent, now, answering)
            {
                break;
            }
        }
        self.send_due(now);
        if let Some(store) = &mut self.store {
            let moment = before(now, store.asking.timeout);
            store.is_behind = answering.budget == 0 && store.batches.is_late(moment);
        }
        self.pace();
    }

    /// What the next callout asks, if one is to leave now.
    fn next_load(&mut self, now: Timestamp, answering: &Answering<'_>) -> Option<Load> {
        let store = self.store.as_mut()?;
        if !store.batches.has_room(store.circuit.is_in_doubt()) {
            return None;
        }
        let mut gone = Vec::new();
        let load = store.batches.next(|waiter| {
            let is_there = answering.streams.contains_key(&waiter.stream);
            if !is_there {
                gone.extend_from_slice(&waiter.checks);
            }
            is_there
        });
        // one of those who followed it asks in its place
        self.unheard(&gone, true);
        load.map(|load| self.laden(load, now))
    }
}

impl StoreLink {
    pub(super) fn new(store: &Store, node: u64) -> Result<Self, String> {
        let token = store.token_env.as_ref().map(|name| {
            let token = host::environment(name).filter(|token| !token.is_empty());
            token.ok_or_else(|| {
                format!("store.token_env: {name} is not set; list it in vm_config.environment_variables")
            })
        });
        let authorization = token.transpose()?.map(|token| format!("Bearer {token}"));
        Ok(Self {
            asking: Asking { cluster: store.cluster.clone(), timeout: store.timeout, authorization, node },
            circuit: Circuit::new(&store.cluster, store.circuit),
            batches: Batches::default(),
            followers: Followers::default(),
            grace: (store.timeout / 4).clamp(Duration::from_millis(10), Duration::from_millis(100)),
            is_behind: false,
        })
    }

    /// Whether nobody waits and nothing is under way.
    fn is_idle(&self) -> bool {
        self.batches.is_idle() && self.followers.is_empty()
    }

    /// How often the timer is to watch over who waits, what is under way, and what leases are due.
    pub(super) fn period(&self, is_lease_due: bool) -> Option<Duration> {
        let is_waited_for = self.batches.is_waited_for() || !self.followers.is_empty();
        let is_likely_in_vain = is_waited_for && self.circuit.is_in_doubt();
        if self.batches.is_stuck() || self.followers.has_freed() || self.is_behind || is_likely_in_vain {
            Some(HASTE)
        } else if is_waited_for {
            Some(WATCH)
        } else if is_lease_due {
            Some(LOOK_EVERY)
        } else {
            (!self.is_idle()).then_some(self.grace)
        }
    }
}

fn before(now: Timestamp, span: Duration) -> Timestamp {
    Timestamp::from_micros(now.as_micros().saturating_sub(micros(span)))
}
