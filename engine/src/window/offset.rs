//! Where a calendar window's clock stands, as a fixed distance from UTC. Zones that change theirs are in `zone.rs`.

use std::str::FromStr;
use std::time::Duration;

use crate::units::micros;

const RANGE_MIN: std::ops::RangeInclusive<i32> = -12 * 60..=14 * 60;

/// A distance from UTC in whole minutes, from -12:00 to +14:00.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offset {
    minutes: i32,
}

/// This is no distance from UTC that any place has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be UTC or an offset from -12:00 to +14:00, such as +08:00")]
pub struct OffsetError;

impl Offset {
    /// So many minutes ahead of UTC, from -720 to 840.
    pub fn from_minutes(minutes: i32) -> Result<Self, OffsetError> {
        RANGE_MIN.contains(&minutes).then_some(Self { minutes }).ok_or(OffsetError)
    }

    /// Minutes ahead of UTC.
    pub fn minutes(self) -> i32 {
        self.minutes
    }

    /// How much earlier than those of UTC windows of `per` begin; less than `per`, since they repeat.
    pub fn shift(self, per: Duration) -> Duration {
        let per = i128::from(micros(per).max(1));
        let shift = (i128::from(self.minutes) * 60_000_000).rem_euclid(per);
        Duration::from_micros(u64::try_from(shift).unwrap_or_default())
    }
}

impl FromStr for Offset {
    type Err = OffsetError;

    /// `UTC`, or a sign, two digits of hours, a colon and two of minutes.
    fn from_str(text: &str) -> Result<Self, OffsetError> {
        let (sign, clock) = match text.split_at_checked(1) {
            _ if text == "UTC" => return Ok(Self::default()),
            Some(("+", clock)) => (1, clock),
            Some(("-", clock)) => (-1, clock),
            _ => return Err(OffsetError),
        };
        let (hours, minutes) = clock.split_once(':').ok_or(OffsetError)?;
        let minutes = two_digits(minutes).filter(|minutes| *minutes < 60).ok_or(OffsetError)?;
        Self::from_minutes(sign * (two_digits(hours).ok_or(OffsetError)? * 60 + minutes))
    }
}

fn two_digits(text: &str) -> Option<i32> {
    let plain = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn reads_what_places_write() {
        let read = |text: &str| text.parse::<Offset>().map(Offset::minutes);
        for (text, minutes) in
            [("UTC", 0), ("+00:00", 0), ("+08:00", 480), ("-03:30", -210), ("-12:00", -720), ("+14:00", 840)]
        {
            assert_eq!(read(text), Ok(minutes), "{text}");
        }
        for text in [
            "",
            "utc",
            "+",
            "8",
            "+8:00",
            "08:00",
            "+08",
            "+0800",
            "+08:60",
            "+14:01",
            "-12:01",
            "++8:00",
            "\u{2212}08:00",
        ] {
            assert_eq!(read(text), Err(OffsetError), "{text}");
        }
    }

    #[test]
    fn moves_the_beginning_of_a_window_by_less_than_the_window() {
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        let shift = |minutes, per| Offset::from_minutes(minutes).unwrap().shift(per);
        assert_eq!(shift(480, hours(24)), hours(8));
        assert_eq!(shift(-60, hours(24)), hours(23));
        assert_eq!(shift(480, hours(1)), Duration::ZERO);
        assert_eq!(shift(840, hours(12)), hours(2));
    }
}
