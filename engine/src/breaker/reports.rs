//! What one worker says of its node's breakers to the shim, for operators to read there.
//!
//! A change is said with the next message, a second later at most. So that a shim that has just started learns of it
//! too, and each of several shims, what was said is said again: soon where calls are kept away or were of late, seldom
//! elsewhere, and always well before a shim forgets it. All workers of a node say the same, as each of them lets calls in.

use std::collections::BTreeMap;
use std::time::Duration;

use super::guard::Guard;
use super::{Breakers, State};
use crate::local::Cells;
use crate::units::Timestamp;
use crate::wire::{BreakerReport, MAX_REPORTS};

/// Whether there is anything to say is looked at this often, for messages may leave a thousand times a second.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// What is not closed, or was not of late, is said again after so long.
const REPEAT: Duration = Duration::from_secs(10);
/// What has been closed for so long is said again only when as much has passed: a shim forgets it after 150 s.
const REPEAT_CLOSED: Duration = Duration::from_secs(60);

/// What one worker has said, and when.
#[derive(Debug, Default)]
pub struct Reports {
    /// By the breaker's id.
    said: BTreeMap<u64, Said>,
    /// There is nothing to say before.
    look_at: Option<Timestamp>,
    /// Whether there is something new since then.
    has_news: bool,
}

#[derive(Clone, Copy, Debug)]
struct Said {
    generation: u64,
    again_at: Timestamp,
}

impl Reports {
    /// What is to be said of `breakers` with a message that leaves at `now`, at most [`MAX_REPORTS`]; most often nothing. What
    /// is lost on its way is said again. A breaker that several lanes share goes by its owner's name.
    pub fn due(&mut self, breakers: &Breakers, cells: &dyn Cells, now: Timestamp) -> Vec<BreakerReport> {
        if self.look_at.is_some_and(|look_at| now < look_at) {
            return Vec::new();
        }
        self.look_at = Some(now.plus(LOOK_EVERY));
        self.has_news = false;
        let mut due: Vec<&Guard> = breakers.guards.values().filter(|guard| self.is_due(guard, now)).collect();
        // those that do not fit go with the next look: not the ones that keep calls away
        due.sort_by_key(|guard| guard.state() == State::Closed);
        due.into_iter().take(MAX_REPORTS).map(|guard| self.say(guard, cells, now)).collect()
    }

    /// This worker has changed a breaker: whatever is to be said can be had at once, and not a second after the last look.
    pub fn hurry(&mut self) {
        self.look_at = None;
        self.has_news = true;
    }

    /// Whether a change has not been said, which is worth a message of its own.
    pub fn has_news(&self) -> bool {
        self.has_news
    }

    fn is_due(&self, guard: &Guard, now: Timestamp) -> bool {
        self.said
            .get(&guard.id())
            .is_none_or(|said| guard.generation() > said.generation || now >= said.again_at)
    }

    /// This worker may not have let a call in for long, so it looks at the record itself.
    fn say(&mut self, guard: &Guard, cells: &dyn Cells, now: Timestamp) -> BreakerReport {
        let (state, generation) = guard.current(cells);
        // a generation is the moment at which it began, and 0 that of a breaker that has never changed
        let held = (generation > 0).then(|| now.since(Timestamp::from_micros(generation)));
        let is_quiet = state == State::Closed && held.is_none_or(|held| held >= REPEAT_CLOSED);
        let again_at = now.plus(if is_quiet { REPEAT_CLOSED } else { REPEAT });
        self.said.insert(guard.id(), Said { generation, again_at });
        let for_ms = held.map(|held| u64::try_from(held.as_millis()).unwrap_or(u64::MAX));
        BreakerReport { name: guard.owner.to_string(), state, generation, for_ms }
    }
}
