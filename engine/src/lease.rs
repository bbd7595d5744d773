//! Leases: tokens charged in advance to one node, to be spent there without a question each.
//!
//! A lease is charged when it is granted and dated at its end, the last moment at which it can be spent. It counts
//! from the grant until a window after that date, so no trailing window of spends holds more than was charged in it,
//! however long a lease lives. What it costs is admission: charges leave late, and tokens may lie unspent. The asker
//! says what its demand would spend, and in what time; the store grants what of that is cheap:
//!
//! - **Near the limit** little: a life of at most `drift` of the window, and over all nodes at most `drift` of the
//!   limit unspent. With `drift` at 1 % that is what is not admitted for it.
//! - **Far from it** more, since nothing is rejected there: lives grow as less of the window is used (what leaves `life` late is
//!   as much less), and each node may have its share of a quarter of what is left. But a subject that asks for all of its
//!   limit is only far from it until the window has filled, and what is dated late by then leaves late: it is near from the start.
//! - When there is less than was asked for, the life is cut in proportion, for so the asker's demand will spend it.
//!
//! The same arithmetic stands in `lua/lease.lua`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::units::{Timestamp, micros};
use crate::window::{Algorithm, Calendar, MAX_LIMIT, Window};

/// The longest life of a lease. A quiet user's few requests in that time then cost one question.
pub const MAX_LIFE: Duration = Duration::from_secs(120);
/// The shortest. What is granted for less may have ended before its answer has come.
pub const MIN_LIFE: Duration = Duration::from_millis(50);
/// All of a limit, in the millionths that [`LeaseAsk::drift`] counts in.
const WHOLE: u64 = 1_000_000;
/// Windows count as no longer than this, so that products stay exact in a Lua number: eleven days.
const LONGEST_MS: u64 = 1_000_000_000;

const MAX_LIFE_MS: u32 = 120_000;
const MIN_LIFE_MS: u64 = 50;
/// The fewest tokens in a lease of a bucket that is less than half full.
const LEAST_OF_BUCKET: u64 = 8;

/// A node ends what it may spend early by one part in so many. The kernel of a disciplined clock slews it by 500 us a
/// second at most (adjtimex(2)), so two such clocks differ by half of that.
const CLOCKS_DIFFER: u64 = 512;

/// What is surely within `span` of the store's clock, by a node's clock that began no later.
pub fn surely_within(span: Duration) -> Duration {
    span.saturating_sub(Duration::from_micros(micros(span).div_ceil(CLOCKS_DIFFER)))
}

/// What a node would like to be charged in advance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeaseAsk {
    /// As many as its demand will spend within the life, 1 to [`MAX_LIMIT`].
    pub tokens: u32,
    /// For how long, 1 ms to [`MAX_LIFE`].
    pub life_ms: u32,
    /// The share of the limit and of the window that leases may cost, in millionths: 1 to 1,000,000.
    pub drift: u32,
    /// How many nodes share what is left, as far as the asker knows; at least 1.
    pub nodes: u32,
}

/// What was charged in advance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// How many, at least 1.
    pub tokens: u32,
    /// How long after the decision they may be spent, by the key's own time.
    pub life_ms: u32,
}

impl Lease {
    /// How long after the decision they may be spent.
    pub fn life(self) -> Duration {
        Duration::from_millis(self.life_ms.into())
    }

    /// Whether this answers `ask`: no more, and for no longer.
    pub fn fits(self, ask: LeaseAsk) -> bool {
        (1..=ask.tokens).contains(&self.tokens) && (1..=ask.life_ms).contains(&self.life_ms)
    }
}

impl LeaseAsk {
    pub(crate) fn validate(self) -> Result<(), (&'static str, String)> {
        if !(1..=MAX_LIMIT).contains(&self.tokens) {
            return Err(("lease.tokens", format!("1 to {MAX_LIMIT} are allowed")));
        }
        if !(1..=MAX_LIFE_MS).contains(&self.life_ms) {
            return Err(("lease.life_ms", format!("1 to {MAX_LIFE_MS} are allowed")));
        }
        if !(1..=WHOLE).contains(&self.drift.into()) {
            return Err(("lease.drift", format!("1 to {WHOLE} are allowed")));
        }
        if self.nodes == 0 {
            return Err(("lease.nodes", "at least 1 is allowed".into()));
        }
        Ok(())
    }

    /// What fits at `now` into windows of which so much remains; `None` when nothing is worth it.
    pub(crate) fn fit<'a>(
        self,
        windows: impl Iterator<Item = (&'a Window, u32)>,
        now: Timestamp,
    ) -> Option<Lease> {
        let (asked_life, asked_tokens) = (u64::from(self.life_ms), u64::from(self.tokens));
        let (mut life, mut tokens, mut least) = (asked_life, asked_tokens, 1);
        for (window, remaining) in windows {
            least = least.max(least_tokens(window, remaining));
            life = life.min(self.longest(window, remaining, now));
            tokens = tokens.min(self.most(window, remaining));
        }
        tokens = tokens.min(asked_tokens * life / asked_life);
        life = life.min((asked_life * tokens).div_ceil(asked_tokens).max(MIN_LIFE_MS));
        if tokens < least || life < MIN_LIFE_MS {
            return None;
        }
        // neither is more than was asked for
        let in_range = |number: u64| u32::try_from(number).unwrap_or_default();
        Some(Lease { tokens: in_range(tokens), life_ms: in_range(life) })
    }

    /// The longest life in milliseconds: the less of the window is used, the less there is that leaves late.
    fn longest(self, window: &Window, remaining: u32, now: Timestamp) -> u64 {
        let capacity = u64::from(window.capacity());
        let span = |per: Duration| (micros(per) / 1000).min(LONGEST_MS);
        let drift = u64::from(self.drift);
        match window.algorithm() {
            // a charge that is dated ahead holds the refill back, however full the bucket is
            Algorithm::TokenBucket { .. } => {
                let (token, rate) = window.token();
                drift * (capacity * token / rate / 1000).min(LONGEST_MS) / WHOLE
            }
            algorithm => {
                let used = ((capacity - u64::from(remaining).min(capacity)) * WHOLE / capacity).max(1);
                let longest = (drift * span(window.per()) / used).min(self.longest_for_demand(window));
                match algorithm {
                    Algorithm::FixedWindow { timezone } => {
                        let calendar = Calendar::of(window.per(), timezone);
                        let end = calendar.begins(calendar.index(now) + 1);
                        longest.min(micros(end.since(now)) / 1000)
                    }
                    _ => longest,
                }
            }
        }
    }

    /// The same, if all nodes go on as this one: `drift` of the time in which they fill the window, for by then what is
    /// dated late is missed; or of the window, when they fill it sooner.
    fn longest_for_demand(self, window: &Window) -> u64 {
        let share = u64::from(window.capacity()) / u64::from(self.nodes);
        let fills_ms = share * u64::from(self.life_ms) / u64::from(self.tokens);
        let per_ms = micros(window.per()) / 1000;
        u64::from(self.drift) * fills_ms.max(per_ms).min(LONGEST_MS) / WHOLE
    }

    /// The most tokens for one node.
    fn most(self, window: &Window, remaining: u32) -> u64 {
        let (capacity, remaining) = (u64::from(window.capacity()), u64::from(remaining));
        let over_all = (u64::from(self.drift) * capacity / WHOLE).max(remaining / 4);
        remaining.min(over_all / u64::from(self.nodes))
    }
}

/// The fewest tokens that are worth a lease. What a token bucket granted and nobody spent is lost to it, whether it comes
/// back or not, since later charges lean on it; and of a few tokens, often one lies unspent, for requests come unevenly.
fn least_tokens(window: &Window, remaining: u32) -> u64 {
    let is_missed = u64::from(remaining) * 2 < u64::from(window.capacity());
    match window.algorithm() {
        Algorithm::TokenBucket { .. } if is_missed => LEAST_OF_BUCKET,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::window::Offset;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const MINUTE: Duration = Duration::from_secs(60);

    /// What a node asks for whose clients spend 80 a second: of one of ten nodes, at 1 %.
    const HOT: LeaseAsk = LeaseAsk { tokens: 256, life_ms: 4_267, drift: 10_000, nodes: 10 };
    /// The same of a quiet one.
    const QUIET: LeaseAsk = LeaseAsk { tokens: 5, life_ms: 30_000, drift: 10_000, nodes: 10 };

    fn sliding(limit: u32, per: Duration) -> Window {
        Window::new(limit, per, Algorithm::SlidingWindow).unwrap()
    }

    /// Of 6,000 a minute, of which so many remain.
    fn of_a_minute(ask: LeaseAsk, remaining: u32) -> Option<(u32, u32)> {
        fit(ask, &sliding(6000, MINUTE), remaining)
    }

    fn fit(ask: LeaseAsk, window: &Window, remaining: u32) -> Option<(u32, u32)> {
        let lease = ask.fit([(window, remaining)].into_iter(), Timestamp::default());
        lease.map(|lease| (lease.tokens, lease.life_ms))
    }

    #[test]
    fn far_from_the_limit_a_node_gets_its_share_of_a_quarter_of_what_is_left() {
        let hasty = LeaseAsk { tokens: 200, life_ms: 300, ..HOT };
        assert_eq!(of_a_minute(hasty, 6000), Some((150, 225)), "and the time that it takes to spend them");
        assert_eq!(of_a_minute(QUIET, 6000), Some((5, 30_000)), "or all that it wants");
    }

    #[test]
    fn who_asks_for_all_of_the_limit_is_near_it_from_the_start() {
        // 600 ms of 256 in 4,267 ms
        assert_eq!(of_a_minute(HOT, 6000), Some((35, 584)));
        // a hundredth of the ten minutes in which this one fills it
        assert_eq!(of_a_minute(LeaseAsk { tokens: 300, nodes: 1, ..QUIET }, 6000), Some((60, 6_000)));
    }

    #[test]
    fn near_the_limit_it_gets_little_and_for_a_hundredth_of_the_window() {
        // 1 % of 6,000 over ten nodes
        assert_eq!(of_a_minute(HOT, 100), Some((6, 101)));
        assert_eq!(of_a_minute(QUIET, 100), None, "a quiet one would spend nothing in 600 ms");
        assert_eq!(of_a_minute(HOT, 3), Some((3, 51)), "never more than is left");
        assert_eq!(of_a_minute(HOT, 0), None);
    }

    #[test]
    fn a_life_grows_as_less_of_the_window_is_used() {
        // 0.01 x 60 s / used
        let slow = LeaseAsk { tokens: 30, ..QUIET };
        let life = |remaining| of_a_minute(LeaseAsk { nodes: 1, ..slow }, remaining).unwrap().1;
        assert_eq!([life(6000), life(5880), life(5400), life(3000)], [30_000, 30_000, 6_000, 1_000]);
    }

    #[test]
    fn a_window_so_short_that_the_lease_would_end_on_its_way_has_none() {
        let second = sliding(1000, Duration::from_secs(1));
        assert_eq!(fit(HOT, &second, 100), None);
        assert!(fit(LeaseAsk { nodes: 1, ..HOT }, &second, 1000).is_some());
    }

    #[test]
    fn every_window_bounds_it() {
        let (minute, hour) = (sliding(6000, MINUTE), sliding(200_000, MINUTE * 60));
        let both = HOT.fit([(&minute, 6000), (&hour, 20)].into_iter(), Timestamp::default()).unwrap();
        assert_eq!(both.tokens, 20);
    }

    #[test]
    fn a_fixed_window_ends_its_leases() {
        let utc = Offset::from_minutes(0).unwrap().into();
        let hour = Window::new(6000, MINUTE * 60, Algorithm::FixedWindow { timezone: utc }).unwrap();
        let at = |seconds: u64| {
            let now = Timestamp::from_micros(seconds * 1_000_000);
            QUIET.fit([(&hour, 6000)].into_iter(), now).map(|lease| lease.life_ms)
        };
        assert_eq!(
            [at(0), at(3600 - 10)],
            [Some(30_000), Some(6_000)],
            "the time for the one that it would spend"
        );
        let busy = LeaseAsk { tokens: 300, nodes: 1, ..QUIET };
        let last = busy.fit([(&hour, 6000)].into_iter(), Timestamp::from_micros(3_590_000_500)).unwrap();
        assert_eq!((last.tokens, last.life_ms), (99, 9_900));
    }

    #[test]
    fn a_token_bucket_is_leased_for_a_hundredth_of_the_time_in_which_it_fills() {
        let burst = NonZeroU32::new(6000).unwrap();
        let bucket = Window::new(10, Duration::from_secs(1), Algorithm::TokenBucket { burst }).unwrap();
        assert_eq!(fit(LeaseAsk { nodes: 1, ..HOT }, &bucket, 6000), Some((256, 4_267)));
        assert_eq!(fit(LeaseAsk { nodes: 1, ..QUIET }, &bucket, 6000), Some((1, 6_000)));
    }

    #[test]
    fn a_token_bucket_that_is_less_than_half_full_is_not_leased_by_a_few() {
        let burst = NonZeroU32::new(6000).unwrap();
        let bucket = Window::new(100, Duration::from_secs(1), Algorithm::TokenBucket { burst }).unwrap();
        let ten_nodes = |remaining| fit(HOT, &bucket, remaining).map(|(tokens, _)| tokens);
        assert_eq!(
            [ten_nodes(3000), ten_nodes(2999), ten_nodes(300), ten_nodes(100)],
            [Some(35), Some(35), None, None]
        );
        let busier = LeaseAsk { tokens: 60, life_ms: 600, ..HOT };
        assert_eq!([320, 319].map(|remaining| fit(busier, &bucket, remaining)), [Some((8, 80)), None]);
    }

    #[test]
    fn stays_exact_at_the_ends_of_its_ranges() {
        let window = sliding(MAX_LIMIT, crate::window::MAX_PER);
        let all = LeaseAsk { tokens: MAX_LIMIT, life_ms: MAX_LIFE_MS, drift: 1_000_000, nodes: 1 };
        assert_eq!(fit(all, &window, MAX_LIMIT), Some((MAX_LIMIT, MAX_LIFE_MS)));
        assert_eq!(fit(LeaseAsk { nodes: u32::MAX, ..all }, &window, MAX_LIMIT), None);
        assert_eq!(fit(all, &window, 1), Some((1, 50)));
    }

    #[test]
    fn refuses_numbers_out_of_range_by_their_names() {
        let field = |ask: LeaseAsk| ask.validate().err().map(|(field, _)| field);
        assert_eq!(field(HOT), None);
        assert_eq!(field(LeaseAsk { tokens: 0, ..HOT }), Some("lease.tokens"));
        assert_eq!(field(LeaseAsk { life_ms: MAX_LIFE_MS + 1, ..HOT }), Some("lease.life_ms"));
        assert_eq!(field(LeaseAsk { drift: 0, ..HOT }), Some("lease.drift"));
        assert_eq!(field(LeaseAsk { nodes: 0, ..HOT }), Some("lease.nodes"));
    }
}
