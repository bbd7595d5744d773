//! What happened last around one subject. A simulation can be played again, so only the replay of a broken promise
//! writes it down.

use std::collections::VecDeque;

use lanekeeper_engine::wire::{Check, CheckAnswer, DecideRequest, DecideResponse, KeyReturn};

/// How many events are kept.
const KEPT: usize = 60;

/// The last events around one subject, if one is followed.
#[derive(Default)]
pub(super) struct Trace {
    subject: Option<u32>,
    events: VecDeque<String>,
}

/// A subject's key in the store.
pub(super) fn key(subject: u32) -> String {
    format!("sim:{{{subject}}}:per_user")
}

/// Whose key it is.
pub(super) fn subject_of(key: &str) -> Option<u32> {
    let (_, rest) = key.split_once('{')?;
    rest.split_once('}')?.0.parse().ok()
}

/// What an answer charged, to which subjects.
pub(super) fn charged<'a>(
    question: &'a DecideRequest,
    response: &'a DecideResponse,
) -> impl Iterator<Item = (u32, u64)> + 'a {
    let of_check = |(check, answer): (&'a Check, &'a CheckAnswer)| {
        let keys = match answer {
            CheckAnswer::Allowed { keys } => keys.as_slice(),
            CheckAnswer::Rejected { .. } | CheckAnswer::Failed { .. } => &[],
        };
        check.keys.iter().zip(keys)
    };
    question.checks.iter().zip(&response.answers).flat_map(of_check).filter_map(|(asked, answered)| {
        let leased = answered.lease.map_or(0, |lease| u64::from(lease.tokens));
        Some((subject_of(&asked.key)?, u64::from(answered.granted) + leased))
    })
}

impl Trace {
    /// Follows this subject.
    pub(super) fn of(subject: u32) -> Self {
        Self { subject: Some(subject), events: VecDeque::new() }
    }

    /// Something happened to a subject.
    pub(super) fn note(&mut self, at: u64, subject: u32, event: impl FnOnce() -> String) {
        if self.subject == Some(subject) {
            self.note_all(at, event);
        }
    }

    /// Something happened to all of them.
    pub(super) fn note_all(&mut self, at: u64, event: impl FnOnce() -> String) {
        if self.subject.is_none() {
            return;
        }
        if self.events.len() == KEPT {
            self.events.pop_front();
        }
        self.events.push_back(format!("{:>12.6} s  {}", at as f64 / 1e6, event()));
    }

    /// The store answered.
    pub(super) fn exchange(
        &mut self,
        at: u64,
        who: &str,
        question: &DecideRequest,
        response: &DecideResponse,
    ) {
        let Some(subject) = self.subject else { return };
        let is_ours = |key: &str| subject_of(key) == Some(subject);
        for KeyReturn { key, tokens, dated_us, id, .. } in &question.returns {
            if is_ours(key) {
                self.note_all(at, || format!("{who} gives {tokens} back, dated {dated_us}, id {id:x}"));
            }
        }
        for (check, answer) in question.checks.iter().zip(&response.answers) {
            for (nth, asked) in check.keys.iter().enumerate().filter(|(_, asked)| is_ours(&asked.key)) {
                let (cost, lease) = (asked.cost, asked.lease);
                let says = match answer {
                    CheckAnswer::Allowed { keys } => format!("{:?}", keys.get(nth)),
                    CheckAnswer::Rejected { keys } => format!("rejected: {:?}", keys.get(nth)),
                    CheckAnswer::Failed { error } => error.to_string(),
                };
                self.note_all(at, || format!("{who} asks for {cost} and {lease:?}: {says}"));
            }
        }
    }

    /// What was written down, a line for each event.
    pub(super) fn text(&self) -> String {
        self.events.iter().map(|event| format!("{event}\n")).collect()
    }
}
