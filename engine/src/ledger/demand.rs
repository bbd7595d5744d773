//! How fast a subject's tokens go on this node, and what lease that calls for.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::lease::{LeaseAsk, MAX_LIFE};
use crate::window::MAX_LIMIT;

/// What went within this time weighs as much as what was known before.
const MEMORY_S: f32 = 0.25;
/// A lease for a hot subject is for so many tokens: a question in as many requests. More would live longer, and leave
/// that much late when the subject comes to its limit.
const TOKENS: f32 = 64.0;
/// The shortest time for which a lease is asked, however hot: four questions a second and node.
const SHORTEST_S: f32 = 0.25;
/// A life is longer by a third than the time in which the tokens should go, for requests come unevenly.
const LIFE: f32 = 4.0 / 3.0;
/// What is asked for a subject of which nothing is known.
const FIRST_TOKENS: u32 = 4;

/// Tokens a second; nothing is known at first.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Rate(f32);

impl Rate {
    /// The rate after `tokens` more went within `span`.
    #[must_use]
    pub(super) fn after(self, tokens: u32, span: Duration) -> Self {
        Self((self.0 * MEMORY_S + tokens as f32) / (MEMORY_S + span.as_secs_f32()))
    }

    /// How many go within `span`.
    pub(super) fn within(self, span: Duration) -> u32 {
        whole(self.0 * span.as_secs_f32())
    }

    pub(super) fn to_bytes(self) -> [u8; 4] {
        self.0.to_le_bytes()
    }

    /// `None` for what is no rate.
    pub(super) fn from_bytes(bytes: [u8; 4]) -> Option<Self> {
        Some(f32::from_le_bytes(bytes)).filter(|rate| rate.is_finite() && *rate >= 0.0).map(Self)
    }

    /// What to ask for.
    pub(super) fn ask(self, drift: NonZeroU32, nodes: NonZeroU32) -> LeaseAsk {
        let longest_s = MAX_LIFE.as_secs_f32();
        let (tokens, life_s) = if self.0 > 0.0 {
            let span_s = (TOKENS / self.0).clamp(SHORTEST_S, longest_s / LIFE);
            (whole((self.0 * span_s).ceil()), span_s * LIFE)
        } else {
            (FIRST_TOKENS, longest_s)
        };
        LeaseAsk {
            tokens: tokens.clamp(1, MAX_LIMIT),
            life_ms: whole(life_s * 1000.0).max(1),
            drift: drift.get(),
            nodes: nodes.get(),
        }
    }
}

/// The whole part of a number that is not below zero; the largest for what is too large, for casts saturate.
fn whole(number: f32) -> u32 {
    number as u32
}
