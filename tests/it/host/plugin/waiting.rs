//! How long a request is held at most, whatever it waits for.

use std::time::Duration;

use lanekeeper_tests::host::{Answer, Host, State, Stream};
use serde_json::{Value, json};

use super::{MS, Store, behaved, by, leased, start, with_store};

const TIMEOUT: Duration = Duration::from_millis(20);
const MOST: Duration = Duration::from_millis(25);

/// A store that no failure keeps from being asked: so all that come wait.
fn stubborn(mut policy: Value) -> Value {
    policy["store"]["circuit"] = json!({"failures": 1_000_000, "slow": "10s"});
    policy
}

/// The streams that wait, and since when.
struct Held {
    host: Host,
    streams: Vec<(Stream, Duration)>,
    longest: Duration,
    decided: usize,
}

impl Held {
    fn by(host: Host) -> Self {
        Self { host, streams: Vec::new(), longest: Duration::ZERO, decided: 0 }
    }

    fn request(&mut self, user: &str) {
        self.streams.push((self.host.worker(0).request(by(user)), self.host.monotonic()));
        self.look();
    }

    fn advance(&mut self, ms: u32) {
        for _ in 0..ms {
            self.host.advance(MS);
            self.look();
        }
    }

    fn look(&mut self) {
        let now = self.host.monotonic();
        let (held, decided) =
            self.streams.drain(..).partition(|(stream, _): &(Stream, _)| stream.state() == State::Paused);
        self.streams = held;
        self.decided += Vec::len(&decided);
        self.longest = decided.into_iter().map(|(_, since)| now - since).fold(self.longest, Duration::max);
    }

    /// Everybody was let go, nobody later than that, and somebody had to wait.
    fn end(mut self, requests: usize) {
        self.advance(100);
        assert_eq!((self.decided, self.streams.len()), (requests, 0));
        assert!(self.longest >= TIMEOUT && self.longest <= MOST, "{:?}", self.longest);
        behaved(&self.host);
    }
}

#[test]
fn nobody_waits_for_a_silent_store_for_much_longer_than_its_timeout() {
    for every in [1, 2, 7, 19] {
        let mut held = Held::by(start(&stubborn(with_store(1_000_000, "local")), 1));
        for n in 0..200 {
            held.request(&format!("u{n}"));
            held.advance(every);
        }
        held.end(200);
    }
}

#[test]
fn nor_for_anothers_question_and_an_own_one_after_it() {
    for users in [1, 3, 40] {
        let mut held = Held::by(start(&stubborn(leased(1_000_000, "open")), 1));
        for n in 0..400 {
            held.request(&format!("u{}", n % users));
            if n % 4 == 3 {
                held.advance(1);
            }
        }
        held.end(400);
    }
}

#[test]
fn nor_while_answers_come_shortly_before_their_timeout_or_not_at_all() {
    let host = start(&stubborn(leased(1_000_000, "closed")), 1);
    let mut held = Held::by(host.clone());
    let store = Store::new();
    for n in 0..300 {
        held.request(&format!("u{}", n % 7 + n / 30));
        held.advance(1);
        // each third callout is lost, and the others are late in it
        for callout in
            host.callouts().into_iter().filter(|callout| host.monotonic() - callout.sent_at > 18 * MS)
        {
            let answer = if n % 3 == 0 { Answer::reset() } else { store.answer(&host, &callout) };
            host.answer(&callout, answer);
        }
    }
    held.end(300);
}

#[test]
fn nor_when_more_have_waited_for_too_long_than_one_callback_may_let_go() {
    let mut held = Held::by(start(&stubborn(with_store(1_000_000, "local")), 1));
    (0..300).for_each(|n| held.request(&format!("u{n}")));
    held.end(300);
}
