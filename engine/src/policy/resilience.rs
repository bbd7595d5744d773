//! The breakers of each lane: whose version an entry of `resilience` is, and what a lane without one gets.

use std::sync::Arc;

use super::Lane;
use crate::breaker::Settings;

/// The breaker of a command as it stands in one lane.
#[derive(Clone, Debug)]
pub struct Breaker {
    /// The command that it guards.
    pub command: String,
    /// Its name in this lane: `<lane>.<command>`, or the command's own in the normal lane. Clients, logs and
    /// metrics see it.
    pub title: String,
    /// Whose state it is: the lane's own, unless the lane shares the normal lane's. Breakers with the same owner
    /// trip together.
    pub owner: String,
    /// What it does with the command's calls.
    pub verdict: BreakerVerdict,
}

/// What a breaker does with the calls of its command.
#[derive(Clone, Debug)]
pub enum BreakerVerdict {
    /// Guards them.
    Guard(Arc<Settings>),
    /// Turns them away: the lane has no entry of its own and `fallback: reject`.
    TurnAway,
}

impl Lane {
    /// Where in [`Lane::breakers`] the breaker of `command` stands, if it has one.
    pub fn breaker(&self, command: &str) -> Option<usize> {
        self.breakers.binary_search_by(|breaker| breaker.command.as_str().cmp(command)).ok()
    }
}
