//! Which tokens were given back of late, so that a message that comes twice gives them back once.
//!
//! A return is accepted only as long as its tokens could still be spent, so its id needs to be remembered only until
//! then. What cannot be remembered is not accepted: those tokens count until their window has passed.
//!
//! Reports of what was spent without asking are known in the same place, for as long as they count.

use crate::units::Timestamp;

/// The most returns of one subject that are remembered at once.
const MAX_RETURNS: usize = 256;
/// Of these, the most that reports may take: after an outage every worker of every node may tell of a hot subject, and
/// what it is then granted must still be able to go back.
const MAX_REPORTS: usize = MAX_RETURNS / 2;

/// The returns of one subject.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Returns {
    /// Each one's id, and when its tokens could be spent last; of a report, when it ceases to count.
    live: Vec<(u64, Timestamp)>,
    /// Until then nothing goes back.
    none_until: Option<Timestamp>,
}

impl Returns {
    /// Those of a subject that was reset: what was charged before may still be spent until `none_until`, and must not
    /// come back to what is charged afterwards.
    pub fn none_until(none_until: Timestamp) -> Self {
        Self { live: Vec::new(), none_until: Some(none_until) }
    }

    /// Whether tokens dated `dated` may be given back at `now` under this id: not too late, and not again.
    /// Without an id they were never granted to anyone: they go back once, and whenever that is.
    pub fn accept(&mut self, id: Option<u64>, dated: Timestamp, now: Timestamp) -> bool {
        let Some(id) = id else { return true };
        if dated < now || self.none_until.is_some_and(|none_until| now <= none_until) {
            return false;
        }
        self.live.retain(|(_, dated)| *dated >= now);
        let is_known = self.live.iter().any(|(known, _)| *known == id);
        let accepted = !is_known && self.live.len() < MAX_RETURNS;
        if accepted {
            self.live.push((id, dated));
        }
        accepted
    }

    /// Whether the report of this id counts already at `now`.
    pub(super) fn knows(&self, id: u64, now: Timestamp) -> bool {
        self.live.iter().any(|(known, until)| *known == id && *until >= now)
    }

    /// Whether anything is known at `now`.
    pub(super) fn knows_any(&self, now: Timestamp) -> bool {
        self.live.iter().any(|(_, until)| *until >= now)
    }

    /// Remembers a report that counts until then, if there is room.
    pub(super) fn remember_report(&mut self, id: u64, until: Timestamp, now: Timestamp) {
        self.live.retain(|(_, until)| *until >= now);
        if self.live.len() < MAX_REPORTS {
            self.live.push((id, until));
        }
    }

    /// The moment up to which one of these returns may come again.
    pub fn known_until(&self) -> Timestamp {
        self.live.iter().map(|(_, dated)| *dated).chain(self.none_until).max().unwrap_or_default()
    }
}
