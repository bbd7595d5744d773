//! Who asks while things break.

use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use serde_json::{Value, json};

/// Requests a second, over all groups.
pub(super) const PER_SEC: f64 = 400.0;
/// How many may pass of each pressed user, and in which time: so short that many such windows pass in every case.
pub(super) const PRESSED_LIMIT: u32 = 10;
/// See [`PRESSED_LIMIT`].
pub(super) const PRESSED_WINDOW: Duration = Duration::from_secs(1);

/// Requests that are judged in the same way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Group {
    /// Of no limit: what Envoy and this machine do alone.
    Free,
    /// A few busy users far below their limit: they spend leases.
    Busy,
    /// Users who were never heard of, far below their limit: the store is asked for each.
    Fresh,
    /// A few users who ask for three times what they may.
    Pressed,
}

impl Group {
    /// All of them, with their shares of the requests in percent and how many users each has.
    const ALL: [(Self, u32, u32); 4] = [
        (Self::Free, 12, 20),
        (Self::Busy, 25, 20),
        (Self::Fresh, 33, u32::MAX),
        // 30 % of 400 a second over 4 users is 30 a second for each, of whom 10 may pass
        (Self::Pressed, 30, 4),
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Busy => "busy",
            Self::Fresh => "fresh",
            Self::Pressed => "pressed",
        }
    }

    /// Whether its requests wait for the store, while that is asked.
    pub(super) fn asks(self) -> bool {
        matches!(self, Self::Fresh | Self::Pressed)
    }
}

/// Whose a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Who {
    pub(super) group: Group,
    pub(super) user: u32,
}

/// The requests of a case, the same for the same seed.
pub(super) fn requests(seed: u64) -> impl FnMut(Duration, &mut Vec<u8>) -> Who + Send + 'static {
    let mut chance = Pcg64Mcg::seed_from_u64(seed);
    move |_, bytes| {
        let who = draw(&mut chance);
        let head = format!(
            "GET /{} HTTP/1.1\r\nhost: shop\r\nx-user: {}-{}\r\n\r\n",
            who.group.name(),
            who.group.name(),
            who.user
        );
        bytes.extend_from_slice(head.as_bytes());
        who
    }
}

fn draw(chance: &mut Pcg64Mcg) -> Who {
    let mut left = chance.random_range(0..100);
    for (group, share, users) in Group::ALL {
        if left < share {
            return Who { group, user: chance.random_range(0..users) };
        }
        left -= share;
    }
    Who { group: Group::Free, user: 0 }
}

/// What Envoy limits them to: counted on the node while the store is away. An answer is slow after half the timeout, as
/// it is by default.
pub(super) fn policy(timeout: Duration) -> Value {
    let ms = |time: Duration| format!("{}ms", time.as_millis());
    let store = json!({
        "cluster": "lanekeeper",
        "timeout": ms(timeout),
        "on_failure": "local",
        "circuit": {"slow": ms(timeout / 2)},
    });
    let limit = |group: Group, limit: u32, per: &str| {
        json!({
            "match": {"path": {"exact": format!("/{}", group.name())}},
            "keys": {"user": [{"header": "x-user"}]},
            "windows": [{"limit": limit, "per": per}],
        })
    };
    json!({
        "version": 1,
        "store": store,
        "rate_limits": {
            "busy": limit(Group::Busy, 60_000, "1m"),
            "fresh": limit(Group::Fresh, 60_000, "1m"),
            "pressed": limit(Group::Pressed, PRESSED_LIMIT, "1s"),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_groups_are_all_of_the_requests_and_each_pressed_user_asks_for_three_times_the_limit() {
        assert_eq!(Group::ALL.iter().map(|(_, share, _)| share).sum::<u32>(), 100);
        let (_, share, users) = Group::ALL[3];
        let asked = PER_SEC * f64::from(share) / 100.0 / f64::from(users) * PRESSED_WINDOW.as_secs_f64();
        assert_eq!(asked, 3.0 * f64::from(PRESSED_LIMIT));
    }
}
