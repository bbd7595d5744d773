//! What a policy counts, for a ledger that holds leases of the policy before.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::policy::{LimitVerdict, Policy};
use crate::subject::key_parts;
use crate::window::Window;
use crate::wire::KeyCheck;

/// The keys of a policy's limits: by their prefixes and names, how they are counted.
#[derive(Clone, Debug, Default)]
pub struct Counted(BTreeMap<(String, String), Vec<Manner>>);

/// How a key is counted.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Manner {
    windows: Arc<[Window]>,
    shards: u16,
}

impl Counted {
    /// What `policy` counts, in all lanes.
    pub fn by(policy: &Policy) -> Self {
        let mut counted = Self::default();
        for limit in policy.lanes.iter().flat_map(|lane| &lane.limits) {
            let LimitVerdict::Count(count) = &limit.verdict else { continue };
            for key in &count.keys {
                let manner = Manner { windows: Arc::clone(&count.windows), shards: count.shards };
                let place = (limit.key_prefix.clone(), key.name.clone());
                counted.0.entry(place).or_default().push(manner);
            }
        }
        counted
    }

    /// Whether a request may still ask for `key`, so that its leases are worth renewing.
    pub(super) fn holds(&self, key: &KeyCheck) -> bool {
        let place = key_parts(&key.key).map(|(prefix, name)| (prefix.to_owned(), name.to_owned()));
        let manners = place.and_then(|place| self.0.get(&place));
        let is_so = |manner: &Manner| manner.windows == key.windows && manner.shards == key.shards;
        manners.into_iter().flatten().any(is_so)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const POLICY: &str = r#"{
        "version": 1,
        "lanes": {"shadow": {"flag": [{"header": "x-shadow", "values": ["1"]}], "trust": [{"source_cidr": ["10.0.0.0/8"]}]}},
        "rate_limits": {
            "ads": {
                "keys": {"per_user": [{"header": "x-user"}]},
                "windows": [{"limit": 100, "per": "1m"}]
            },
            "tagged": {
                "keys": {"per_user": [{"header": "x-user"}], "per_ip": [{"ip": {}}]},
                "hash_tag": [{"header": "x-user"}],
                "windows": [{"limit": 5, "per": "1s"}]
            }
        }
    }"#;

    #[test]
    fn a_key_is_counted_by_its_prefix_its_name_and_its_windows() {
        let counted = Counted::by(&Policy::from_json(POLICY.as_bytes()).unwrap());
        let window = |limit, ms| {
            let span = std::time::Duration::from_millis(ms);
            [Window::new(limit, span, crate::window::Algorithm::SlidingWindow).unwrap()]
        };
        let holds = |key: &str, limit, ms| counted.holds(&KeyCheck::take(key, 0, window(limit, ms)));
        assert!(holds("ads:{u:1}:per_user", 100, 60_000));
        assert!(holds("shadow_ads:{u1}:per_user", 100, 60_000));
        assert!(holds("tagged:{u1}:per_ip:2001:db8::1/64", 5, 1000));
        assert!(!holds("ads:{u1}:per_user", 101, 60_000), "the limit was raised");
        assert!(!holds("ads:{u1}:per_ip", 100, 60_000), "the key was removed");
        assert!(!holds("old:{u1}:per_user", 100, 60_000), "the limit was removed");
        assert!(!holds("tagged:{u1}:per_user:u1", 100, 60_000));
        let spread = KeyCheck { shards: 2, ..KeyCheck::take("ads:{u1}:per_user", 0, window(100, 60_000)) };
        assert!(!counted.holds(&spread), "it was spread");
    }
}
