//! The wording that errors share: values shortened, choices listed, near misses named.

use std::fmt::Write as _;
use std::io;

use serde_json::Value;

/// How much of a value an error shows, in characters.
const SHOWN: usize = 60;

/// `value` as JSON, shortened. Writing stops where the shortened text does, however large the value.
pub(super) fn shown(value: &Value) -> String {
    let mut start = Start(Vec::new());
    let whole = serde_json::to_writer(&mut start, value).is_ok();
    let text = String::from_utf8_lossy(&start.0);
    if whole && text.chars().count() <= SHOWN {
        return text.into_owned();
    }
    text.chars().take(SHOWN - 1).chain(['…']).collect()
}

/// Whether `value` is longer than `most` bytes as JSON.
pub(super) fn is_longer_than(most: usize, value: &Value) -> bool {
    serde_json::to_writer(Counted { left: most }, value).is_err()
}

/// Keeps what is sure to hold the first [`SHOWN`] characters, then refuses.
struct Start(Vec<u8>);

impl io::Write for Start {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // UTF-8 takes at most 4 bytes for a character; two more characters keep a cut one out of sight.
        let room = ((SHOWN + 2) * 4).saturating_sub(self.0.len());
        if room == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        let taken = bytes.len().min(room);
        self.0.extend(bytes.iter().take(taken));
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Counted {
    left: usize,
}

impl io::Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.left = self.left.checked_sub(bytes.len()).ok_or(io::ErrorKind::WriteZero)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// `a, b, c`; of more than [`LISTED`] only the first.
pub(super) fn listed<S: AsRef<str>>(names: &[S]) -> String {
    let mut text = String::new();
    for (at, name) in names.iter().enumerate().take(LISTED) {
        let comma = if at == 0 { "" } else { ", " };
        let _ = write!(text, "{comma}{}", name.as_ref());
    }
    match names.len().checked_sub(LISTED) {
        Some(more @ 1..) => format!("{text} and {more} more"),
        _ => text,
    }
}

/// How many names a list in an error holds.
const LISTED: usize = 12;

/// ``; did you mean `x`?`` for the closest of `names` that `written` is a near miss of; else nothing.
pub(super) fn did_you_mean<'a>(written: &str, names: impl Iterator<Item = &'a str>) -> String {
    let near = written.chars().count() / 3;
    names
        .map(|name| (distance(written, name), name))
        .filter(|(distance, _)| *distance <= near.max(1))
        .min()
        .map_or_else(String::new, |(_, name)| format!("; did you mean `{name}`?"))
}

/// How many letters must be put in, left out, changed or swapped with their neighbour to make `a` into `b`
/// (the optimal string alignment distance); [`usize::MAX`] for names too long to be worth it.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    if a.len().max(b.len()) > 128 {
        return usize::MAX;
    }
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    let mut last_of_a = None;
    for (i, &of_a) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        let mut left = i + 1;
        let mut last_of_b = None;
        for (j, &of_b) in b.iter().enumerate() {
            let at = |row: &[usize], j: usize| row.get(j).copied().unwrap_or(usize::MAX - 1);
            let changed = at(&above, j) + usize::from(of_a != of_b);
            let mut least = changed.min(at(&above, j + 1) + 1).min(left + 1);
            if last_of_a == Some(of_b) && last_of_b == Some(of_a) {
                least = least.min(at(&before, j.saturating_sub(1)) + 1);
            }
            row.push(least);
            left = least;
            last_of_b = Some(of_b);
        }
        before = std::mem::replace(&mut above, row);
        last_of_a = Some(of_a);
    }
    above.last().copied().unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn counts_a_swap_of_neighbours_as_one_mistake() {
        for (a, b, expected) in [
            ("", "", 0),
            ("", "abc", 3),
            ("abc", "", 3),
            ("window", "windows", 1),
            ("widnows", "windows", 1),
            ("lmit", "limit", 1),
            ("kitten", "sitting", 3),
            ("ab", "ba", 1),
            ("größe", "grösse", 2),
        ] {
            assert_eq!(distance(a, b), expected, "{a} {b}");
        }
    }

    #[test]
    fn names_the_nearest_and_nothing_for_another_word() {
        let names = ["limit", "per", "burst"];
        assert_eq!(did_you_mean("limits", names.into_iter()), "; did you mean `limit`?");
        assert_eq!(did_you_mean("timezone", names.into_iter()), "");
        assert_eq!(did_you_mean("pre", names.into_iter()), "; did you mean `per`?");
        assert_eq!(did_you_mean("", names.into_iter()), "");
    }

    #[test]
    fn shortens_a_value_to_sixty_characters() {
        assert_eq!(shown(&json!({"a": [1, 2.5, null]})), r#"{"a":[1,2.5,null]}"#);
        let exact = "x".repeat(58);
        assert_eq!(shown(&json!(exact)), format!("\"{exact}\""));
        assert_eq!(shown(&json!("ß".repeat(59))), format!("\"{}…", "ß".repeat(58)));
        assert_eq!(shown(&json!("🦀".repeat(1_000_000))).chars().count(), 60);
    }

    #[test]
    fn measures_a_value_as_json() {
        assert!(!is_longer_than(7, &json!([1, 2, 3])));
        assert!(is_longer_than(6, &json!([1, 2, 3])));
    }

    #[test]
    fn lists_a_dozen_names_and_counts_the_rest() {
        assert_eq!(listed::<&str>(&[]), "");
        assert_eq!(listed(&["a", "b"]), "a, b");
        assert_eq!(listed(&["x"; 14]), format!("{}x and 2 more", "x, ".repeat(11)));
    }
}
