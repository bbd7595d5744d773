//! Durations and percentages as operators write them: `20ms`, `1m`, `1d`; `1%`, `0.25%`.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::Share;
use super::read::Node;

/// The units and their length in milliseconds, longest first.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

impl Node<'_> {
    /// A duration within `range`: a whole number and its unit.
    pub(super) fn duration(&self, range: RangeInclusive<Duration>) -> Option<Duration> {
        self.value().as_str().and_then(parse).filter(|duration| range.contains(duration)).or_else(|| {
            let (from, to) = (written(*range.start()), written(*range.end()));
            self.refuse(format_args!(
                "must be a duration from {from} to {to}: a whole number and its unit, ms, s, m, h or d"
            ))
        })
    }

    /// A share from 0% to 100%. A bare 0 is nothing in any unit; any other number needs its sign, for 1 could
    /// be meant for 1% as well as for all.
    pub(super) fn percent(&self) -> Option<Share> {
        self.share().or_else(|| {
            self.refuse("must be a percentage from 0% to 100% with at most four decimals, such as 1% or 0.5%")
        })
    }

    /// A share above nothing, up to 100%: of that, nothing at all would always be there.
    pub(super) fn rate(&self) -> Option<Share> {
        self.share().filter(|share| *share > Share::NONE).or_else(|| {
            self.refuse(
                "must be a percentage above 0% and up to 100% with at most four decimals, such as 50% or 0.5%",
            )
        })
    }

    fn share(&self) -> Option<Share> {
        match self.value().as_f64() {
            Some(0.0) => Some(Share::NONE),
            _ => self.value().as_str().and_then(parse_percent),
        }
    }
}

fn parse(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    let (_, millis) = UNITS.iter().find(|(name, _)| *name == unit)?;
    Some(Duration::from_millis(number.parse::<u64>().ok()?.checked_mul(*millis)?))
}

/// The shortest exact way to write a whole number of milliseconds: `1d` for 24 hours, `90s` for a minute and a half.
pub fn written(duration: Duration) -> String {
    let millis = duration.as_millis();
    UNITS
        .iter()
        .find(|(_, unit)| millis.is_multiple_of(u128::from(*unit)))
        .map_or_else(|| format!("{millis}ms"), |(name, unit)| format!("{}{name}", millis / u128::from(*unit)))
}

fn parse_percent(text: &str) -> Option<Share> {
    let number = text.strip_suffix('%')?;
    let (whole, decimals) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(decimals) || decimals.len() > 4 {
        return None;
    }
    // A percent is 10,000 millionths, so four decimals are whole millionths.
    let millionths = format!("{whole}{decimals:0<4}").parse::<u32>().ok()?;
    (millionths <= Share::ALL.millionths()).then(|| Share::from_millionths(millionths))
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn reads_a_whole_number_with_its_unit_and_nothing_else() {
        for (text, millis) in [("1ms", 1), ("20ms", 20), ("5s", 5000), ("1m", 60_000), ("007h", 25_200_000)] {
            assert_eq!(parse(text), Some(Duration::from_millis(millis)), "{text}");
        }
        assert_eq!(parse("1d"), parse("24h"));
        for text in ["", "1", "ms", "1 m", " 1m", "1m ", "1.5s", "-1s", "+1s", "1h30m", "1M", "1us", "１s"] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(parse("99999999999999999999d"), None);
        assert_eq!(parse("18446744073709551615d"), None);
    }

    #[test]
    fn writes_a_duration_in_its_longest_exact_unit() {
        for (text, shortest) in [
            ("60s", "1m"),
            ("90s", "90s"),
            ("24h", "1d"),
            ("36h", "36h"),
            ("1500ms", "1500ms"),
            ("1000ms", "1s"),
            ("366d", "366d"),
        ] {
            assert_eq!(written(parse(text).unwrap()), shortest);
        }
    }

    #[test]
    fn reads_percentages_exactly() {
        for (text, millionths) in [
            ("0%", 0),
            ("1%", 10_000),
            ("0.0001%", 1),
            ("33.3%", 333_000),
            ("100%", 1_000_000),
            ("100.0000%", 1_000_000),
        ] {
            assert_eq!(parse_percent(text).map(Share::millionths), Some(millionths), "{text}");
        }
        for text in
            ["1", "%", "-1%", "+1%", ".5%", "5.%", "1 %", "100.0001%", "0.00001%", "1e1%", "99999999%"]
        {
            assert_eq!(parse_percent(text), None, "{text}");
        }
    }
}
