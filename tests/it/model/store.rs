//! The store: the engine's own counters, behind a clock that may fall back, with a replica that may take over.

use std::time::Duration;

use lanekeeper_engine::counter::{Ask, Charge, SubjectCounters, decide};
use lanekeeper_engine::lease::LeaseAsk;
use lanekeeper_engine::units::Timestamp;

use crate::message::{Leased, Message};
use crate::protocol::{Configuration, Protocol, Rule, Ticks, moment, span, whole_ticks};

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Store {
    /// How far its clock has fallen back, and leapt ahead.
    behind: Ticks,
    ahead: Ticks,
    primary: SubjectCounters,
    replica: SubjectCounters,
    /// Answers that wait until the replica has what they say.
    held: Vec<Message>,
    /// Ids and dates of returns, as one remembers them who does not refuse late ones.
    remembered: Vec<(u64, Timestamp)>,
}

impl Store {
    /// Does what a message asks for, and answers at once, unless the answer has to wait for the replica.
    pub(crate) fn hear(
        &mut self,
        protocol: &Protocol,
        now: Ticks,
        message: &Message,
        has_replica: bool,
    ) -> Option<Message> {
        let clock = now + self.ahead - self.behind;
        if !protocol.keeps(Rule::TimeNeverBackwards) {
            self.primary.seen = moment(clock);
        }
        match *message {
            Message::Ask { from, id, cost } => {
                let (allowed, lease) = self.decide(protocol, clock, cost);
                let answer = Message::Answer { to: from, id, allowed, lease };
                if has_replica && protocol.keeps(Rule::AnsweredWhenReplicated) {
                    self.held.push(answer);
                    return None;
                }
                Some(answer)
            }
            Message::Return { id, tokens, dated } => {
                self.give_back(protocol, clock, id, tokens, dated);
                None
            }
            Message::Answer { .. } => None,
        }
    }

    /// Whether the cost is charged, and the lease beside it.
    fn decide(&mut self, protocol: &Protocol, clock: Ticks, cost: u32) -> (bool, Option<Leased>) {
        let Configuration { lease, life, within, .. } = protocol.configuration;
        let (windows, buckets) = ([protocol.configuration.window()], protocol.configuration.buckets());
        let is_dated_at_end = protocol.keeps(Rule::DatedAtItsEnd);
        let life_ms = u32::try_from(span(life).as_millis()).unwrap();
        // the whole of what is left, to whoever comes first
        let lease = LeaseAsk { tokens: lease, life_ms, drift: 1_000_000, nodes: 1 };
        let ask = Ask { at_least: 1, lease: Some(lease), ..Ask::take(cost) };
        let charge = Charge { windows: &windows, ask, counters: &mut self.primary };
        let spend_within = span(if is_dated_at_end { within } else { 0 });
        let decision = decide(&mut [charge], buckets, moment(clock), spend_within);
        let key = &decision.keys[0];
        let lease = key.lease.map(|lease| {
            let (tokens, mut dated) = (lease.tokens, key.at.plus(lease.life()));
            if !is_dated_at_end {
                self.primary.uncharge(&windows, buckets, tokens, dated);
                self.primary.charge(&windows, buckets, tokens, Duration::ZERO);
                dated = key.at;
            }
            Leased { tokens, life: whole_ticks(lease.life()), dated }
        });
        (decision.allowed, lease)
    }

    fn give_back(&mut self, protocol: &Protocol, clock: Ticks, id: u64, tokens: u32, dated: Timestamp) {
        let (windows, buckets) = ([protocol.configuration.window()], protocol.configuration.buckets());
        self.primary.settle(&windows, buckets, moment(clock));
        let accepts_anyway = match protocol.without {
            Some(Rule::ReturnedOnce) => dated >= self.primary.seen,
            Some(Rule::ReturnedInTime) => self.remembers_not(id, dated),
            _ => {
                self.primary.give_back(&windows, buckets, tokens, dated, Some(id));
                false
            }
        };
        if accepts_anyway {
            self.primary.uncharge(&windows, buckets, tokens, dated);
        }
    }

    /// Whether an id is not one of those remembered, each of which is until the date of its charge.
    fn remembers_not(&mut self, id: u64, dated: Timestamp) -> bool {
        let seen = self.primary.seen;
        self.remembered.retain(|(_, dated)| *dated >= seen);
        let is_new = self.remembered.iter().all(|(known, _)| *known != id);
        self.remembered.push((id, dated));
        is_new
    }

    /// Whether there is anything that the replica does not have.
    pub(crate) fn is_ahead(&self) -> bool {
        self.primary != self.replica || !self.held.is_empty()
    }

    /// Brings the replica up to the primary; what waited for that is answered.
    pub(crate) fn replicate(&mut self) -> Vec<Message> {
        self.replica = self.primary.clone();
        std::mem::take(&mut self.held)
    }

    /// The replica takes over. What waited for it is never answered.
    pub(crate) fn fail_over(&mut self, is_last: bool) {
        self.primary = self.replica.clone();
        self.held.clear();
        if is_last {
            // nobody will look at it again: states that differ in it are one
            self.replica = SubjectCounters::default();
        }
    }

    pub(crate) fn set_back(&mut self) {
        self.behind += 1;
    }

    pub(crate) fn leap(&mut self) {
        self.ahead += 1;
    }

    /// Whether tokens came back, and are remembered.
    pub(crate) fn has_accepted_a_return(&self) -> bool {
        self.primary.returns != Default::default()
    }
}
