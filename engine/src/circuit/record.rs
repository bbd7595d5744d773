//! What the workers of a node know together of their way to a store, and how it changes.

use std::time::Duration;

use super::Phase;
use crate::local::{ATTEMPTS, Cells, CellsBroken};
use crate::packed::{Packed, write};
use crate::policy::CircuitSettings;
use crate::units::Timestamp;

/// The layout of a circuit's bytes; it belongs into the names of its cells.
pub const LAYOUT: u32 = 1;
/// For so long a growing share of questions goes to a store that has come back. A hundred questions' time for a store
/// that needs 4 ms, so that one that is not well fails few; and with the probe's second before, everything is
/// as it was within a second and a half.
pub const RECOVERY: Duration = Duration::from_millis(400);

/// A record that began later than this from now is none of ours: it would stay so for ever.
const NEAR: Duration = Duration::from_secs(1);

/// Where a circuit stands, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Questions go to the store. So many have failed in a row.
    Closed { failures: u32 },
    /// None do.
    Open { since: Timestamp },
    /// One is under way; when it never ends, another may go after `probe_every`.
    Probing { since: Timestamp },
    /// A growing share of them goes.
    Recovering { since: Timestamp },
}

impl Default for State {
    fn default() -> Self {
        State::Closed { failures: 0 }
    }
}

impl State {
    pub(super) fn phase(self) -> Phase {
        match self {
            State::Closed { .. } => Phase::Closed,
            State::Open { .. } => Phase::Open,
            State::Probing { .. } => Phase::Probing,
            State::Recovering { .. } => Phase::Recovering,
        }
    }

    /// Somebody wants to ask at `now`: what time has made of it.
    pub(super) fn asked(self, settings: &CircuitSettings, now: Timestamp) -> Self {
        match self {
            State::Open { since } | State::Probing { since } if now.since(since) >= settings.probe_every => {
                State::Probing { since: now }
            }
            State::Recovering { since } if now.since(since) >= RECOVERY => State::default(),
            unchanged => unchanged,
        }
    }

    /// The store failed what it was asked at `asked_at`. What it was asked before the probe says nothing new.
    pub(super) fn failed(self, settings: &CircuitSettings, asked_at: Timestamp, now: Timestamp) -> Self {
        match self {
            State::Closed { failures } if failures.saturating_add(1) < settings.failures => {
                State::Closed { failures: failures + 1 }
            }
            State::Closed { .. } => State::Open { since: now },
            State::Probing { since } | State::Recovering { since } if asked_at >= since => {
                State::Open { since: now }
            }
            unchanged => unchanged,
        }
    }

    /// The store answered well what it was asked at `asked_at`.
    pub(super) fn succeeded(self, asked_at: Timestamp, now: Timestamp) -> Self {
        match self {
            State::Closed { .. } => State::default(),
            State::Probing { since } if asked_at >= since => State::Recovering { since: now },
            unchanged => unchanged,
        }
    }

    fn encode(self) -> Vec<u8> {
        let (tag, number) = match self {
            State::Closed { failures } => (CLOSED, failures.into()),
            State::Open { since } => (OPEN, since.as_micros()),
            State::Probing { since } => (PROBING, since.as_micros()),
            State::Recovering { since } => (RECOVERING, since.as_micros()),
        };
        let mut out = Vec::with_capacity(16);
        write(&mut out, tag);
        write(&mut out, number);
        out
    }

    /// Bytes of another make read as a closed circuit.
    fn decode(bytes: &[u8], now: Timestamp) -> Self {
        Self::decode_own(bytes, now).unwrap_or_default()
    }

    fn decode_own(bytes: &[u8], now: Timestamp) -> Option<Self> {
        let mut packed = Packed(bytes);
        let tag = packed.number()?;
        if tag == CLOSED {
            let failures = packed.small()?;
            return packed.0.is_empty().then_some(State::Closed { failures });
        }
        let since = Timestamp::from_micros(packed.number()?);
        let is_ours = packed.0.is_empty() && since <= now.plus(NEAR);
        match tag {
            OPEN => is_ours.then_some(State::Open { since }),
            PROBING => is_ours.then_some(State::Probing { since }),
            RECOVERING => is_ours.then_some(State::Recovering { since }),
            _ => None,
        }
    }
}

const CLOSED: u64 = 0;
const OPEN: u64 = 1;
const PROBING: u64 = 2;
const RECOVERING: u64 = 3;

/// What the workers know now.
pub(super) fn read(cells: &dyn Cells, slot: u32, now: Timestamp) -> Result<State, CellsBroken> {
    cells.read(slot).map(|(bytes, _)| State::decode(&bytes, now))
}

/// Changes what they know, in front of nobody else. Gives what it was and what it is.
pub(super) fn update(
    cells: &dyn Cells,
    slot: u32,
    now: Timestamp,
    change: impl Fn(State) -> State,
) -> Result<(State, State), CellsBroken> {
    for _ in 0..ATTEMPTS {
        let (bytes, version) = cells.read(slot)?;
        let before = State::decode(&bytes, now);
        let after = change(before);
        if before == after || cells.write(slot, &after.encode(), version)? {
            return Ok((before, after));
        }
    }
    Err(CellsBroken)
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_micros(ms * 1000)
    }

    #[test]
    fn comes_back_from_its_bytes_as_it_was() {
        let since = at(123_456);
        for state in [
            State::Closed { failures: 7 },
            State::Open { since },
            State::Probing { since },
            State::Recovering { since },
        ] {
            assert_eq!(State::decode(&state.encode(), since), state);
        }
    }

    #[test]
    fn bytes_of_another_make_and_moments_that_never_come_are_a_closed_circuit() {
        let open = State::Open { since: at(5000) }.encode();
        let longer = [open.as_slice(), &[0]].concat();
        for bytes in [&[][..], &[0xff; 20], &[9, 1], &[0], &[1], &longer] {
            assert_eq!(State::decode(bytes, at(5000)), State::default(), "{bytes:?}");
        }
        assert_eq!(State::decode(&open, at(3999)), State::default());
        assert_eq!(State::decode(&open, at(4000)), State::Open { since: at(5000) });
    }
}
