//! Header lists as a host holds them: raw bytes in the order of their arrival, names in lower case, duplicates kept.

use std::fmt;

/// The host reads no list that is longer than this, in bytes or in entries.
const MAX_PAIRS_BYTES: usize = 1 << 20;
const MAX_PAIRS: usize = 1024;

/// A list of headers or trailers.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers(Vec<(Vec<u8>, Vec<u8>)>);

impl Headers {
    /// The first value under `name`, as bytes.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.values(name).next()
    }

    /// The first value under `name`, as text; what is not UTF-8 in it is replaced.
    pub fn text(&self, name: &str) -> Option<String> {
        self.get(name).map(|value| String::from_utf8_lossy(value).into_owned())
    }

    /// Every value under `name`, in order.
    pub fn values<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.values_of(name.as_bytes())
    }

    /// All names and values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.0.iter().map(|(name, value)| (name.as_slice(), value.as_slice()))
    }

    /// The number of entries.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Appends an entry.
    pub fn add(&mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        self.0.push((name.as_ref().to_ascii_lowercase(), value.as_ref().to_vec()));
    }

    /// Removes every entry under `name`.
    pub fn remove(&mut self, name: impl AsRef<[u8]>) {
        self.0.retain(|(held, _)| !held.eq_ignore_ascii_case(name.as_ref()));
    }

    /// Makes `value` the only one under `name`.
    pub fn replace(&mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        self.remove(&name);
        self.add(name, value);
    }

    pub(super) fn values_of<'a>(&'a self, name: &[u8]) -> impl Iterator<Item = &'a [u8]> {
        self.iter().filter(|(held, _)| held.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    pub(super) fn byte_size(&self) -> usize {
        self.0.iter().map(|(name, value)| name.len() + value.len()).sum()
    }

    /// The ABI's form: the count, then the lengths of each name and value, then both, each closed by a NUL.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = (self.0.len() as u32).to_le_bytes().to_vec();
        for (name, value) in &self.0 {
            out.extend((name.len() as u32).to_le_bytes());
            out.extend((value.len() as u32).to_le_bytes());
        }
        for part in self.0.iter().flat_map(|(name, value)| [name, value]) {
            out.extend(part);
            out.push(0);
        }
        out
    }

    /// Reads the ABI's form. What cannot be read, or is too long, is an empty list, as in Envoy.
    pub(super) fn decode(bytes: &[u8]) -> Self {
        Self::try_decode(bytes).unwrap_or_default()
    }

    fn try_decode(bytes: &[u8]) -> Option<Self> {
        let (count, mut lengths) = split_u32(bytes)?;
        if bytes.len() > MAX_PAIRS_BYTES || count > MAX_PAIRS {
            return None;
        }
        let mut text = lengths.get(count * 8..)?;
        let mut headers = Self::default();
        for _ in 0..count {
            let (name_len, rest) = split_u32(lengths)?;
            let (value_len, rest) = split_u32(rest)?;
            let name = text.get(..name_len)?;
            let value = text.get(name_len + 1..name_len + 1 + value_len)?;
            headers.add(name, value);
            text = text.get(name_len + value_len + 2..)?;
            lengths = rest;
        }
        Some(headers)
    }
}

fn split_u32(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (number, rest) = bytes.split_first_chunk::<4>()?;
    Some((u32::from_le_bytes(*number) as usize, rest))
}

impl<N: AsRef<[u8]>, V: AsRef<[u8]>> FromIterator<(N, V)> for Headers {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        let mut headers = Self::default();
        for (name, value) in pairs {
            headers.add(name, value);
        }
        headers
    }
}

impl<N: AsRef<[u8]>, V: AsRef<[u8]>, const COUNT: usize> From<[(N, V); COUNT]> for Headers {
    fn from(pairs: [(N, V); COUNT]) -> Self {
        pairs.into_iter().collect()
    }
}

impl<N: AsRef<[u8]>, V: AsRef<[u8]>> From<&[(N, V)]> for Headers {
    fn from(pairs: &[(N, V)]) -> Self {
        pairs.iter().map(|(name, value)| (name, value)).collect()
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = |bytes: &[u8]| bytes.escape_ascii().to_string();
        f.debug_list()
            .entries(self.iter().map(|(name, value)| format!("{}: {}", line(name), line(value))))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_survives_the_way_into_a_vm_and_back() {
        let headers = Headers::from([("a", b"1".as_slice()), ("b", b""), ("a", b"\x00\xff")]);
        assert_eq!(Headers::decode(&headers.encode()), headers);
    }

    #[test]
    fn a_list_cut_short_is_empty() {
        let whole = Headers::from([("name", "value")]).encode();
        for end in 0..whole.len() - 1 {
            assert_eq!(Headers::decode(&whole[..end]), Headers::default(), "cut at {end}");
        }
    }

    #[test]
    fn replacing_leaves_one_value_of_many() {
        let mut headers = Headers::from([("x", "1"), ("y", "2"), ("X", "3")]);
        headers.replace("X", "4");
        assert_eq!(headers, Headers::from([("y", "2"), ("x", "4")]));
    }
}
