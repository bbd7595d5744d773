//! Who is counted: from a request to the keys of its counters in the store.
//!
//! A store key is `<prefix>:{<tag>}:<key>`, and `<prefix>:{<tag>}:<key>:<subject>` where the limit names a hash
//! tag of its own. A subject comes from a client, so it is written with escapes for everything that could be
//! taken for a part of the key, and as a hash when it is long: two different subjects never share a key.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::net::IpAddr;

use sha2::{Digest, Sha256};

use crate::matcher::Target;
use crate::policy::{Count, Key, Source};

mod named;

pub use named::{HASH_TAG, SubjectError, named_store_keys};

/// A longer subject stands in the store key as its hash.
const MAX_SUBJECT_BYTES: usize = 128;

/// The store keys of one request under one limit.
#[derive(Debug, PartialEq, Eq)]
pub struct StoreKeys {
    /// For each key that the request has: its index in [`Count::keys`] and the store key.
    pub present: Vec<(usize, String)>,
    /// The index of a key that it lacks, if any.
    pub missing: Option<usize>,
}

/// The store keys of `target` under `count`, whose keys begin with `prefix`. A source that is not there, or
/// empty, leaves its key out.
pub fn store_keys(
    prefix: &str,
    count: &Count,
    target: &Target<'_>,
    client: &dyn Fn() -> Option<IpAddr>,
) -> StoreKeys {
    assemble(prefix, count, |_, sources| subject(sources, |source| of_request(source, target, client)))
}

/// The prefix of a store key and the name of the limit's key: `ads` and `per_user` in `ads:{u42}:per_user`. A subject
/// holds no brace.
pub(crate) fn key_parts(key: &str) -> Option<(&str, &str)> {
    let (prefix, _) = key.split_once(':')?;
    let (_, behind_tag) = key.rsplit_once("}:")?;
    let name = behind_tag.split_once(':').map_or(behind_tag, |(name, _)| name);
    Some((prefix, name))
}

/// The store keys under `count`, whose subjects `own` knows by the names of their keys.
fn assemble(prefix: &str, count: &Count, own: impl Fn(&str, &[Source]) -> Option<String>) -> StoreKeys {
    let tag = count.hash_tag.as_ref().map(|sources| own(HASH_TAG, sources));
    let mut keys = StoreKeys { present: Vec::with_capacity(count.keys.len()), missing: None };
    for (index, Key { name, sources }) in count.keys.iter().enumerate() {
        let key = match (&tag, own(name, sources)) {
            (None, Some(own)) => Some([prefix, ":{", &own, "}:", name].concat()),
            (Some(Some(tag)), Some(own)) => Some([prefix, ":{", tag, "}:", name, ":", &own].concat()),
            (_, None) | (Some(None), _) => None,
        };
        match key {
            Some(key) => keys.present.push((index, key)),
            None => keys.missing = keys.missing.or(Some(index)),
        }
    }
    keys
}

/// The subject that these sources make; `None` when one of them is missing.
fn subject<'v>(
    sources: &'v [Source],
    mut value: impl FnMut(&'v Source) -> Option<Cow<'v, [u8]>>,
) -> Option<String> {
    // most subjects are a number or a name
    let mut text = String::with_capacity(32);
    for (at, source) in sources.iter().enumerate() {
        if at > 0 {
            text.push('|');
        }
        let value = value(source)?;
        match source {
            Source::ApiKey(_) => text.push_str(&hashed("api_key", &value)),
            Source::Host => escape(&mut text, &value.to_ascii_lowercase()),
            _ => escape(&mut text, &value),
        }
    }
    Some(if text.len() > MAX_SUBJECT_BYTES { hashed("subject", text.as_bytes()) } else { text })
}

/// What a request says.
fn of_request<'v>(
    source: &'v Source,
    target: &'v Target<'_>,
    client: &dyn Fn() -> Option<IpAddr>,
) -> Option<Cow<'v, [u8]>> {
    let header = |name: &str| target.headers.first(name).and_then(said);
    match source {
        Source::Header(name) | Source::ApiKey(name) => header(name).map(Cow::Borrowed),
        Source::Ip { v6_prefix } => Some(address(client()?, *v6_prefix).into_bytes().into()),
        Source::Path => Some(target.path().as_bytes().into()),
        Source::Method => header(":method").map(Cow::Borrowed),
        Source::Host => header(":authority").map(Cow::Borrowed),
        Source::Command => target.command.map(|command| command.as_bytes().into()),
        Source::Constant(constant) => Some(constant.as_bytes().into()),
    }
}

/// What is left of a value without white space around it, if anything is.
fn said(value: &[u8]) -> Option<&[u8]> {
    Some(value.trim_ascii()).filter(|value| !value.is_empty())
}

/// An IPv4 address, or the network of an IPv6 address: a client has all of its network's addresses.
fn address(ip: IpAddr, v6_prefix: u8) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => {
            let host_bits = 128_u32.saturating_sub(u32::from(v6_prefix));
            let mask = u128::MAX.checked_shl(host_bits).unwrap_or(0);
            format!("{}/{v6_prefix}", std::net::Ipv6Addr::from_bits(ip.to_bits() & mask))
        }
    }
}

/// Writes `bytes` so that neither braces, nor the composite's bar, nor the hash's tilde stands in it.
fn escape(text: &mut String, bytes: &[u8]) {
    let stands_for_itself = |byte: &u8| {
        byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'@' | b'+' | b'=' | b'/' | b':')
    };
    let mut rest = bytes;
    while let Some(first) = rest.first() {
        let plain = rest.iter().position(|byte| !stands_for_itself(byte)).unwrap_or(rest.len());
        let (run, after) = rest.split_at(plain.max(1));
        if plain > 0 {
            // all of it is ASCII
            text.push_str(std::str::from_utf8(run).unwrap_or_default());
        } else {
            // writing to a String cannot fail
            let _ = write!(text, "%{first:02X}");
        }
        rest = after;
    }
}

/// `~` and 128 bits of SHA-256 over `purpose` and `bytes`.
fn hashed(purpose: &str, bytes: &[u8]) -> String {
    let digest = Sha256::new().chain_update(purpose).chain_update([0]).chain_update(bytes).finalize();
    digest.iter().take(16).fold(String::from("~"), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::headers::Headers;
    use crate::policy::{Consume, Cost, OnFailure, OnMissingKey, Share};
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    pub(super) fn count(keys: &[(&str, Vec<Source>)], hash_tag: Option<Vec<Source>>) -> Count {
        Count {
            keys: keys
                .iter()
                .map(|(name, sources)| Key { name: (*name).into(), sources: sources.clone() })
                .collect(),
            windows: [].into(),
            policy_items: Vec::new(),
            hash_tag,
            cost: Cost::Fixed(1),
            shards: 1,
            consume: Consume::OnRequest,
            on_missing_key: OnMissingKey::Skip,
            enforce: Share::ALL,
            on_failure: OnFailure::Local,
        }
    }

    fn keys_of(count: &Count, pairs: &[(&str, &[u8])]) -> StoreKeys {
        let headers = Headers::from_pairs(pairs.iter().copied());
        let target = Target::new(&headers, &[]);
        store_keys("ads", count, &target, &|| "2001:db8:1:2:3::1".parse().ok())
    }

    fn one_key(sources: Vec<Source>, pairs: &[(&str, &[u8])]) -> Option<String> {
        keys_of(&count(&[("k", sources)], None), pairs).present.pop().map(|(_, key)| key)
    }

    fn user() -> Source {
        Source::Header("x-user".into())
    }

    #[test]
    fn a_key_bears_its_own_subject_as_hash_tag_or_the_limits() {
        let own = count(&[("per_user", vec![user()])], None);
        assert_eq!(keys_of(&own, &[("x-user", b"u42")]).present, [(0, "ads:{u42}:per_user".into())]);
        let shared = count(
            &[("per_user", vec![user()]), ("all", vec![Source::Constant("g".into())])],
            Some(vec![user()]),
        );
        assert_eq!(
            keys_of(&shared, &[("x-user", b"u42")]).present,
            [(0, "ads:{u42}:per_user:u42".into()), (1, "ads:{u42}:all:g".into())]
        );
        assert_eq!(keys_of(&shared, &[]), StoreKeys { present: vec![], missing: Some(0) });
    }

    #[test]
    fn a_missing_or_empty_source_leaves_its_key_out() {
        let two = count(&[("a", vec![user()]), ("b", vec![Source::Method])], None);
        let keys = keys_of(&two, &[(":method", b"GET"), ("x-user", b" ")]);
        assert_eq!(keys, StoreKeys { present: vec![(1, "ads:{GET}:b".into())], missing: Some(0) });
        assert_eq!(one_key(vec![user(), Source::Method], &[("x-user", b"u")]), None, "half a composite");
    }

    #[test]
    fn nothing_a_client_sends_can_pass_for_a_part_of_the_key() {
        let key = one_key(vec![user()], &[("x-user", b"a}:{b|c~d%e\xff\r\n")]).unwrap();
        assert_eq!(key, "ads:{a%7D:%7Bb%7Cc%7Ed%25e%FF}:k");
        let pair = vec![user(), Source::Header("x-shop".into())];
        let left = one_key(pair.clone(), &[("x-user", b"a|b"), ("x-shop", b"c")]);
        let right = one_key(pair, &[("x-user", b"a"), ("x-shop", b"b|c")]);
        assert_ne!(left, right);
    }

    #[test]
    fn a_long_subject_becomes_a_hash_that_no_short_one_can_spell() {
        let long = one_key(vec![user()], &[("x-user", &[b'a'; 129])]).unwrap();
        assert_eq!(long.len(), "ads:{~}:k".len() + 32);
        assert_ne!(one_key(vec![user()], &[("x-user", &[b'a'; 130])]).unwrap(), long);
        assert_eq!(one_key(vec![user()], &[("x-user", &[b'a'; 128])]).unwrap().len(), "ads:{}:k".len() + 128);
    }

    #[test]
    fn an_api_key_never_leaves_in_the_clear() {
        let key = one_key(vec![Source::ApiKey("x-api-key".into())], &[("x-api-key", b"secret")]).unwrap();
        assert!(key.starts_with("ads:{~") && !key.contains("secret"));
    }

    #[test]
    fn every_source_gives_its_part() {
        let pairs: &[(&str, &[u8])] =
            &[(":path", b"/a//b?q"), (":method", b"GET"), (":authority", b"Shop.example:80")];
        let key = |source| one_key(vec![source], pairs);
        assert_eq!(key(Source::Path).unwrap(), "ads:{/a/b}:k");
        assert_eq!(key(Source::Host).unwrap(), "ads:{shop.example:80}:k");
        assert_eq!(key(Source::Ip { v6_prefix: 64 }).unwrap(), "ads:{2001:db8:1:2::/64}:k");
        assert_eq!(key(Source::Ip { v6_prefix: 128 }).unwrap(), "ads:{2001:db8:1:2:3::1/128}:k");
        assert_eq!(key(Source::Command), None);
    }

    proptest::proptest! {
        #[test]
        fn two_different_pairs_of_values_never_share_a_key(
            left in proptest::array::uniform2(proptest::collection::vec(proptest::prelude::any::<u8>(), 1..90)),
            right in proptest::array::uniform2(proptest::collection::vec(proptest::prelude::any::<u8>(), 1..90)),
        ) {
            let key = |pair: &[Vec<u8>; 2]| {
                let sources = vec![user(), Source::Header("x-shop".into())];
                one_key(sources, &[("x-user", &pair[0]), ("x-shop", &pair[1])])
            };
            let values = |pair: &[Vec<u8>; 2]| pair.clone().map(|value| value.trim_ascii().to_vec());
            if values(&left) != values(&right) {
                proptest::prop_assert!(key(&left).is_none() || key(&left) != key(&right));
            }
            for key in [key(&left), key(&right)].into_iter().flatten() {
                proptest::prop_assert!(key.bytes().all(|byte| byte.is_ascii_graphic()));
                proptest::prop_assert!(key.len() <= crate::wire::MAX_KEY_BYTES);
                proptest::prop_assert_eq!(key.matches(['{', '}']).count(), 2);
            }
        }
    }
}
