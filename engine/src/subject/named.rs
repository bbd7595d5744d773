//! Who is counted where no request says it: subjects that a service gives by the names of the keys.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::{StoreKeys, address, assemble, said, subject};
use crate::lane::parse_source;
use crate::path::normalise;
use crate::policy::{Count, Source};

/// The name under which [`named_store_keys`] is given the subject of the limit's own hash tag. A key that bears
/// this name, too, has the same texts.
pub const HASH_TAG: &str = "hash_tag";

/// Why subjects that are given by name make no store keys.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubjectError {
    /// The limit has no such key.
    #[error("is no key of this limit, which has {known}")]
    Unknown {
        /// What was given.
        name: String,
        /// The names that there are.
        known: String,
    },
    /// Too many or too few texts.
    #[error("takes {wanted}, one text for each source that is no constant, and not {given}")]
    Parts {
        /// The key.
        name: String,
        /// How many it takes.
        wanted: usize,
        /// How many there are.
        given: usize,
    },
    /// A text stands for a client's address, and is none.
    #[error("is to be an IP address, and `{text}` is none")]
    Address {
        /// The key.
        name: String,
        /// What was given.
        text: String,
    },
}

impl SubjectError {
    /// The name under which the subject was given.
    pub fn name(&self) -> &str {
        match self {
            Self::Unknown { name, .. } | Self::Parts { name, .. } | Self::Address { name, .. } => name,
        }
    }
}

/// The store keys of one who is no request: byte for byte those of [`store_keys`] for a request that says the
/// same. `given` has, by the name of the key, one text for each of its sources that is no [`Source::Constant`],
/// and under [`HASH_TAG`] those of the limit's own hash tag. What is not given, or empty, leaves its key out.
pub fn named_store_keys(
    prefix: &str,
    count: &Count,
    given: &BTreeMap<String, Vec<String>>,
) -> Result<StoreKeys, SubjectError> {
    let tag = count.hash_tag.iter().map(|sources| (HASH_TAG, sources));
    let keys: BTreeMap<&str, &Vec<Source>> =
        count.keys.iter().map(|key| (key.name.as_str(), &key.sources)).chain(tag).collect();
    for (name, texts) in given {
        let Some(sources) = keys.get(name.as_str()) else {
            let known = keys.keys().copied().collect::<Vec<_>>().join(", ");
            return Err(SubjectError::Unknown { name: name.clone(), known });
        };
        refuse_unfit(name, sources, texts)?;
    }
    Ok(assemble(prefix, count, |name, sources| {
        let mut texts = given.get(name).into_iter().flatten();
        subject(sources, |source| match source {
            Source::Constant(constant) => Some(constant.as_bytes().into()),
            source => of_text(source, texts.next()?),
        })
    }))
}

fn refuse_unfit(name: &str, sources: &[Source], texts: &[String]) -> Result<(), SubjectError> {
    let variable = || sources.iter().filter(|source| !matches!(source, Source::Constant(_)));
    let (wanted, given) = (variable().count(), texts.len());
    if wanted != given {
        return Err(SubjectError::Parts { name: name.to_owned(), wanted, given });
    }
    let is_no_address = |(source, text): &(&Source, &String)| {
        let text = text.as_bytes().trim_ascii();
        matches!(source, Source::Ip { .. }) && !text.is_empty() && parse_source(text).is_none()
    };
    match variable().zip(texts).find(is_no_address) {
        Some((_, text)) => Err(SubjectError::Address { name: name.to_owned(), text: text.clone() }),
        None => Ok(()),
    }
}

/// What a text says that stands for `source`.
fn of_text<'v>(source: &Source, text: &'v str) -> Option<Cow<'v, [u8]>> {
    let text = said(text.as_bytes())?;
    match source {
        Source::Ip { v6_prefix } => Some(address(parse_source(text)?, *v6_prefix).into_bytes().into()),
        Source::Path => Some(normalise(text).into_bytes().into()),
        _ => Some(text.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::headers::Headers;
    use crate::matcher::Target;
    use crate::subject::store_keys;
    use crate::subject::tests::count;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn header(name: &str) -> Source {
        Source::Header(name.into())
    }

    fn named(count: &Count, given: &[(&str, &[&str])]) -> Result<StoreKeys, SubjectError> {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let given = given.iter().map(|(name, list)| ((*name).to_owned(), texts(list))).collect();
        named_store_keys("ads", count, &given)
    }

    #[test]
    fn a_subject_by_name_has_the_key_of_a_request_that_says_the_same() {
        let long = "a".repeat(200);
        for (source, text) in [
            (header("x-user"), " u}4:{2|%\u{e9} "),
            (header("x-user"), long.as_str()),
            (Source::ApiKey("x-user".into()), "secret"),
            (Source::Ip { v6_prefix: 64 }, "2001:db8:1:2:3::1"),
            (Source::Ip { v6_prefix: 64 }, "::ffff:10.0.0.1"),
            (Source::Path, "/a//b/../%63?q"),
            (Source::Method, "GET"),
            (Source::Host, "Shop.Example:80"),
            (Source::Constant("all of them".into()), ""),
        ] {
            let of = |name: &str| if name == "x-user" { text } else { "" };
            let headers = Headers::from_pairs([
                ("x-user", of("x-user").as_bytes()),
                (":path", text.as_bytes()),
                (":method", text.as_bytes()),
                (":authority", text.as_bytes()),
            ]);
            let target = Target::new(&headers, &[]);
            let is_constant = matches!(source, Source::Constant(_));
            let texts: &[&str] = if is_constant { &[] } else { &[text] };
            for tag in [None, Some(vec![source.clone()])] {
                let given: &[(&str, &[&str])] =
                    if tag.is_some() { &[("k", texts), (HASH_TAG, texts)] } else { &[("k", texts)] };
                let count = count(&[("k", vec![source.clone()])], tag);
                let of_request = store_keys("ads", &count, &target, &|| parse_source(text.as_bytes()));
                assert_eq!(of_request.missing, None, "{source:?}");
                assert_eq!(named(&count, given).unwrap(), of_request, "{source:?}");
            }
        }
        let command = count(&[("k", vec![Source::Command])], None);
        assert_eq!(named(&command, &[("k", &["a.b"])]).unwrap().present, [(0, "ads:{a.b}:k".into())]);
    }

    #[test]
    fn a_composite_takes_a_text_for_each_source_that_is_no_constant() {
        let pair = count(&[("k", vec![header("a"), Source::Constant("c".into()), header("b")])], None);
        assert_eq!(named(&pair, &[("k", &["x|", "y"])]).unwrap().present, [(0, "ads:{x%7C|c|y}:k".into())]);
        let error = named(&pair, &[("k", &["x"])]).unwrap_err();
        assert_eq!(error, SubjectError::Parts { name: "k".into(), wanted: 2, given: 1 });
        assert!(named(&pair, &[("k", &["x", "c", "y"])]).is_err());
    }

    #[test]
    fn what_is_not_given_or_empty_is_missing() {
        let two = count(&[("a", vec![header("a")]), ("b", vec![Source::Ip { v6_prefix: 64 }])], None);
        assert_eq!(named(&two, &[("a", &["x"])]).unwrap().missing, Some(1));
        assert_eq!(named(&two, &[("a", &[" "]), ("b", &["1.2.3.4"])]).unwrap().missing, Some(0));
        let tagged = count(&[("a", vec![header("a")])], Some(vec![header("t")]));
        assert_eq!(named(&tagged, &[("a", &["x"])]).unwrap().missing, Some(0));
    }

    #[test]
    fn what_fits_no_key_is_refused_by_its_name() {
        let ip = count(&[("per_ip", vec![Source::Ip { v6_prefix: 64 }])], Some(vec![header("t")]));
        let error = named(&ip, &[("per_user", &["x"])]).unwrap_err();
        assert_eq!(error.name(), "per_user");
        assert_eq!(error.to_string(), "is no key of this limit, which has hash_tag, per_ip");
        let error = named(&ip, &[("per_ip", &["localhost"])]).unwrap_err();
        assert_eq!(error.to_string(), "is to be an IP address, and `localhost` is none");
    }
}
