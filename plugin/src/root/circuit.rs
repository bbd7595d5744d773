//! The circuit to the store: who may ask it, and who hears when that changes.

use lanekeeper_engine::circuit::Phase;
use lanekeeper_engine::policy::{CircuitSettings, written};
use lanekeeper_engine::units::Timestamp;

use super::Active;
use super::store::StoreLink;
use crate::cells::CIRCUITS;
use crate::host::{self, Level};

impl Active {
    /// Whether the store may be asked at `now`.
    pub(super) fn may_ask(&mut self, now: Timestamp) -> bool {
        let Some(store) = &mut self.store else { return false };
        let may = store.circuit.lets_through(&CIRCUITS, now);
        self.metrics.store_first_asked(store.circuit.phase());
        self.tell_turn();
        may
    }

    /// The same for what no request waits for.
    pub(super) fn may_keep_up(&mut self, now: Timestamp) -> bool {
        let Some(store) = &mut self.store else { return false };
        let may = store.circuit.lets_upkeep_through(&CIRCUITS, now);
        self.tell_turn();
        may
    }

    /// Whether this worker, which has something to tell, is the one that is to find out at `now` whether the store is back.
    pub(super) fn may_probe(&mut self, now: Timestamp) -> bool {
        let is_left_alone = |store: &StoreLink| matches!(store.circuit.phase(), Phase::Open | Phase::Probing);
        self.store.as_ref().is_some_and(is_left_alone) && self.may_ask(now)
    }

    /// The store answered what it was asked at `asked_at`.
    pub(super) fn store_answered(&mut self, asked_at: Timestamp, now: Timestamp) {
        if let Some(store) = &mut self.store {
            store.circuit.answered(&CIRCUITS, asked_at, now);
            self.tell_turn();
        }
    }

    /// The store gave no answer that could be used to what it was asked at `asked_at`.
    pub(super) fn store_failed(&mut self, asked_at: Timestamp, now: Timestamp) {
        if let Some(store) = &mut self.store {
            store.circuit.failed(&CIRCUITS, asked_at, now);
            self.outage.iter_mut().for_each(|outage| outage.store_failed(now));
            self.tell_turn();
        }
    }

    /// Each change is one worker's to tell: that which made it.
    fn tell_turn(&mut self) {
        let Some(turn) = self.store.as_mut().and_then(|store| store.circuit.take_turn()) else { return };
        self.metrics.store_stands(turn.to);
        if !turn.is_news() {
            return;
        }
        self.metrics.store_turn(turn);
        if let Some(store) = &self.policy.store {
            let level = if turn.to == Phase::Open { Level::Warn } else { Level::Info };
            let (cluster, news) = (&store.cluster, news(turn.to, &store.circuit));
            host::log(level, &format!("lanekeeper: the circuit to the store {cluster} is {news}"));
        }
    }
}

fn news(phase: Phase, settings: &CircuitSettings) -> String {
    let CircuitSettings { failures, slow, probe_every } = settings;
    match phase {
        Phase::Open => format!(
            "open: it failed, or took more than {}, {failures} times in a row or while it recovered; one question in {} \
             probes it, and on_failure decides the others",
            written(*slow),
            written(*probe_every)
        ),
        Phase::Recovering => "recovering: a probe was answered".to_owned(),
        Phase::Probing | Phase::Closed => "closed: all questions go to it".to_owned(),
    }
}
