//! Telling streams what became of them.

use std::collections::BTreeMap;
use std::rc::Rc;

use lanekeeper_engine::batch::{Freed, MAX_STREAMS};
use lanekeeper_engine::request::{Judge, Request};
use lanekeeper_engine::units::Timestamp;
use lanekeeper_engine::wire::CheckAnswer;

use super::Active;
use crate::host;
use crate::stream::Stream;

/// What a stream hears.
pub(super) enum Heard {
    /// The store has answered it.
    Answers(Vec<CheckAnswer>),
    /// The store has failed it.
    Nothing,
    /// What it waited for is known now, or will not be.
    Freed(Freed),
}

/// The streams, from within a callback of the root: only here may one stream's answer be given while another's
/// callback is not running, and only so many in one callback.
pub(super) struct Answering<'a> {
    context: u32,
    pub(super) streams: &'a mut BTreeMap<u32, Stream>,
    pub(super) budget: usize,
}

impl<'a> Answering<'a> {
    pub(super) fn new(context: u32, streams: &'a mut BTreeMap<u32, Stream>) -> Self {
        Self { context, streams, budget: MAX_STREAMS }
    }

    pub(super) fn tell(&mut self, active: &mut Active, id: u32, heard: Heard, now: Timestamp) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        self.budget = self.budget.saturating_sub(1);
        let policy = Rc::clone(&active.policy);
        let hear = |active: &mut Active, request: &mut Request| match heard {
            Heard::Answers(answers) => Some(request.answered(&policy, Judge::Store, answers)),
            Heard::Nothing => Some(request.store_failed(&policy)),
            Heard::Freed(freed) => active.judge_anew(request, freed, now),
        };
        stream.hear(id, active, hear, now);
    }

    pub(super) fn end(self) {
        // the host resets it by itself when the callback returns; a refusal changes nothing
        let _ = host::set_effective_context(self.context);
    }
}
