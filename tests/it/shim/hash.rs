//! What stands in a subject's hash, as `lua/buckets.lua` says.

use std::collections::BTreeMap;

/// A subject's hash.
pub(crate) type Hash = BTreeMap<String, String>;

/// What a window counts that is kept in buckets.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    pub(crate) total: u64,
    /// Index and requests, the oldest first; those of the oldest chunk that have passed are among them.
    pub(crate) buckets: Vec<(u64, u64)>,
    /// Those of them in the oldest chunk, where there is one.
    pub(crate) first_chunk: Vec<(u64, u64)>,
}

impl Counted {
    /// Reads the fields of the window that has this name: `s1h` is the sliding window of an hour.
    pub(crate) fn read(hash: &Hash, name: &str) -> Self {
        let words: Vec<&str> = hash.get(name).map(|value| value.split(' ').collect()).unwrap_or_default();
        let number = |at: usize| words.get(at).map(|word| word.parse::<u64>().unwrap());
        let (first, chunks) = (number(4).unwrap_or(0), number(5).unwrap_or(0));
        let is_chunk = |field: &&String| field.strip_prefix(name).is_some_and(|rest| rest.starts_with(':'));
        assert_eq!(hash.keys().filter(is_chunk).count() as u64, chunks, "no chunk is left behind");
        let [index, counts, ..] = words[..] else { return Self::default() };
        let tail = buckets_of(index, counts);
        let chunk = |number: u64| {
            let (index, counts) = hash[&format!("{name}:{number}")].split_once(' ').unwrap();
            buckets_of(index, counts)
        };
        Self {
            total: number(3).unwrap_or(tail[0].1),
            buckets: (first..first + chunks).flat_map(chunk).chain(tail).collect(),
            first_chunk: if chunks == 0 { Vec::new() } else { chunk(first) },
        }
    }
}

fn buckets_of(index: &str, counts: &str) -> Vec<(u64, u64)> {
    let mut index: u64 = index.parse().unwrap();
    let counts = counts.split(',').map(|part| {
        let (count, gap) = part.split_once('+').unwrap_or((part, "1"));
        let bucket = (index, count.parse().unwrap());
        index += gap.parse::<u64>().unwrap();
        bucket
    });
    counts.collect()
}
