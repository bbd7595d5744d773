//! What a half-open breaker has found out.

use super::settings::Settings;
use super::{Cause, Counts, reaches};
use crate::packed::{Packed, write};
use crate::units::Timestamp;

/// The probes of one HalfOpen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Probes {
    /// How many were let through, without those that came to nothing.
    pub(super) taken: u32,
    /// What came of those that have ended.
    pub(super) ended: Counts,
    /// When the last was let through.
    pub(super) last_at: Timestamp,
}

impl Probes {
    /// Whether one more may be let through.
    pub(super) fn has_room(&self, settings: &Settings) -> bool {
        self.taken < settings.half_open_calls
    }

    /// Lets one through.
    pub(super) fn take(&mut self, now: Timestamp) {
        self.taken = self.taken.saturating_add(1);
        self.last_at = now;
    }

    /// One has ended: so, or in a way that says nothing, and then another may take its place.
    pub(super) fn end(&mut self, counts: Option<Counts>) {
        match counts {
            Some(counts) => self.ended.add(counts),
            None => self.taken = self.taken.saturating_sub(1),
        }
    }

    /// Whether so much time has passed since the last was let through that those which are missing are given up.
    pub(super) fn are_given_up(&self, settings: &Settings, now: Timestamp) -> bool {
        !self.has_room(settings) && now >= self.last_at.plus(settings.open_for.max(settings.slow_call.over))
    }

    /// What they have shown, once those that are missing cannot change it.
    pub(super) fn verdict(&self, settings: &Settings) -> Option<Cause> {
        let all = settings.half_open_calls;
        let missing = all.saturating_sub(self.ended.calls);
        let is_bad = |count: u32, rate| reaches(count, all, rate);
        let could_be_bad = |count: u32, rate| reaches(count.saturating_add(missing), all, rate);
        let (failures, slow) = (self.ended.failures, self.ended.slow);
        let (failure_rate, slow_rate) = (settings.failure_rate, settings.slow_call.rate);
        if is_bad(failures, failure_rate) {
            Some(Cause::ProbesFailed)
        } else if is_bad(slow, slow_rate) {
            Some(Cause::ProbesSlow)
        } else if !could_be_bad(failures, failure_rate) && !could_be_bad(slow, slow_rate) {
            Some(Cause::ProbesSucceeded)
        } else {
            None
        }
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        write(out, self.taken.into());
        self.ended.encode(out);
        write(out, self.last_at.as_micros());
    }

    pub(super) fn decode(packed: &mut Packed<'_>) -> Option<Self> {
        let (taken, ended) = (packed.small()?, Counts::decode(packed)?);
        Some(Self { taken, ended, last_at: Timestamp::from_micros(packed.number()?) })
    }
}
