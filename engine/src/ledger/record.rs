//! What a node knows of one subject: the tokens in its pool, how fast they go, and what the store said last.
//!
//! Its bytes are packed as they stand in shared data. Bytes of another make read as nothing.

use std::time::Duration;

use super::demand::Rate;
use crate::refusals;
use crate::units::Timestamp;
use crate::wire::{KeyAnswer, WindowAnswer};

/// The leases that a subject has at once: the one in use, and the next. A third takes the first one's place.
const MOST_PORTIONS: usize = 2;
/// What is known of a subject's demand is kept for so long after the last question.
const REMEMBERED: Duration = Duration::from_secs(60);
/// The pool is low below one part in so many of the last lease.
const LOW: u32 = 4;

/// A subject on this node.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Record {
    /// How fast its tokens go.
    pub(super) rate: Rate,
    /// When the store was asked last what it granted.
    pub(super) asked_at: Timestamp,
    /// What went since: into chunks of workers, and for the requests that asked.
    pub(super) spent: u32,
    /// Since when there is nothing left.
    pub(super) dry_at: Option<Timestamp>,
    /// What the last lease was; 0 when the last ask was granted none.
    pub(super) granted: u32,
    /// Until then one of the workers is about to hear of a renewal.
    pub(super) renewing_until: Timestamp,
    /// What the store refused last.
    pub(super) refusal: Option<Refusal>,
    /// What is left of the leases, the one that ends first in front.
    pub(super) portions: Vec<Portion>,
    /// What the windows said last.
    pub(super) windows: Vec<WindowAnswer>,
}

/// A refusal that all workers may know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// When it was asked.
    pub(super) asked_at: Timestamp,
    /// When it ends.
    pub(super) ends: Timestamp,
    /// What did not fit.
    pub(super) least: u32,
}

/// Tokens of one lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Portion {
    pub(super) tokens: u32,
    /// They may be spent before this moment of the node's clock.
    pub(super) ends: Timestamp,
    /// When they are dated, by the store's clock.
    pub(super) dated_us: u64,
    /// Which of the store keys was charged.
    pub(super) shard: u16,
}

impl Portion {
    pub(super) fn is_of_the_same_lease(&self, other: &Self) -> bool {
        (self.ends, self.dated_us, self.shard) == (other.ends, other.dated_us, other.shard)
    }
}

impl Record {
    /// What may be spent at `now`.
    pub(super) fn left(&self, now: Timestamp) -> u32 {
        let live = self.portions.iter().filter(|portion| portion.ends > now);
        live.fold(0, |left, portion| left.saturating_add(portion.tokens))
    }

    /// Takes `cost` tokens of one lease, and as many as are `wanted` of one with so long to live; but beyond the cost no
    /// more than half, for other workers may need the rest.
    pub(super) fn take(
        &mut self,
        cost: u32,
        wanted: impl Fn(Duration) -> u32,
        now: Timestamp,
    ) -> Option<Portion> {
        self.portions.retain(|portion| portion.ends > now && portion.tokens > 0);
        let portion = self.portions.iter_mut().find(|portion| portion.tokens >= cost)?;
        let most = portion.tokens.div_ceil(2).max(cost);
        let taken = Portion { tokens: wanted(portion.ends.since(now)).clamp(cost, most), ..*portion };
        portion.tokens -= taken.tokens;
        self.spent = self.spent.saturating_add(taken.tokens);
        if self.left(now) == 0 {
            self.dry_at = Some(now);
        }
        Some(taken)
    }

    /// Puts tokens back into the lease that they are of, if that is still here.
    pub(super) fn put_back(&mut self, rest: Portion) {
        if let Some(portion) = self.portions.iter_mut().find(|portion| portion.is_of_the_same_lease(&rest)) {
            portion.tokens = portion.tokens.saturating_add(rest.tokens);
            self.spent = self.spent.saturating_sub(rest.tokens);
        }
    }

    /// Whether so little is left that it is time for a renewal.
    pub(super) fn is_low(&self, now: Timestamp) -> bool {
        self.left(now) < self.granted / LOW && self.may_be_renewed(now)
    }

    /// Whether no worker is about to renew it, and the store has not said that it is of no use.
    pub(super) fn may_be_renewed(&self, now: Timestamp) -> bool {
        self.renewing_until <= now && self.refusal.is_none_or(|refusal| refusal.ends <= now)
    }

    /// Until when it is kept.
    pub(super) fn says_something_until(&self) -> Timestamp {
        let refused_at = self.refusal.map(|refusal| refusal.asked_at).unwrap_or_default();
        self.asked_at.max(refused_at).plus(REMEMBERED)
    }

    /// Takes all that ends up to `moment`.
    pub(super) fn take_ending(&mut self, moment: Timestamp) -> Vec<Portion> {
        let (ending, others) = self.portions.drain(..).partition(|portion| portion.ends <= moment);
        self.portions = others;
        ending
    }

    /// Adds a lease. What has to make way for it comes back.
    pub(super) fn put(&mut self, portion: Portion) -> Option<Portion> {
        self.portions.retain(|known| known.tokens > 0);
        let at = self.portions.partition_point(|known| known.ends <= portion.ends);
        self.portions.insert(at, portion);
        (self.portions.len() > MOST_PORTIONS).then(|| self.portions.remove(0))
    }

    /// Notes what the store answered to a question asked at `asked_at`.
    pub(super) fn heard(&mut self, answer: &KeyAnswer, asked_at: Timestamp) {
        if asked_at > self.asked_at {
            let until = self.dry_at.unwrap_or(asked_at);
            self.rate = self.rate.after(self.spent, until.since(self.asked_at));
            (self.asked_at, self.spent, self.dry_at) = (asked_at, answer.granted, None);
        }
        self.windows.clone_from(&answer.windows);
        (self.refusal, self.renewing_until) = (None, Timestamp::default());
    }

    /// Notes that the store refused `least` of it.
    pub(super) fn refused(&mut self, answer: &KeyAnswer, least: u32, asked_at: Timestamp) {
        let wait_us = answer.windows.iter().map(|window| window.wait_us).max().unwrap_or_default();
        let ends = asked_at.plus(Duration::from_micros(wait_us).min(refusals::LONGEST));
        self.windows.clone_from(&answer.windows);
        (self.refusal, self.renewing_until) = (Some(Refusal { asked_at, ends, least }), Timestamp::default());
        self.dry_at.get_or_insert(asked_at);
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let moment = |out: &mut Vec<u8>, at: Timestamp| out.extend(at.as_micros().to_le_bytes());
        out.extend(self.rate.to_bits().to_le_bytes());
        moment(out, self.asked_at);
        out.extend(self.spent.to_le_bytes());
        moment(out, self.dry_at.unwrap_or_default());
        out.extend(self.granted.to_le_bytes());
        moment(out, self.renewing_until);
        moment(out, self.refusal.map(|refusal| refusal.asked_at).unwrap_or_default());
        moment(out, self.refusal.map(|refusal| refusal.ends).unwrap_or_default());
        out.extend(self.refusal.map_or(0, |refusal| refusal.least).to_le_bytes());
        out.push(u8::try_from(self.portions.len()).unwrap_or_default());
        for portion in &self.portions {
            out.extend(portion.tokens.to_le_bytes());
            moment(out, portion.ends);
            out.extend(portion.dated_us.to_le_bytes());
            out.extend(portion.shard.to_le_bytes());
        }
        out.push(u8::try_from(self.windows.len()).unwrap_or_default());
        for window in &self.windows {
            out.extend(window.remaining.to_le_bytes());
            out.extend(window.reset_us.to_le_bytes());
            out.extend(window.wait_us.to_le_bytes());
        }
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut bytes = Bytes(bytes);
        let rate = Rate::from_bits(bytes.u64()?)?;
        let (asked_at, spent, dry_at) = (bytes.moment()?, bytes.u32()?, bytes.moment()?);
        let (granted, renewing_until) = (bytes.u32()?, bytes.moment()?);
        let (asked, ends, least) = (bytes.moment()?, bytes.moment()?, bytes.u32()?);
        let portion = |bytes: &mut Bytes<'_>| {
            let (tokens, ends) = (bytes.u32()?, bytes.moment()?);
            Some(Portion { tokens, ends, dated_us: bytes.u64()?, shard: bytes.u16()? })
        };
        let window = |bytes: &mut Bytes<'_>| {
            Some(WindowAnswer { remaining: bytes.u32()?, reset_us: bytes.u64()?, wait_us: bytes.u64()? })
        };
        let portions = bytes.several(portion)?;
        let windows = bytes.several(window)?;
        Some(Self {
            rate,
            asked_at,
            spent,
            dry_at: Some(dry_at).filter(|at| *at != Timestamp::default()),
            granted,
            renewing_until,
            refusal: (least > 0).then_some(Refusal { asked_at: asked, ends, least }),
            portions,
            windows,
        })
    }
}

/// Bytes that are read from the front.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn moment(&mut self) -> Option<Timestamp> {
        self.u64().map(Timestamp::from_micros)
    }

    fn several<T>(&mut self, read: impl Fn(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let [number] = self.take()?;
        (0..number).map(|_| read(self)).collect()
    }
}
