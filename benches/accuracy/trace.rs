//! Requests of many sources: a few ask for far more than their limit, some are near it, most are far below.
//!
//! Popularity follows Zipf's law. Nobody asks evenly: each source is awake in half of the spells, drawn for each
//! spell and source by itself, since a trace without gusts would flatter whatever takes the past for even.

use std::hash::Hasher;
use std::time::Duration;

use lanekeeper_engine::units::{Timestamp, micros};
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, Exp1, Zipf};
use rand_pcg::Pcg64Mcg;
use siphasher::sip::SipHasher13;

/// How long a source stays awake, or asleep.
const SPELL: Duration = Duration::from_secs(10);

/// A trace that its seed makes again.
#[derive(Clone, Copy, Debug)]
pub struct Trace {
    /// How many requests.
    pub requests: u64,
    /// How many sources; the second most popular asks half as often as the first, the third a third.
    pub sources: usize,
    /// The time that they take, about.
    pub span: Duration,
    /// What makes it this one.
    pub seed: u64,
}

/// One request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// When.
    pub at: Timestamp,
    /// Whose: 0 is the most popular source.
    pub source: usize,
}

impl Trace {
    /// The requests in the order of their moments, the same each time.
    pub fn requests(&self) -> impl Iterator<Item = Request> + use<> {
        let Self { requests, sources, span, seed } = *self;
        let mut chance = Pcg64Mcg::seed_from_u64(seed);
        // a trace without sources has no popular one
        let popularity = Zipf::new(sources.max(1) as f64, 1.0).ok();
        let (gap_us, mut now_us) = (micros(span) as f64 / requests as f64, 0.0);
        (0..requests).filter_map(move |_| {
            let gap: f64 = chance.sample(Exp1);
            now_us += gap * gap_us;
            let at = Timestamp::from_micros(now_us as u64);
            let popularity = popularity?;
            let source = loop {
                let source = popularity.sample(&mut chance) as usize - 1;
                if is_awake(source, at, seed) {
                    break source;
                }
            };
            Some(Request { at, source })
        })
    }
}

fn is_awake(source: usize, at: Timestamp, seed: u64) -> bool {
    let mut hasher = SipHasher13::new_with_keys(seed, at.as_micros() / micros(SPELL));
    hasher.write_usize(source);
    hasher.finish() & 1 == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: Trace = Trace { requests: 20_000, sources: 100, span: Duration::from_secs(2000), seed: 7 };

    #[test]
    fn a_seed_makes_the_same_requests_in_order_again() {
        let (first, again): (Vec<_>, Vec<_>) = (TRACE.requests().collect(), TRACE.requests().collect());
        assert_eq!(first, again);
        assert!(first.is_sorted_by_key(|request| request.at));
        let other: Vec<_> = Trace { seed: 8, ..TRACE }.requests().collect();
        assert_ne!(first, other);
    }

    #[test]
    fn the_first_source_asks_most_and_the_last_is_heard_of_too() {
        let mut asked = vec![0_u32; TRACE.sources];
        TRACE.requests().for_each(|request| asked[request.source] += 1);
        // a share of 1 / H(100) is 3855 requests, and 39 for the last
        assert!((3000..5000).contains(&asked[0]), "{}", asked[0]);
        assert!((1..100).contains(&asked[99]), "{}", asked[99]);
        assert_eq!(asked.iter().max(), asked.first());
    }

    #[test]
    fn a_source_sleeps_through_about_half_of_its_spells() {
        let spell = |request: &Request| request.at.as_micros() / micros(SPELL);
        let mut awake: Vec<u64> =
            TRACE.requests().filter(|request| request.source == 0).map(|r| spell(&r)).collect();
        awake.dedup();
        assert!((70..130).contains(&awake.len()), "{} of 200", awake.len());
    }
}
