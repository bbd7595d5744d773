//! A part of something, as in `50%`.

/// A share from 0 to 1, in millionths, so that it compares exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share(u32);

impl Share {
    /// Nothing.
    pub const NONE: Share = Share(0);
    /// All.
    pub const ALL: Share = Share(1_000_000);

    /// The share of so many millionths; at most all.
    pub const fn from_millionths(millionths: u32) -> Self {
        if millionths < Self::ALL.0 { Share(millionths) } else { Self::ALL }
    }

    /// In millionths.
    pub fn millionths(self) -> u32 {
        self.0
    }

    /// Whether `chance`, drawn evenly from all of `u32`, falls within this share.
    pub fn holds(self, chance: u32) -> bool {
        (u64::from(chance) * u64::from(Self::ALL.0)) >> 32 < u64::from(self.0)
    }
}
