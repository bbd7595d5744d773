//! One spelling for each path, so that a client cannot get a fresh counter by writing the same path otherwise.
//!
//! What RFC 3986, section 6.2.2, holds for equivalent becomes the same: the query is dropped, unreserved
//! characters are decoded, escapes are upper-case, dot segments are resolved. Beyond it, runs of slashes become
//! one, as Envoy's `merge_slashes` does, since most servers read them so.

use std::fmt::Write as _;

/// The normal form of a `:path`. Printable ASCII, whatever comes in.
pub fn normalise(path: &[u8]) -> String {
    let end = path.iter().position(|byte| matches!(byte, b'?' | b'#')).unwrap_or(path.len());
    let decoded = spell(path.get(..end).unwrap_or_default());
    let mut segments: Vec<&str> = Vec::new();
    let mut folder = false;
    for segment in decoded.split('/') {
        folder = matches!(segment, "" | "." | "..");
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            name => segments.push(name),
        }
    }
    let mut normal = String::with_capacity(decoded.len() + 1);
    for segment in &segments {
        normal.push('/');
        normal.push_str(segment);
    }
    if folder || segments.is_empty() {
        normal.push('/');
    }
    normal
}

/// The same text with every octet in its one spelling.
fn spell(path: &[u8]) -> String {
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while let [byte, tail @ ..] = rest {
        let (octet, escaped, next) = match (byte, tail) {
            (b'%', [high, low, after @ ..]) => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => (high << 4 | low, true, after),
                _ => (b'%', true, tail),
            },
            (b'%', _) => (b'%', true, tail),
            (plain, _) => (*plain, false, tail),
        };
        let unreserved = octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'.' | b'_' | b'~');
        if unreserved || (!escaped && octet.is_ascii_graphic()) {
            out.push(char::from(octet));
        } else {
            // writing to a String cannot fail
            let _ = write!(out, "%{octet:02X}");
        }
        rest = next;
    }
    out
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn check(path: &str, normal: &str) {
        assert_eq!(normalise(path.as_bytes()), normal, "{path}");
        assert_eq!(normalise(normal.as_bytes()), normal, "a normal form is its own");
    }

    #[test]
    fn gives_every_spelling_of_a_path_one_form() {
        check("/a/b", "/a/b");
        check("/a/b?q=1#f", "/a/b");
        check("/a//b", "/a/b");
        check("/a/./b/../b", "/a/b");
        check("/%61/%62", "/a/b");
        check("/a%2fb", "/a%2Fb");
        check("/%7euser", "/~user");
    }

    #[test]
    fn keeps_a_trailing_slash_and_never_climbs_out() {
        check("/a/", "/a/");
        check("/a/.", "/a/");
        check("/a/b/..", "/a/");
        check("/../../etc", "/etc");
        check("", "/");
        check("*", "/*");
        check("/%2e%2e/x", "/x");
    }

    #[test]
    fn spells_broken_escapes_and_raw_bytes_as_escapes() {
        check("/100%", "/100%25");
        check("/%zz", "/%25zz");
        assert_eq!(normalise(b"/\xff \x00"), "/%FF%20%00");
    }

    proptest::proptest! {
        #[test]
        fn a_normal_form_is_printable_and_its_own_normal_form(path in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..40)) {
            let normal = normalise(&path);
            proptest::prop_assert!(normal.starts_with('/') && normal.bytes().all(|byte| byte.is_ascii_graphic()));
            proptest::prop_assert_eq!(normalise(normal.as_bytes()), normal);
        }

        #[test]
        fn escaping_an_unreserved_character_changes_nothing(path in "(/[a-z.~]{0,3}){1,5}", at in 0_usize..20) {
            let mut escaped = path.clone().into_bytes();
            let at = at % escaped.len();
            if escaped[at] != b'/' {
                let code = format!("%{:02x}", escaped[at]).into_bytes();
                escaped.splice(at..=at, code);
            }
            proptest::prop_assert_eq!(normalise(&escaped), normalise(path.as_bytes()));
        }
    }
}
