//! Finding, removing and writing one mark in the headers that carry marks.
//!
//! Baggage, `tracestate` and `sw8-correlation` are lists that others write to as well: what is not ours stays
//! as it is, byte for byte, whether or not it fits its grammar. What could be ours is taken in the widest
//! sense (white space, no value, several times), because a mark that this code overlooks is one that an
//! untrusted client gets through to a service with a more forgiving parser.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use percent_encoding::{AsciiSet, CONTROLS, percent_decode, utf8_percent_encode};

use crate::headers::Headers;
use crate::policy::Carrier;

/// What W3C baggage wants encoded in a value: all but its `baggage-octet`, and the percent sign.
const BAGGAGE_VALUE: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b',').add(b';').add(b'\\').add(b'%');

/// The values of one header, line by line.
pub(super) type Lines<'a> = Vec<Cow<'a, [u8]>>;

impl Carrier {
    /// The lower-case name of the header that carries the mark.
    pub(super) fn header(&self) -> Cow<'_, str> {
        match self {
            Carrier::Baggage(_) => Cow::Borrowed("baggage"),
            Carrier::Header(name) => Cow::Borrowed(name),
            Carrier::JaegerBaggage(key) => Cow::Owned(format!("uberctx-{}", key.to_ascii_lowercase())),
            Carrier::SkyWalking(_) => Cow::Borrowed("sw8-correlation"),
            Carrier::Tracestate(_) => Cow::Borrowed("tracestate"),
        }
    }

    /// Whether this carrier may be read at all: `tracestate` counts only beside a valid `traceparent`
    /// (W3C Trace Context, 3.3.1.1).
    pub(super) fn readable(&self, headers: &Headers) -> bool {
        match self {
            Carrier::Tracestate(_) => headers.first("traceparent").is_some_and(is_traceparent),
            _ => true,
        }
    }

    /// The mark's values in these lines, decoded, in their order.
    pub(super) fn values<'a>(&'a self, lines: &'a Lines<'_>) -> impl Iterator<Item = Cow<'a, [u8]>> {
        let named = lines.iter().filter(|line| self.may_be_in(line));
        named.flat_map(move |line| self.members(line)).filter_map(move |member| self.value(member))
    }

    /// The same lines without the mark; `None` when it is not in them.
    pub(super) fn without(&self, lines: &Lines<'_>) -> Option<Lines<'static>> {
        let ours = |line: &Cow<'_, [u8]>| self.members(line).any(|member| self.value(member).is_some());
        if !lines.iter().any(ours) {
            return None;
        }
        Some(lines.iter().filter_map(|line| self.line_without(line)).map(Cow::Owned).collect())
    }

    /// The same lines with the mark, once, at this value.
    pub(super) fn with(&self, lines: &Lines<'_>, value: &str) -> Lines<'static> {
        let rest = self.without(lines);
        let mut lines: Lines<'static> =
            rest.unwrap_or_else(|| lines.iter().map(|line| Cow::Owned(line.to_vec())).collect());
        let member = self.member(value);
        match (self.is_list(), lines.last_mut()) {
            (true, Some(last)) => {
                let last = last.to_mut();
                last.push(b',');
                last.extend_from_slice(member.as_bytes());
            }
            (true, None) => lines.push(Cow::Owned(member.into_bytes())),
            (false, _) => lines = vec![Cow::Owned(member.into_bytes())],
        }
        lines
    }

    /// Whether a look at the members of a line is worth it: few requests bear a mark, and most have long lists.
    fn may_be_in(&self, line: &[u8]) -> bool {
        match self {
            Carrier::Baggage(key) | Carrier::Tracestate(key) => contains(line, key.as_bytes()),
            // the whole value is the mark, or its name stands there in another spelling
            Carrier::Header(_) | Carrier::JaegerBaggage(_) | Carrier::SkyWalking(_) => true,
        }
    }

    fn is_list(&self) -> bool {
        matches!(self, Carrier::Baggage(_) | Carrier::SkyWalking(_) | Carrier::Tracestate(_))
    }

    fn members<'a>(&self, line: &'a [u8]) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let list = self.is_list();
        line.split(move |byte| list && *byte == b',')
    }

    /// The value of a member, when the member is ours.
    fn value<'a>(&self, member: &'a [u8]) -> Option<Cow<'a, [u8]>> {
        match self {
            Carrier::Header(_) => Some(Cow::Borrowed(member.trim_ascii())),
            Carrier::JaegerBaggage(_) => Some(percent_decode(member.trim_ascii()).into()),
            Carrier::Baggage(key) => {
                let without_properties = member.split(|byte| *byte == b';').next().unwrap_or_default();
                let (name, value) = split_pair(without_properties, b'=');
                (name == key.as_bytes()).then(|| percent_decode(value).into())
            }
            Carrier::Tracestate(key) => {
                let (name, value) = split_pair(member, b'=');
                (name == key.as_bytes()).then_some(Cow::Borrowed(value))
            }
            Carrier::SkyWalking(key) => {
                let (name, value) = split_pair(member, b':');
                let ours = BASE64.decode(name).is_ok_and(|name| name == key.as_bytes());
                ours.then(|| Cow::Owned(BASE64.decode(value).unwrap_or_default()))
            }
        }
    }

    fn line_without(&self, line: &[u8]) -> Option<Vec<u8>> {
        let others: Vec<&[u8]> = self.members(line).filter(|member| self.value(member).is_none()).collect();
        let rest = others.join(&b','.to_owned());
        let touched = rest.len() != line.len();
        let rest = if touched { rest.trim_ascii().to_vec() } else { rest };
        (!rest.is_empty()).then_some(rest)
    }

    fn member(&self, value: &str) -> String {
        match self {
            Carrier::Header(_) => value.to_owned(),
            Carrier::JaegerBaggage(_) => utf8_percent_encode(value, BAGGAGE_VALUE).to_string(),
            Carrier::Baggage(key) => format!("{key}={}", utf8_percent_encode(value, BAGGAGE_VALUE)),
            Carrier::Tracestate(key) => format!("{key}={value}"),
            Carrier::SkyWalking(key) => format!("{}:{}", BASE64.encode(key), BASE64.encode(value)),
        }
    }
}

fn contains(line: &[u8], key: &[u8]) -> bool {
    let Some(first) = key.first() else { return true };
    let mut rest = line;
    while let Some(at) = rest.iter().position(|byte| byte == first) {
        let (_, found) = rest.split_at(at);
        if found.starts_with(key) {
            return true;
        }
        rest = found.get(1..).unwrap_or_default();
    }
    false
}

fn split_pair(member: &[u8], separator: u8) -> (&[u8], &[u8]) {
    let mut halves = member.splitn(2, |byte| *byte == separator);
    let (name, value) = (halves.next().unwrap_or_default(), halves.next().unwrap_or_default());
    (name.trim_ascii(), value.trim_ascii())
}

/// `00-<32 hex>-<16 hex>-<2 hex>`, lower-case, ids not all zero; a later version may go on behind that.
fn is_traceparent(value: &[u8]) -> bool {
    let hex = |part: &[u8]| part.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let id = |part: &[u8]| hex(part) && part.iter().any(|b| *b != b'0');
    let parts: Vec<&[u8]> = value.trim_ascii().split(|byte| *byte == b'-').collect();
    match parts.as_slice() {
        [version, trace, span, flags, rest @ ..] => {
            version.len() == 2
                && hex(version)
                && *version != b"ff"
                && (rest.is_empty() || *version != b"00")
                && trace.len() == 32
                && id(trace)
                && span.len() == 16
                && id(span)
                && flags.len() == 2
                && hex(flags)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn shadow() -> Carrier {
        Carrier::Baggage("shadow".into())
    }

    fn lines<'a>(texts: &[&'a str]) -> Lines<'a> {
        texts.iter().map(|text| Cow::Borrowed(text.as_bytes())).collect()
    }

    fn values(carrier: &Carrier, texts: &[&str]) -> Vec<String> {
        let lines = lines(texts);
        carrier.values(&lines).map(|v| String::from_utf8_lossy(&v).into_owned()).collect()
    }

    fn without(carrier: &Carrier, texts: &[&str]) -> Option<Vec<String>> {
        let rest = carrier.without(&lines(texts))?;
        Some(rest.iter().map(|line| String::from_utf8_lossy(line).into_owned()).collect())
    }

    fn with(carrier: &Carrier, texts: &[&str], value: &str) -> Vec<String> {
        let all = carrier.with(&lines(texts), value);
        all.iter().map(|line| String::from_utf8_lossy(line).into_owned()).collect()
    }

    // The cases of the W3C baggage conformance suite that concern reading.
    #[test]
    fn reads_baggage_with_white_space_around_everything() {
        let text = "shadow \t = \t true \t ; \t prop \t , \t other = 1 ; p = 2";
        assert_eq!(values(&shadow(), &[text]), ["true"]);
        assert_eq!(values(&Carrier::Baggage("other".into()), &[text]), ["1"]);
    }

    #[test]
    fn reads_a_baggage_value_with_equals_signs_and_percent_escapes() {
        assert_eq!(values(&shadow(), &["shadow=a=b%20c%2C"]), ["a=b c,"]);
    }

    #[test]
    fn leaves_percent_signs_in_baggage_keys_as_they_are() {
        assert!(values(&shadow(), &["%73hadow=true"]).is_empty());
        assert!(values(&shadow(), &["Shadow=true"]).is_empty(), "keys are case-sensitive");
    }

    #[test]
    fn reads_every_duplicate_over_several_headers_in_order() {
        assert_eq!(values(&shadow(), &["shadow=0,a=b", "shadow=1 , shadow=2"]), ["0", "1", "2"]);
    }

    #[test]
    fn finds_no_mark_in_a_property_or_in_malformed_members() {
        assert!(values(&shadow(), &["a=1;shadow=true", ",,=,;;", "=true", "\"shadow=true\""]).is_empty());
    }

    #[test]
    fn removes_only_ours_and_keeps_the_rest_byte_for_byte() {
        let rest = without(&shadow(), &["a=1 ;p, shadow=true;x ,b=%7f, ,c", "d= 4 "]);
        assert_eq!(rest.unwrap(), ["a=1 ;p,b=%7f, ,c", "d= 4 "]);
    }

    #[test]
    fn drops_a_line_that_held_nothing_else() {
        assert_eq!(without(&shadow(), &["shadow=true", "a=1"]).unwrap(), ["a=1"]);
        assert_eq!(without(&shadow(), &["shadow=true,shadow"]).unwrap(), Vec::<String>::new());
        assert_eq!(without(&shadow(), &["a=1", "shadowy=true"]), None);
    }

    #[test]
    fn removes_a_member_without_a_value_too() {
        assert_eq!(without(&shadow(), &["shadow,a=1"]).unwrap(), ["a=1"]);
        assert_eq!(without(&shadow(), &["shadow;p=1,a=1"]).unwrap(), ["a=1"]);
    }

    #[test]
    fn writes_the_mark_once_behind_what_is_there() {
        assert_eq!(with(&shadow(), &["a=1", "b=2,shadow=1"], "a b"), ["a=1", "b=2,shadow=a%20b"]);
        assert_eq!(with(&shadow(), &[], "true"), ["shadow=true"]);
        assert_eq!(with(&Carrier::Header("x-shadow".into()), &["0", "1"], "true"), ["true"]);
    }

    #[test]
    fn reads_and_writes_jaeger_and_skywalking() {
        let jaeger = Carrier::JaegerBaggage("Shadow".into());
        assert_eq!(jaeger.header(), "uberctx-shadow");
        assert_eq!(values(&jaeger, &["tru%65"]), ["true"]);
        let skywalking = Carrier::SkyWalking("shadow".into());
        let written = with(&skywalking, &["YQ==:MQ=="], "true");
        assert_eq!(written, ["YQ==:MQ==,c2hhZG93:dHJ1ZQ=="]);
        assert_eq!(values(&skywalking, &[&written[0]]), ["true"]);
        assert_eq!(values(&skywalking, &["c2hhZG93:not base64"]), [""]);
        assert_eq!(without(&skywalking, &[&written[0]]).unwrap(), ["YQ==:MQ=="]);
    }

    #[test]
    fn reads_tracestate_only_beside_a_valid_traceparent() {
        let carrier = Carrier::Tracestate("vendor".into());
        let readable = |parent: &str| carrier.readable(&Headers::from_pairs([("traceparent", parent)]));
        let (trace, span) = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
        assert!(readable(&format!("00-{trace}-{span}-01")));
        assert!(readable(&format!("cc-{trace}-{span}-01-what-comes")));
        assert!(!readable(&format!("00-{trace}-{span}-01-what-comes")));
        assert!(!readable(&format!("ff-{trace}-{span}-01")));
        assert!(!readable(&format!("00-{}-{span}-01", "0".repeat(32))));
        assert!(!readable(&format!("00-{}-{span}-01", trace.to_uppercase())));
        assert!(!readable("") && !carrier.readable(&Headers::default()));
        assert_eq!(values(&carrier, &["a=1, vendor=shadow ,b=2"]), ["shadow"]);
    }

    mod properties {
        use proptest::prelude::*;
        #[cfg(target_arch = "wasm32")]
        use wasm_bindgen_test::wasm_bindgen_test as test;

        use super::*;

        /// Lines of members: ours in some spelling, ours in pieces, and anything else.
        fn any_lines() -> impl Strategy<Value = Vec<Vec<u8>>> {
            let ours =
                "[ \t]{0,2}shadow[ \t]{0,2}(=[a-z%0-9 ]{0,5})?(;[a-z=]{0,4})?".prop_map(String::into_bytes);
            let near = "(shad|shadows|SHADOW|%73hadow|x=shadow|;shadow|=shadow)(=true)?"
                .prop_map(String::into_bytes);
            let bytes = proptest::collection::vec(
                any::<u8>().prop_filter("a comma parts members", |b| *b != b','),
                0..8,
            );
            let member = prop_oneof![ours, near, bytes];
            let line = proptest::collection::vec(member, 0..6).prop_map(|members| members.join(&b',' as &u8));
            proptest::collection::vec(line, 0..4)
        }

        fn borrowed(lines: &[Vec<u8>]) -> Lines<'_> {
            lines.iter().map(|line| Cow::Borrowed(line.as_slice())).collect()
        }

        fn foreign(carrier: &Carrier, lines: &Lines<'_>) -> Vec<Vec<u8>> {
            let members = lines.iter().flat_map(|line| carrier.members(line));
            // white space at the ends of a line is the line's, and goes with what stood there
            let foreign =
                members.filter(|member| carrier.value(member).is_none()).map(|m| m.trim_ascii().to_vec());
            foreign.filter(|member| !member.is_empty()).collect()
        }

        proptest! {
            #[test]
            fn stripping_leaves_nothing_of_ours_and_everything_of_others(lines in any_lines()) {
                let (carrier, lines) = (shadow(), borrowed(&lines));
                let rest = carrier.without(&lines);
                prop_assert_eq!(rest.is_none(), carrier.values(&lines).next().is_none());
                if let Some(rest) = rest {
                    prop_assert_eq!(carrier.values(&rest).count(), 0);
                    prop_assert_eq!(foreign(&carrier, &rest), foreign(&carrier, &lines));
                }
            }

            #[test]
            fn what_is_written_is_read_back_and_others_stay(lines in any_lines(), value in "\\PC{0,12}") {
                for carrier in [shadow(), Carrier::SkyWalking("shadow".into())] {
                    let lines = borrowed(&lines);
                    let with = carrier.with(&lines, value.trim());
                    let read: Vec<_> = carrier.values(&with).map(Cow::into_owned).collect();
                    prop_assert_eq!(read, [value.trim().as_bytes()]);
                    prop_assert_eq!(foreign(&carrier, &with), foreign(&carrier, &lines));
                }
            }
        }
    }
}
