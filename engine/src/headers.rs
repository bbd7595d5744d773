//! A request's headers as the host hands them over, in bytes.
//!
//! Header values are not text: a client may send any byte from 0x80 up, so nothing here asks for UTF-8.

use std::ops::Range;

/// A header map. Names are lower-case, as HTTP/2 and Envoy have them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    buffer: Vec<u8>,
    lines: Vec<Line>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    name: Range<usize>,
    value: Range<usize>,
}

impl Headers {
    /// Reads the layout in which proxy-wasm hosts hand over maps: the number of pairs, then two lengths for
    /// each, all u32 little-endian, then every name and value with a NUL behind it. `None` when the lengths
    /// do not fit the buffer.
    pub fn parse(buffer: Vec<u8>) -> Option<Self> {
        if buffer.is_empty() {
            return Some(Self::default());
        }
        let number = |at: usize| -> Option<usize> {
            let bytes = buffer.get(at..at.checked_add(4)?)?;
            usize::try_from(u32::from_le_bytes(bytes.try_into().ok()?)).ok()
        };
        let count = number(0)?;
        let mut at = count.checked_mul(8)?.checked_add(4)?;
        if at > buffer.len() {
            return None;
        }
        let mut take = |len: usize| -> Option<Range<usize>> {
            let range = at..at.checked_add(len)?;
            buffer.get(range.clone())?;
            at = range.end.checked_add(1)?;
            Some(range)
        };
        let mut lines = Vec::with_capacity(count);
        for pair in 0..count {
            let name = take(number(4 + pair * 8)?)?;
            let value = take(number(8 + pair * 8)?)?;
            lines.push(Line { name, value });
        }
        Some(Self { buffer, lines })
    }

    /// The map that holds these pairs.
    pub fn from_pairs<N: AsRef<[u8]>, V: AsRef<[u8]>>(pairs: impl IntoIterator<Item = (N, V)>) -> Self {
        let mut headers = Self::default();
        for (name, value) in pairs {
            let name = headers.append(name.as_ref());
            let value = headers.append(value.as_ref());
            headers.lines.push(Line { name, value });
        }
        headers
    }

    fn append(&mut self, bytes: &[u8]) -> Range<usize> {
        let start = self.buffer.len();
        self.buffer.extend_from_slice(bytes);
        start..self.buffer.len()
    }

    /// Every line, in the order of the request.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.lines.iter().map(|line| (self.bytes(&line.name), self.bytes(&line.value)))
    }

    /// The values of every line of this name.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.iter().filter(move |(n, _)| *n == name.as_bytes()).map(|(_, value)| value)
    }

    /// The value of the first line of this name.
    pub fn first(&self, name: &str) -> Option<&[u8]> {
        self.iter().find(|(n, _)| *n == name.as_bytes()).map(|(_, value)| value)
    }

    fn bytes(&self, range: &Range<usize>) -> &[u8] {
        self.buffer.get(range.clone()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    /// The layout of a map with these pairs.
    fn layout(pairs: &[(&[u8], &[u8])]) -> Vec<u8> {
        let mut out = u32::try_from(pairs.len()).unwrap().to_le_bytes().to_vec();
        for (name, value) in pairs {
            out.extend(u32::try_from(name.len()).unwrap().to_le_bytes());
            out.extend(u32::try_from(value.len()).unwrap().to_le_bytes());
        }
        for (name, value) in pairs {
            out.extend_from_slice(name);
            out.push(0);
            out.extend_from_slice(value);
            out.push(0);
        }
        out
    }

    #[test]
    fn reads_what_a_host_hands_over_with_bytes_that_are_no_text() {
        let headers =
            Headers::parse(layout(&[(b":path", b"/"), (b"x", b"\xff\x00\x80"), (b"x", b"2")])).unwrap();
        assert_eq!(headers.first("x"), Some(&b"\xff\x00\x80"[..]));
        assert_eq!(headers.all("x").collect::<Vec<_>>(), [&b"\xff\x00\x80"[..], b"2"]);
        assert_eq!(headers.first("y"), None);
        assert_eq!(headers.iter().count(), 3);
    }

    #[test]
    fn refuses_every_truncation_of_a_map() {
        let whole = layout(&[(b"a", b"1"), (b"b", b"22")]);
        // the last NUL is not needed to read the last value
        for len in 1..whole.len() - 1 {
            assert_eq!(Headers::parse(whole[..len].to_vec()), None, "cut at {len}");
        }
        assert!(Headers::parse(whole).is_some());
    }

    #[test]
    fn refuses_lengths_that_wrap_around() {
        let mut bytes = layout(&[(b"a", b"1")]);
        bytes[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(Headers::parse(bytes.clone()), None);
        bytes[0..4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(Headers::parse(bytes), None);
    }

    #[test]
    fn takes_no_bytes_for_no_headers() {
        assert_eq!(Headers::parse(Vec::new()), Some(Headers::default()));
    }
}
