//! Whose the requests are: four of five come from a fifth of the users, and each fourth is of the shadow lane. For a tenth
//! of the time, in the middle, three times as many come.

use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use serde_json::{Value, json};

/// How many users ask four of five requests, and how many the fifth. In production a busy user asks each node 80 times a
/// second; of 2,000 requests a second here, so many users ask as often.
pub(super) const BUSY: u32 = 20;
pub(super) const OTHERS: u32 = 80;
pub(super) const BUSY_SHARE: f64 = 0.8;
/// The share of requests that carry the shadow lane's flag.
pub(super) const SHADOW_SHARE: f64 = 0.25;
/// When the spike begins and ends, as shares of the time, and how many times as many requests come in it.
const SPIKE: (f64, f64, f64) = (0.45, 0.55, 3.0);

/// What a user may in each lane: so many a minute, so many an hour. Only the spike's busy users ask for more.
pub(super) const NORMAL: (u32, u32) = (4_500, 300_000);
pub(super) const SHADOW: (u32, u32) = (1_500, 100_000);

/// From when on how many times as many requests come as before and after the spike.
pub(super) fn phases(lasts: Duration) -> [(Duration, f64); 3] {
    let (begins, ends, times) = SPIKE;
    [(Duration::ZERO, 1.0), (lasts.mul_f64(begins), times), (lasts.mul_f64(ends), 1.0)]
}

/// How many requests a second come at a moment.
pub(super) fn rate(per_sec: f64, lasts: Duration) -> impl Fn(Duration) -> f64 {
    let phases = phases(lasts);
    move |at| {
        let now = phases.iter().rfind(|(from, _)| *from <= at);
        per_sec * now.map_or(1.0, |(_, times)| *times)
    }
}

/// Writes one request after the other, the same for the same seed.
pub(super) fn requests(seed: u64) -> impl FnMut(Duration, &mut Vec<u8>) {
    let mut chance = Pcg64Mcg::seed_from_u64(seed);
    move |_, bytes| {
        let user = if chance.random_bool(BUSY_SHARE) {
            chance.random_range(0..BUSY)
        } else {
            BUSY + chance.random_range(0..OTHERS)
        };
        let flag = if chance.random_bool(SHADOW_SHARE) { "x-shadow: true\r\n" } else { "" };
        let request = format!(
            "GET /account/42?full=1 HTTP/1.1\r\nhost: shop\r\nuser-agent: load\r\nx-user: {user}\r\n{flag}\r\n"
        );
        bytes.extend_from_slice(request.as_bytes());
    }
}

/// The policy: both lanes, each with windows of its own, and the defaults of the store.
pub(super) fn policy() -> Value {
    let windows =
        |(minute, hour): (u32, u32)| json!([{"limit": minute, "per": "1m"}, {"limit": hour, "per": "1h"}]);
    json!({
        "version": 1,
        "lanes": {"shadow": {
            "flag": [{"header": "x-shadow", "values": ["true"]}],
            "trust": [{"source_cidr": ["127.0.0.1/32"]}],
            "propagate": [{"header": "x-shadow", "value": "true"}],
        }},
        "store": {"cluster": "lanekeeper"},
        "rate_limits": {
            "per_user": {"keys": {"user": [{"header": "x-user"}]}, "windows": windows(NORMAL)},
            "shadow_per_user": {"windows": windows(SHADOW)},
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_times_as_many_requests_come_in_the_middle() {
        let rate = rate(100.0, Duration::from_secs(100));
        let at = |secs| rate(Duration::from_secs(secs));
        assert_eq!(
            [at(0), at(44), at(46), at(54), at(56), at(99)],
            [100.0, 100.0, 300.0, 300.0, 100.0, 100.0]
        );
    }

    #[test]
    fn four_of_five_requests_come_from_a_fifth_of_the_users_and_each_fourth_has_the_flag() {
        let (mut requests, mut busy, mut flagged) = (requests(1), 0, 0);
        for _ in 0..10_000 {
            let mut bytes = Vec::new();
            requests(Duration::ZERO, &mut bytes);
            let text = String::from_utf8(bytes).unwrap();
            let user = text.lines().find_map(|line| line.strip_prefix("x-user: ")).unwrap();
            busy += u32::from(user.parse::<u32>().unwrap() < BUSY);
            flagged += u32::from(text.contains("x-shadow: true\r\n"));
            assert!(text.ends_with("\r\n\r\n") && text.matches("\r\n\r\n").count() == 1, "{text}");
        }
        assert!((7_800..8_200).contains(&busy) && (2_300..2_700).contains(&flagged), "{busy}, {flagged}");
    }
}
