use super::*;
use crate::documents;

fn row(host_calls: f64, fuel: f64) -> Row {
    Row::new("cold", [("host_calls", host_calls), ("fuel", fuel)])
}

#[test]
fn no_request_takes_a_tenth_more_work_than_recorded() {
    let recorded = Record::read(&documents::recorded(), "work").unwrap();
    let measured: Vec<Row> =
        Case::all().into_iter().map(|case| case.measure(Size::FULL).unwrap().row()).collect();
    let grown = grown(&recorded, &measured);
    assert!(grown.is_empty(), "{}", grown.join("\n"));
}

#[test]
fn a_request_under_a_lease_makes_eight_host_calls_at_most_and_hardly_a_question() {
    let is_leased =
        |case: &Case| case.road == Road::Leased && !case.older_headers && case.guard == Guard::None;
    for case in Case::all().into_iter().filter(is_leased) {
        let work = case.measure(Size::FULL).unwrap();
        let questions = work.per_request(work.calls.get("proxy_http_call").copied().unwrap_or_default());
        assert!(work.row().figure("host_calls") <= 8.0 && questions < 0.01, "{case}: {:?}", work.calls);
    }
}

/// The answer's headers, and how it ended. What the workers share is looked at now and then.
#[test]
fn a_breaker_costs_a_request_two_host_calls_and_an_eighth_of_one_at_most() {
    let measured = |case: Case| case.measure(Size::FULL).unwrap();
    for case in Case::guarded().into_iter().filter(|case| case.road != Road::Broken) {
        let (with, without) = (measured(case), measured(Case { guard: Guard::None, ..case }));
        let more = with.row().figure("host_calls") - without.row().figure("host_calls");
        assert!(more <= 2.125, "{case}: {more} more: {:?} and {:?}", with.calls, without.calls);
    }
}

#[test]
fn an_open_breaker_refuses_without_a_look_at_what_the_workers_share() {
    for case in Case::guarded().into_iter().filter(|case| case.road == Road::Broken) {
        let calls = case.measure(Size::FULL).unwrap().calls;
        assert!(!calls.keys().any(|name| name.contains("shared_data")), "{calls:?}");
    }
}

#[test]
fn a_second_run_of_a_case_counts_the_same() {
    for case in Case::all() {
        let [first, second] = [(); 2].map(|()| case.measure(Size::SHORT).unwrap());
        assert_eq!((first.calls, first.fuel), (second.calls, second.fuel), "{case}");
    }
}

#[test]
fn whatever_grows_by_more_than_a_tenth_is_named_with_what_to_do() {
    let recorded = Record::of_now("work", vec![row(10.0, 50_000.0)]);
    assert_eq!(grown(&recorded, &[row(11.0, 10_000.0)]), Vec::<String>::new());
    assert_eq!(
        grown(&recorded, &[row(11.5, 60_000.0)]),
        [
            "cold: host_calls was 10 and is 11.5 (+15 %); if that is worth it, record it with `cargo xtask bench work --record`",
            "cold: fuel was 50000 and is 60000 (+20 %); if that is worth it, record it with `cargo xtask bench work --record`",
        ]
    );
    assert_eq!(
        grown(&recorded, &[Row::new("hot", [])]),
        ["hot is not on file: record it with `cargo xtask bench work --record`"]
    );
}
