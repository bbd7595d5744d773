//! The kinds of requests whose work is measured, and the policy that each meets.

use std::fmt;

use serde_json::{Value, json};

/// What no subject comes near to here.
const PER_MINUTE: u32 = 1_000_000;
const PER_HOUR: u32 = 20_000_000;

/// The limits of a policy with two.
pub(super) const LIMITS: [&str; 2] = ["per_user", "per_shop"];

/// The command of every request.
const COMMAND: &str = "vouchers";

/// Who decides on a request, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Road {
    /// The worker allows it with tokens of a lease.
    Leased,
    /// The worker refuses it, as the store has refused it before.
    Remembered,
    /// The store allows it: its subjects were never seen.
    Cold,
    /// This node's counters allow it: there is no store.
    Local,
    /// The open breaker of its command refuses it.
    Broken,
}

/// What stands between a request's command and its upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// Nothing.
    None,
    /// A breaker.
    Breaker,
    /// A breaker that counts how many calls are under way.
    Bulkhead,
}

/// One kind of requests.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub(super) road: Road,
    pub(super) limits: usize,
    pub(super) windows: usize,
    /// Whether the answer gets the older headers beside the draft's.
    pub(super) older_headers: bool,
    pub(super) guard: Guard,
}

impl Road {
    fn name(self) -> &'static str {
        match self {
            Self::Leased => "leased",
            Self::Remembered => "remembered",
            Self::Cold => "cold",
            Self::Local => "local",
            Self::Broken => "broken",
        }
    }

    /// The counter of what it decides about this limit. A breaker is asked before all limits.
    pub(super) fn counter(self, limit: &str) -> String {
        let so = match self {
            Self::Leased => "outcome.admitted.source.lease",
            Self::Remembered => "outcome.rejected.source.remembered",
            Self::Cold => "outcome.admitted.source.store",
            Self::Local => "outcome.admitted.source.local",
            Self::Broken => {
                let refusals = "lanekeeper.breaker_refusals_total.lane.normal";
                return format!("{refusals}.command.{COMMAND}.outcome.rejected.reason.open");
            }
        };
        format!("lanekeeper.decisions_total.lane.normal.limit.{limit}.{so}")
    }

    /// How many times it is counted for a request under so many limits: of those that refuse one is named.
    pub(super) fn counts(self, limits: usize) -> u64 {
        match self {
            Self::Remembered | Self::Broken => 1,
            Self::Leased | Self::Cold | Self::Local => limits as u64,
        }
    }

    /// Whether the policy has a store.
    pub(super) fn has_store(self) -> bool {
        self != Self::Local
    }
}

impl Guard {
    fn name(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Breaker => "_breaker",
            Self::Bulkhead => "_breaker_and_bulkhead",
        }
    }

    /// What `resilience` says of the command.
    fn entry(self) -> Option<Value> {
        match self {
            Self::None => None,
            Self::Breaker => Some(json!({})),
            Self::Bulkhead => Some(json!({"max_concurrent": 100})),
        }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |count| if count == 1 { "one" } else { "two" };
        let many = |count| if count == 1 { "" } else { "s" };
        let Self { road, limits, windows, older_headers, guard } = *self;
        write!(f, "{}_{}_limit{}", road.name(), number(limits), many(limits))?;
        write!(f, "_{}_window{}", number(windows), many(windows))?;
        f.write_str(if older_headers { "_older_headers" } else { "" })?;
        f.write_str(guard.name())
    }
}

impl Case {
    /// Every kind, in the order in which they are shown.
    pub fn all() -> Vec<Self> {
        let mut cases = Vec::new();
        for road in [Road::Leased, Road::Remembered, Road::Cold, Road::Local] {
            for (limits, windows) in [(1, 1), (1, 2), (2, 1), (2, 2)] {
                cases.push(Self::unguarded(road, limits, windows));
            }
            if road != Road::Remembered {
                cases.push(Self { older_headers: true, ..Self::unguarded(road, 2, 2) });
            }
        }
        cases.extend(Self::guarded());
        cases
    }

    /// Those with a breaker.
    pub(super) fn guarded() -> Vec<Self> {
        let guards = [Guard::Breaker, Guard::Bulkhead];
        let of = |road| guards.map(|guard| Self { guard, ..Self::unguarded(road, 1, 1) });
        let broken = Self { guard: Guard::Breaker, ..Self::unguarded(Road::Broken, 1, 1) };
        [Road::Leased, Road::Remembered, Road::Local].into_iter().flat_map(of).chain([broken]).collect()
    }

    fn unguarded(road: Road, limits: usize, windows: usize) -> Self {
        Self { road, limits, windows, older_headers: false, guard: Guard::None }
    }

    pub(super) fn policy(self) -> Value {
        // one request fills every window where the next are to be refused
        let most = |limit| if self.road == Road::Remembered { 1 } else { limit };
        let windows =
            [json!({"limit": most(PER_MINUTE), "per": "1m"}), json!({"limit": most(PER_HOUR), "per": "1h"})];
        let windows: Vec<&Value> = windows.iter().take(self.windows).collect();
        let keys = [json!({"user": [{"header": "x-user"}]}), json!({"shop": [{"header": "x-shop"}]})];
        let limits = LIMITS.iter().zip(keys).take(self.limits);
        let limits =
            limits.map(|(name, keys)| ((*name).to_owned(), json!({"keys": keys, "windows": windows})));
        let headers: &[&str] = if self.older_headers { &["draft", "legacy"] } else { &["draft"] };
        let mut policy = json!({
            "version": 1,
            "lanes": {"shadow": {
                "flag": [{"baggage": "shadow", "values": ["true"]}],
                "trust": [{"source_cidr": ["10.0.0.0/8"]}],
                "propagate": [{"baggage": "shadow", "value": "true"}],
            }},
            "rate_limits": limits.collect::<serde_json::Map<_, _>>(),
            "responses": {"headers": headers},
        });
        let store = self.road.has_store().then(|| ("store".to_owned(), json!({"cluster": "lanekeeper"})));
        let commands = json!([{"command": COMMAND, "match": {"path": {"prefix": "/api/"}}}]);
        let guarded = self.guard.entry().map(|entry| {
            [("commands".to_owned(), commands), ("resilience".to_owned(), json!({COMMAND: entry}))]
        });
        if let Some(policy) = policy.as_object_mut() {
            policy.extend(store.into_iter().chain(guarded.into_iter().flatten()));
        }
        policy
    }
}
