//! Which tokens were given back of late, so that a message that comes twice gives them back once.
//!
//! A return is accepted only as long as its tokens could still be spent, so its id needs to be remembered only until
//! then. What cannot be remembered is not accepted: those tokens count until their window has passed.

use crate::units::Timestamp;

/// The most returns of one subject that are remembered at once.
const MAX_RETURNS: usize = 256;

/// The returns of one subject.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Returns {
    /// Each one's id, and when its tokens could be spent last.
    live: Vec<(u64, Timestamp)>,
}

impl Returns {
    /// Whether tokens dated `dated` may be given back at `now` under this id: not too late, and not again.
    /// Without an id they were never granted to anyone: they go back once, and whenever that is.
    pub fn accept(&mut self, id: Option<u64>, dated: Timestamp, now: Timestamp) -> bool {
        let Some(id) = id else { return true };
        if dated < now {
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

    /// The moment up to which one of these returns may come again.
    pub fn known_until(&self) -> Timestamp {
        self.live.iter().map(|(_, dated)| *dated).max().unwrap_or_default()
    }
}
