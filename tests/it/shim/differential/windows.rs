//! The windows that cases are asked about: of every algorithm, from a millisecond to a year, so that within a test some run
//! over many times and others meet the largest numbers.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lanekeeper_engine::units::{Timestamp, micros};
use lanekeeper_engine::window::{Change, MAX_EXACT, MAX_LIMIT, MAX_LOG_LIMIT, MAX_PER, Window, Zone};
use proptest::prelude::*;
use proptest::sample::subsequence;

use crate::support::{HOUR, SECOND, bucket, counter, fixed, log, sliding, zoned};

pub(super) fn long_windows() -> impl Strategy<Value = Vec<Window>> {
    let ms = Duration::from_millis;
    let all = vec![
        sliding(60, ms(5)),
        sliding(200, ms(40)),
        sliding(1000, ms(120)),
        sliding(MAX_LIMIT, ms(900)),
        counter(1000, ms(10)),
        fixed(1000, ms(3), 0),
        log(200, ms(60)),
    ];
    subsequence(all, 1..=3).prop_shuffle()
}

pub(super) fn windows() -> impl Strategy<Value = Vec<Window>> {
    let ms = Duration::from_millis;
    let most_tokens = u32::try_from(MAX_EXACT / 31_622_400_000_000).unwrap();
    let all = vec![
        sliding(1, ms(1)),
        sliding(3, ms(2)),
        sliding(7, ms(5)),
        sliding(20, ms(30)),
        sliding(5, HOUR),
        sliding(1000, HOUR),
        sliding(MAX_LIMIT, MAX_PER),
        log(1, ms(1)),
        log(9, ms(3)),
        log(40, ms(30)),
        log(15, HOUR),
        log(MAX_LOG_LIMIT, MAX_PER),
        counter(1, ms(1)),
        counter(9, ms(4)),
        counter(40, ms(25)),
        counter(1000, ms(60)),
        counter(5, HOUR),
        counter(284_836, MAX_PER),
        fixed(2, ms(1), 0),
        fixed(3, ms(2), 1),
        fixed(9, ms(17), -210),
        fixed(50, HOUR, 30),
        fixed(50, HOUR, 0),
        fixed(MAX_LIMIT, MAX_PER, 840),
        zoned(50, HOUR, zone("Australia/Lord_Howe")),
        zoned(5, 2 * HOUR, zone("Africa/Casablanca")),
        zoned(9, 24 * HOUR, zone("America/St_Johns")),
        zoned(MAX_LIMIT, MAX_PER, zone("Pacific/Auckland")),
        bucket(1, ms(1), 1),
        bucket(3, ms(1), 2),
        bucket(7, ms(3), 20),
        bucket(1000, ms(7), 5),
        bucket(100, HOUR, 9),
        bucket(MAX_LIMIT, ms(1), MAX_LIMIT),
        bucket(1, MAX_PER, most_tokens),
    ];
    let spans = vec![
        (3, ms(2)),
        (9, ms(17)),
        (40, Duration::from_secs(7)),
        (9, HOUR),
        (7, 2 * HOUR),
        (30, 24 * HOUR),
        (1000, MAX_PER),
    ];
    let restless = subsequence(spans, 0..=3).prop_map(|spans| {
        spans.into_iter().map(|(limit, per)| zoned(limit, per, restless(per))).collect::<Vec<_>>()
    });
    (subsequence(all, 1..=6), restless).prop_map(|(all, restless)| [all, restless].concat()).prop_shuffle()
}

/// Windows of which a lease is worth something.
pub(super) fn roomy_windows() -> impl Strategy<Value = Vec<Window>> {
    let all = vec![
        sliding(6000, 60 * SECOND),
        sliding(200_000, HOUR),
        sliding(MAX_LIMIT, MAX_PER),
        log(500, HOUR),
        log(MAX_LOG_LIMIT, MAX_PER),
        counter(6000, 60 * SECOND),
        counter(284_836, MAX_PER),
        fixed(6000, 60 * SECOND, 0),
        fixed(MAX_LIMIT, MAX_PER, 840),
        zoned(6000, HOUR, zone("Australia/Lord_Howe")),
        bucket(100, SECOND, 6000),
        bucket(MAX_LIMIT, HOUR, MAX_LIMIT),
    ];
    subsequence(all, 1..=2).prop_shuffle()
}

fn zone(name: &str) -> Zone {
    Zone::named(name).unwrap()
}

/// A place where a window of `per` begins just about now, and whose clocks are put forward and back across that
/// moment while a case runs.
fn restless(per: Duration) -> Zone {
    let now = micros(SystemTime::now().duration_since(UNIX_EPOCH).unwrap());
    // No clocks are further ahead than this, so a window of a year begins when it does.
    let until_next = micros(per) - now % micros(per);
    let ahead_s = i32::try_from(until_next.min(25 * 3_600_000_000) / 1_000_000).unwrap();
    let changes = [(3, 1), (8, -3600), (14, 1), (19, -1), (30, 1800), (55, -7), (90, 1)];
    let changes = changes.map(|(ms, by_s)| Change {
        from: Timestamp::from_micros(now + ms * 1000 + 1),
        ahead_s: ahead_s + by_s,
    });
    Zone::new("Test/Restless", ahead_s, changes.to_vec().leak())
}
