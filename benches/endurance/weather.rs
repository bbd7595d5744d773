//! How the store answers: well for a while, and then in one of the ways in which stores do not.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use lanekeeper_engine::wire::{DecideRequest, SHIM_HEADER};
use lanekeeper_tests::fake_shim::Store;
use lanekeeper_tests::host::{Answer, Callout, Host};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

/// A way to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Weather {
    /// At once.
    Fair,
    /// In time, and slower than the circuit bears.
    Slow,
    /// Later than anybody waits. The store has counted.
    Late,
    /// Never.
    Silent,
    /// There is no connection.
    Refused,
    /// It breaks amid the answer.
    Reset,
    /// With an error.
    Failing,
    /// With what is no answer.
    Garbage,
    /// That no server of its is there.
    Away,
    /// One like this and one like that.
    Changing,
}

impl Weather {
    const BAD: [Self; 8] = [
        Self::Slow,
        Self::Late,
        Self::Silent,
        Self::Refused,
        Self::Reset,
        Self::Failing,
        Self::Garbage,
        Self::Away,
    ];

    /// The next one: every other is fair.
    pub(super) fn next(chance: &mut Pcg64Mcg) -> Self {
        match chance.random_range(0..20) {
            0..10 => Self::Fair,
            10..12 => Self::Changing,
            _ => Self::bad(chance),
        }
    }

    fn bad(chance: &mut Pcg64Mcg) -> Self {
        Self::BAD.get(chance.random_range(0..Self::BAD.len())).copied().unwrap_or(Self::Silent)
    }
}

/// Answers every callout of this host, as the weather is at that moment.
pub(super) fn serve(host: &Host, seed: u64) -> Rc<Cell<Weather>> {
    let weather = Rc::new(Cell::new(Weather::Fair));
    let (now, asked, store) = (weather.clone(), host.clone(), Store::new());
    let mut chance = Pcg64Mcg::seed_from_u64(seed);
    host.answer_callouts(move |callout| {
        let weather = match now.get() {
            Weather::Changing if chance.random_bool(0.5) => Weather::Fair,
            Weather::Changing => Weather::bad(&mut chance),
            weather => weather,
        };
        answer(weather, &asked, &store, callout, &mut chance)
    });
    weather
}

fn answer(
    weather: Weather,
    host: &Host,
    store: &Store,
    callout: &Callout,
    chance: &mut Pcg64Mcg,
) -> Option<Answer> {
    let mut after = |least, most| {
        store.answer(host, callout).after(Duration::from_micros(chance.random_range(least..most)))
    };
    match weather {
        Weather::Fair | Weather::Changing => Some(store.answer(host, callout)),
        Weather::Slow => Some(after(5_000, 20_000)),
        Weather::Late => Some(after(20_001, 80_000)),
        Weather::Silent => None,
        Weather::Refused => Some(Answer::connect_failure()),
        Weather::Reset => Some(Answer::reset()),
        Weather::Failing => Some(Answer::response(503, [(SHIM_HEADER, "1")], "{}")),
        Weather::Garbage => Some(Answer::response(200, [(SHIM_HEADER, "1")], garbage(chance))),
        Weather::Away => Some(Answer::response(200, [(SHIM_HEADER, "1")], away(callout))),
    }
}

/// What is no answer, or not to this question.
fn garbage(chance: &mut Pcg64Mcg) -> Vec<u8> {
    match chance.random_range(0..6) {
        0 => Vec::new(),
        1 => br#"{"version":1,"answers":[{"outc"#.to_vec(),
        2 => br#"{"version":2,"answers":[]}"#.to_vec(),
        3 => br#"{"version":1,"answers":[]}"#.to_vec(),
        4 => b"[".repeat(10_000),
        _ => (0..chance.random_range(1..4_000)).map(|_| chance.random()).collect(),
    }
}

/// As a shim answers whose servers are all gone.
fn away(callout: &Callout) -> String {
    let checks = serde_json::from_slice::<DecideRequest>(&callout.body).map_or(0, |asked| asked.checks.len());
    let failed = vec![r#"{"outcome":"failed","error":"unreachable"}"#; checks].join(",");
    format!(r#"{{"version":1,"away":true,"answers":[{failed}]}}"#)
}
