//! Whose the requests are: four of five come from busy users, and the fifth from many others. In production they are a
//! thousand and a hundred thousand, and a node is asked 100,000 times a second. One worker here can a fifth of that, so
//! it has a fifth of the users: then each asks as often as there.

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

/// The header that names a request's user.
pub(super) const HEADER: &str = "x-user";
/// How many users are busy, and the share of requests that comes from them.
const BUSY: (u64, f64) = (200, 0.8);
const OTHERS: u64 = 20_000;
/// Where a user's number stands in the request.
const PLACE: &str = "000000";

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// One of those who ask all the time.
    Busy,
    /// Somebody who was hardly ever heard of.
    Other,
}

/// The requests of one connection, each drawn anew and ready to be sent.
pub(super) struct Requests {
    chance: Pcg64Mcg,
    bytes: Vec<u8>,
    place: usize,
}

impl Requests {
    /// The same for the same seed.
    pub(super) fn new(seed: u64) -> Self {
        let request = format!(
            "GET /account/42?full=1 HTTP/1.1\r\nhost: shop\r\nuser-agent: bench\r\naccept: */*\r\n{HEADER}: {PLACE}\r\n\r\n"
        );
        let place = request.find(PLACE).unwrap_or_default();
        Self { chance: Pcg64Mcg::seed_from_u64(seed), bytes: request.into_bytes(), place }
    }

    /// The next one, and who asks.
    pub(super) fn next(&mut self) -> (Kind, &[u8]) {
        let (busy, share) = BUSY;
        let (kind, user) = if self.chance.random_bool(share) {
            (Kind::Busy, self.chance.random_range(0..busy))
        } else {
            (Kind::Other, busy + self.chance.random_range(0..OTHERS))
        };
        let digits = format!("{user:06}");
        if let Some(place) = self.bytes.get_mut(self.place..self.place + PLACE.len()) {
            place.copy_from_slice(digits.as_bytes());
        }
        (kind, &self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn four_of_five_requests_come_from_the_busy_users() {
        let mut requests = Requests::new(1);
        let (mut busy, mut users) = (0, BTreeSet::new());
        for _ in 0..10_000 {
            let (kind, bytes) = requests.next();
            let text = std::str::from_utf8(bytes).unwrap();
            let user = text.lines().find_map(|line| line.strip_prefix("x-user: ")).unwrap();
            assert_eq!(user.parse::<u64>().unwrap() < BUSY.0, kind == Kind::Busy, "{user}");
            busy += u64::from(kind == Kind::Busy);
            users.insert(user.to_owned());
        }
        assert!((7_800..8_200).contains(&busy), "{busy}");
        // all of the busy ones, and nearly as many others as there were requests of theirs
        assert!((2_000..2_200).contains(&users.len()), "{}", users.len());
    }
}
