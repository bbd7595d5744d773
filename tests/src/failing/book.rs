//! What a service knows of its calls.

use std::time::Instant;

use super::{Lane, Manner};

/// The calls of a service, and how it serves them.
#[derive(Clone, Debug)]
pub struct Book {
    manners: [Manner; 2],
    calls: Vec<Call>,
}

/// One call.
#[derive(Clone, Debug)]
pub struct Call {
    /// Its lane.
    pub lane: Lane,
    /// Its path with the query.
    pub path: String,
    /// When its headers had come.
    pub began: Instant,
    /// When the last of its answer was written, or its connection was gone.
    pub ended: Option<Instant>,
}

impl Default for Book {
    fn default() -> Self {
        Self { manners: [Manner::Status(200); 2], calls: Vec::new() }
    }
}

impl Book {
    /// The calls of a lane, in the order in which they began.
    pub fn calls(&self, lane: Lane) -> impl Iterator<Item = &Call> {
        self.calls.iter().filter(move |call| call.lane == lane)
    }

    /// How many of a lane are under way.
    pub fn under_way(&self, lane: Lane) -> usize {
        self.calls(lane).filter(|call| call.ended.is_none()).count()
    }

    pub(super) fn manner(&self, lane: Lane) -> Manner {
        let [normal, shadow] = self.manners;
        match lane {
            Lane::Normal => normal,
            Lane::Shadow => shadow,
        }
    }

    pub(super) fn set_manner(&mut self, lane: Lane, manner: Manner) {
        let [normal, shadow] = &mut self.manners;
        match lane {
            Lane::Normal => *normal = manner,
            Lane::Shadow => *shadow = manner,
        }
    }

    pub(super) fn begin(&mut self, lane: Lane, path: String, now: Instant) -> usize {
        self.calls.push(Call { lane, path, began: now, ended: None });
        self.calls.len() - 1
    }

    pub(super) fn end(&mut self, number: usize, now: Instant) {
        if let Some(call) = self.calls.get_mut(number) {
            call.ended = Some(now);
        }
    }
}

/// The most of these calls that were under way at once.
pub fn most_at_once<'c>(calls: impl Iterator<Item = &'c Call>) -> usize {
    let mut steps = Vec::new();
    for call in calls {
        steps.push((call.began, 1_isize));
        steps.extend(call.ended.map(|ended| (ended, -1)));
    }
    // at the same moment the end comes first
    steps.sort();
    let running = steps.into_iter().scan(0, |count, (_, step)| {
        *count += step;
        Some(*count)
    });
    running.max().unwrap_or(0).unsigned_abs()
}
