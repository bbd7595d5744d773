//! What a node knows of one subject: the tokens in its pool, how fast they go, and what the store said last.
//!
//! Its bytes are packed as they stand in shared data. Bytes of another make read as nothing.

use std::time::Duration;

use super::demand::Rate;
use crate::packed::{Packed, write};
use crate::units::Timestamp;
use crate::window::Window;
use crate::wire::{KeyAnswer, WindowAnswer};

/// The leases that a subject has at once: the one in use, and the next. A third takes the first one's place.
const MOST_PORTIONS: usize = 2;
/// Chunks that come back may be of leases that have been used up here, as long as there are no more than so many.
const MOST_PUT_BACK: usize = 4;
/// A chunk is what the node's demand spends in one part in so many of a lease's life.
const PARTS: u32 = 12;
/// What is known of a subject's demand is kept for so long after the last question.
const REMEMBERED: Duration = Duration::from_secs(60);
/// The pool is low below one part in so many of the last lease.
const LOW: u32 = 4;
/// Unspent tokens go back when more than one part in so many of a window is used: else nobody misses them.
const MISSED_FROM: u64 = 16;

/// A subject on this node.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Record {
    /// How fast its tokens go.
    pub(super) rate: Rate,
    /// When the store was asked last what it granted.
    pub(super) asked_at: Timestamp,
    /// What went since: into chunks of workers, and for the requests that asked.
    pub(super) spent: u32,
    /// Since when the store has nothing to give, so that requests say nothing of the demand. An empty pool does not say so: workers
    /// still spend their chunks.
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

    /// Takes `cost` tokens of one lease, and as many as go within a twelfth of its life; but beyond the cost no more than
    /// half of it. What one worker holds cannot be spent by the others.
    pub(super) fn take(&mut self, cost: u32, now: Timestamp) -> Option<Portion> {
        self.portions.retain(|portion| portion.ends > now && portion.tokens > 0);
        let life = self.portions.last()?.ends.since(self.asked_at);
        let portion = self.portions.iter_mut().find(|portion| portion.tokens >= cost)?;
        let wanted = self.rate.within((life / PARTS).min(portion.ends.since(now) / 2));
        let most = portion.tokens.div_ceil(2).max(cost);
        let taken = Portion { tokens: wanted.clamp(cost, most), ..*portion };
        portion.tokens -= taken.tokens;
        self.spent = self.spent.saturating_add(taken.tokens);
        Some(taken)
    }

    /// Puts tokens back into the lease that they are of, as long as there is a place for it.
    pub(super) fn put_back(&mut self, rest: Portion) {
        self.spent = self.spent.saturating_sub(rest.tokens);
        let same = self.portions.iter().position(|portion| portion.is_of_the_same_lease(&rest));
        if let Some(portion) = same.and_then(|at| self.portions.get_mut(at)) {
            portion.tokens = portion.tokens.saturating_add(rest.tokens);
        } else if self.portions.len() < MOST_PUT_BACK {
            self.insert(rest);
        }
    }

    /// Whether so little is left that it is time for a renewal.
    pub(super) fn is_low(&self, now: Timestamp) -> bool {
        self.left(now) < self.granted / LOW && self.may_be_renewed(now)
    }

    /// Whether what is left will have gone within `span`.
    pub(super) fn is_dry_within(&self, span: Duration, now: Timestamp) -> bool {
        self.left(now) <= self.rate.within(span)
    }

    /// Whether no worker is about to renew it, and the store has not said that it is of no use.
    pub(super) fn may_be_renewed(&self, now: Timestamp) -> bool {
        self.renewing_until <= now && self.refusal.is_none_or(|refusal| refusal.ends <= now)
    }

    /// Whether so much of a window is used that unspent tokens would be missed.
    pub(super) fn is_missed(&self, windows: &[Window]) -> bool {
        windows.iter().zip(&self.windows).any(|(window, said)| {
            let capacity = u64::from(window.capacity());
            capacity.saturating_sub(said.remaining.into()) * MISSED_FROM > capacity
        })
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
        self.insert(portion);
        (self.portions.len() > MOST_PORTIONS).then(|| self.portions.remove(0))
    }

    fn insert(&mut self, portion: Portion) {
        let at = self.portions.partition_point(|known| known.ends <= portion.ends);
        self.portions.insert(at, portion);
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

    /// Notes what the store said when it refused.
    pub(super) fn refused(&mut self, answer: &KeyAnswer, refusal: Refusal) {
        self.windows.clone_from(&answer.windows);
        (self.refusal, self.renewing_until) = (Some(refusal), Timestamp::default());
        self.dry_at.get_or_insert(refusal.asked_at);
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let moment = |out: &mut Vec<u8>, at: Timestamp| write(out, at.as_micros());
        out.extend(self.rate.to_bytes());
        moment(out, self.asked_at);
        write(out, self.spent.into());
        moment(out, self.dry_at.unwrap_or_default());
        write(out, self.granted.into());
        moment(out, self.renewing_until);
        // a refusal is of one request at least
        write(out, self.refusal.map_or(0, |refusal| refusal.least).into());
        if let Some(refusal) = self.refusal {
            moment(out, refusal.asked_at);
            moment(out, refusal.ends);
        }
        write(out, self.portions.len() as u64);
        for portion in &self.portions {
            write(out, portion.tokens.into());
            moment(out, portion.ends);
            write(out, portion.dated_us);
            write(out, portion.shard.into());
        }
        for window in &self.windows {
            write(out, window.remaining.into());
            write(out, window.reset_us);
            write(out, window.wait_us);
        }
    }

    /// `None` for bytes that are no record.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut packed = Packed(bytes);
        let moment = |packed: &mut Packed<'_>| packed.number().map(Timestamp::from_micros);
        let rate = Rate::from_bytes(packed.bytes()?)?;
        let (asked_at, spent, dry_at) = (moment(&mut packed)?, packed.small()?, moment(&mut packed)?);
        let (granted, renewing_until) = (packed.small()?, moment(&mut packed)?);
        let refusal = match packed.small()? {
            0 => None,
            least => Some(Refusal { asked_at: moment(&mut packed)?, ends: moment(&mut packed)?, least }),
        };
        let mut portions = Vec::new();
        for _ in 0..packed.number()? {
            let (tokens, ends) = (packed.small()?, moment(&mut packed)?);
            portions.push(Portion { tokens, ends, dated_us: packed.number()?, shard: packed.small()? });
        }
        let mut windows = Vec::new();
        while !packed.0.is_empty() {
            let (remaining, reset_us) = (packed.small()?, packed.number()?);
            windows.push(WindowAnswer { remaining, reset_us, wait_us: packed.number()? });
        }
        let dry_at = Some(dry_at).filter(|at| *at != Timestamp::default());
        Some(Self { rate, asked_at, spent, dry_at, granted, renewing_until, refusal, portions, windows })
    }
}
